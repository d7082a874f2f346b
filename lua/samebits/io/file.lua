--- Writes whole files: to a temporary file in the target's folder, which is then renamed over the
-- target.
--
-- At any time, and after a crash, the target has either its old or its new contents. The temporary
-- file has no name until it is complete, so nothing is left of it however the process ends. On file
-- systems without such files (NFS, FAT) it has a name, and Ctrl-C removes it.

local bit = require "bit"
local ffi = require "ffi"
local posix = require "samebits.io.posix"

local M = {}

local counter = 0

-- Calls make(path) with names in the target's folder until one does not exist yet. Returns make's
-- result and the name; nil if it fails. The name is noted in `new` before the file can exist,
-- because an error can occur between any two steps (Ctrl-C is one).
local function named(new, target, make)
  for _ = 1, 100 do
    counter = counter + 1
    new.path = ("%s.%d.%d.tmp"):format(target, posix.pid(), counter)
    local made = make(new.path)
    if made then return made end
    local errno = ffi.errno()
    new.path = nil
    if errno ~= posix.EEXIST then return nil, posix.words(errno) end
  end
  return nil, posix.words(posix.EEXIST)
end

-- A new file's descriptor. private: nobody else may read it yet.
local function create(new, target, folder, private)
  -- Without /proc the file could not be given a name.
  if posix.kind_of_path "/proc/self/fd" then
    new.fd = posix.create_unnamed(folder, private)
    if new.fd then return true end
  end
  local why
  new.fd, why = named(new, target, function(path) return posix.create(path, private) end)
  return new.fd, why
end

-- Gives a new file the owner, group and mode of the file that it replaces, as far as the system
-- permits. If the group differs, it gets only the permissions that everybody has.
local function take_after(fd, old)
  local mode = old.mode
  if not posix.set_owner(fd, old.uid, old.gid) then
    mode = mode % 512  -- not the set-user-ID bit of another user's file
    if not posix.set_owner(fd, nil, old.gid) then
      local group, others = bit.band(mode, 56), bit.band(mode, 7)
      mode = mode - group + bit.band(group, 8 * others)
    end
  end
  -- On FAT every file has the same mode, which cannot be set.
  return posix.set_mode(fd, mode) or posix.stat(fd).mode == mode
end

-- Performs all steps; files that exist are noted in `new`. Returns true, or nil and a message.
local function replace(new, target, old, parts)
  local folder = target:match "^(.*/)" or "."
  local ok, why = create(new, target, folder, old ~= nil)
  if not ok then return nil, why end
  for _, part in ipairs(parts) do
    if type(part) == "string" then
      ok = posix.write(new.fd, part, #part)
    else
      ok = posix.write(new.fd, part.ptr, part.size)
    end
    if not ok then return nil, posix.words() end
  end
  if old and not take_after(new.fd, old) then return nil, posix.words() end
  -- Synced before it gets its name; otherwise a crash could leave an empty file there.
  if not posix.sync(new.fd) then return nil, posix.words() end
  if not new.path then
    ok, why = named(new, target, function(path) return posix.link(new.fd, path) end)
    if not ok then return nil, why end
  end
  local fd = new.fd
  new.fd = nil
  if not posix.close(fd) then return nil, posix.words() end  -- may fail on quota or network errors
  if not posix.rename(new.path, target) then return nil, posix.words() end
  new.path = nil
  fd = posix.open_folder(folder)
  if not fd then return true end  -- a folder can be writable without being readable
  ok = posix.sync(fd)
  why = posix.words()
  posix.close(fd)
  if not ok then return nil, ("replaced, but a crash may undo that: %s"):format(why) end
  return true
end

--- Replaces or makes a file with `parts`: strings, and tables { ptr, size }. Returns true, or nil
-- and a message; the file is then unchanged. A link is followed. Only regular files are replaced;
-- they keep their owner, group and mode, as far as the system permits.
function M.write(path, parts)
  local target = posix.real_path(path) or path
  local old = posix.stat_path(target)
  if old and old.kind ~= "file" then
    return nil, ("%s: %s"):format(path, old.kind == "directory" and posix.words(posix.EISDIR) or
                                        "not a regular file")
  end
  local new = {}
  local ran, ok, why = pcall(replace, new, target, old, parts)
  if new.fd then posix.close(new.fd) end
  if new.path then posix.unlink(new.path) end
  if not ran then error(ok, 0) end
  if ok then return true end
  return nil, ("%s: %s"):format(path, why)
end

--- Delivers a text that may be for a file. Without a path, returns the text itself; otherwise
-- writes the file and returns true, or nil and a message.
function M.deliver(what, text, path)
  if path == nil then return text end
  M.check_path(what, path)
  return M.write(path, { text })
end

--- Raises misuse if a value is not a path.
function M.check_path(what, path)
  local misuse = require "samebits.misuse"
  if type(path) ~= "string" then
    misuse.raise("%s: the path is %s, not a string", what, misuse.kind(path))
  end
  if path == "" then misuse.raise("%s: the path is empty", what) end
  if path:find("%z") then misuse.raise("%s: the path holds a NUL character", what) end
end

return M
