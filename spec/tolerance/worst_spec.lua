-- Checks the stated bounds on rows that were found by searching for the largest errors, on every
-- backend and instruction set. Also checks that the documents state the bounds of
-- spec/support/bounds.lua.

local backends = require "spec.support.backends"
local bounds = require "spec.support.bounds"
local worst = require "spec.support.worst"

backends.each(function(at)
  describe("the worst rows found, on " .. at.name .. ":", function()
    for k, case in ipairs(worst.CASES) do
      it(("%d: %s"):format(k, case.what), function()
        local m = worst.measure(case, at)
        local what = ("%.9g, exactly %.17g: off by %.4g, the bound is %.4g"):format(
          m.got, m.exact, m.error, m.bound)
        assert(m.error <= m.bound, what)
        assert(m.error >= case.part * m.bound, what .. ", many times too wide")
        if m.narrow then
          assert(m.error > m.narrow, ("%s; so would %.4g be a bound"):format(what, m.narrow))
        end
      end)
    end
  end)
end)

-- A number as the documents write it: 4.1e-7, 1.442e6.
local function written(v)
  return (("%.4g"):format(v):gsub("e([+-])0", "e%1"):gsub("e%+", "e"))
end

-- The bounds that hold for every row of up to VOCABULARY ids: on an entropy, and on elements of
-- gradients, by the inequalities that docs/numerics.md gives for p |X|, p H and p |ln p|.
local function for_every_row()
  local variance = bounds.variance(bounds.VOCABULARY)
  local sd, token = math.sqrt(variance), 0
  for k = 0, 1000 do
    local p = k / 1000
    token = math.max(token, bounds.TOKEN_GRADIENT * p + bounds.SLOPE * sd * math.sqrt(p * (1 - p)))
  end
  return {
    entropy = bounds.ENTROPY + bounds.ENTROPY_SPREAD * sd + bounds.SLOPE * variance,
    token_gradient = token,
    entropy_gradient = bounds.ENTROPY_GRADIENT + bounds.ENTROPY_SPREAD * sd +
                       bounds.ENTROPY_GRADIENT_SHARE * sd / 2 +
                       bounds.SLOPE * (4.2 + 2 / math.exp(1) + variance + sd / 2),
  }
end

describe("the documents state the bounds:", function()
  local ENTROPY = { bounds.ENTROPY, bounds.ENTROPY_SPREAD }
  local KL = { bounds.KL, bounds.KL_SHARE }
  local SATURATION = { bounds.LINEAR, bounds.SATURATED }
  for path, lists in pairs {
    ["docs/numerics.md"] = { { bounds.LOGPROB, bounds.LSE, bounds.TERM, bounds.TARGET_GRADIENT,
                               bounds.TOKEN_GRADIENT, bounds.ENTROPY_GRADIENT, bounds.REST,
                               bounds.ENTROPY_GRADIENT_SHARE, bounds.GRADIENT_SUM }, ENTROPY, KL,
                             SATURATION },
    ["docs/accuracy.md"] = { { bounds.LOGPROB, bounds.LSE, bounds.TERM }, ENTROPY, KL },
    ["src/samebits.h"] = { { bounds.LOGPROB, bounds.LSE }, ENTROPY, KL, SATURATION },
    ["README.md"] = { { bounds.LOGPROB } },
    ["spec/vectors/README.md"] = { { bounds.LOGPROB, bounds.LSE }, ENTROPY, KL },
    ["tools/gen_vectors.py"] = { { bounds.LOGPROB, bounds.LSE }, ENTROPY, KL },
  } do
    it(path, function()
      local file = assert(io.open(path))
      local text = file:read "*a"
      file:close()
      for _, list in ipairs(lists) do
        for _, v in ipairs(list) do
          assert(text:find(written(v), 1, true), written(v) .. " is missing")
        end
      end
    end)
  end

  it("those for every row follow from the others", function()
    local limits = for_every_row()
    for name, stated in pairs { entropy = 7.7e-6, token_gradient = 5.7e-7,
                                entropy_gradient = 1.1e-5 } do
      assert(limits[name] <= stated and limits[name] > 0.95 * stated, limits[name])
      for _, path in ipairs { "docs/numerics.md", "src/samebits.h" } do
        local file = assert(io.open(path))
        assert(file:read "*a":find(written(stated), 1, true), path)
        file:close()
      end
    end
  end)
end)
