-- Checks that our results are closer to the truth than those of log_softmax in fp32, with each of
-- three sums: a sequential one, one over 1024 lanes as in a GPU's thread block, and a tree of
-- pairs, which no framework's sum beats.
--
-- Most of any error is the last rounding, which no fp32 result can avoid. An error "beyond
-- rounding" is therefore measured: how much further from the truth a result is than the nearest
-- fp32 number.

local samebits = require "samebits"
local comparison = require "spec.support.comparison"
local fp32_softmax = require "spec.support.fp32_softmax"
local tolerance = require "spec.support.tolerance"

local OURS = comparison.OURS

-- The groups below leave no room for a comparison.
-- bf16 near 10000 holds only multiples of 64. All logits of a row are then equal, and all logprobs
-- are the fp32 nearest to -ln V or its neighbour: a single error, counted hundreds of times.
local function one_value(cell)
  return cell.dtype == "bfloat16" and cell.distribution.name:find "^offset" ~= nil
end
-- If the logits have few values in 16 bits (fp16 near 10000 holds only multiples of 8), x - m is
-- exact, and so, nearly, is a tree's sum of many equal terms: pairs and lanes have hardly any error
-- beyond the rounding. Our error is the slope's share of the entropy, b = 1.34e-8 ln V at most. Of
-- the results, whose spacing is u, a share of b / u is rounded the other way, and is then off by b
-- more on average. That makes b^2 / u, which is 2.9e-8 at V = 2^18.
local FEW_VALUES = 3e-8
local function near_exact(cell)
  local name = cell.distribution.name
  return cell.dtype ~= "float32" and name == "flat" or
         cell.dtype == "float16" and name:find "^offset" ~= nil
end

describe("closer to the truth than log_softmax in fp32:", function()
  local cells, groups

  lazy_setup(function()
    local ctx = assert(samebits.open "cpu")
    local function score(batch) return assert(ctx:logprob(batch)) end
    cells, groups = tolerance.cells(nil, 2 * tolerance.TIMES), comparison.groups(comparison.PATHS)
    for _, cell in ipairs(cells) do
      comparison.cell(cell, score, function(path, got, exact)
        groups.add(cell.name, path, got, exact)
        groups.add(cell.dtype .. ", " .. cell.distribution.name, path, got, exact)
        if not one_value(cell) then
          groups.add(("%s, V = %d"):format(cell.dtype, cell.vocab), path, got, exact)
        end
      end)
    end
  end)

  -- Calls check(what, ours, theirs, path) for each path, in each group that key(cell) names.
  local function compare(key, paths, check)
    local seen, wrong, number = {}, {}, 0
    for _, cell in ipairs(cells) do
      local what = key(cell)
      if what and not seen[what] then
        seen[what], number = true, number + 1
        local of = groups.at(what)
        for _, path in ipairs(paths) do
          local ours, theirs = check(of[OURS], of[path])
          if ours then
            wrong[#wrong + 1] = ("%s: ours %.4g, %s %.4g"):format(what, ours, path, theirs)
          end
        end
      end
    end
    assert.same({}, wrong)
    return number
  end

  local function mean_smaller(a, b)
    local ours, theirs = a.beyond:mean(), b.beyond:mean()
    if ours >= theirs then return ours, theirs end
  end

  local function max_not_larger(a, b)
    local ours, theirs = a.beyond:max(), b.beyond:max()
    if ours > theirs then return ours, theirs end
  end

  it("the mean, for every dtype and distribution", function()
    local function key(cell)
      if not one_value(cell) and not near_exact(cell) then
        return cell.dtype .. ", " .. cell.distribution.name
      end
    end
    assert.equal(27, compare(key, fp32_softmax.NAMES, mean_smaller))
  end)

  it("the mean and the largest, for every dtype and vocabulary", function()
    local function key(cell) return ("%s, V = %d"):format(cell.dtype, cell.vocab) end
    assert.equal(24, compare(key, fp32_softmax.NAMES, mean_smaller))
    assert.equal(24, compare(key, fp32_softmax.NAMES, max_not_larger))
  end)

  it("the mean and the largest of every cell, beside a sequential sum", function()
    -- In dominated rows one term makes up nearly the whole sum.
    local function key(cell)
      return not one_value(cell) and cell.distribution.name ~= "dominated" and cell.name or nil
    end
    assert.equal(178, compare(key, { "sequential" }, mean_smaller))
    assert.equal(178, compare(key, { "sequential" }, max_not_larger))
  end)

  it("where the others are near exact, we are within the slope's share", function()
    local seen = {}
    for _, cell in ipairs(cells) do
      local key = cell.dtype .. ", " .. cell.distribution.name
      if near_exact(cell) and not seen[key] then
        seen[key] = true
        local mean = groups.at(key)[OURS].beyond:mean()
        assert(mean < FEW_VALUES, ("%s: %.3g beyond rounding"):format(key, mean))
      end
    end
  end)

  it("near-certain tokens, by far, in ULPs", function()
    for _, dtype in ipairs(tolerance.DTYPES) do
      local of = groups.at(dtype .. ", dominated")
      for _, path in ipairs(fp32_softmax.NAMES) do
        assert.is_true(100 * of[OURS].all:percentile(0.5, "ulps") <
                       of[path].all:percentile(0.5, "ulps"), dtype .. ": " .. path)
      end
    end
  end)
end)
