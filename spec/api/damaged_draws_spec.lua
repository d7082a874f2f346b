-- Draws from shards with a damaged message: flipped bits, a lost tail, a forged header, the message
-- of another rank, row, round or draw. Every backend refuses it in the same words, which name the
-- row, or all ranks end with the same token; other rows keep their results.

local ffi = require "ffi"
local samebits = require "samebits"
local budget = require "spec.support.budget"
local damage = require "spec.support.damage"
local draws = require "spec.support.draws"
local hex = require "spec.support.hex"
local prng = require "spec.support.prng"
local refusal = require "spec.support.refusal"
local with = require "spec.support.with"

local R, V, CUTS = 3, 100, { 0, 16, 64, 100 }
local SHARDS = #CUTS - 1

local FILTERS = { {}, { top_k = 3 }, { min_p = 0.1 }, { top_p = 0.7 }, { top_k = 70, top_p = 0.9 } }

local function example(seed)
  return { logits = hex.tensor(hex.values(R * V, seed), { R, V }), temperature = 1.5 },
         { seed = seed, stream = { 1, 2, 3 }, position = { seed, 5, 9 } }
end

-- A row's message of a rank, as bytes.
local function message(all, shard, row)
  local t = all[shard]
  return ffi.cast("uint8_t *", t.ptr) + row * t.shape[2], t.shape[2]
end

-- The messages of all rounds, and the results.
local function played(ctx, spec, how)
  local history = {}
  local results = draws.of_shards({ context = function() return ctx end }, spec, CUTS, how,
                                  draws.OUTPUTS, function(round, messages)
    history[round] = {}
    for s, t in ipairs(messages) do history[round][s] = assert(t:to "cpu"):clone() end
    return messages
  end)
  return history, results
end

-- What ranks make of the messages of a draw if change(messages) changes those of a round: the
-- refusal of each rank that refuses, and, if none does, the results.
local function outcome(at, spec, how, round, change, opts)
  local ctx, ranks, all, refused = at.context(), {}, nil, {}
  for s = 1, SHARDS do
    ranks[s] = assert(ctx:draw(draws.shard(ctx.device, spec, CUTS[s], CUTS[s + 1]), how,
                               { shard = s - 1, shards = SHARDS, outputs = draws.OUTPUTS }))
  end
  local function step(call)
    local results = {}
    for s, rank in ipairs(ranks) do
      local ok, got = pcall(ctx[call], ctx, rank, all, opts)
      if ok then results[s] = assert(got) else refused[s] = tostring(got) end
    end
    return next(refused) == nil and results
  end
  while ranks[1].round < ranks[1].rounds do
    local now = step "draw_round"
    if not now then return refused end
    if ranks[1].round - 1 == round then
      for s, t in ipairs(now) do now[s] = assert(t:to "cpu"):clone() end
      change(now)
      for s, t in ipairs(now) do now[s] = assert(t:to(ctx.device)) end
    end
    all = now
  end
  local results = step "draw_finish"
  if not results then return refused end
  for s, out in ipairs(results) do
    for name, t in pairs(out) do results[s][name] = assert(t:to "cpu") end
  end
  return refused, results
end

