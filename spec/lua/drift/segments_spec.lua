-- samebits.drift.segments: rounds of several turns, which masked tokens end.

local samebits = require "samebits"
local segments = require "samebits.drift.segments"

describe("rounds", function()
  it("are runs of tokens that count, in each sequence from 0 on", function()
    local a = { { -1, -1, -1, -1, -1, -1 }, { -1, -1, -1, -1, -1, -1 } }
    local b = { { -1, -9, -2, -1, -1, -1 }, { -1, -1, -1, -1, -1, -3 } }
    local mask = { { 1, 0, 1, 1, 0, 0 }, { 0, 1, 0, 0, 0, 1 } }
    local report = samebits.drift(a, b, { mask = mask })
    assert.same({
      { round = 0, sequences = 2, compared = 2, different = 0, finite = 2, mean = 0, mean_abs = 0,
        max = 0, outside = 0 },
      { round = 1, sequences = 2, compared = 3, different = 2, finite = 3, mean = -1, mean_abs = 1,
        max = 2, outside = 2 },
    }, report.segments)
    assert.is_truthy(report:text():find("\nrounds\n  0   0 of 2 tokens differ in 2 sequences", 1,
                                        true))
    assert.is_truthy(report:html():find("<h2>By round</h2>", 1, true))
  end)

  it("are not told where no sequence has two", function()
    assert.same({}, samebits.drift({ -1, -2 }, { -1, -3 }).segments)
    local s = segments.new()
    s:begin()
    s:add(true, 0.5, true)
    assert.same({}, s:report())
  end)

  it("beyond the last are counted with it; what is not finite has no distance", function()
    local s = segments.new()
    s:begin()
    for _ = 1, segments.MOST + 5 do
      s:add(true)
      s:gap()
    end
    local got = s:report()
    assert.equal(segments.MOST, #got)
    assert.same({ 6, 1, 0, 0 }, { got[#got].compared, got[#got].sequences, got[#got].finite,
                                  got[#got].mean })
  end)
end)
