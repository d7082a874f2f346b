-- Checks the references that other specs measure with: the fp64 oracle against values of 80 digits,
-- and the fp32 paths on inputs whose results are known.

local ffi = require "ffi"
local selftest = require "samebits.selftest"
local vectors = require "samebits.vectors"
local errors = require "spec.support.errors"
local fp32_softmax = require "spec.support.fp32_softmax"
local logits = require "spec.support.logits"
local oracle = require "spec.support.oracle"
local tolerance = require "spec.support.tolerance"

local function row_of(values)
  return ffi.new("float[?]", #values, values)
end

describe("the fp64 oracle", function()
  -- exp and log1p err by at most an ulp, and u and m / tau are rounded: see the bound in
  -- spec/support/oracle.lua.
  local function limit(magnitude) return 1e-14 + 2 ^ -51 * magnitude end

  for file, at_least in pairs { ["rows.txt"] = 300, ["generated.txt"] = 500 } do
    it("agrees with the true values of " .. file, function()
      local seen, wrong = 0, {}
      for _, case in ipairs(assert(vectors.read(selftest.directory .. "/" .. file))) do
        for _, target in ipairs(case.entropy and case.targets or {}) do
          local row = assert(case.logits:view(-1):to "float32")
          local V, x = row:numel(), ffi.cast("const float *", row.ptr)
          local truth, tau = oracle.row(x, V, case.tau), case.tau
          local function compare(what, got, exact, scale)
            seen = seen + 1
            if math.abs(got - exact) > limit(scale) then
              wrong[#wrong + 1] = ("%s:%d: %s: %.17g, not %.17g"):format(file, case.line, what,
                                                                        got, exact)
            end
          end
          if target.exact then
            compare("logprob", truth.logprob(target.id), target.exact,
                    math.abs(x[target.id] - truth.m) / tau)
          end
          if case.exact_lse then
            compare("lse", truth.lse, case.exact_lse, math.abs(truth.m) / tau)
            compare("entropy", truth.entropy, case.entropy, 0)
          end
        end
      end
      assert.same({}, wrong)
      assert.is_true(seen >= at_least, seen .. " values")
    end)
  end

  it("keeps a near-certain token's relative accuracy", function()
    local truth = oracle.row(row_of { 30, 0, -math.huge, 0 }, 4, 1)
    local exact = -oracle.log1p(2 * math.exp(-30))
    assert.is_true(math.abs(truth.logprob(0) / exact - 1) < 1e-15)
    assert.is_true(math.abs(truth.entropy / (2 * math.exp(-30) * 31) - 1) < 1e-12)
  end)
end)

describe("the fp32 paths", function()
  it("add as they say", function()
    -- The terms are 1 and 2047 times half the spacing at 1. In a sequential sum, each of the latter
    -- is a tie that rounds back to the even 1.
    local n = 2048
    local function sum(how)
      local e = ffi.new("float[?]", n)
      for i = 0, n - 1 do e[i] = i == 0 and 1 or 2 ^ -24 end
      return fp32_softmax.sums[how](e, n)
    end
    assert.equal(1, sum "sequential")
    -- Lane 0 loses its second number; the other 1023 lanes keep both of theirs.
    assert.equal(1 + 1023 * 2 ^ -23, sum "lanes")
    -- The pair of 1 and 2^-24 loses the latter; all other pairs are exact.
    assert.equal(1 + 1023 * 2 ^ -23, sum "pairwise")
    local e = row_of { 1, 2, 3, 4, 5 }
    assert.equal(15, fp32_softmax.sums.pairwise(e, 5))
  end)

  it("give log_softmax", function()
    local x = row_of { 0, math.log(3), -math.huge }
    for _, how in ipairs(fp32_softmax.NAMES) do
      local list = fp32_softmax.logprobs(x, 3, 1, { 0, 1 })[how]
      assert.is_true(math.abs(list[1] + math.log(4)) < 2e-7)
      assert.is_true(math.abs(list[2] - math.log(0.75)) < 2e-7)
      assert.is_true(math.abs(fp32_softmax.logprobs(x, 3, 2, { 0 })[how][1] +
                              math.log(1 + math.sqrt(3))) < 2e-7)
    end
  end)

  it("round every step to fp32", function()
    local x = row_of { 1, 0 }
    local got = fp32_softmax.logprobs(x, 2, tonumber(ffi.new("float", 0.7)), { 0, 1 })
    for _, how in ipairs(fp32_softmax.NAMES) do
      for _, v in ipairs(got[how]) do assert.equal(tonumber(ffi.new("float", v)), v) end
    end
  end)
end)

describe("errors", function()
  it("are in spacings of fp32", function()
    assert.equal(2 ^ -23, errors.spacing(1))
    assert.equal(2 ^ -24, errors.spacing(-0.75))
    assert.equal(2 ^ -149, errors.spacing(0))
    assert.equal(2 ^ -149, errors.spacing(2 ^ -130))
    assert.equal(2 ^ -20, errors.spacing(-12.5))
  end)

  it("have percentiles", function()
    local e = errors.new()
    for i = 100, 1, -1 do e:add(2 + i * 2 ^ -22, 2) end
    assert.equal(50 * 2 ^ -22, e:percentile(0.5))
    assert.equal(99, e:percentile(0.99, "ulps"))
    assert.equal(100, e:max "ulps")
    assert.equal(50.5 * 2 ^ -22, e:mean())
    assert.equal(100, e:count())
  end)

  it("beyond rounding are 0 for the nearest fp32", function()
    local third = tonumber(ffi.new("float", 1 / 3))
    assert.equal(0, errors.beyond_rounding(third, 1 / 3))
    assert.is_true(errors.beyond_rounding(third + 2 ^ -25, 1 / 3) > 0)
  end)

  it("refuse what is not a number", function()
    assert.has_error(function() errors.new():add(0 / 0, 1) end)
    assert.has_error(function() errors.new():add(1, -math.huge) end)
  end)
end)

describe("the seeded logits", function()
  it("are the same everywhere", function()
    local function first(d, dtype)
      local t = logits.make(logits.distributions[d], dtype, 1, 300, 7)
      local words = t:bits()[1]
      return words[1], words[300]
    end
    assert.same({ "bfdc69cf", "4085bf0a" }, { first(2, "float32") })
    assert.same({ "bf21", "3fc2" }, { first(4, "bfloat16") })
  end)

  it("are of the kinds that they are called", function()
    local function entropy(name)
      for _, cell in ipairs(tolerance.cells(4099)) do
        if cell.distribution.name == name and cell.dtype == "float32" then
          return tolerance.truth(cell, tolerance.logits(cell))[1].entropy
        end
      end
    end
    assert.is_true(entropy "flat" > 8.3)
    assert.is_true(entropy "normal, sigma 3" > 4)
    assert.is_true(entropy "peaked" < 3)
    assert.is_true(entropy "dominated" < 1e-6)
    assert.is_true(entropy "temperature 50" > 8.3)
  end)
end)
