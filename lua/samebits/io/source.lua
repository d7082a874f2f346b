--- The files that tensors are read from.
--
-- A file is opened once, without waiting, and examined only through that descriptor. Nothing can
-- therefore change between a check and the use that it is for, and a FIFO or a device is refused
-- instead of waited for.
--
-- `source:at(first, size)` returns memory with those bytes of the file. By default the file is
-- mapped: its pages are read when they are touched, and writes to them never reach the file. But
-- they are the file's own pages. If another program shortens the file, touching a page past its new
-- end ends the process with SIGBUS; if another program writes to it, the elements change. Programs
-- that replace files by renaming, as this library does, cause neither. For other programs there are
-- `copy`, which reads the bytes into memory at once, and `changed`, which detects the change
-- afterwards.

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

-- How a file differs from its earlier state; nil if it does not.
local function difference(was, is)
  if not is then return posix.words() end
  if is.file ~= was.file then return "another file has taken its place" end
  if is.size ~= was.size then return ("%.17g bytes were %.17g"):format(is.size, was.size) end
  if is.written ~= was.written then return "it was written to" end
end

-- The descriptor of a regular file and the result of stat; nil and a message if that fails.
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

-- A map of a whole file; nil and a message if that fails.
local function map(fd, size)
  if size == 0 then return ffi.new "uint8_t[1]" end  -- an empty file cannot be mapped
  local at = posix.map(fd, size)
  if not at then return nil, posix.words() end
  return ffi.gc(ffi.cast(bytes_p, at), posix.unmap)
end

--- Returns bytes first .. first + size - 1, which must lie in the file: a uint8_t pointer, and the
-- owner to keep alive with it. Raises a refusal if they cannot be read.
function Source:at(first, size)
  if self.map then return ffi.cast(bytes_p, self.map) + first, self.map end
  local ptr, owner = storage.zeroed(size)
  if not ptr then refusal.raise("no memory for %.17g bytes", size) end
  local n = posix.read_at(self.fd, ptr, first, size)
  if not n then refusal.raise("%s", posix.words()) end
  if n < size then
    refusal.raise("it was shortened to %.17g bytes while it was read", first + n)
  end
  table.insert(self.held, owner)  -- callers may use only the bytes
  return ptr, owner
end

--- Returns f(p, size) for the whole file, which must be mapped.
function Source:read_all(f) return f(ffi.cast(bytes_p, self.map), self.size) end

--- Whether a tensor's elements are the file's pages.
function Source:holds(t)
  if not self.map or t.device ~= "cpu" then return false end
  local offset = t.ptr - ffi.cast(bytes_p, self.map)
  return offset >= 0 and offset < self.size
end

--- Returns why the file no longer holds the data that was read, as words to put after its path; nil
-- if the path still names the same file, of the same size, not written to since.
function Source:changed()
  local why = difference(self.stat, posix.stat_path(self.path))
  if why then return ("%s: changed while it was in use: %s"):format(self.path, why) end
end

--- Opens a file and runs f(source, ...). Returns its results; or nil and a message, prefixed with
-- the path, if the file cannot be used or f raises a refusal. opts: `copy`, to read the file
-- instead of mapping it; `opened`, a list that the source is added to.
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

--- Returns why files that were read have changed; nil if they have not.
function M.changed(opened)
  for _, source in ipairs(opened) do
    local why = source:changed()
    if why then return why end
  end
end

--- Checks the options of a call that reads a file, and returns them.
function M.options(what, opts)
  if opts == nil then return {} end
  if type(opts) ~= "table" then
    misuse.raise("%s: options are %s, not a table", what, misuse.kind(opts))
  end
  for key, value in pairs(opts) do
    if key ~= "copy" then misuse.raise("%s: unknown option '%s'", what, tostring(key)) end
    if type(value) ~= "boolean" then
      misuse.raise("%s: copy: expected a boolean, got %s", what, misuse.kind(value))
    end
  end
  return opts
end

return M
