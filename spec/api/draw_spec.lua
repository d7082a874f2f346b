-- sb_draw_plan, sb_draw_round and sb_draw_finish, called as C calls them: the rules of samebits.h
-- for their arguments, and messages that no rank gives.

local ffi = require "ffi"
local samebits = require "samebits"
local c_calls = require "spec.support.c_calls"
local draws = require "spec.support.draws"
local hex = require "spec.support.hex"
local refusal = require "spec.support.refusal"
local sampling = require "spec.support.sampling"
local C = require("samebits.lib").C

local filled, sized, untouched = c_calls.filled, c_calls.sized, c_calls.untouched
local misuse, says = refusal.misuse, refusal.says
local R, V, N = sampling.ROWS, sampling.VOCAB, 16 -- the ids of two shards: 16 and 24

local ctx = assert(c_calls.open())
local function last_error() return c_calls.last_error(ctx) end

local OUTPUTS = { "token", "logprob", "kept_logprob", "count" }

-- One shard of a draw. change(a): before it is planned.
local function shard_of(number, change)
  local a = sampling.arrays(OUTPUTS)
  a.progress, a.draw = ffi.new("uint64_t[?]", R * 16), sized "sb_draw"
  a.batch.row_stride, a.batch.logits = V, ffi.cast("float *", a.values.ptr) + number * N
  a.how.min_p = 0.01
  a.draw.shard, a.draw.shards, a.draw.progress = number, 2, a.progress
  a.draw.first, a.draw.n = number * N, number == 0 and N or V - N
  if change then change(a) end
  return a
end

local function plan(a) return C.sb_draw_plan(ctx, a.draw, a.out, a.batch, a.how) end
local function round(a, r, mine, all)
  return C.sb_draw_round(ctx, mine, all, a.draw, r, a.batch, a.how, nil)
end
local function finish(a, all)
  return C.sb_draw_finish(ctx, a.out, all, a.draw, a.batch, a.how, nil)
end

local function fails(...) c_calls.fails(ctx, ...) end

-- Both shards, planned, and what they have sent up to a round.
local function both(rounds, change)
  local pair, all = { shard_of(0, change), shard_of(1, change) }, nil
  for _, a in ipairs(pair) do assert.equal(0, tonumber(plan(a)), last_error()) end
  for r = 0, (rounds or pair[1].draw.rounds) - 1 do
    local words = tonumber(pair[1].draw.bytes[r]) / 8 * R
    local now = ffi.new("uint64_t[?]", 2 * words)
    for s, a in ipairs(pair) do
      assert.equal(0, tonumber(round(a, r, now + (s - 1) * words, all)), last_error())
    end
    all = now
  end
  return pair, all
end

