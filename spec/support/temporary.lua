--- Files for a spec, in a folder of its own that is removed with them. The folder's name holds a
-- space, so that code that does not quote a path fails in every spec, not just in some checkouts.
--
--     local files = temporary.folder()
--     local path = files:write("a.npy", bytes)
--     files:remove()                            -- in a teardown

local shell = require "spec.support.shell"

local quote = shell.quote

local M = {}

local Folder = {}
Folder.__index = Folder

--- A new, empty folder. "plain": without the space, for commands quoted from a page word for word.
function M.folder(plain)
  local name = os.tmpname()
  os.remove(name)
  if plain ~= "plain" then name = name .. " of a spec" end
  assert(os.execute("mkdir " .. quote(name)) == 0, "cannot make " .. name)
  return setmetatable({ name = name }, Folder)
end

--- The path of a file in the folder; the file need not exist.
function Folder:path(name) return self.name .. "/" .. name end

--- Writes a new file each time (an older one of that name may still be mapped). Returns its path.
function Folder:write(name, bytes)
  local path = self:path(name)
  os.remove(path)
  local file = assert(io.open(path, "wb"))
  assert(file:write(bytes))
  assert(file:close())
  return path
end

--- The bytes of a file.
function Folder:read(name)
  local file = assert(io.open(self:path(name), "rb"))
  local bytes = file:read("*a")
  file:close()
  return bytes
end

--- The names in the folder, sorted.
function Folder:names()
  local names = {}
  local pipe = io.popen("ls -A " .. quote(self.name))
  for name in pipe:lines() do names[#names + 1] = name end
  pipe:close()
  return names
end

function Folder:remove() os.execute("rm -rf " .. quote(self.name)) end

return M
