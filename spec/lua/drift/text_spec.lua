-- samebits.drift.text: a report for a terminal, its headline, its width and its colours.

local samebits = require "samebits"
local text = require "samebits.drift.text"
local with = require "spec.support.with"

local A, B = { { -1, -2, -0.5 }, { -3, -4, -5 } }, { { -1, -2.5, -0.5 }, { -3, -4, -5 } }

local function headline(change)
  local report = { equal = false, inputs = {},
                   tokens = { compared = 12345, different = 5, only_a = 0, only_b = 0 } }
  return text.headline(with(report, change))
end

describe("drift's text", function()
  it("has a headline that says how many tokens differ", function()
    assert.equal("drift: 5 of 12 345 tokens differ (0.0405 %)", headline {})
    assert.equal("drift: ids and masks differ; 5 of 12 345 tokens differ (0.0405 %)",
                 headline { inputs = { { field = "ids" }, { field = "mask" } } })
    assert.equal("drift: 1 of 4 tokens differ (25 %), 3 active on one side only",
                 headline { tokens = { compared = 4, different = 1, only_a = 1, only_b = 2 } })
    assert.equal("drift: none: all 4 tokens have the same bits",
                 headline { equal = true,
                            tokens = { compared = 4, different = 0, only_a = 0, only_b = 0 } })
    assert.equal("drift: no token is active",
                 headline { tokens = { compared = 0, different = 0, only_a = 0, only_b = 0 } })
  end)

  it("shows where and how far two sides differ", function()
    local got = text.format(samebits.drift(A, B), {})
    for _, line in ipairs {
      "drift: 1 of 6 tokens differ (16.7 %)", "  A  side A", "     logprobs float32 [2, 3]",
      "  1 of 1: unexplained", "first  sequence 0, position 1", "  A c0000000  -2",
      "  B c0200000  -2.5  2 097 152 ULPs apart", "  ULPs       at most 2 097 152",
      "    outside 1 +- 0.1    1 of 6 (16.7 %)",
      "    clipped at 0.2     1 of 6 (16.7 %): 1 below, 0 above",
      "inconclusive: Nothing that was tried explains the token that differs. Neither",
      "    0    1   -  -2  -2.5   -0.5  2.1e6  unexplained",
    } do
      assert.is_truthy(("\n" .. got):find("\n" .. line .. "\n", 1, true), line .. "\n" .. got)
    end
  end)

  it("ends behind the sides where nothing differs", function()
    assert.equal("drift: none: all 6 tokens have the same bits\n" ..
                 "equal: 6 tokens that count have the same bits on both sides.\n\n  A  side A\n" ..
                 "     logprobs float32 [2, 3]\n  B  side B\n     logprobs float32 [2, 3]\n",
                 (text.format(samebits.drift(A, A), {}):gsub("\nmade\n.*$", "")))
  end)

  it("keeps within a width, of 40 columns at least", function()
    local report = samebits.drift(A, B)
    for _, width in ipairs { 50, 40 } do
      for line in text.format(report, { width = width }):gmatch "[^\n]+" do
        -- The bands' lines are not wrapped, and the system's name may be one word.
        assert.is_true(#line <= width or line:find "outside" ~= nil or line:find "Linux" ~= nil,
                       line)
      end
    end
    assert.equal(text.format(report, { width = 40 }), text.format(report, { width = 1 }))
  end)

  it("has colours only where they are asked for", function()
    local report = samebits.drift(A, B)
    local colored = text.format(report, { color = true })
    assert.is_truthy(colored:find("\27[1m\27[31mdrift: 1 of 6", 1, true))
    assert.equal(text.format(report, {}), (colored:gsub("\27%[%d+m", "")))
    assert.is_truthy(text.format(samebits.drift(A, A), { color = true })
                     :find("\27[1m\27[32mdrift: none", 1, true))
  end)
end)
