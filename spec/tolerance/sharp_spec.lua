-- Checks rows that isolate one source of error and whose lse is near 0, so that the last rounding
-- hides nothing. The bounds are narrow enough to reveal a single wrong last bit in a coefficient, a
-- leaf or a sum.

local ffi = require "ffi"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local bounds = require "spec.support.bounds"
local judge = require "spec.support.judge"
local logits = require "spec.support.logits"
local oracle = require "spec.support.oracle"

local LN2 = math.log(2)

-- The target id 0 for each of n rows.
local function zeros(n)
  local ids = {}
  for r = 1, n do ids[r] = 0 end
  return ids
end

-- Rows of 2^k equal logits each, at least 16. From row to row the logit moves in equal steps around
-- -k ln 2, so that r takes values throughout [-1/2, 1/2]. A sum of 2^k equal terms is exact, so
-- only the error of one term remains (line 3).
local function equal_rows(k, rows)
  local V = 2 ^ k
  local t = samebits.zeros({ rows, V }, "float32")
  local x, exact = ffi.cast("float *", t.ptr), {}
  for r = 0, rows - 1 do
    x[r * V] = (r / (rows - 1) - 0.5) * LN2 - k * LN2
    for i = 1, V - 1 do x[r * V + i] = x[r * V] end
    exact[r] = x[r * V] + k * LN2
  end
  return t, exact
end

-- Rows whose mass is spread over many leaves, at a given temperature, shifted so that lse is about
-- 0. For each row, also gives the true lse, and the sum of the squares of the leaves' shares in the
-- mass.
local NORMAL = { draw = function(bits) return logits.distributions[2].draw(bits) / 3 end }

local function spread_rows(V, rows, tau)
  local t = logits.make(NORMAL, "float32", rows, V, V)
  local x, terms, truths = ffi.cast("float *", t.ptr), ffi.new("double[?]", V), {}
  for r = 0, rows - 1 do
    local row = x + r * V
    local lse = oracle.row(row, V, tau).lse
    for i = 0, V - 1 do row[i] = row[i] - lse * tau end
    local truth = oracle.row(row, V, tau, terms)
    local mass, squares = 0, 0
    for first = 0, V - 1, 16 do
      local leaf = 0
      for i = first, math.min(first + 15, V - 1) do leaf = leaf + terms[i] end
      mass, squares = mass + leaf, squares + leaf * leaf
    end
    truth.concentration = squares / (mass * mass)
    truths[r] = truth
  end
  return t, truths
end

local spread = {}
local function spread_case(V, tau)
  local key = V .. " " .. tau
  if not spread[key] then
    local t, truths = spread_rows(V, 8, tau)
    spread[key] = { logits = t, truths = truths }
  end
  return spread[key].logits, spread[key].truths
end

backends.each(function(at)
  describe("one error at a time on " .. at.name .. ":", function()
    for k = 0, 16, 4 do
      local rows = math.min(2 ^ 15, 2 ^ (20 - k))
      it(("a term: %d rows of %d equal logits"):format(rows, 2 ^ k), function()
        local judged = judge()
        local t, exact = equal_rows(k, rows)
        local out = at.score { logits = t, ids = zeros(rows) }
        -- c converts x to octaves. Its rounding shows only as the slope times the entropy, k ln 2.
        local known = bounds.slope(1) * k * LN2
        for r = 0, rows - 1 do
          local lse = out.lse[r]
          judged.within(("lse of row %d"):format(r), lse, exact[r] - known,
                        bounds.TERM + bounds.REST + bounds.half_ulp(lse))
        end
        judged.done(rows)
      end)
    end

    for _, tau in ipairs { 1, 0.5, tonumber(ffi.new("float", 0.7)), 3 } do
      for _, V in ipairs { 4099, 50257, 151936 } do
        it(("the sum: V = %d, temperature %.9g"):format(V, tau), function()
          local judged = judge()
          local t, truths = spread_case(V, tau)
          local out = at.score { logits = t, ids = zeros(8), temperature = tau }
          for r = 0, 7 do
            local lse, truth = out.lse[r], truths[r]
            judged.within(("lse of row %d"):format(r), lse,
                          truth.lse - bounds.slope(tau) * truth.entropy,
                          6 * bounds.LEAF_SD * math.sqrt(truth.concentration) + bounds.REST +
                          bounds.half_ulp(lse))
          end
          judged.done(8)
        end)
      end
    end
  end)
end)
