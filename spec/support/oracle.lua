--- Computes a row's logprobs in fp64, with errors far below those of any fp32 result.
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

--- log(1 + x), accurate where x is small.
M.log1p = function(x) return log1p(x) end

--- Looks at a row of V logits (a float pointer). The result has `m`, `best` (the first id of m),
-- `log_mass` (lse = m / tau + log_mass), `entropy` in nats, `variance` (of ln p), `lse`, and
-- logprob(id).
--
-- terms, if given, is a double[V] that receives the terms, relative to the largest.
function M.row(x, V, tau, terms)
  local m, best = -math.huge, -1
  for i = 0, V - 1 do
    if x[i] > m then m, best = x[i], i end
  end
  -- Terms but the largest, and their products with u; what each addition lost. Products with u^2
  -- are for bounds, which do not need that.
  local mass, mass_error, moment, moment_error, square = 0, 0, 0, 0, 0
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
    square = square + p * u * u
  end
  local log_mass, mean = log1p(mass), moment / (1 + mass)
  return {
    m = m, best = best, log_mass = log_mass, lse = m / tau + log_mass,
    entropy = log_mass - mean, variance = math.max(0, square / (1 + mass) - mean * mean),
    logprob = function(id) return (x[id] - m) / tau - log_mass end,
  }
end

--- Looks at two rows of V logits, p's and q's. The result has `kl`, KL(p || q) in nats;
-- `covariance`, of ln p and ln p - ln q under p; and `surplus`, the divergence and p's entropy less
-- q's. The last two are the derivatives of the divergence by the logarithms of p's and q's 1 / tau.
function M.divergence(xp, xq, V, tau_p, tau_q)
  local p, q = M.row(xp, V, tau_p), M.row(xq, V, tau_q)
  local kl, lost, product = 0, 0, 0 -- what each addition lost
  for i = 0, V - 1 do
    if xp[i] > -math.huge then
      local lp = p.logprob(i)
      local weight, distance = exp(lp), lp - q.logprob(i)
      if weight > 0 then
        local more = weight * distance - lost
        local sum = kl + more
        kl, lost = sum, sum - kl - more
        product = product + weight * distance * (lp + p.entropy)
      end
    end
  end
  return { kl = kl, covariance = product, surplus = kl + p.entropy - q.entropy }
end

return M
