-- samebits.drift.verdict: each verdict where its evidence is, and never a better one.

local samebits = require "samebits"
local plant = require "spec.support.plant"
local verdict = require "samebits.drift.verdict"

local B, T, V = 2, 12, 60
local logits, ids = plant.logits({ B, T, V }, 71), plant.ids({ B, T }, V, 72)
local given = { logits = logits, ids = ids }
local truth = plant.logprobs(given)
local cool = plant.logprobs { logits = logits, ids = ids, temperature = 0.7 }
local function odd(values)
  return plant.each(values, function(i, x) return x - 0.01 * (i + 1) end)
end

local function verdict_of(...)
  local report = samebits.drift(...)
  assert.is_truthy(report:text { width = 400 }:find(report.verdict_text, 1, true))
  local head = require("samebits.drift.html").head(report)
  assert.is_truthy(head:find(('<span class="verdict %s">'):format(report.verdict), 1, true))
  return report.verdict, report.verdict_text
end

local function is(word, words, ...)
  local got, text = verdict_of(...)
  assert.equal(word, got, text)
  assert.is_truthy(text:find(words, 1, true), text)
end

describe("the verdict is", function()
  it("equal: the same bits", function()
    is("equal", "24 tokens that count have the same bits on both sides.", truth, truth:clone())
    is("equal", "1 token that counts has the same bits", { -1 }, { -1 })
  end)

  it("explained: a setting that was computed again", function()
    is("explained", "All 24 tokens that differ, bit for bit: temperature.", given, cool)
  end)

  it("localized: the op, the logits or the ids", function()
    local other = { logits = plant.each(logits, function(i, x) return x + i % 3 / 50 end),
                    ids = ids }
    is("localized", "All 24 tokens that differ trace to ", given, other)
    is("localized", "trace to the op: that says where, not why.", { logits = logits, ids = ids,
       logprobs = odd(truth) }, given)
    local moved = plant.ids({ B, T }, V, 99)
    is("localized", "target id", { logprobs = odd(truth), ids = ids },
       { logprobs = truth, ids = moved })
    is("localized", "No logprob differs, but the ids do.", { logprobs = truth, ids = ids },
       { logprobs = truth, ids = moved })
  end)

  it("localized, not explained, where the sides do not count the same tokens", function()
    local mask = samebits.zeros({ B, T }, "uint8")
    for t = 0, 9 do mask:set(1, 0, t) end
    local all = plant.each(samebits.zeros { B, T }, function() return 1 end):to "uint8"
    is("localized", "but the sides do not count the same tokens",
       { logits = logits, ids = ids, mask = mask }, { logprobs = cool, mask = all })
  end)

  it("unexplained: tokens without a cause, though logits were given", function()
    is("unexplained", "Nothing that was tried explains the 24 tokens that differ. With B's logits",
       given, odd(truth))
    local half = plant.each(cool, function(i, x) return i < 4 and x - 0.3 or x end)
    is("unexplained", "20 of the 24 tokens that differ have a cause (temperature); 4 have none.",
       given, half)
  end)

  it("inconclusive: without logits, without tokens, without numbers", function()
    is("inconclusive", "Neither side's logits were given", truth, odd(truth))
    local nan = plant.each(truth, function() return 0 / 0 end)
    is("inconclusive", "equal NaNs are no evidence", nan, nan:clone())
    is("inconclusive", "nothing was compared", truth, truth:clone(),
       { mask = samebits.zeros({ B, T }, "uint8") })
  end)

  it("one of five words", function()
    assert.equal(5, #verdict.WORDS)
  end)
end)
