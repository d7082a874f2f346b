--- Logits, ids and logprobs with a known defect planted in one of two sides, for drift's specs.

local ffi = require "ffi"
local samebits = require "samebits"
local prng = require "spec.support.prng"

local M = {}

--- fp32 logits [B, T, V] that bf16 and fp16 cannot hold, normal with a spread of 3.
function M.logits(shape, seed)
  local random, t = prng.new(seed), samebits.zeros(shape, "float32")
  local p = ffi.cast("float *", t.ptr)
  for i = 0, t:numel() - 1 do p[i] = 3 * random:normal() end
  return t
end

--- Ids [B, T] below V; likely ones and unlikely ones.
function M.ids(shape, vocab, seed)
  local random, t = prng.new(seed), samebits.zeros(shape, "int64")
  local p = ffi.cast("int64_t *", t.ptr)
  for i = 0, t:numel() - 1 do p[i] = random:integer(0, vocab - 1) end
  return t
end

--- A copy, with f(row, p) applied to the logits of each row; p is a float pointer.
function M.rows(logits, f)
  local t = logits:clone()
  local vocab = t.shape[t.ndim]
  local p = ffi.cast("float *", t.ptr)
  for row = 0, t:numel() / vocab - 1 do f(row, p + row * vocab, vocab) end
  return t
end

--- A copy in which f(i, x) replaces each element.
function M.each(values, f)
  local t = values:clone()
  local p = ffi.cast("float *", t.ptr)
  for i = 0, t:numel() - 1 do p[i] = f(i, p[i]) end
  return t
end

--- The logprobs that the contract defines.
function M.logprobs(spec) return assert(samebits.logprob(spec)).token end

return M
