--- The logprob path that this library replaces: one element of an fp32 log_softmax, computed as
-- frameworks do: the largest logit, fp32 expf of the differences, their sum in fp32, and
-- (x - m) - logf(sum).
--
-- Everything is fp32: a float array rounds the values that are stored in it. The doubles that
-- LuaJIT computes with in between have no effect: rounding a sum, a difference or a quotient of two
-- fp32 numbers to fp64 and then to fp32 gives the same as rounding it once (53 >= 2 * 24 + 2).

local ffi = require "ffi"

ffi.cdef [[
float samebits_spec_expf(float) __asm__("expf");
float samebits_spec_logf(float) __asm__("logf");
]]
local expf, logf = ffi.C.samebits_spec_expf, ffi.C.samebits_spec_logf

local M = {}

local cell = ffi.new("float[1]")
local function fp32(v)
  cell[0] = v
  return cell[0]
end

-- Threads of a block of a GPU kernel: each adds every LANES-th term, then their sums are paired.
local LANES = 1024

--- The ways to compute the sum, all of the same terms: a float array of n, which may be changed.
M.sums = {
  --- One after the other, as a thread does that owns all terms: errors grow with n.
  sequential = function(e, n)
    local s = ffi.new("float[1]")
    for i = 0, n - 1 do s[0] = s[0] + e[i] end
    return s[0]
  end,
  --- As a thread block does: errors grow with n / 1024.
  lanes = function(e, n)
    local s = ffi.new("float[?]", LANES)
    for first = 0, n - 1, LANES do
      for i = 0, math.min(LANES, n - first) - 1 do s[i] = s[i] + e[first + i] end
    end
    return M.sums.pairwise(s, LANES)
  end,
  --- A tree of pairs, the best that fp32 does without help: errors grow with log n.
  pairwise = function(e, n)
    while n > 1 do
      local half = math.floor(n / 2)
      for i = 0, half - 1 do e[i] = e[2 * i] + e[2 * i + 1] end
      if n % 2 == 1 then e[half] = e[n - 1] end
      n = math.ceil(n / 2)
    end
    return e[0]
  end,
}

--- In the order of their accuracy.
M.NAMES = { "sequential", "lanes", "pairwise" }

--- Logprobs of ids in a row of V logits (a float pointer): a list for each of NAMES.
function M.logprobs(x, V, tau, ids)
  local scaled, terms = ffi.new("float[?]", V), ffi.new("float[?]", V)
  local m = -math.huge
  for i = 0, V - 1 do
    scaled[i] = x[i] / tau
    m = math.max(m, scaled[i])
  end
  for i = 0, V - 1 do terms[i] = expf(fp32(scaled[i] - m)) end
  local results = {}
  for _, how in ipairs(M.NAMES) do
    local log_sum = logf(M.sums[how](terms, V))
    local list = {}
    for k, id in ipairs(ids) do list[k] = fp32(fp32(scaled[id] - m) - log_sum) end
    results[how] = list
  end
  return results
end

return M
