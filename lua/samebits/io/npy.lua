--- Reads and writes .npy files (NumPy's format, versions 1.0, 2.0 and 3.0).
--
-- Dtypes: '<f4' '<f2' '<f8' '<i2' '<i4' '<i8' '|i1' '|u1' '|b1', and two bytes of void ('<V2') as
-- bfloat16. A file must end where its array ends. Bytes after it are refused, since a header that
-- describes a smaller array than was written leaves exactly such bytes.

local ffi = require "ffi"
local file = require "samebits.io.file"
local header = require "samebits.io.npy_header"
local misuse = require "samebits.misuse"
local refusal = require "samebits.io.refusal"
local source = require "samebits.io.source"
local tensor = require "samebits.tensor"

local dtype, layout = tensor.dtype, tensor.layout

local M = {}

-- numpy writes headers of about 128 bytes. Headers are read as text, so their size is bounded.
local MAX_HEADER = 2 ^ 20

--- For code inside the library: reads the tensor in a source.
function M.read(from)
  local size = from.size
  if size < 10 then refusal.raise("%.17g bytes; a .npy file starts with 10 at least", size) end
  local p = from:at(0, math.min(size, 12))
  if ffi.string(p, 6) ~= header.MAGIC then
    refusal.raise("byte 0: %s is not how a .npy file starts", refusal.quote(ffi.string(p, 6)))
  end
  local major, minor = p[6], p[7]
  if major < 1 or major > 3 or minor ~= 0 then
    refusal.raise("byte 6: version %d.%d is not supported (1.0, 2.0, 3.0)", major, minor)
  end

  local start, length = 10, p[8] + p[9] * 256
  if major > 1 then
    if size < 12 then refusal.raise("%.17g bytes; the header's length ends at byte 12", size) end
    start, length = 12, length + p[10] * 2 ^ 16 + p[11] * 2 ^ 24
  end
  if start + length > size then
    refusal.raise("byte 8: a header of %.17g bytes in a file of %.17g", length, size)
  end
  if length > MAX_HEADER then
    refusal.raise("byte 8: a header of %.17g bytes (at most %d)", length, MAX_HEADER)
  end

  local name, fortran, shape = header.parse(ffi.string(from:at(start, length), length), start)
  local ok, message = layout.shape(shape)
  if not ok then refusal.raise("header: %s", message) end
  local first = start + length
  local bytes = layout.numel(shape) * dtype.of[name].size
  if first + bytes > size then
    refusal.raise("truncated: %s %s needs %.17g bytes from byte %.17g on, the file ends at %.17g",
                  name, layout.text(shape), bytes, first, size)
  elseif first + bytes < size then
    refusal.raise("byte %.17g: %.17g bytes behind the array (%s %s)", first + bytes,
                  size - first - bytes, name, layout.text(shape))
  end
  local ptr, owner = from:at(first, bytes)
  return tensor.tensor(ptr, {
    dtype = name, shape = shape, owner = owner,
    strides = fortran and layout.dense_fortran(shape) or nil,
  })
end

--- Returns the tensor in a file, or nil and a message. The file is mapped, not read: its pages are
-- loaded when they are touched, and writing to the tensor never changes the file. With `{ copy =
-- true }` it is read (see samebits.load).
M.load = misuse.guard(function(path, opts)
  file.check_path("npy.load", path)
  return source.read(path, source.options("npy.load", opts), M.read)
end)

--- Writes a tensor (version 1.0, last index fastest). Returns true, or nil and a message. The file
-- is replaced whole or not at all.
M.save = misuse.guard(function(path, t)
  file.check_path("npy.save", path)
  if not tensor.is_tensor(t) then misuse.raise("npy.save: %s is not a tensor", type(t)) end
  if t.device ~= "cpu" then
    misuse.raise("npy.save: the elements are on %s, not in memory", t.device)
  end
  local dense = t:contiguous()
  return file.write(path, {
    header.format(t.dtype, t.shape),
    { ptr = dense.ptr, size = t:numel() * t.itemsize, owner = dense },
  })
end)

return M