-- A random change of one message, and what to call it.
local function damages(random, history, other)
  local shard, row = random:integer(1, SHARDS), random:integer(0, R - 1)
  local function copied(from, s, r, round, what)
    return what, function(all)
      local to, size = message(all, shard, row)
      local source, length = message(from[round], s, r)
      ffi.copy(to, source, math.min(size, length))
    end
  end
  local function spoilt(kind)
    local what, spoil = damage.of(random, kind)
    return what, function(all) spoil(message(all, shard, row)) end
  end
  local kinds = { shard = shard, row = row,
    function(round)
      return copied(history, random:integer(1, SHARDS), row, round, "another rank's")
    end,
    function(round)
      return copied(history, shard, random:integer(0, R - 1), round, "another row's")
    end,
    function(round)
      local n = #history + 1
      return copied(history, shard, row, (round + random:integer(1, n)) % n, "another round's")
    end,
    function(round) return copied(other, shard, row, round, "another draw's") end,
  }
  for kind = 1, damage.KINDS do
    kinds[#kinds + 1] = function() return spoilt(kind) end
  end
  return kinds
end

describe("a damaged message of a draw", function()
  local reference, same_device
  setup(function()
    reference = assert(samebits.open("cpu", { isa = "scalar", threads = 1 }))
    same_device = { context = function() return reference end }
  end)
  teardown(function() reference:close() end)

  local function one_row(t, row) return t:slice(0, row, row + 1):clone() end

  -- Checks an outcome, and returns whether the message was refused.
  local function check(what, row, refused, results, honest, round)
    if not results then
      for _, said in pairs(refused) do
        local at_row, at_round = said:match "row (%d+), .*messages of round (%d+): "
        assert.equal(row, tonumber(at_row), what .. ": " .. said)
        assert.is_true(tonumber(at_round) >= round, what .. ": " .. said) -- or a later one
      end
      return true
    end
    for s, out in ipairs(results) do
      for name, t in pairs(out) do
        for r = 0, R - 1 do
          if r ~= row then assert.same_bits(one_row(honest[s][name], r), one_row(t, r), what) end
        end
        if name ~= "kept" then assert.same_bits(results[1][name], t, what .. ": " .. name) end
      end
      assert.is_true(out.token[row] >= -1 and out.token[row] < V, what)
      assert.is_false(out.logprob[row] > 0 or out.kept_logprob[row] > 0, what)
    end
    return false
  end

  draws.each_backend(function(at)
    it("is refused in the same words, or ends in one token, on " .. at.name, function()
      local tried, refusals = 0, 0
      for f, filters in ipairs(FILTERS) do
        local spec, how = example(f)
        local different, different_how = example(f + 100)
        how, different_how = with(how, filters), with(different_how, filters)
        local history, honest = played(reference, spec, how)
        local other = played(reference, different, different_how)
        local random = prng.new(budget.SEED * 100 + f)
        for _ = 1, budget.CASES do
          for kind = 1, 7 do
            local round = random:integer(0, #history)
            local its = damages(random, history, other)
            local name, change = its[kind](round)
            local what = ("filters %d, round %d, shard %d, row %d, %s"):format(
              f, round, its.shard - 1, its.row, name)
            local want, want_results = outcome(same_device, spec, how, round, change)
            local got, got_results = outcome(at, spec, how, round, change)
            assert.same(want, got, what)
            if want_results then
              for s, out in ipairs(want_results) do
                for key, t in pairs(out) do assert.same_bits(t, got_results[s][key], what) end
              end
            end
            tried = tried + 1
            if check(what, its.row, got, got_results, honest, round) then
              refusals = refusals + 1
            end
          end
        end
      end
      assert.is_true(refusals > tried / 4, ("%d of %d"):format(refusals, tried))
      assert.is_true(refusals < tried)
    end)
  end)

  -- { round, first byte, last byte } of messages of a draw by min-p.
  local ALWAYS = { { 0, 0, 7 }, { 0, 12, 15 }, { 0, 40, 47 }, { 1, 4, 7 }, { 1, 36, 39 } }

  draws.each_backend(function(at)
    it("is refused for any bit of a header, on " .. at.name, function()
      local spec, how = example(9)
      how = with(how, { min_p = 0.05 })
      local random = prng.new(budget.SEED + 77)
      for _, range in ipairs(ALWAYS) do
        for byte = range[2], range[3] do
          local shard, row, b = random:integer(1, SHARDS), random:integer(0, R - 1),
                                random:integer(0, 7)
          local refused, results = outcome(at, spec, how, range[1], function(all)
            local to = message(all, shard, row)
            to[byte] = bit.bxor(to[byte], bit.lshift(1, b))
          end)
          local what = ("round %d, shard %d, row %d, bit %d of byte %d"):format(
            range[1], shard - 1, row, b, byte)
          assert.is_nil(results, what)
          for _, said in pairs(refused) do
            assert.truthy(said:find(("row %d, "):format(row), 1, true), what .. ": " .. said)
            assert.truthy(said:find(("messages of round %d: "):format(range[1]), 1, true), said)
          end
        end
      end
    end)

    it("is refused if no rank sends it, or several send the token, on " .. at.name, function()
      local spec, how = example(10)
      for round = 0, 1 do
        for _, way in ipairs { "none", "all" } do
          local refused, results = outcome(at, spec, how, round, function(all)
            local owner = message(all, 1, 1)
            for s = 1, SHARDS do
              local its, size = message(all, s, 1)
              if its[4] ~= 0 then owner = its end
              if way == "none" then ffi.fill(its, size) end
            end
            for s = 1, SHARDS do
              local its, size = message(all, s, 1)
              if way == "all" then ffi.copy(its, owner, size) end
            end
          end)
          assert.is_nil(results, way .. round)
          for _, said in pairs(refused) do
            assert.truthy(said:find "row 1, .*messages of round [01]: ", said)
          end
        end
      end
    end)
  end)

  it("is refused by its size", function()
    local spec, how = example(11)
    local draw = assert(reference:draw(draws.shard("cpu", spec, 0, V), how,
                                       { shard = 0, shards = 1 }))
    local mine = assert(reference:draw_round(draw))
    local short = mine:slice(1, 0, 39):clone()
    assert.matches("shard 0: expected messages %[3, 40%] of uint8",
                   refusal.misuse(function() reference:draw_round(draw, { short }) end))
  end)
end)
