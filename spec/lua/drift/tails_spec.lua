-- samebits.drift.tails: both tails of the log ratio, and what a clip would take.

local tails = require "samebits.drift.tails"

local function of(list)
  local t = tails.new()
  for _, d in ipairs(list) do t:add(d, math.exp(d)) end
  return t
end

-- { edge = count } of the buckets with tokens, by their lower edges.
local function filled(buckets)
  local out = {}
  for _, bucket in ipairs(buckets) do
    if bucket.count > 0 then out[bucket.low] = bucket.count end
  end
  return out
end

describe("tails", function()
  it("count each side by half decades, and what is equal apart", function()
    local got = of({ 0, 0, 0.5, -0.5, -0.02, 1e-12, 1e3, -1e-9 }):histogram()
    assert.equal(2, got.same)
    assert.same({ [0] = 1, [tails.EDGES[18]] = 1, [100] = 1 }, filled(got.above))
    assert.same({ [1e-9] = 1, [0.01] = 1, [tails.EDGES[18]] = 1 }, filled(got.below))
    assert.equal(math.huge, got.above[#got.above].high)
    assert.near(10 ^ -0.5, tails.EDGES[18], 1e-12)
  end)

  it("say what a clip would take, on each side", function()
    local clips = of({ 0, 0.15, -0.15, -0.3, 2e-5, 5e-6 }).clips
    assert.same({ { eps = 0.1, below = 2, above = 1 }, { eps = 0.2, below = 1, above = 0 },
                  { eps = 1e-5, below = 2, above = 2 } }, clips)
  end)
end)
