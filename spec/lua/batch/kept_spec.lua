-- Kept sets in their two forms: conversions of words to lists and back, and the fields of batches.

local ffi = require "ffi"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local c_calls = require "spec.support.c_calls"
local hex = require "spec.support.hex"
local kept = require "spec.support.kept"
local prng = require "spec.support.prng"
local refusal = require "spec.support.refusal"
local C = require("samebits.lib").C

local misuse, says = refusal.misuse, refusal.says

local function numbers(t)
  local out = {}
  for i = 0, t:numel() - 1 do out[i + 1] = tonumber(t:get(i)) end
  return out
end

describe("kept sets", function()
  it("become lists and words again", function()
    for seed, V in ipairs { 1, 31, 32, 33, 64, 100, 1000 } do
      local random = prng.new(seed)
      local flags = kept.flags(random, { 2, 3, V }, 1)
      local words = samebits.batch { logits = samebits.zeros({ 2, 3, V }, "float32"),
                                     ids = samebits.zeros({ 2, 3 }, "int32"), kept = flags }.kept
      local want_ids, want_offsets = kept.lists(flags)
      for _, form in ipairs { flags, words } do
        local ids, offsets = samebits.kept_lists(form, V)
        assert.same(numbers(want_ids), numbers(ids))
        assert.same(numbers(want_offsets), numbers(offsets))
      end
      for _, dtype in ipairs { "int32", "int64" } do
        local ids, offsets = kept.lists(flags, dtype, dtype)
        local again = samebits.kept_words(ids, offsets, V)
        assert.same(words:view(6, words.shape[3]):bits(), again:bits())
      end
    end
    assert.same({ { "0000000c" }, { "00000001" } },
                samebits.kept_words({ 2, 3, 0 }, { 0, 2, 3 }, 5):bits())
    local ids, offsets = samebits.kept_lists({ { 1, 0, 1 }, { 0, 0, 0 } }, 3)
    assert.same({ 0, 2 }, numbers(ids))
    assert.same({ 0, 2, 2 }, numbers(offsets))
  end)

  it("that are wrong are refused, by row and id", function()
    local words, lists = samebits.kept_words, samebits.kept_lists
    says(misuse(function() words({ 2, 2 }, { 0, 2 }, 5) end), "kept_words: row 0", "kept id 2",
         "not above the 2 before it")
    says(misuse(function() words({ 5 }, { 0, 0, 1 }, 5) end), "row 1", "kept id 5 (entry 0)",
         "outside [0, 5)")
    says(misuse(function() words({ 1 }, { 0, 2 }, 5) end), "kept_offsets[1] is 2")
    says(misuse(function() words({ 1 }, {}, 5) end), "kept_offsets: shape [0]")
    says(misuse(function() words({ 1 }, nil, 5) end), "kept_offsets: missing beside kept_ids")
    says(misuse(function() words({ 1 }, { 0, 1 }, 0) end), "vocab is 0")
    says(misuse(function() words({ 0.5 }, { 0, 1 }, 3) end), "kept_ids[0] is 0.5")
    says(misuse(function() lists({ 1, 0 }, 2) end), "kept_lists:", "expected [.., W] or [.., V]")
    says(misuse(function() lists(samebits.zeros({ 2, 3 }, "int32"), 100) end), "kept: int32 [2, 3]")
  end)

  it("are fields of batches, in one form", function()
    local logits = hex.tensor(hex.values(12, 3), { 3, 4 })
    local function batch(ids, offsets, words)
      return samebits.batch { logits = logits, ids = { 0, 1, 2 }, kept = words, kept_ids = ids,
                              kept_offsets = offsets }
    end
    local lists = batch({ 0, 1, 0, 1, 2, 3 }, { 0, 2, 6, 6 })
    says(tostring(lists), "kept_ids", "int64 [6]", "kept_offsets", "int64 [4]")
    assert.is_true(lists:has_kept())
    assert.same({ "00000003", "0000000f", "00000000" }, lists:kept_words():view(3):bits())
    assert.is_nil(samebits.batch({ logits = logits, ids = { 0, 1, 2 } }):kept_words())
    local there = assert(lists:to(backends.LOOPBACK))
    assert.equal(backends.LOOPBACK, there.kept_ids.device)
    assert.equal(lists:kept_words():bits()[1][1], there:kept_words():bits()[1][1])
    local out = samebits.logprob(lists)
    assert.equal(1, tonumber(out.outside:get(0))) -- nothing is kept in row 2
    local words = samebits.zeros({ 3, 1 }, "int32")
    says(misuse(function() batch({ 0 }, { 0, 1, 1, 1 }, words) end), "given together")
    says(misuse(function() batch({ 0 }, { 0, 1, 1 }) end), "kept_offsets: shape [3], expected [4]")
    says(misuse(function() batch({ 0 }) end), "kept_offsets: missing beside kept_ids")
    says(misuse(function() batch(nil, { 0, 1, 1, 1 }) end), "kept_ids: missing beside kept_offsets")
    says(misuse(function() samebits.logprob(batch({ 1, 0 }, { 0, 2, 2, 2 })) end), "row 0",
         "kept id 0 (entry 1) is not above the 1 before it")
  end)

  it("are converted by C within the room there is", function()
    local ctx = assert(c_calls.open())
    local words = ffi.new("uint32_t[4]", 5, 0xffffffff, 0, 1)
    local batch = c_calls.sized "sb_batch"
    batch.logits_dtype, batch.ids_dtype, batch.temperature = C.SB_F32, C.SB_I32, 1
    batch.batch, batch.time, batch.vocab, batch.kept = 1, 2, 40, words
    local ids, offsets = ffi.new("int32_t[6]", -1, -1, -1, -1, -1, -1), ffi.new("int64_t[3]", -1)
    local function lists(room, dtype)
      return c_calls.name_of(C.sb_kept_lists(ctx, offsets, dtype or C.SB_I64, ids, C.SB_I32, room,
                                             batch)), c_calls.last_error(ctx)
    end
    local status, why = lists(10)
    assert.equal("SB_ERR_SHAPE", status)
    assert.equal("11 kept ids, but room for 10", why)
    assert.equal(-1, tonumber(offsets[0]))
    assert.equal("SB_ERR_DTYPE", (lists(99, C.SB_F32)))
    words[1], words[3] = 0x101, 0x101
    status = lists(6) -- bits from V on are ignored
    assert.equal("SB_OK", status)
    assert.equal(0, tonumber(offsets[0]))
    assert.equal(3, tonumber(offsets[1]))
    assert.equal(4, tonumber(offsets[2]))
    assert.same({ 0, 2, 32, 32, -1 }, { ids[0], ids[1], ids[2], ids[3], ids[4] })
    batch.kept = nil
    status, why = lists(6)
    assert.equal("SB_ERR_ARGUMENT", status)
    assert.equal("the batch has no words: kept is null", why)
    assert.equal("SB_ERR_ARGUMENT", c_calls.name_of(C.sb_kept_words(ctx, words, 0, batch)))
  end)
end)
