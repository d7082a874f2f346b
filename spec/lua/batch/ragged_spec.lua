-- Sequences of different lengths to one batch: padding and packing down to the bits, the masks, and
-- the tables that batches are made from. What users see of it in whole: spec/lua/batch_spec.lua.

local guard = require "samebits.misuse".guard
local ragged = require "samebits.batch.ragged"
local refusal = require "spec.support.refusal"
local samebits = require "samebits"

local misuse = refusal.misuse
local spec = guard(ragged.spec)

local function logits(...) return samebits.tensor { ... } end

describe("sequences", function()
  it("are padded on either side, and their bits stay", function()
    local list = { samebits.tensor({ 1, -0.0, 0 / 0 }, { dtype = "bfloat16" }),
                   samebits.zeros({ 0 }, "bfloat16"),
                   samebits.tensor({ 2 }, { dtype = "bfloat16" }) }
    local right, lengths = ragged.pad(list, { value = -1 })
    assert.same({ 3, 0, 1 }, lengths)
    assert.same({ { "3f80", "8000", "7fc0" }, { "bf80", "bf80", "bf80" },
                  { "4000", "bf80", "bf80" } }, right:bits())
    assert.same({ { "0000", "3f80", "8000", "7fc0" }, { "0000", "0000", "0000", "0000" },
                  { "0000", "0000", "0000", "4000" } },
                ragged.pad(list, { side = "left", length = 4 }):bits())
    assert.same({ { 7, 8 }, { 9, -100 } }, ragged.pad({ { 7, 8 }, { 9 } }):totable())
    assert.equal("pad: length 1, but a sequence has 2 positions",
                 misuse(ragged.pad, { { 7, 8 } }, { length = 1 }))
  end)

  it("are packed end to end, with the offsets of their ends", function()
    local packed, offsets = ragged.pack { logits({ 1, 2 }, { 3, 4 }), samebits.zeros { 0, 2 },
                                          logits { 5, 6 } }
    assert.same({ { 1, 2 }, { 3, 4 }, { 5, 6 } }, packed:totable())
    assert.same({ "int64", { 0, 2, 2, 3 } }, { offsets.dtype, offsets:totable() })
    assert.equal("sequences[1]: shape [1, 3] does not go with [1, 2]: " ..
                 "all but the length must agree",
                 misuse(ragged.pack, { logits { 1, 2 }, logits { 1, 2, 3 } }))
  end)

  it("have masks of their positions, and of those past the prompt", function()
    assert.same({ { 1, 0, 0 }, { 1, 1, 0 } }, ragged.mask_from_lengths({ 1, 2 }, 3):totable())
    assert.same({ { 0, 0, 1 }, { 0, 1, 0 } },
                ragged.mask_from_splits({ 2, 1 }, { 3, 2 }):totable())
    assert.same({ { 0, 0, 1 }, { 0, 0, 1 } },
                ragged.mask_from_splits({ 2, 1 }, { 3, 2 }, nil, "left"):totable())
    assert.equal("mask_from_splits: prompt_lengths[1] is 3, but total_lengths[1] is 2",
                 misuse(ragged.mask_from_splits, { 1, 3 }, { 2, 2 }))
  end)

  it("become a padded table, where a shift masks each sequence's own first token", function()
    local made = spec { layout = "left", shift = true, temperature = 2, sequences = {
      { logits = logits({ 1, 2 }, { 3, 4 }, { 5, 6 }), ids = { 0, 1, 1 } },
      { logits = logits({ 7, 8 }, { 9, 10 }), ids = { 1, 0 }, mask = { 1, 0 }, prompt = 0 } } }
    assert.same({ { 0, 1, 1 }, { 0, 0, 0 } }, made.mask:totable())
    assert.same({ { 0, 1, 1 }, { -100, 1, 0 } }, made.ids:totable())
    assert.same({ { 0, 0 }, { 7, 8 }, { 9, 10 } }, made.logits:totable()[2])
    assert.same({ 2, true }, { made.temperature, made.shift })
    assert.is_nil(made.cu_seqlens)
  end)

  it("become a packed table, without the prompts", function()
    local made = spec { layout = "packed", sequences = {
      { logits = logits({ 1, 2 }, { 3, 4 }), ids = { 0, 1 }, prompt = 1 },
      { logits = logits { 7, 8 }, ids = { 1 } } } }
    assert.same({ 0, 1, 1 }, made.mask:totable())
    assert.same({ 0, 1, 1 }, made.ids:totable())
    assert.same({ 0, 2, 3 }, made.cu_seqlens:totable())
    assert.equal('layout is up, expected "right", "left" or "packed"',
                 misuse(spec, { layout = "up", sequences = {} }))
  end)
end)
