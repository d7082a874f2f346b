-- The rows of a batch that are verified: all of a small one, runs of some sequences of a large one.

local samebits = require "samebits"
local sample = require "samebits.verify.sample"

-- n sequences of T tokens: the logits of row r are r and r + 1; with `change` made to the batch.
local function batch(n, T, change)
  local logits, ids = {}, {}
  for b = 1, n do
    logits[b], ids[b] = {}, {}
    for t = 1, T do
      local row = (b - 1) * T + t - 1
      logits[b][t], ids[b][t] = { row, row + 1 }, row % 2
    end
  end
  local spec = { logits = samebits.tensor(logits), ids = ids }
  for name, value in pairs(change or {}) do spec[name] = value end
  return samebits.batch(spec)
end

local function refused(made)
  local ok, why = pcall(sample.take, made, 1)
  assert.is_false(ok)
  return tostring(why)
end

describe("a sample", function()
  it("of a small batch is the whole of it, the longest sequence first", function()
    local made = sample.take(samebits.batch {
      logits = samebits.tensor { { 0, 1 }, { 1, 2 }, { 2, 3 } }, ids = { 1, 0, 1 },
      cu_seqlens = { 0, 1, 3 }, temperature = { 0.5, 1, 2 } }, 1)
    assert.is_true(made.whole)
    assert.same({ 3, 3, 3, 2 }, { made.rows, made.total, made.tokens, made.of_sequences })
    local long, short = made.sequences[0], made.sequences[1]
    assert.same({ 2, 1, 1, 0 }, { long.length, long.b, short.length, short.b })
    assert.same({ { 1, 2 }, { 2, 3 } }, long.logits:totable())
    assert.same({ [0] = 0, 1 }, long.ids)
    assert.same({ [0] = 1, 2 }, long.temperatures)
    assert.same({ [0] = true, true }, long.active)
  end)

  it("of a large one is runs of rows, drawn by the seed", function()
    local from = batch(6, 20)
    local made = sample.take(from, 1, 24)
    assert.is_false(made.whole)
    assert.equal(120, made.total)
    assert.is_true(made.rows <= 24 and made.rows > 8)
    assert.is_true(#made.sequences >= 1)   -- two at least, from 0 on
    for s = 0, #made.sequences do
      local entry = made.sequences[s]
      assert.equal(entry.b * 20 + entry.from, entry.first)
      assert.is_true(entry.from >= 0 and entry.from + entry.length <= 20)
      for t = 0, entry.length - 1 do
        assert.equal(entry.first + t, entry.logits:get(t, 0))
        assert.equal((entry.first + t) % 2, entry.ids[t])
      end
    end
    local firsts = {}
    for seed = 1, 8 do
      local again = sample.take(from, seed, 24).sequences[0].first
      assert.equal(again, sample.take(from, seed, 24).sequences[0].first)
      firsts[again] = true
    end
    assert.is_truthy(next(firsts, next(firsts)))
  end)

  it("leaves out sequences without active tokens", function()
    local made = sample.take(batch(3, 2, { mask = { { 0, 0 }, { 0, 1 }, { 0, 0 } } }), 1)
    assert.same({ 0, 1, 2, 1 }, { #made.sequences, made.of_sequences, made.total, made.tokens })
    assert.same({ 1, { [0] = false, true } },
                { made.sequences[0].b, made.sequences[0].active })
  end)

  it("takes the logits that score a token: with a shift, those of the row before", function()
    local made = sample.take(batch(1, 3, { shift = 1 }), 1).sequences[0]
    assert.same({ [0] = false, true, true }, made.active)
    assert.same({ { 0, 1 }, { 1, 2 } }, made.logits:slice(0, 1, 3):totable())
  end)

  it("chooses the likeliest id where a batch has none", function()
    local made = sample.take(samebits.batch({
      logits = samebits.tensor { { 1, 5, 2 }, { 3, 0, 0 } } }, { ids = false }), 1)
    assert.same({ [0] = 1, 0 }, made.sequences[0].ids)
  end)

  it("is refused where nothing is active, or the batch is a shard", function()
    local idle, shard = batch(1, 1, { mask = { { 0 } } }), batch(1, 1, { first = 2, vocab = 8 })
    assert.equal("verify: the batch has no active tokens", refused(idle))
    assert.equal("verify: the batch has the logits of ids 2 to 3 of 8, a shard: expected whole " ..
                 "rows", refused(shard))
  end)
end)
