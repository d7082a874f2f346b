-- samebits.drift.sides: two sides made from all accepted inputs, with rows in one dimension, and
-- the places where their sequences begin and end.

local samebits = require "samebits"
local hex = require "spec.support.hex"
local says = require("spec.support.refusal").says
local sides = require "samebits.drift.sides"

local B, T, V = 2, 3, 5
local logits = hex.tensor(hex.values(B * T * V, 3), { B, T, V })
local ids = { { 0, 1, 2 }, { 3, 4, 0 } }
local values = { { -1, -2, -3 }, { -4, -5, -6 } }

-- The message that two sides are refused with.
local function refused(...)
  local ok, why = pcall(sides.read, ...)
  assert.is_false(ok)
  return tostring(why)
end

describe("drift's sides", function()
  it("are rows in one dimension, whatever they are given as", function()
    local a, b, layout = sides.read(values, samebits.tensor(values, { dtype = "float16" }), {})
    assert.same({ "A", "B" }, { a.label, b.label })
    assert.same({ "float32", "float16" }, { a.dtype, b.dtype })
    for _, side in ipairs { a, b } do
      assert.same({ B * T }, side.logprobs.shape)
      assert.equal(-4, side.logprobs:get(3))
      assert.same({ B, T }, side.shape)
      assert.equal(1, side.temperature)
    end
    assert.same({ 6, 2, 3 }, { layout.rows, layout.sequences, layout.longest })
    assert.same({ 3, 6 }, { layout.bounds(1) })
    assert.same({ 1, 2 }, { layout.place(5) })
  end)

  it("are told apart as logits and logprobs by their dimensions", function()
    local a, b, layout = sides.read(logits, values, { ids = ids, a = { temperature = 0.5 } })
    assert.same({ B * T, V }, a.logits.shape)
    assert.same({ V, 0.5 }, { a.vocab, a.temperature })
    assert.is_nil(a.logprobs)
    assert.is_nil(b.logits)
    assert.equal(1, b.temperature)
    assert.equal(4, tonumber(a.ids:get(4)))
    assert.is_false(layout.twice.temperature)
  end)

  it("share the ids that one of them lacks; those of both are noted", function()
    local a, b, layout = sides.read({ logits = logits, ids = ids }, { logprobs = values }, {})
    assert.equal(3, tonumber(b.ids:get(3)))
    assert.same({ "ids" }, a.with)
    assert.same({}, b.with)
    assert.is_false(layout.twice.ids)
    layout = select(3, sides.read({ logits = logits, ids = ids },
                                  { logprobs = values, ids = { { 0, 1, 2 }, { 3, 4, 0 } } }, {}))
    assert.is_true(layout.twice.ids)
  end)

  it("have sequences of any length where offsets say so", function()
    local _, _, layout = sides.read({ -1, -2, -3, -4, -5 }, { -1, -2, -3, -4, -5 },
                                    { cu_seqlens = { 0, 2, 2, 5 } })
    assert.same({ 3, 3 }, { layout.sequences, layout.longest })
    assert.same({ 2, 2 }, { layout.bounds(1) })
    assert.same({ 0, 1 }, { layout.place(1) })
    assert.same({ 2, 0 }, { layout.place(2) }) -- not in the empty one
    assert.same({ 2, 2 }, { layout.place(4) })
  end)

  it("take a temperature per sequence for each of its tokens", function()
    local a = sides.read({ logits = logits, ids = ids, temperature = { 0.5, 2 } }, values, {})
    assert.same({ "3f000000", "3f000000", "3f000000", "40000000", "40000000", "40000000" },
                hex.of(a.temperature))
  end)

  it("are refused where they do not fit together", function()
    says(refused(values, { -1, -2 }, {}), "[2, 3]", "[2]")
    says(refused(nil, values, {}), "A: expected logprobs or logits", "got nothing")
    local batch = samebits.batch { logits = samebits.zeros { 2, 3 }, ids = { 1, 2 } }
    says(refused(batch, values, {}), "A: expected logprobs or logits", "got batch")
    says(refused(values, { logprobs = values, colour = 1 }, {}), "B: unknown field 'colour'")
    says(refused(logits, values, {}), "A: logits are given, but no ids")
    says(refused(values, values, { a = { temperature = 2000 } }),
         "A: temperature 2000 is outside [2^-10, 2^10]")
    says(refused({ -1, -2 }, { -1, -2 }, { cu_seqlens = { 0, 1 } }),
         "cu_seqlens end at 1, there are 2 tokens")
    says(refused({ logits = logits, ids = ids, vocab = 6 }, values, {}),
         "A: vocab is 6, expected an integer from 1 to the logits' 5")
  end)
end)