describe("the calls of samebits.h for draws from shards", function()
  it("refuse structs of another size, and null pointers", function()
    fails("SB_ERR_ARGUMENT", "draw is null", C.sb_draw_plan(ctx, nil, nil, nil, nil))
    for _, case in ipairs {
      { "SB_DRAW_INIT", function(a) a.draw.size = 8 end },
      { "SB_SAMPLE_OUT_INIT", function(a) a.out.size = 8 end },
      { "SB_SAMPLING_INIT", function(a) a.how.size = 8 end },
      { "sb_batch.size is 4", function(a) a.batch.size = 4 end },
      { "top_p is 2", function(a) a.how.top_p = 2 end },
    } do
      fails("SB_ERR_ARGUMENT", case[1], plan(shard_of(0, case[2])))
    end
    for _, case in ipairs {
      { "shards is 0", function(a) a.draw.shards = 0 end },
      { "shards is 65537", function(a) a.draw.shards = 65537 end },
      { "shard is 2", function(a) a.draw.shard = 2 end },
      { "shard is -1", function(a) a.draw.shard = -1 end },
    } do
      fails("SB_ERR_SHAPE", case[1], plan(shard_of(0, case[2])))
    end
    local a = both(0)[1]
    local mine = ffi.new("uint64_t[?]", 1000)
    fails("SB_ERR_ARGUMENT", "mine is null", round(a, 0, nil, nil))
    fails("SB_ERR_ARGUMENT", "all is null", round(a, 1, mine, nil))
    fails("SB_ERR_ARGUMENT", "all is null", finish(a, nil))
    fails("SB_ERR_ARGUMENT", "mine is not aligned", round(a, 0, ffi.cast("char *", mine) + 4, nil))
    fails("SB_ERR_SHAPE", "round is 3", round(a, 3, mine, mine))
    fails("SB_ERR_SHAPE", "round is -1", round(a, -1, mine, mine))
    a.draw.progress = nil
    fails("SB_ERR_ARGUMENT", "progress is null", round(a, 0, mine, nil))
    a.draw.progress, a.draw.reserved = a.progress, 1
    fails("SB_ERR_ARGUMENT", "reserved is 1", round(a, 0, mine, nil))
  end)

  it("refuse a draw of another call, and shards that cut a leaf", function()
    local a = both(0)[1]
    local mine = ffi.new("uint64_t[?]", 1000)
    a.how.min_p = 0
    a.out.count = nil
    fails("SB_ERR_ARGUMENT", "call sb_draw_plan", (function()
      a.how.top_p = 0.5
      return round(a, 0, mine, nil)
    end)())
    a.how.top_p, a.how.min_p = 1, 0.01
    a.draw.n = 15
    fails("SB_ERR_SHAPE", "no multiple of 16", round(a, 0, mine, nil))
    a.draw.n = N
    a.how.positions = nil
    fails("SB_ERR_ARGUMENT", "the same random bits", round(a, 0, mine, nil))
    a = shard_of(0, function(x) x.out.count, x.how.min_p = nil, 0 end)
    assert.equal(0, tonumber(plan(a)))
    assert.equal(2, a.draw.rounds)
    a.out.count = a.count
    fails("SB_ERR_ARGUMENT", "count is requested", finish(a, mine))
  end)

  it("give every shard the token of whole rows", function()
    local whole = shard_of(0)
    whole.batch.logits = whole.values.ptr
    assert.equal(0, tonumber(C.sb_sample(ctx, whole.out, whole.batch, whole.how, nil)))
    local pair, all = both()
    for _, a in ipairs(pair) do
      assert.equal(0, tonumber(finish(a, all)), last_error())
      assert.equal("", last_error())
      for _, name in ipairs(OUTPUTS) do
        assert.equal(ffi.string(whole[name], 4 * R), ffi.string(a[name], 4 * R), name)
      end
    end
  end)

  -- Damages a word of the messages of a round, and expects the next step to name it.
  local function damaged(rounds, shard, row, byte, value, words, change)
    local pair, all = both(rounds, change)
    local a = pair[1]
    local bytes = tonumber(a.draw.bytes[rounds - 1])
    local at = ffi.cast("uint8_t *", all) + (shard * R + row) * bytes + byte
    ffi.cast("uint32_t *", at)[0] = value
    local mine = filled("uint64_t", 1000)
    local got
    if rounds == a.draw.rounds then got = finish(a, all) else got = round(a, rounds, mine, all) end
    fails("SB_ERR_STATE", words, got)
    assert.is_true(untouched(mine))
    for _, name in ipairs(OUTPUTS) do assert.is_true(untouched(a[name]), name) end
  end

  it("refuse messages that no rank gives, and name the row, the shard and the round", function()
    local LIST = function(a) a.how.top_k = 4 end
    local NUCLEUS = function(a) a.how.top_p = 0.5 end
    damaged(1, 1, 2, 8, 5, "row 2, shard 1, messages of round 0: there is no state of such a J")
    damaged(1, 1, 1, 12, 5, "row 1, shard 1, messages of round 0: a state is of another")
    damaged(1, 0, 0, 0, 16, "row 0, shard 0, messages of round 0: the ids of the ranks")
    damaged(1, 1, 0, 0, 0, "row 0, shard 1, messages of round 0: the ids of the ranks")
    damaged(1, 1, 0, 4, 1000, "row 0, messages of round 0: the ids of the ranks")
    damaged(1, 1, 0, 44, 0xffffffff, "row 0, shard 1, messages of round 0: no ids of this rank")
    damaged(1, 1, 0, 44, 0xff000000, "row 0, messages of round 0: no ids of this rank")
    damaged(1, 1, 0, 48, 1, "shard 1, messages of round 0: no ids of this rank", LIST)
    damaged(1, 1, 0, 52, 0xfff00000, "row 0, shard 1, messages of round 0: no ids", LIST)
    damaged(2, 0, 1, 0, 7, "row 1, shard 0, messages of round 1: there is no state of such a J")
    damaged(3, 0, 1, 4, 41, "row 1, ")
    damaged(3, 0, 1, 0, 0x7f800000, "row 1, ")
    for level = 0, 3 do
      local pair, all = both(2 + level, NUCLEUS)
      ffi.fill(all, 2 * R * 2048)
      local words = ("row 0, messages of round %d: the sums of the ranks"):format(1 + level)
      fails("SB_ERR_STATE", words, round(pair[1], 2 + level, ffi.new("uint64_t[?]", 1000), all))
    end
    local pair, all = both()
    ffi.fill(all, 2 * R * 8)
    fails("SB_ERR_STATE", "row 0, messages of round 2: not exactly one rank", finish(pair[1], all))
  end)

  it("do not look at messages of ignored rows", function()
    local pair, all = both(nil, function(a) a.mask[1] = 0 end)
    ffi.cast("uint64_t *", all)[1], ffi.cast("uint64_t *", all)[R + 1] = 5, 5
    for _, a in ipairs(pair) do
      assert.equal(0, tonumber(finish(a, all)), last_error())
      assert.equal(-1, a.token[1])
      assert.equal(0, a.count[1])
    end
  end)
end)

