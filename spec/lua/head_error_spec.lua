-- The bound of a row's logits: the golden bits, what it says of real rows, and misuse.

local head_error = require "samebits.head_error"
local samebits = require "samebits"
local selftest = require "samebits.selftest"
local vectors = require "samebits.vectors"
local refusal = require "spec.support.refusal"

local INF = math.huge

describe("head_error.bounds", function()
  it("gives the golden bits", function()
    local count = 0
    for _, case in ipairs(assert(vectors.read(selftest.directory .. "/heads.txt"))) do
      if case.bound then
        count = count + 1
        local bounds = head_error.bounds(case.hidden.logits,
                                         case.weights.logits:view(case.vocab, case.depth),
                                         case.format)
        assert.same({ case.bound }, bounds:bits(), case.name)
      end
    end
    assert.is_true(count > 50)
  end)

  it("has the shape of hidden, and does not depend on dtypes or strides", function()
    local data = assert(samebits.load(selftest.directory .. "/smollm2_head.safetensors"))
    local some = data.head:slice(0, 0, 300)
    local bounds = head_error.bounds(data.hidden, some, "h24w16")
    assert.same({ 4, 12 }, bounds.shape)
    local wide = head_error.bounds(data.hidden:to "float32":transpose(0, 1),
                                   some:to "float32", "h24w16")
    assert.is_true(samebits.same_bits(bounds, wide:transpose(0, 1):contiguous()))
    -- One bad row of weights among the others does not count; a bad row of hidden has no bound.
    local spoilt, rows = some:clone(), data.hidden:slice(0, 0, 1):clone()
    spoilt:set(INF, 7, 3)
    rows:set(-INF, 0, 5, 575)
    local before = head_error.bounds(rows, some, "h24w24")
    assert.equal("7fc00000", before:bits()[1][6])
    local after = head_error.bounds(rows, spoilt, "h24w24")
    for t = 0, 11 do assert.is_true(t == 5 or after:get(0, t) <= before:get(0, t)) end
  end)

  it("tells rows for h24w16 from rows for h24w24", function()
    local data = assert(samebits.load(selftest.directory .. "/smollm2_head.safetensors"))
    local some = data.head:slice(0, 0, 1000)
    local typical = function(hidden, format)
      return head_error.bounds(hidden, some, format):get(0) / math.sqrt(576)
    end
    local row = data.hidden:slice(0, 0, 1):view(12, 576):slice(0, 0, 1):clone()
    assert.is_true(typical(row, "h24w16") < 1e-3)
    assert.is_true(typical(row, "h24w24") < 1e-6)
    row:set(20000, 0, 100)
    assert.is_true(typical(row, "h24w16") > 0.1)
    assert.is_true(typical(row, "h24w24") < 0.01)
  end)

  it("refuses what is no head", function()
    local h, w = samebits.zeros { 2, 8 }, samebits.zeros { 5, 8 }
    local function refused(...)
      local arguments = { ... }
      return refusal.misuse(function() local _ = head_error.bounds(unpack(arguments, 1, 3)) end)
    end
    assert.equal("head_error.bounds: format: expected 'h24w16' or 'h24w24', got h8",
                 refused(h, w, "h8"))
    assert.equal("head_error.bounds: hidden float32 [2, 8] and weights float32 [5, 7] have " ..
                 "different D", refused(h, samebits.zeros { 5, 7 }, "h24w16"))
    assert.equal("head_error.bounds: weights: expected a tensor [.., D] of floats, got float64 " ..
                 "[5, 8]", refused(h, samebits.zeros({ 5, 8 }, "float64"), "h24w16"))
    assert.equal("head_error.bounds: hidden: expected a tensor [.., D] of floats, got number",
                 refused(1, w, "h24w16"))
    assert.equal("head_error.bounds: hidden: D is 0, not in 1 .. 32768",
                 refused(samebits.zeros { 2, 0 }, w, "h24w16"))
  end)
end)
