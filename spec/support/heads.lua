--- Heads for specs: tensors of hidden states and weights, and the variants of the library that have
-- heads.

local ffi = require "ffi"
local backends = require "spec.support.backends"
local hex = require "spec.support.hex"
local samebits = require "samebits"

local M = {}

--- Calls body(at) for each variant whose products differ, as backends.each does: on cuda, pieces
-- and threads per block change nothing about them.
function M.each(body)
  backends.each(function(at)
    local launch = at.backend == "cuda" and at.name ~= "cuda"
    if not launch or at.name:find "ahead" or at.name:find "no table" then body(at) end
  end)
end

--- Values like those of hidden states or weights, of a seed: a tensor of a shape and dtype, where
-- some elements are much larger than the rest.
function M.values(shape, dtype, seed)
  local n = 1
  for _, extent in ipairs(shape) do n = n * extent end
  local list, state = {}, seed * 7919 + 17
  for i = 1, n do
    state = (state * 69069 + 1) % 2 ^ 32
    local x = state / 2 ^ 31 - 1
    list[i] = state % 64 == 5 and x * 32 or x * x * x
  end
  return hex.tensor(list, shape):to(dtype)
end

--- Copies of tensors where a variant computes.
function M.placed(at, t) return assert(t:to(at.context().device)) end

--- A head of weights in memory, where a variant computes; opts as for ctx:head.
function M.head(at, weights, opts)
  local own = {}
  for name, value in pairs(opts or {}) do
    own[name] = samebits.is_tensor(value) and M.placed(at, value) or value
  end
  return assert(at.context():head(M.placed(at, weights), own))
end

local TYPES = { int32 = "int32_t *", int64 = "int64_t *" }

--- f of the elements of two contiguous tensors of integers in memory, as an all-reduce computes it;
-- a may be nil.
function M.elementwise(f, a, b)
  if not a then return b end
  local out = b:clone()
  local x, y = ffi.cast(TYPES[a.dtype], a.ptr), ffi.cast(TYPES[b.dtype], out.ptr)
  for i = 0, a:numel() - 1 do y[i] = f(x[i], y[i]) end
  return out
end

return M
