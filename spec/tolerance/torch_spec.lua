-- Checks that our results are closer to the truth than those of PyTorch's own fp32 path on the CPU.
-- Needs a Python with PyTorch (PYTHON names the interpreter).

local samebits = require "samebits"
local comparison = require "spec.support.comparison"
local tolerance = require "spec.support.tolerance"
local torch = require "spec.support.torch"

local OURS = comparison.OURS
local VOCABULARIES = { 300, 50257, 151936 }

describe("beside PyTorch:", function()
  local version, why = torch.version()
  if not version then return pending(why) end

  local groups

  lazy_setup(function()
    local ctx = assert(samebits.open "cpu")
    local run = assert(torch.start())
    local cells, truths = {}, {}
    local function score(batch) return assert(ctx:logprob(batch)) end
    local function take(list)
      for _, cell in ipairs(list) do
        local t = tolerance.logits(cell)
        local truth = tolerance.truth(cell, t)
        cells[#cells + 1], truths[cell.name] = cell, truth
        tolerance.score(cell, t, truth, tolerance.ALL, score, function(got, _, row, k)
          row.ours = row.ours or {}
          row.ours[k] = got
        end)
        run:add(cell, t, truth)
      end
    end
    for _, V in ipairs(VOCABULARIES) do take(tolerance.cells(V, 2 * tolerance.TIMES)) end
    take(tolerance.real_cells())

    groups = comparison.groups { OURS, unpack(torch.PATHS) }
    local results = run:finish()
    for _, cell in ipairs(cells) do
      for r, row in ipairs(truths[cell.name]) do
        for k, exact in ipairs(row.exact) do
          groups.add(cell.dtype, OURS, row.ours[k], exact)
          for _, path in ipairs(torch.PATHS) do
            groups.add(cell.dtype, path, results[cell.name][path][r][k], exact)
          end
        end
      end
    end
  end)

  for _, dtype in ipairs(tolerance.DTYPES) do
    it(("%s, %s: the mean beyond rounding is less than half"):format(version, dtype), function()
      local of = groups.at(dtype)
      for _, path in ipairs(torch.PATHS) do
        local ours, theirs = of[OURS].beyond:mean(), of[path].beyond:mean()
        assert(2 * ours < theirs, ("%s: ours %.4g, theirs %.4g"):format(path, ours, theirs))
      end
    end)

    it(("%s, %s: the largest beyond rounding is not larger"):format(version, dtype), function()
      local of = groups.at(dtype)
      for _, path in ipairs(torch.PATHS) do
        local ours, theirs = of[OURS].beyond:max(), of[path].beyond:max()
        assert(ours <= theirs, ("%s: ours %.4g, theirs %.4g"):format(path, ours, theirs))
      end
    end)

    -- Otherwise the comparison would be meaningless. The lse of logits near 10000 has a spacing of
    -- 9.8e-4.
    it(("%s, %s: PyTorch computes the same quantity"):format(version, dtype), function()
      local of = groups.at(dtype)
      for _, path in ipairs(torch.PATHS) do
        assert.equal(of[OURS].all:count(), of[path].all:count())
        assert(of[path].all:max() < 9.8e-4, ("%s: %.4g"):format(path, of[path].all:max()))
      end
    end)
  end
end)
