--- .npy files in both orders that NumPy writes: C (the last index is fastest), as samebits.save
-- does, and Fortran (the first index is fastest), as np.save(path, x.T) does.
--
-- Files of either order hold the same tensor, so that whatever reads them must give the same result
-- to the bit.

local ffi = require "ffi"
local npy = require "samebits.io.npy"
local tensor = require "samebits.tensor"

local M = {}

--- The orders' names.
M.NAMES = { "C", "Fortran" }

-- Rewrites one of our files, which is in C order, in Fortran order.
local function reorder(path)
  local t = assert(npy.load(path))
  local file = assert(io.open(path, "rb"))
  local bytes = file:read "*a"
  file:close()
  local size = t:numel() * t.itemsize
  local head, replaced = bytes:sub(1, #bytes - size):gsub("False,", "True, ")
  assert(replaced == 1, "no C order in the header of " .. path)

  -- The dimensions the other way round are the elements, the first index fastest.
  local shape, strides = {}, {}
  for d = 1, t.ndim do
    shape[d], strides[d] = t.shape[t.ndim + 1 - d], t.strides[t.ndim + 1 - d]
  end
  local turned = tensor.tensor(t.ptr, {
    dtype = t.dtype, shape = shape, strides = strides, owner = t,
  }):contiguous()
  -- The older file may be mapped: a new one in its place.
  assert(os.remove(path))
  file = assert(io.open(path, "wb"))
  assert(file:write(head, ffi.string(turned.ptr, size)))
  assert(file:close())
end

--- Saves a tensor as .npy in an order.
function M.save(path, t, order)
  assert(npy.save(path, t))
  if order == "Fortran" then reorder(path) end
end

--- Makes samebits.save write .npy files in Fortran order until the returned function is called.
function M.fortran()
  local save = npy.save
  npy.save = function(path, t)
    local ok, why = save(path, t)
    if ok then reorder(path) end
    return ok, why
  end
  return function() npy.save = save end
end

return M
