--- Files for a spec, in a folder of its own that goes when they do. Its name holds a space: what
-- does not quote a path fails in every spec, not just in somebody's checkout.
--
--     local files = temporary.folder()
--     local path = files:write("a.npy", bytes)
--     files:remove()                            -- in a teardown

local shell = require "spec.support.shell"

local quote = shell.quote

local M = {}

local Folder = {}
Folder.__index = Folder

--- A new, empty folder. "plain": without the space, for commands that are a page's own words.
function M.folder(plain)
  local name = os.tmpname()
  os.remove(name)
  if plain ~= "plain" then name = name .. " of a spec" end
  assert(os.execute("mkdir " .. quote(name)) == 0, "cannot make " .. name)
  return setmetatable({ name = name }, Folder)
end

--- The path of a file in it, which need not exist.
function Folder:path(name) return self.name .. "/" .. name end

--- Writes a file, a new one each time (an older one of the name may still be mapped). Its path.
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

--- The names in it, sorted.
function Folder:names()
  local names = {}
  local pipe = io.popen("ls -A " .. quote(self.name))
  for name in pipe:lines() do names[#names + 1] = name end
  pipe:close()
  return names
end

function Folder:remove() os.execute("rm -rf " .. quote(self.name)) end

return M
