--- The files that tensors are read from.
--
-- A file is opened once, without waiting, and looked at through that descriptor alone: nothing can
-- come between a check and what it was for, and a FIFO or a device is refused, not waited for.
--
-- `source:at(first, size)` gives memory with those bytes of the file. By default the file is
-- mapped: its pages are read when they are touched, and what is written there never reaches it. But
-- they are the file's own. If another program shortens it, touching a page behind its new end ends
-- the process with SIGBUS; if one writes to it, the elements change. Programs that replace files by
-- renaming, as this library does, cause neither. For others: `copy`, which reads the bytes into
-- memory at once, and `changed`, which tells afterwards.

local ffi = require "ffi"
local misuse = require "samebits.misuse"
local posix = require "samebits.io.posix"
local refusal = require "samebits.io.refusal"
local tensor = require "samebits.tensor"

local storage = tensor.storage

local M = {}

local bytes_p = ffi.typeof("uint8_t *")

local Source = {}
Source.__index = Source

-- How a file differs from what it was; nil where it does not.
local function difference(was, is)
  if not is then return posix.words() end
  if is.file ~= was.file then return "another file has taken its place" end
  if is.size ~= was.size then return ("%.17g bytes were %.17g"):format(is.size, was.size) end
  if is.written ~= was.written then return "it was written to" end
end

-- The descriptor of a regular file and what stat says; nil and a message.
local function open(path)
  local fd = posix.open(path)
  if not fd then return nil, posix.words() end
  local stat = posix.stat(fd)
  if stat and stat.kind == "file" then return fd, stat end
  local message = not stat and posix.words() or
                  stat.kind == "directory" and posix.words(posix.EISDIR) or "not a regular file"
  posix.close(fd)
  return nil, message
end

-- A map of a whole file; nil and a message.
local function map(fd, size)
  if size == 0 then return ffi.new "uint8_t[1]" end  -- an empty file cannot be mapped
  local at = posix.map(fd, size)
  if not at then return nil, posix.words() end
  return ffi.gc(ffi.cast(bytes_p, at), posix.unmap)
end

--- Bytes first .. first + size - 1, which must lie in the file: a uint8_t pointer, and what to keep
-- alive with it. Raises a refusal where they cannot be read.
function Source:at(first, size)
  if self.map then return ffi.cast(bytes_p, self.map) + first, self.map end
  local ptr, owner = storage.zeroed(size)
  if not ptr then refusal.raise("no memory for %.17g bytes", size) end
  local n = posix.read_at(self.fd, ptr, first, size)
  if not n then refusal.raise("%s", posix.words()) end
  if n < size then
    refusal.raise("it was shortened to %.17g bytes while it was read", first + n)
  end
  table.insert(self.held, owner)  -- as long as it is read: who asks may look at the bytes only
  return ptr, owner
end

--- Whether a tensor's elements are the file's pages.
function Source:holds(t)
  if not self.map or t.device ~= "cpu" then return false end
  local offset = t.ptr - ffi.cast(bytes_p, self.map)
  return offset >= 0 and offset < self.size
end

--- Why what was read is no longer what the file holds, in words behind its path; nil where the path
-- still names the same file, of the same size, not written to since.
function Source:changed()
  local why = difference(self.stat, posix.stat_path(self.path))
  if why then return ("%s: changed while it was in use: %s"):format(self.path, why) end
end

--- Opens a file and runs f(source, ...): its results; or nil and a message, behind the path, where
-- the file cannot be used or f raises a refusal. opts: `copy`, to read and not to map; `opened`, a
-- list that the source is added to.
function M.read(path, opts, f, ...)
  if path == "" then return nil, "the path is empty" end
  local fd, stat = open(path)
  if not fd then return nil, ("%s: %s"):format(path, stat) end
  local self = setmetatable({ path = path, size = stat.size, stat = stat, fd = fd, held = {} },
                            Source)
  if not opts.copy then
    local why
    self.map, why = map(fd, stat.size)
    posix.close(fd)
    if not self.map then return nil, ("%s: %s"):format(path, why) end
    if opts.opened then table.insert(opts.opened, self) end
    return refusal.catch(path, f, self, ...)
  end

  local function finish(ok, ...)
    local why = ok and difference(stat, posix.stat(fd))
    posix.close(fd)
    self.held = nil
    if not ok then error((...), 0) end
    if why then return nil, ("%s: changed while it was read: %s"):format(path, why) end
    return ...
  end
  return finish(pcall(refusal.catch, path, f, self, ...))
end

--- Why files that were read are not what they were; nil where they are.
function M.changed(opened)
  for _, source in ipairs(opened) do
    local why = source:changed()
    if why then return why end
  end
end

--- Options of a call that reads a file, checked.
function M.options(what, opts)
  if opts == nil then return {} end
  if type(opts) ~= "table" then
    misuse.raise("%s: options are %s, not a table", what, type(opts))
  end
  for key, value in pairs(opts) do
    if key ~= "copy" then misuse.raise("%s: unknown option '%s'", what, tostring(key)) end
    if type(value) ~= "boolean" then
      misuse.raise("%s: copy: expected a boolean, got %s", what, type(value))
    end
  end
  return opts
end

return M