describe("ctx:draw", function()
  local lua, logits
  sampling.with_context(function(...) lua, logits = ... end)

  it("has rounds that are made in order", function()
    local how, opts = { position = { 1, 2, 3 } }, { shard = 0, shards = 1 }
    local draw = assert(lua:draw({ logits = logits }, how, opts))
    assert.equal("samebits draw of shard 0 of 1: 0 of 2 rounds done", tostring(draw))
    says(misuse(function() lua:draw_finish(draw, {}) end), "0 of 2 rounds are done")
    local mine = assert(lua:draw_round(draw))
    assert.same({ R, 40 }, mine.shape)
    says(misuse(function() lua:draw_round(draw) end), "messages of 1 shards")
    says(misuse(function() lua:draw_round(draw, { mine, mine }) end), "messages of 1 shards")
    says(misuse(function() lua:draw_round(draw, { logits }) end), "shard 0", "uint8")
    local last = assert(lua:draw_round(draw, { mine }))
    says(misuse(function() lua:draw_round(draw, { last }) end), "all 2 rounds are done")
    local out = assert(lua:draw_finish(draw, { last }))
    assert.same_bits(assert(lua:sample({ logits = logits }, how)).token, out.token)
    assert.equal(0, lua:draw_workspace_size(draw))
  end)

  it("refuses what is no draw, shard or output", function()
    says(misuse(function() lua:draw_round {} end), "expected a draw")
    says(misuse(function() lua:draw({ logits = logits }, {}, {}) end), "shard", "integer")
    says(misuse(function() lua:draw({ logits = logits }, {}, { shard = 1, shards = 1 }) end),
         "shard is 1")
    says(misuse(function()
      lua:draw({ logits = logits }, {}, { shard = 0, shards = 1, outputs = { "lse" } })
    end), "unknown output 'lse'")
    says(misuse(function()
      lua:draw({ logits = logits }, { top_q = 1 }, { shard = 0, shards = 1 })
    end), "top_q")
  end)

  it("refuses hidden states", function()
    local head = assert(lua:head(hex.tensor(hex.values(V * 8, 5), { V, 8 })))
    local draw = assert(lua:draw({ hidden = samebits.zeros { R, 8 }, head = head },
                                 { position = { 1, 2, 3 } }, { shard = 0, shards = 1 }))
    says(misuse(function() lua:draw_round(draw) end), "sb_logits")
  end)

  it("can draw what another rank's messages decide", function()
    local at = { context = function() return lua end }
    local results = draws.of_shards(at, { logits = logits }, { 0, 16, 40 },
                                    { position = { 1, 2, 3 }, top_p = 0.9 }, { "token" })
    assert.same_bits(results[1].token, results[2].token)
  end)
end)
