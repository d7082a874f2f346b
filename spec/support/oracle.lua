--- What a row's logprobs are, in fp64: far more exactly than any fp32 result can be wrong.
--
-- Each term is exp((x - m) / tau), m the largest logit: the difference is rounded once (or not at
-- all), the quotient once, and exp is within an ulp, so a term is right to (2 + 2 |u|) * 2^-53
-- relatively. Terms are positive and their sums are compensated (Kahan), so that V does not enter.
-- Weighted by the terms the mean |u| is below ln V + 1. Thus log(sum) is right to about 4e-15, and
-- a logprob to that and |u| * 2^-52. The largest term, exactly 1, stays out of the sum until log1p:
-- a logprob near 0 is right relatively, too.

local ffi = require "ffi"

ffi.cdef [[
double samebits_spec_log1p(double) __asm__("log1p");
]]
local exp, log1p = math.exp, ffi.C.samebits_spec_log1p

local M = {}

--- log(1 + x), exactly where x is small.
M.log1p = function(x) return log1p(x) end

--- Looks at a row of V logits (a float pointer). The result has `m`, `best` (the first id of m),
-- `log_mass` (lse = m / tau + log_mass), `entropy` in nats, `lse`, and logprob(id).
--
-- terms, if given, is a double[V] that receives the terms, relative to the largest.
function M.row(x, V, tau, terms)
  local m, best = -math.huge, -1
  for i = 0, V - 1 do
    if x[i] > m then m, best = x[i], i end
  end
  -- Terms but the largest, and their products with u; what each addition lost.
  local mass, mass_error, moment, moment_error = 0, 0, 0, 0
  for i = 0, V - 1 do
    local u = (x[i] - m) / tau
    local p = exp(u)
    if terms then terms[i] = p end
    if i == best or p == 0 then p, u = 0, 0 end
    local more = p - mass_error
    local sum = mass + more
    mass, mass_error = sum, sum - mass - more
    more = p * u - moment_error
    sum = moment + more
    moment, moment_error = sum, sum - moment - more
  end
  local log_mass = log1p(mass)
  return {
    m = m, best = best, log_mass = log_mass, lse = m / tau + log_mass,
    entropy = log_mass - moment / (1 + mass),
    logprob = function(id) return (x[id] - m) / tau - log_mass end,
  }
end

return M
