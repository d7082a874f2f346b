--- Copies elements from one place to another: within memory, and from devices.

local ffi = require "ffi"
local devices = require "samebits.device"
local element = require "samebits.tensor.element"
local layout = require "samebits.tensor.layout"
local storage = require "samebits.tensor.storage"

local M = {}

local copy_run = {}
for size, word_p in pairs(element.word) do
  -- Every size has its own loop, so that each is compiled for its type.
  copy_run[size] = assert(loadstring([[
    local ffi, word_p = ...
    return function(target, source, count, step)
      local to, from = ffi.cast(word_p, target), ffi.cast(word_p, source)
      for i = 0, count - 1 do to[i] = from[i * step] end
    end]], "=copy_run"))(ffi, word_p)
end

--- Copies elements of `size` bytes in memory, in index order, to `target`.
function M.dense(target, source, size, shape, strides)
  local run = copy_run[size]
  layout.each_run(shape, strides, function(offset, count, stride, first)
    local to, from = target + first * size, source + offset * size
    if stride == 1 then
      ffi.copy(to, from, count * size)
    else
      run(to, from, count, stride)
    end
  end)
end

-- Copies run by run, and waits once.
local function fetch_runs(at, target, t)
  local size, ok, message, code = t.itemsize, true, nil, nil
  layout.each_run(t.shape, t.strides, function(offset, count, _, first)
    if not ok then return end
    ok, message, code = at:queue(target + first * size, t.ptr + offset * size, count * size)
  end)
  local done, why, name = at:wait()
  if not ok then return nil, message, code end
  return done, why, name
end

-- Copies everything from the lowest element to the highest one, and sorts it in memory.
local function fetch_extent(at, target, t, low, high)
  local size = t.itemsize
  local bytes = (high - low + 1) * size
  local buffer, message, code = at:alloc(bytes, devices.PINNED)
  if not buffer then return nil, message, code end
  local ok
  ok, message, code = at:copy(buffer, t.ptr + low * size, bytes)
  if not ok then return nil, message, code end
  M.dense(target, buffer - low * size, size, t.shape, t.strides)
  storage.keep(buffer)
  return true
end

--- Copies a device tensor's elements, in index order, to memory at `target`. A stream may be given
-- only if the elements are contiguous. Returns true; or nil, a message and a code.
function M.fetch(at, target, t, stream)
  local numel = layout.numel(t.shape)
  if numel == 0 then return true end
  if layout.is_dense(t.shape, t.strides) then
    return at:copy(target, t.ptr, numel * t.itemsize, stream)
  end
  local low, high = layout.extent(t.shape, t.strides)
  local last = t.ndim
  if t.strides[last] == 1 and t.shape[last] > 1 and high - low + 1 > 2 * numel then
    return fetch_runs(at, target, t)
  end
  return fetch_extent(at, target, t, low, high)
end

local scratch = ffi.new "uint64_t[1]"

--- Reads the element at `offset`, in elements from the first one, on any device. Returns nil, a
-- message and a code if the device fails.
function M.read(t, offset)
  if t.device == "cpu" then return element.read[t.dtype](t.ptr, offset) end
  local at, ok, message, code
  at, message, code = devices.of(t.device)
  if not at then return nil, message, code end
  ok, message, code = at:copy(scratch, t.ptr + offset * t.itemsize, t.itemsize)
  if not ok then return nil, message, code end
  return element.read[t.dtype](scratch, 0)
end

return M
