-- Records of shards from Lua: what partial, merge and finish take and refuse, and that records can
-- be saved, loaded and damaged.

local ffi = require "ffi"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local hex = require "spec.support.hex"
local refusal = require "spec.support.refusal"
local shards = require "spec.support.shards"
local temporary = require "spec.support.temporary"

local misuse, says = refusal.misuse, refusal.says
local V, CUTS = 100, { 0, 32, 80, 100 }

local function example()
  return { logits = hex.tensor(hex.values(4 * V, 2), { 2, 2, V }),
           ids = { { 5, 40 }, { -100, 99 } }, temperature = 0.7 }
end

-- A little-endian word into a record's bytes.
local function put(t, row, offset, word)
  local size = t.shape[t.ndim]
  local bytes = ffi.cast("uint8_t *", t.ptr) + row * size + offset
  for i = 0, 3 do bytes[i] = math.floor(word / 256 ^ i) % 256 end
end

local function copied(records)
  return { states = records.states:clone(), targets = records.targets:clone() }
end

describe("records of shards", function()
  local ctx, spec, list, want
  setup(function()
    ctx = assert(samebits.open "cpu")
    spec = example()
    want = ctx:logprob(spec)
    list = {}
    for s = 1, 3 do list[s] = assert(ctx:partial(shards.shard(spec, CUTS[s], CUTS[s + 1]))) end
  end)
  teardown(function() ctx:close() end)

  local function finish(records, change)
    local batch = shards.shard(spec, 0, 0)
    for key, value in pairs(change or {}) do batch[key] = value end
    return ctx:finish(records, batch)
  end

  it("are bytes, in the shape of the ids", function()
    assert.same({ 2, 2, 32 }, list[1].states.shape)
    assert.same({ 2, 2, 8 }, list[1].targets.shape)
    assert.equal("uint8", list[1].states.dtype)
    -- The row's c, and zeros where the row is ignored.
    local bits = list[2].states:bits()
    assert.equal("4fe70340", table.concat(bits[1][1], "", 5, 8))
    assert.equal(("00"):rep(32), table.concat(bits[2][1]))
    assert.equal(("00"):rep(8), table.concat(list[2].targets:bits()[2][1]))
  end)

  it("merge and finish to what logprob gives, whatever batch of the shards is at hand", function()
    local whole = assert(ctx:merge(list))
    for s = 1, 3 do
      shards.assert_same(want, ctx:finish(whole, shards.shard(spec, CUTS[s], CUTS[s + 1])), s)
    end
    shards.assert_same(want, finish(whole), "no logits")
    shards.assert_same(want, ctx:finish(whole, spec), "all logits")
    shards.assert_same(want, finish(ctx:merge { whole }), "merged alone")
  end)

  it("may be gathered, or lie in views", function()
    local all = { states = samebits.zeros({ 3, 2, 2, 32 }, "uint8"),
                  targets = samebits.zeros({ 3, 2, 2, 8 }, "uint8") }
    for s = 1, 3 do
      all.states[s - 1]:copy_(list[s].states)
      all.targets[s - 1]:copy_(list[s].targets)
    end
    shards.assert_same(want, finish(assert(ctx:merge(all))), "gathered")
    local wide = samebits.zeros({ 3, 2, 2, 33 }, "uint8")
    local view = wide:slice(3, 1, 33)
    for s = 0, 2 do
      for b = 0, 1 do
        for t = 0, 1 do
          for i = 0, 31 do view:set(all.states:get(s, b, t, i), s, b, t, i) end
        end
      end
    end
    all.states = view
    local whole = assert(ctx:merge(all))
    shards.assert_same(want, finish(whole), "views")
    whole.states = whole.states:view(4, 32)
    says(misuse(function() finish(whole) end), "states [4, 32] and targets [2, 2, 8]")
  end)

  it("leave what they were merged from alone", function()
    local before = copied(list[1])
    ctx:merge(list)
    assert.same_bits(before.states, list[1].states)
    assert.same_bits(before.targets, list[1].targets)
  end)

  it("can be saved and loaded", function()
    local files = temporary.folder()
    finally(function() files:remove() end)
    local loaded = {}
    for s = 1, 3 do
      local path = files:path(("shard%d.safetensors"):format(s))
      assert(samebits.save(path, list[s]))
      loaded[s] = assert(samebits.load(path))
    end
    shards.assert_same(want, finish(assert(ctx:merge(loaded))), "loaded")
    local path = files:path "whole.safetensors"
    assert(samebits.save(path, assert(ctx:merge(loaded))))
    shards.assert_same(want, finish(assert(samebits.load(path))), "whole")
  end)

  it("are computed for outputs, rows and options as logprob is", function()
    local whole = assert(ctx:merge(list))
    local out = ctx:finish(whole, spec, { outputs = { "sequence" } })
    assert.is_nil(out.token)
    assert.same_bits(want.sequence, out.sequence)
    local again = { token = samebits.zeros { 2, 2 } }
    assert.equal(again, ctx:finish(whole, spec, { outputs = { "token" }, out = again }))
    assert.same_bits(want.token, again.token)
    assert.same_bits(list[1].states,
                     ctx:partial(shards.shard(spec, 0, 32), { split = 2 }).states)
    assert.equal(0, ctx:shard_workspace_size(shards.shard(spec, 0, 32)))
  end)

  it("of no rows are nothing much", function()
    local none = { logits = samebits.zeros { 0, 16 }, ids = samebits.zeros({ 0 }, "int32"),
                   vocab = V }
    local records = assert(ctx:partial(none))
    assert.same({ 0, 32 }, records.states.shape)
    local out = ctx:finish(assert(ctx:merge { records, records }), none)
    assert.equal(0, out.token:numel())
    assert.equal("00000000", out.sequence:bits()[1])
  end)

  it("a batch of a shard says so, and has no logprob", function()
    local batch = samebits.batch(shards.shard(spec, 32, 80))
    says(tostring(batch), "shard", "48 ids from 32 on, of 100")
    assert.equal(V, batch.vocab)
    says(misuse(function() ctx:logprob(batch) end), "ids 32 to 79 of 100, a shard", "ctx:partial")
    says(misuse(function() ctx:workspace_size(batch) end), "a shard")
    says(misuse(function() samebits.logprob(batch) end), "a shard")
    shards.assert_same(want, ctx:logprob(shards.shard(spec, 0, V)), "a shard of all ids")
  end)

  describe("a shard is refused", function()
    local function words(first, past, change)
      local batch = shards.shard(spec, first, past)
      for key, value in pairs(change or {}) do batch[key] = value end
      return misuse(function() ctx:partial(batch) end)
    end

    it("that cuts a leaf", function()
      says(words(8, 24), "begins at id 8", "no multiple of 16")
      says(words(0, 24), "holds 24 ids, no multiple of 16", "ends at 24", "end 100")
      says(words(84, 100), "begins at id 84")
    end)

    it("outside of the vocabulary", function()
      says(words(0, 32, { first = 80 }), "32 ids from 80 on", "outside [0, 100)")
      says(words(0, 32, { first = -16 }), "32 ids from -16 on")
      says(words(0, 0, { first = 101 }), "0 ids from 101 on")
      says(words(0, 32, { vocab = 16 }), "32 ids from 0 on", "outside [0, 16)")
      says(words(0, 32, { vocab = 2 ^ 20 + 1 }), "vocab is 1048577")
      says(words(0, 32, { vocab = 0 }), "vocab is 0")
    end)

    it("with fields that are none", function()
      says(words(0, 32, { first = 1.5 }), "first: expected an integer, got 1.5")
      says(words(0, 32, { vocab = "V" }), "vocab: expected an integer, got V")
      says(misuse(samebits.batch, { logits = samebits.zeros { 2, 16 }, ids = { 0, 0 },
                                    first = 16 }), "first: given without vocab")
      says(misuse(samebits.batch, { logits = samebits.zeros { 2, 0 }, ids = { 0, 0 } }),
           "a vocabulary of 0")
    end)

    it("with an id outside of the whole vocabulary, whose shard ever it is", function()
      says(words(32, 80, { ids = { { 5, 40 }, { -100, V } } }), "row 3",
           "id 100 is outside [0, 100)")
      says(words(0, 0, { ids = { { 5, -1 }, { 0, 0 } } }), "row 1", "id -1")
    end)

    it("at a temperature out of range", function()
      says(words(0, 32, { temperature = 0 }), "temperature 0")
    end)
  end)

  describe("merging refuses", function()
    -- Damages row 1 of shard 1; the message.
    local function words(change)
      local damaged = { copied(list[1]), copied(list[2]), copied(list[3]) }
      change(damaged[2])
      return misuse(function() ctx:merge(damaged) end)
    end

    it("states that there are not, by row and shard", function()
      for _, J in ipairs { 1, 65535, 196609, 0x7ffffffe, 0x80000000, 0xffffffff } do
        says(words(function(r) put(r.states, 1, 0, J) end), "row 1, shard 1",
             ("J = %.0f:"):format(J))
      end
    end)

    it("digits where there are none", function()
      says(words(function(r) put(r.states, 1, 0, 0) end), "row 1, shard 1", "the state is empty")
      says(words(function(r) put(r.states, 1, 0, 0x7fffffff) end), "the state is poisoned")
      says(words(function(r) put(r.states, 2, 28, 1) end), "row 2, shard 1", "the state is empty")
    end)

    it("digits that no leaves sum up to", function()
      says(words(function(r) for offset = 16, 28, 4 do put(r.states, 1, offset, 0) end end),
           "row 1, shard 1", "no sum of leaves")
      says(words(function(r) put(r.states, 1, 28, 0x10000000); put(r.states, 1, 24, 1) end),
           "1000000000000001) are no sum of leaves")
    end)

    it("another temperature's states", function()
      says(words(function(r) put(r.states, 1, 4, 0x3fb8aa3b) end), "row 1, shard 1",
           "3fb8aa3b, not 4003e74f")
      local other = shards.shard(spec, 32, 80)
      other.temperature = 1
      says(misuse(function() ctx:merge { list[1], ctx:partial(other) } end), "row 0, shard 1",
           "another temperature", "3fb8aa3b")
    end)

    it("rows that one shard ignored and another did not", function()
      local other = shards.shard(spec, 32, 80)
      other.mask = { { 1, 0 }, { 1, 1 } }
      says(misuse(function() ctx:merge { list[1], ctx:partial(other) } end), "row 1, shard 1",
           "an ignored row", "00000000")
    end)

    it("a target's logit without an owner", function()
      says(words(function(r) put(r.targets, 0, 0, 0x3f800000) end), "row 0, shard 1",
           "a logit (3f800000), but no owner")
    end)

    it("what are no records, or of other rows", function()
      says(misuse(function() ctx:merge(5) end), "merge: expected a list", "number")
      says(misuse(function() ctx:merge {} end), "an empty list")
      says(misuse(function() ctx:merge { list[1], 7 } end), "shard 1", "got number")
      says(misuse(function() ctx:merge { list[1], { states = list[1].states } } end),
           "shard 1: targets", "nil")
      says(misuse(function()
        ctx:merge { list[1], { states = list[1].targets, targets = list[1].targets } }
      end), "shard 1: states: uint8 [2, 2, 8], expected uint8 [.., 32]")
      local fewer = { states = list[1].states[0], targets = list[1].targets[0] }
      says(misuse(function() ctx:merge { list[1], fewer } end), "shard 1", "rows [2]", "[2, 2]")
      says(misuse(function() ctx:merge { list[1], copied(fewer), list[2] } end), "shard 1")
      says(misuse(function()
        ctx:merge { states = samebits.zeros({ 32 }, "uint8"),
                    targets = samebits.zeros({ 8 }, "uint8") }
      end), "expected [S, .., 32]")
      says(misuse(function() ctx:merge(list, { split = 3 }) end), "unknown option 'split'")
    end)
  end)

  describe("finishing refuses", function()
    local function words(change, batch)
      local damaged = copied(assert(ctx:merge(list)))
      change(damaged)
      return misuse(function() finish(damaged, batch) end)
    end

    it("states that there are not, by row; but those of ignored rows are not looked at", function()
      says(words(function(r) put(r.states, 1, 0, 7) end), "row 1: no state has J = 7")
      says(words(function(r) put(r.states, 3, 0, 0) end), "row 3: the state is empty")
      local damaged = copied(assert(ctx:merge(list)))
      put(damaged.states, 2, 0, 7)
      put(damaged.targets, 2, 4, 9)
      shards.assert_same(want, finish(damaged), "ignored")
    end)

    it("an id that lies in none of the shards, or in several", function()
      local function of(...) return ctx:merge { ... } end
      says(misuse(function() finish(of(list[1], list[3])) end),
           "row 1: id 40 lies in 0 of the merged shards")
      says(misuse(function() finish(of(list[1], list[2])) end), "row 3: id 99 lies in 0")
      says(misuse(function() finish(of(list[1], list[2], list[2], list[3])) end),
           "row 1: id 40 lies in 2 of")
      says(words(function() end, { ids = { { 5, 40 }, { 3, 99 } } }), "row 2", "an ignored row")
      says(words(function() end, { ids = { { 5, 40 }, { 100, 99 } } }),
           "row 2", "id 100 is outside [0, 100)")
    end)

    it("another temperature's states", function()
      says(words(function() end, { temperature = 0.8 }), "row 0", "another temperature",
           "4003e74f, not 3fe6d4ca")
    end)

    it("a target's logit that the state cannot hold", function()
      says(words(function(r) put(r.targets, 1, 0, 0x7fc00000) end), "row 1", "(7fc00000)",
           "not poisoned")
      says(words(function(r) put(r.targets, 1, 0, 0x7f800000) end), "row 1", "(7f800000)")
      says(words(function(r)
        for offset = 0, 28, 4 do
          if offset ~= 4 then put(r.states, 1, offset, 0) end
        end
      end), "row 1", "a state that is empty")
      says(words(function(r) put(r.targets, 3, 0, 0x42c80000) end),
           "row 3: the target's logit (42c80000) is larger than any that such a state holds")
    end)

    it("records of other rows, and what are none", function()
      local whole = assert(ctx:merge(list))
      says(misuse(function() finish(5) end), "finish: expected records", "number")
      says(misuse(function() finish(list) end), "finish: states: expected a tensor, got nil")
      says(misuse(function() finish(whole, { ids = { 1 }, logits = samebits.zeros { 1, 0 } }) end),
           "records of rows [2, 2], the batch has rows [1]")
    end)

    it("options there are not", function()
      says(misuse(function() ctx:partial(shards.shard(spec, 0, 32), { outputs = {} }) end),
           "unknown option 'outputs'")
      says(misuse(function() ctx:finish(list[1], spec, { shards = 2 }) end),
           "unknown option 'shards'")
      says(misuse(function() ctx.partial(spec) end), "call it as ctx:partial")
      local closed = assert(samebits.open "cpu")
      closed:close()
      says(misuse(function() closed:merge(list) end), "merge: the context is closed")
    end)
  end)

  backends.each_device(function(device)
    it("live on " .. device, function()
      local there = assert(samebits.open(device))
      local moved = {}
      for s = 1, 3 do
        local batch = samebits.batch(shards.shard(spec, CUTS[s], CUTS[s + 1])):to(device)
        moved[s] = there:partial(batch)
        assert.same_bits(list[s].states, moved[s].states)
        assert.same_bits(list[s].targets, moved[s].targets)
      end
      local whole = assert(there:merge(moved))
      local batch = samebits.batch(shards.shard(spec, 0, 0)):to(device)
      shards.assert_same(want, there:finish(whole, batch), device)
      says(misuse(function() there:merge(list) end), "shard 0: states: the tensor is on cpu",
           device)
      says(misuse(function() ctx:merge(moved) end), device, "the context is on cpu")
      says(misuse(function() there:finish(list[1], batch) end), "the tensor is on cpu")
      says(misuse(function() there:partial(shards.shard(spec, 0, 32)) end), "the batch is on cpu")
      there:close()
    end)
  end)
end)
