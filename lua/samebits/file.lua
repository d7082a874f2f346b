--- Writing files whole: to a temporary beside the target, then renamed over it.

local posix = require "samebits.posix"

local M = {}

local counter = 0

-- A new file in the target's folder: its descriptor and path; nil where that fails.
local function temporary(target)
  for _ = 1, 100 do
    counter = counter + 1
    local path = ("%s.%d.%d.tmp"):format(target, posix.pid(), counter)
    local fd = posix.create(path)
    if fd then return fd, path end
    if require("ffi").errno() ~= posix.EEXIST then return nil end
  end
end

--- Replaces a file, or makes it, with `parts`: strings, and tables { ptr, size }. True, or nil and
-- a message; the file is then as it was. A link is followed. Only regular files are replaced.
function M.write(path, parts)
  local target = posix.real_path(path) or path
  local kind = posix.kind_of_path(target)
  if kind and kind ~= "file" then
    return nil, ("%s: %s"):format(path, kind == "directory" and posix.words(posix.EISDIR) or
                                        "not a regular file")
  end
  local fd, temp = temporary(target)
  if not fd then return nil, ("%s: %s"):format(path, posix.words()) end

  local ok, message = true, nil
  for _, part in ipairs(parts) do
    if type(part) == "string" then
      ok = posix.write(fd, part, #part)
    else
      ok = posix.write(fd, part.ptr, part.size)
    end
    if not ok then message = posix.words() break end
  end
  -- Closing and renaming can fail, too (quota, network).
  if not posix.close(fd) and ok then ok, message = nil, posix.words() end
  if ok and not posix.rename(temp, target) then ok, message = nil, posix.words() end
  if ok then return true end
  posix.unlink(temp)
  return nil, ("%s: %s"):format(path, message)
end

--- A text that may be meant for a file: the text itself where there is no path; else the file is
-- written: true, or nil and a message.
function M.deliver(what, text, path)
  if path == nil then return text end
  M.check_path(what, path)
  return M.write(path, { text })
end

--- Raises misuse where a path is no path.
function M.check_path(what, path)
  local misuse = require "samebits.misuse"
  if type(path) ~= "string" then
    misuse.raise("%s: the path is %s, not a string", what, type(path))
  end
  if path == "" then misuse.raise("%s: the path is empty", what) end
  if path:find("%z") then misuse.raise("%s: the path holds a NUL character", what) end
end

return M
