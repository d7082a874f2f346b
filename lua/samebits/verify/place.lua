--- Puts batches on a device with the same memory layout of their logits.

local ffi = require "ffi"
local batches = require "samebits.batch"
local tensor = require "samebits.tensor"

local layout = tensor.layout

local M = {}

--- Copies a tensor from memory to a device with the same layout: the same strides, and the first
-- element at the same distance from a multiple of 64 bytes (except for a remainder that is not a
-- multiple of the element's size) if the device's memory starts at one. A GPU's memory does; the
-- cpu's starts at a multiple of 16.
function M.tensor(t, device)
  if device == t.device or t:numel() == 0 then return assert(t:to(device)) end
  local size = t.itemsize
  local low, high = layout.extent(t.shape, t.strides)
  local first = t.ptr + low * size
  local before = math.floor(tonumber(ffi.cast("uintptr_t", first) % 64) / size)
  local buffer = tensor.zeros({ before + high - low + 1 }, t.dtype)
  ffi.copy(buffer.ptr + before * size, first, (high - low + 1) * size)
  local moved = assert(buffer:to(device))
  return tensor.tensor(moved.ptr + (before - low) * size, {
    device = device, dtype = t.dtype, shape = t.shape, strides = t.strides, owner = moved,
  })
end

--- Puts a batch, or the table to make one from, on a device. Logits that cannot be read in place
-- there are made contiguous first, as the message says.
function M.batch(device, spec, opts)
  if type(spec.to) == "function" then return assert(spec:to(device)) end
  if not tensor.is_tensor(spec.logits) then
    return assert(batches.new(spec, opts):to(device))
  end
  local copy = {}
  for key, value in pairs(spec) do copy[key] = value end
  copy.logits = M.tensor(spec.logits, device)
  local ok, made = pcall(batches.new, copy, opts)
  if not ok and tostring(made):find("make them contiguous first", 1, true) then
    copy.logits = assert(copy.logits:contiguous())
    made = batches.new(copy, opts)
  elseif not ok then
    error(made, 0)
  end
  return made
end

return M
