--- Encodings for assertions: tensors to hex, and logits from hex.

local ffi = require "ffi"
local bit = require "bit"
local samebits = require "samebits"

local M = {}

--- The encodings of a contiguous fp32 tensor, as 8-digit hex strings in a flat list.
function M.of(t)
  assert(t.dtype == "float32" and t:is_contiguous())
  local words, list = ffi.cast("const uint32_t *", t.ptr), {}
  for i = 0, t:numel() - 1 do list[i + 1] = bit.tohex(words[i]) end
  return list
end

--- An fp32 tensor of a given shape from a flat list of numbers, or of hex strings where a number
-- cannot express the value (the payload of a NaN).
function M.tensor(values, shape)
  local t = samebits.zeros(shape, "float32")
  local floats, words = ffi.cast("float *", t.ptr), ffi.cast("uint32_t *", t.ptr)
  assert(#values == t:numel(), "as many values as the shape holds")
  for i = 1, #values do
    if type(values[i]) == "string" then
      words[i - 1] = tonumber(values[i], 16)
    else
      floats[i - 1] = values[i]
    end
  end
  return t
end

--- n values that fp32, fp16 and bf16 all hold: multiples of 1/8 below 16 in magnitude. The
-- generator is Park and Miller's; seeds are integers from 1 on.
function M.values(n, seed)
  local state, list = seed * 7919 % 2147483647, {}
  for i = 1, n do
    state = state * 16807 % 2147483647
    list[i] = (math.floor(state / 2 ^ 8) % 255 - 127) / 8
  end
  return list
end

return M
