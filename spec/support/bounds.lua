--- The error bounds of docs/numerics.md (its table names the lines), and what follows from them.

local ffi = require "ffi"
local errors = require "spec.support.errors"

local M = {}

local LOG2E = 0x1.71547652b82fep+0

--- Lines 1 .. 11, for a logprob and for lse.
M.LOGPROB, M.LSE = 4.1e-7, 3.3e-7

--- Line 3: one term.
M.TERM = 8.41e-8

--- Line 12's second part, and lines 6 .. 11 where the result is small.
M.REST = 3e-12

--- The standard deviation of a leaf's relative error, at most. Roundings to nearest behave like
-- independent uniform numbers of up to half a spacing, 2^-24 relatively: 2^-24 / sqrt(3), at most.
-- The tree's last addition has that; each level below has twice as many, each of half the weight:
-- the variances are 1, 1/2, 1/4, 1/8 of it, together 1.875: 4.71e-8. A term's, measured over an
-- octave, is 2.6e-8 (its mean, 2.6e-11, is nothing).
M.LEAF_SD = 5.4e-8

--- Half the spacing of fp32 at x; 0 at 0.
function M.half_ulp(x) return x == 0 and 0 or errors.spacing(x) / 2 end

--- The stated bound: base is LOGPROB or LSE; the entropy is in nats.
function M.stated(base, entropy, result)
  return base + 2 ^ -24 * entropy + M.half_ulp(result)
end

--- How far c is from log2(e) / tau, relatively: 2^-24 at most. A logprob is off by that many
-- entropies, lse by as many the other way (line 12).
function M.slope(tau) return tonumber(ffi.new("float", LOG2E / tau)) * tau / LOG2E - 1 end

--- The stated bound with the slope that tau has for 2^-24, the largest that any has.
function M.sharp(base, tau, entropy, result)
  return base + math.abs(M.slope(tau)) * entropy + M.REST + M.half_ulp(result)
end

return M
