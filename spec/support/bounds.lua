--- The error bounds that docs/numerics.md proves, written once: the specs take them from here, and
-- spec/tolerance/worst_spec.lua compares the documents and tools/gen_vectors.py with them.
--
-- A bound limits how far an error may exceed half an ulp of the result; each function here adds the
-- half ulp. The truth of a row comes from oracle.row, and that of two rows from oracle.divergence.

local ffi = require "ffi"
local errors = require "spec.support.errors"

local M = {}

local LOG2E = 0x1.71547652b82fep+0

--- How far c may be from log2(e) / tau, relatively.
M.SLOPE = 2 ^ -24

--- Lines 1 .. 11 of the table in "Error bounds", for a logprob and for lse.
M.LOGPROB, M.LSE = 4.1e-7, 3.3e-7

--- Line 3: one term.
M.TERM = 8.41e-8

--- Line 12's second part, and lines 6 .. 11 where the result is small.
M.REST = 3e-12

--- An entropy: the constant part, and the part that grows with the standard deviation of ln p.
M.ENTROPY, M.ENTROPY_SPREAD = 1.34e-6, 3.23e-7

--- A divergence: the constant part, and the part that grows with the divergence.
M.KL, M.KL_SHARE = 4.6e-6, 1.31e-6

--- An element of a logprob's gradient, times its probability: the target's, and any other.
M.TARGET_GRADIENT, M.TOKEN_GRADIENT = 4.1e-7, 4.7e-7

--- An element of an entropy's gradient, times its probability: the constant part, and the parts
-- that grow with the standard deviation of ln p and with ln p + H.
M.ENTROPY_GRADIENT, M.ENTROPY_GRADIENT_SHARE = 1.47e-6, 5.9e-7

--- The most that an element may lose because probabilities below 2^-125 count as 0.
M.GRADIENT_REST = 2 ^ -115

--- The sum of a row's logprob gradients.
M.GRADIENT_SUM = 4.5e-7

--- Logits up to LINEAR temperatures do not saturate, and those beyond SATURATED all do; where in
-- between depends on the temperature.
M.LINEAR, M.SATURATED = 1.442e6, 1.454e6

--- The largest vocabulary that the bounds hold for.
M.VOCABULARY = 2 ^ 20

--- An upper bound on the standard deviation of a leaf's relative error. Roundings to nearest behave
-- like independent uniform numbers of up to half a spacing, 2^-24 relatively, whose deviation is at
-- most 2^-24 / sqrt(3). The tree's last addition has that deviation; each level below has twice as
-- many additions, each of half the weight: the variances are 1, 1/2, 1/4 and 1/8 of the last one's,
-- together 1.875: 4.71e-8. The deviation of a term, measured over an octave, is 2.6e-8 (its mean,
-- 2.6e-11, is negligible).
M.LEAF_SD = 5.4e-8

--- Half the spacing of fp32 at x; 0 at 0.
function M.half_ulp(x) return x == 0 and 0 or errors.spacing(x) / 2 end

--- The stated bound: base is LOGPROB or LSE; the entropy is in nats.
function M.stated(base, entropy, result)
  return base + M.SLOPE * entropy + M.half_ulp(result)
end

--- A logprob whose id is the only present one of its leaf.
function M.near_certain(exact, entropy, result)
  return M.LOGPROB * -exact + M.SLOPE * entropy + M.REST + M.half_ulp(result)
end

--- The relative distance of c from log2(e) / tau: SLOPE at most. It shifts a logprob by that many
-- entropies, and lse by as many in the other direction (line 12).
function M.slope(tau) return tonumber(ffi.new("float", LOG2E / tau)) * tau / LOG2E - 1 end

--- The stated bound with the slope that tau has for SLOPE, the largest that any has.
function M.sharp(base, tau, entropy, result)
  return base + math.abs(M.slope(tau)) * entropy + M.REST + M.half_ulp(result)
end

--- The variance of ln p in any row of V ids, at most.
function M.variance(V) return (1 + math.log(math.max(V, 8)) / 2) ^ 2 end

--- An entropy.
function M.entropy(truth, result)
  return M.ENTROPY + M.ENTROPY_SPREAD * math.sqrt(truth.variance) + M.SLOPE * truth.variance +
         M.half_ulp(result)
end

--- An entropy of a row of V ids whose largest logit is the only present one of its leaf.
function M.entropy_alone(truth, V, result)
  return M.ENTROPY * truth.entropy + M.SLOPE * truth.variance + V * 2 ^ -52 + 1e-13 +
         M.half_ulp(result)
end

--- A divergence.
function M.divergence(truth, result)
  return M.KL + M.KL_SHARE * truth.kl +
         M.SLOPE * (math.abs(truth.covariance) + math.abs(truth.surplus)) + M.half_ulp(result)
end

--- The gradient of a logprob at an id whose own logprob is lp; upstream: the loss's derivative over
-- the temperature, 0 or 2^-124 .. 2^100 in magnitude.
function M.token_gradient(truth, lp, is_target, upstream, result)
  local p = math.exp(lp)
  local share = is_target and M.TARGET_GRADIENT or M.TOKEN_GRADIENT
  local own = p > 0 and p * (share + M.SLOPE * math.abs(lp + truth.entropy)) or 0
  return math.abs(upstream) * (own + M.GRADIENT_REST) + M.half_ulp(result)
end

--- The gradient of the entropy at an id, likewise.
function M.entropy_gradient(truth, lp, upstream, result)
  local p, x = math.exp(lp), lp + truth.entropy
  local share = M.ENTROPY_GRADIENT + M.ENTROPY_SPREAD * math.sqrt(truth.variance) +
                M.ENTROPY_GRADIENT_SHARE * math.abs(x) +
                M.SLOPE * (truth.entropy - truth.logprob(truth.best) - lp +
                           math.abs(x * x + x - truth.variance))
  return math.abs(upstream) * ((p > 0 and p * share or 0) + M.GRADIENT_REST) + M.half_ulp(result)
end

return M
