--- Files as memory.

local ffi = require "ffi"
local posix = require "samebits.posix"

local M = {}

local bytes_p = ffi.typeof("uint8_t *")

--- Maps a whole file, or returns nil and a message. The map has `ptr`, `size` and `owner`: as long
-- as the owner is kept, the memory is there. Writing to it never changes the file. (A file that
-- another program shortens meanwhile takes its pages away, and reading those ends the process:
-- replace files by renaming, as this library does.)
function M.map(path)
  local fd = posix.open(path)
  if not fd then return nil, ("%s: %s"):format(path, posix.words()) end
  local kind, size = posix.kind_of(fd)
  local at, message
  if not kind then
    message = posix.words()
  elseif kind ~= "file" then
    message = kind == "directory" and posix.words(posix.EISDIR) or "not a regular file"
  elseif size > 0 then
    at = posix.map(fd, size)
    if not at then message = posix.words() end
  else
    at = ffi.new("uint8_t[1]")  -- an empty file cannot be mapped
  end
  posix.close(fd)
  if message then return nil, ("%s: %s"):format(path, message) end

  local ptr = ffi.cast(bytes_p, at)
  if size == 0 then return { ptr = ptr, size = 0, owner = at } end
  ffi.gc(ptr, posix.unmap)
  return { ptr = ptr, size = size, owner = ptr }
end

return M
