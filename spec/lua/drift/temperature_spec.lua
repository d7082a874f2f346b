-- samebits.drift.temperature: the temperatures that give a logprob, and the one that most tokens
-- support.

local temperature = require "samebits.drift.temperature"

-- Rows of logits whose first one is the target's.
local ROWS = { { 2, 3, -1, 0.5 }, { 1, 0, 4, 2 }, { 0.3, 0.9, -2, 1 }, { 5, 1, 2, 4.5 },
               { 9, 0, 1, 2 }, { 8, 0, 1, -2 } }

local function lp(row, tau)
  local sum = 0
  for _, x in ipairs(ROWS[row]) do sum = sum + math.exp((x - ROWS[row][1]) / tau) end
  return -math.log(sum)
end

local function own() return 1 end

-- The temperatures that tokens at a given temperature support.
local function fit(tau, given)
  local probes = {}
  for row in ipairs(ROWS) do probes[row] = { row = row, value = lp(row, tau) } end
  return temperature.fit(probes, lp, given or own, 1e-7)
end

describe("a temperature", function()
  it("is found from the tokens' values, as the shortest decimal", function()
    for _, tau in ipairs { 0.7, 1.25, 3 } do assert.equal(tau, fit(tau)[1]) end
  end)

  it("that the rows have already is no news", function()
    for _, tau in ipairs(fit(0.7, function() return 0.7 end)) do assert.not_equal(0.7, tau) end
  end)

  it("is not supposed where one token alone speaks for it, or only zeros do", function()
    assert.same({}, temperature.fit({ { row = 1, value = lp(1, 0.7) } }, lp, own, 1e-7))
    local zeros = {}
    for row in ipairs(ROWS) do zeros[row] = { row = row, value = 0 } end
    assert.same({}, temperature.fit(zeros, lp, own, 1e-7))
  end)
end)

describe("the intervals of a value", function()
  -- Largest at t = 0, where it is 0.
  local function f(t) return -t * t end

  it("lie on either side of the largest", function()
    local found = temperature.intervals(f, -1, 0.01)
    assert.equal(2, #found)
    assert.near(math.exp(-math.sqrt(1.01)), found[1].low, 1e-6)
    assert.near(math.exp(-math.sqrt(0.99)), found[1].high, 1e-6)
    assert.near(math.exp(math.sqrt(0.99)), found[2].low, 1e-6)
    assert.near(math.exp(math.sqrt(1.01)), found[2].high, 1e-6)
  end)

  it("are none above the largest", function()
    assert.same({}, temperature.intervals(f, 0.5, 0.01))
  end)
end)
