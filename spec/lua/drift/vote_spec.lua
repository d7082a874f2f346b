-- samebits.drift.vote: the interval that most tokens agree on, and the roundest number in it.

local vote = require "samebits.drift.vote"

describe("a vote", function()
  it("is won where most intervals meet, which are cut with each other", function()
    local best = vote.winner {
      { { low = 1, high = 3 } },
      { { low = 8, high = 9 }, { low = 2, high = 4 } },
      { { low = 0.5, high = 2.5 } },
      { { low = 8.5, high = 10 } },
    }
    assert.same({ low = 2, high = 2.5, voters = { 1, 2, 3 } }, best)
  end)

  it("counts a voter once, however many of its intervals hold the point", function()
    local best = vote.winner {
      { { low = 0, high = 2 }, { low = 1, high = 2 } },
      { { low = 5, high = 6 } }, { { low = 6, high = 7 } },
    }
    assert.same({ low = 6, high = 6, voters = { 2, 3 } }, best)
  end)

  it("has no winner without intervals", function()
    assert.is_nil(vote.winner {})
    assert.is_nil(vote.winner { {}, {} })
  end)
end)

describe("a number in an interval", function()
  it("has as few decimals as the interval allows", function()
    assert.equal(1, vote.shortest(0.9, 1.2))
    assert.equal(0.7, vote.shortest(0.6999, 0.70004))
    assert.equal(0.125, vote.shortest(0.1249, 0.1251))
    assert.equal(0.1, vote.shortest(0, 0.11))
  end)

  it("is the middle as fp32 where nine decimals do not do", function()
    local middle = 0.1 + 2 ^ -40
    local x = vote.shortest(middle - 1e-13, middle + 1e-13)
    assert.equal(vote.single(middle), x)
    assert.not_equal(middle, x)
  end)

  it("is the multiple of the largest power of ten, where it shall be whole", function()
    assert.equal(50, vote.roundest(48, 51))
    assert.equal(100, vote.roundest(60, 140))
    assert.equal(52, vote.roundest(51.5, 52.5))
    assert.equal(1, vote.roundest(0.5, 1.2))
    assert.is_nil(vote.roundest(51.2, 51.7))
  end)
end)
