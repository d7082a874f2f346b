-- samebits.drift.scorer: a side's logprobs, whose bits are the contract's, as they stand and under
-- suppositions; and what it looks up in rows.

local ffi = require "ffi"
local samebits = require "samebits"
local hex = require "spec.support.hex"
local plant = require "spec.support.plant"
local scorer = require "samebits.drift.scorer"
local sides = require "samebits.drift.sides"

local N, V = 6, 40
local logits, ids = plant.logits({ N, V }, 71), plant.ids({ N }, 20, 72)

local function side_of(fields)
  return (sides.read(fields, samebits.zeros { N }, {}))
end

describe("drift's scorer", function()
  local ctx, score, side, on

  setup(function()
    ctx = assert(samebits.open "cpu")
    score = scorer.new(ctx, -100, 0)
    side = side_of { logits = logits, ids = ids }
    on = samebits.tensor({ 1, 1, 1, 1, 1, 1 }, { dtype = "uint8" })
  end)
  teardown(function() ctx:close() end)

  local function want(spec) return hex.of(plant.logprobs(spec)) end

  it("gives the contract's bits, and +0 where a flag is 0", function()
    local all = want { logits = logits, ids = ids }
    assert.same(all, hex.of(score:rows(side, 0, N, on)))
    local some = samebits.tensor({ 0, 1, 1 }, { dtype = "uint8" })
    assert.same({ "00000000", all[4], all[5] }, hex.of(score:rows(side, 2, 3, some)))
  end)

  it("supposes another temperature, fewer ids and a shift", function()
    assert.same(want { logits = logits, ids = ids, temperature = 0.7 },
                hex.of(score:rows(side, 0, N, on, { temperature = 0.7 })))
    assert.same(want { logits = logits:slice(1, 0, 20), ids = ids },
                hex.of(score:rows(side, 0, N, on, { vocab = 20 })))
    local shifted = want { logits = logits:slice(0, 0, N - 1), ids = ids:slice(0, 1, N) }
    table.insert(shifted, 1, "00000000")
    assert.same(shifted, hex.of(score:rows(side, 0, N, on, { shift = 1 })))
    assert.equal(plant.logprobs({ logits = logits, ids = ids, temperature = 0.7 }):get(3),
                 score:at(side, 3, 0.7))
  end)

  it("supposes kept sets, and none", function()
    local kept = samebits.zeros({ N, V }, "uint8")
    for row = 0, N - 1 do for id = 0, 24 do kept:set(1, row, id) end end
    local with_sets = side_of { logits = logits, ids = ids, kept = kept }
    assert.same(want { logits = logits, ids = ids, kept = kept },
                hex.of(score:rows(with_sets, 0, N, on)))
    assert.same(want { logits = logits, ids = ids },
                hex.of(score:rows(with_sets, 0, N, on, { kept = false })))
    assert.same({ 2, 30 }, scorer.kept_of(with_sets, 1, 3, 30).shape)
  end)

  it("knows rows of the same numbers, +0 and -0 being one, in any dtype", function()
    local x = { 0, 1, 2.5 }
    local function other(list, dtype)
      return { logits = hex.tensor(list, { 1, #list }):to(dtype), vocab = #list,
               logits_dtype = dtype }
    end
    local a = other(x, "float32")
    assert.is_true(score:same_logits(a, other({ "80000000", 1, 2.5 }, "float32"), 0))
    assert.is_true(score:same_logits(a, other({ 0, 1, 2.5, 9 }, "bfloat16"), 0))
    assert.is_false(score:same_logits(a, other({ 0, 1, 2.25 }, "float16"), 0))
    local to = ffi.new "float[3]"
    score:copy(other(x, "float16"), 0, to, 3)
    assert.same(x, { to[0], to[1], to[2] })
  end)

  it("refuses ids of active rows that are none of the logits'", function()
    local bad = side_of { logits = logits, ids = { 1, 2, V, -1, 3, 4 } }
    local _, _, layout = sides.read(samebits.zeros { N }, samebits.zeros { N }, {})
    local ok, why = pcall(scorer.check_ids, bad, 0, N, on, layout)
    assert.is_false(ok)
    assert.equal("A: id 40 at sequence 0, position 2 is outside [0, 40)", tostring(why))
    local off = samebits.tensor({ 1, 1, 0, 0, 1, 1 }, { dtype = "uint8" })
    scorer.check_ids(bad, 0, N, off, layout)
  end)
end)
