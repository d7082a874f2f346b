-- samebits.drift: causes that show in the values alone: another sign or logarithm, probabilities,
-- tokens in another order, nothing written; and cases that must not be taken for them.

local ffi = require "ffi"
local samebits = require "samebits"
local drift_files = require "spec.support.drift_files"
local plant = require "spec.support.plant"

local drift, causes, text_of = drift_files.drift, drift_files.causes, drift_files.text_of
local B, T, V = 4, 9, 120
local logits, ids = plant.logits({ B, T, V }, 51), plant.ids({ B, T }, V, 52)
local given = { logits = logits, ids = ids }
local truth = plant.logprobs(given)

-- All tokens that differ are given to one cause.
local function blames(report, cause, tokens, text)
  assert.equal(tokens, report.tokens.different)
  assert.same({ [cause] = tokens }, causes(report))
  assert.is_truthy(report.causes[1].text:find(text, 1, true), report.causes[1].text)
  assert.is_truthy(report:text { width = 200 }:find(text, 1, true))
  return report.causes[1]
end

-- x of each element, rounded once.
local function of(f) return plant.each(truth, function(_, x) return f(x) end) end

describe("drift, values:", function()
  it("the sign: a loss", function()
    local loss = of(function(x) return -x end)
    assert.equal(B * T, blames(drift(truth, loss), "negated", B * T,
                               "B is A with the sign changed").tokens_exactly)
    blames(drift(loss, truth), "negated", B * T, "A is B with the sign changed")
    -- From logits, and by another op.
    blames(drift(given, loss), "negated", B * T, "B is A with")
    local other = plant.each(loss, function(i, x) return x * (1 + (i % 3 - 1) * 2 ^ -22) end)
    blames(drift(truth, other), "negated", B * T, "B is A with")
  end)

  it("another logarithm", function()
    for base, name in pairs { [2] = "log2", [10] = "log10" } do
      local values = of(function(x) return x / math.log(base) end)
      assert.equal(B * T, blames(drift(truth, values), name, B * T,
                   ("B is A in logarithms to base %d"):format(base)).tokens_exactly)
      blames(drift(values, truth), name, B * T, "A is B in logarithms")
      blames(drift(given, values), name, B * T, "B is A in logarithms")
    end
  end)

  it("probabilities", function()
    local values = of(math.exp)
    assert.equal(B * T, blames(drift(truth, values), "probability", B * T,
                               "B is e to the A: probabilities").tokens_exactly)
    blames(drift(values, given), "probability", B * T, "A is e to the B")
    -- By another op: in relative terms, since most are near 0.
    local other = plant.each(values, function(i, x) return x * (1 + (i % 3 - 1) * 2 ^ -21) end)
    blames(drift(truth, other), "probability", B * T, "B is e to the A")
  end)

  it("reversed sequences", function()
    local back = truth:clone()
    for b = 0, B - 1 do for t = 0, T - 1 do back:set(truth:get(b, T - 1 - t), b, t) end end
    local middle = 1 -- T is odd
    local cause = blames(drift(truth, back), "reversed", B * (T - middle),
                         "B's sequences are A's from the last token to the first")
    assert.equal(B * (T - middle), cause.tokens_exactly)
    blames(drift(given, back), "reversed", B * (T - middle), "from the last token to the first")
    blames(drift(back, given), "reversed", B * (T - middle), "from the last token to the first")
    -- Packed ones of several lengths.
    local flat, cu = truth:view(B * T), { 0, 5, 5, 16, 36 }
    local packed = flat:clone()
    for k = 2, #cu do
      for i = cu[k - 1], cu[k] - 1 do packed:set(flat:get(cu[k - 1] + cu[k] - 1 - i), i) end
    end
    local report = drift(flat, packed, { cu_seqlens = cu })
    assert.same({ reversed = report.tokens.different }, causes(report))
  end)

  it("reversed responses in front of padding", function()
    local mask, back = samebits.zeros({ B, T }, "uint8"), truth:clone()
    local count = 0
    for b = 0, B - 1 do
      local length = 5 + b % 3
      for t = 0, length - 1 do
        mask:set(1, b, t)
        back:set(truth:get(b, length - 1 - t), b, t)
        if 2 * t ~= length - 1 then count = count + 1 end
      end
    end
    blames(drift(truth, back, { mask = mask }), "reversed", count, "from the last token to the")
    blames(drift({ logits = logits, ids = ids, mask = mask }, back), "reversed", count,
           "from the last token to the")
  end)

  it("moves do not depend on how rows are cut into chunks", function()
    local big, list = plant.logits({ 2, 20, 3000 }, 5), plant.ids({ 2, 20 }, 3000, 6)
    local side = { logits = big, ids = list }
    local values = plant.logprobs(side)
    local back, late = values:clone(), values:clone()
    for b = 0, 1 do
      for t = 0, 19 do
        back:set(values:get(b, 19 - t), b, t)
        if t > 0 then late:set(values:get(b, t - 1), b, t) end
      end
    end
    for cause, other in pairs { reversed = back, position = late } do
      local whole = drift(side, other)
      assert.same({ [cause] = whole.tokens.different }, causes(whole))
      assert.equal(text_of(whole), text_of(drift(side, other, { memory = 2 ^ 20 })))
      -- The other way round, what is late lacks each sequence's last token.
      local lost = cause == "position" and 2 or nil
      local swapped = drift(other, side, { memory = 2 ^ 20 })
      assert.same({ [cause] = whole.tokens.different - (lost or 0), unexplained = lost },
                  causes(swapped))
    end
  end)

  it("nothing but zeros", function()
    local zeros = samebits.zeros { B, T }
    for _, pair in ipairs { { truth, zeros }, { given, zeros } } do
      local cause = blames(drift(pair[1], pair[2]), "zeros", B * T, "Every logprob of B is 0")
      assert.equal(B * T, cause.tokens_exactly)
    end
    blames(drift(zeros, truth), "zeros", B * T, "Every logprob of A is 0")
  end)

  it("each to its own sequence", function()
    local mixed = truth:clone()
    for t = 0, T - 1 do
      mixed:set(-truth:get(0, t), 0, t)
      mixed:set(math.exp(truth:get(1, t)), 1, t)
    end
    assert.same({ negated = T, probability = T }, causes(drift(truth, mixed)))
  end)
end)

