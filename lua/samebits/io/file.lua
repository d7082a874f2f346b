--- Writing files whole: to a temporary beside the target, then renamed over it.
--
-- At any time, and after a crash, the target is what it was or what it is to be. The temporary has
-- no name until it is complete, so that nothing is left of it whatever ends the process; on file
-- systems that have no such files (NFS, FAT) it has one, and Ctrl-C removes it.

local bit = require "bit"
local ffi = require "ffi"
local posix = require "samebits.io.posix"

local M = {}

local counter = 0

-- Calls make(path) with names beside the target until one is not there yet: make's result and the
-- name; nil where it fails. The name is noted in `new` before the file can be there: an error can
-- come between any two steps (Ctrl-C is one).
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
  -- Where /proc is missing it could not be given a name.
  if posix.kind_of_path "/proc/self/fd" then
    new.fd = posix.create_unnamed(folder, private)
    if new.fd then return true end
  end
  local why
  new.fd, why = named(new, target, function(path) return posix.create(path, private) end)
  return new.fd, why
end

-- Gives a new file the owner, the group and the mode of the one that it replaces, as far as the
-- system lets us. Where the group is another, it gets only what everybody has.
local function take_after(fd, old)
  local mode = old.mode
  if not posix.set_owner(fd, old.uid, old.gid) then
    mode = mode % 512  -- no set-user-ID of another user's
    if not posix.set_owner(fd, nil, old.gid) then
      local group, others = bit.band(mode, 56), bit.band(mode, 7)
      mode = mode - group + bit.band(group, 8 * others)
    end
  end
  -- On FAT every file has one mode, and none can be set.
  return posix.set_mode(fd, mode) or posix.stat(fd).mode == mode
end

-- All steps; what has been made is in `new`. True, or nil and a message.
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
  -- Before it has the name: else a crash could leave an empty file there.
  if not posix.sync(new.fd) then return nil, posix.words() end
  if not new.path then
    ok, why = named(new, target, function(path) return posix.link(new.fd, path) end)
    if not ok then return nil, why end
  end
  local fd = new.fd
  new.fd = nil
  if not posix.close(fd) then return nil, posix.words() end  -- quota, network
  if not posix.rename(new.path, target) then return nil, posix.words() end
  new.path = nil
  fd = posix.open_folder(folder)
  if not fd then return true end  -- one may write to a folder without reading it
  ok = posix.sync(fd)
  why = posix.words()
  posix.close(fd)
  if not ok then return nil, ("replaced, but a crash may undo that: %s"):format(why) end
  return true
end

--- Replaces a file, or makes it, with `parts`: strings, and tables { ptr, size }. True, or nil and
-- a message; the file is then as it was. A link is followed. Only regular files are replaced; their
-- owner, group and mode stay what they are, as far as the system lets us.
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
