-- Checks the stated bounds against fp64, over dtypes, vocabularies and kinds of logits, on every
-- backend and instruction set. Every result must be within them; tighter bounds hold for the median
-- and for 99 of 100 results.

local backends = require "spec.support.backends"
local bounds = require "spec.support.bounds"
local judge = require "spec.support.judge"
local tolerance = require "spec.support.tolerance"

-- An error less its known part (the slope times the entropy) and half an ulp has a standard
-- deviation of at most 6e-8, that of a leaf's error and a term's error together. 99 % and 50 % of
-- normally distributed numbers lie within 2.58 and 0.67 standard deviations.
local P99, P50 = 1.6e-7, 4.1e-8

-- Targets to check: the likeliest id, two sampled ids and an arbitrary one.
local SOME = { 1, 2, 9, tolerance.TARGETS }

-- The true values of a cell, computed once for all variants.
local truths = {}
local function truth_of(cell, t)
  truths[cell.name] = truths[cell.name] or tolerance.truth(cell, t)
  return truths[cell.name]
end

local function share_within(cell, left, share, limit)
  table.sort(left)
  local at = left[math.ceil(share * #left)]
  assert(at <= limit, ("%s: %g %% of the errors are within %.3g beyond what is known, not %.3g")
    :format(cell.name, 100 * share, at, limit))
end

local function check(judged, at, cell)
  local t = tolerance.logits(cell)
  local left = {}
  tolerance.score(cell, t, truth_of(cell, t), SOME, at.score, function(got, lse, row, k)
    local what, exact = ("%s: id %d"):format(cell.name, row.ids[k]), row.exact[k]
    judged.within(what, got, exact,
                  bounds.sharp(bounds.LOGPROB, cell.tau, row.entropy, got))
    judged.within(what .. ": lse", lse, row.lse,
                  bounds.sharp(bounds.LSE, cell.tau, row.entropy, lse))
    left[#left + 1] = math.abs(got - exact) - bounds.sharp(0, cell.tau, row.entropy, got)
  end)
  share_within(cell, left, 0.99, P99)
  share_within(cell, left, 0.5, P50)
end

backends.each(function(at)
  describe("within bounds on " .. at.name .. ":", function()
    for _, V in ipairs(tolerance.VOCABULARIES) do
      it(("V = %d"):format(V), function()
        local judged = judge()
        for _, cell in ipairs(tolerance.cells(V)) do check(judged, at, cell) end
        judged.done(480)
      end)
    end

    it("a real model's logits", function()
      local judged = judge()
      for _, cell in ipairs(tolerance.real_cells()) do check(judged, at, cell) end
      judged.done(1152)
    end)
  end)
end)