describe("drift, values that only look like it:", function()
  local function unexplained(report)
    assert.same({ unexplained = report.tokens.different }, causes(report))
    assert.is_true(report.tokens.different > 0)
  end

  it("another factor, an offset, a single token", function()
    unexplained(drift(truth, of(function(x) return -x + 0.001 end)))
    unexplained(drift(truth, of(function(x) return x * 1.4427 end)))
    unexplained(drift(truth, of(function(x) return x / math.log(10) - 0.0001 end)))
    unexplained(drift(truth, of(function(x) return math.exp(x) * 1.0001 end)))
    for _, f in ipairs { function(x) return -x end, math.exp,
                         function(x) return x / math.log(2) end } do
      unexplained(drift(truth, plant.each(truth, function(i, x) return i == 3 and f(x) or x end)))
    end
  end)

  it("small values are not probabilities of unlikely tokens", function()
    local unlikely = plant.each(truth, function(i) return -20 - i end)
    local tiny = plant.each(truth, function(i) return 1e-9 * (i + 1) end)
    unexplained(drift(unlikely, tiny))
    local some = plant.each(unlikely, function(i, x) return i % 2 == 0 and 0 or x end)
    unexplained(drift(unlikely, some))
  end)

  it("-0 for +0 is no change of sign", function()
    local plus = samebits.zeros { B, T }
    local minus = samebits.zeros { B, T }
    for i = 0, B * T - 1, 2 do ffi.cast("float *", minus.ptr)[i] = -0.0 end
    unexplained(drift(plus, minus))
  end)

  it("zeros among other values", function()
    unexplained(drift(truth, plant.each(truth, function(i, x) return i < 30 and 0 or x end)))
    local one = samebits.zeros { 1 }
    unexplained(drift(samebits.tensor { -1 }, one))
  end)

  it("coarse values in any order are not moved ones", function()
    local coarse = plant.each(samebits.zeros { 1, 400 }, function(i)
      return -(i * 7919 % 61 + 1) / 16
    end)
    local shuffled = plant.each(coarse, function(i) return -(i * 104729 % 59 + 1) / 16 end)
    local got = causes(drift(coarse, shuffled))
    assert.is_nil(got.position)
    assert.is_nil(got.reversed)
  end)

  it("sequences in which only some tokens are the mirrored ones", function()
    local back = plant.each(truth, function(i, x) return x - (i % 7 + 1) * 0.01 end)
    for b = 0, 1 do back:set(truth:get(b, T - 1), b, 0) end
    local got = causes(drift(truth, back))
    assert.is_nil(got.reversed)
  end)
end)
