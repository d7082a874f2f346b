-- Records of shards with moments, from which entropy is finished: what is refused of them, and what
-- they cannot be mixed with. That they have whole rows' bits: spec/invariance/shards_spec.lua.

local ffi = require "ffi"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local hex = require "spec.support.hex"
local refusal = require "spec.support.refusal"
local shards = require "spec.support.shards"
local temporary = require "spec.support.temporary"

local misuse, says = refusal.misuse, refusal.says
local R, V, CUTS = 4, 100, { 0, 32, 80, 100 }
local ENTROPY = { outputs = { "entropy" } }

local function example()
  local values = hex.values(R * V, 5)
  for id = 1, V do values[2 * V + id] = "ff800000" end
  values[3 * V + 90] = "7fc00000"
  return { logits = hex.tensor(values, { R, V }), ids = { 5, 40, 79, 99 }, temperature = 0.7 }
end

-- A copy, in memory, with 32-bit words changed: { row, offset, word } each.
local function damaged(records, ...)
  local moments = assert(records.moments:to "cpu"):clone()
  for _, change in ipairs { ... } do
    local words = ffi.cast("uint32_t *", moments.ptr + change[1] * 64)
    words[change[2] / 4] = change[3]
  end
  return { moments = moments, targets = assert(records.targets:to "cpu") }
end

local function of_backend(at)
  local ctx, device, spec, list, whole
  setup(function()
    ctx = at.context()
    device, spec, list = ctx.device, example(), {}
    for s = 1, 3 do
      local batch = samebits.batch(shards.shard(spec, CUTS[s], CUTS[s + 1])):to(device)
      list[s] = assert(ctx:partial(batch, { entropy = true }))
    end
    whole = assert(ctx:merge(list))
  end)

  local function finish(records, opts)
    return ctx:finish(records, samebits.batch(shards.shard(spec, 0, 0)):to(device), opts or ENTROPY)
  end

  local function merge_damaged(s, ...)
    local bad = { list[1], list[2], list[3] }
    bad[s] = shards.placed(at, damaged(list[s], ...))
    return misuse(function() ctx:merge(bad) end)
  end

  local function finish_damaged(...)
    local bad = shards.placed(at, damaged(whole, ...))
    return misuse(function() finish(bad) end)
  end

  -- The whole records; the target's logit of row 0 is so many encodings above its largest logit.
  local function with_target(above)
    local moments, targets = assert(whole.moments:to "cpu"), assert(whole.targets:to "cpu"):clone()
    local largest = ffi.cast("const uint32_t *", moments.ptr)[56 / 4] - 2 ^ 31 -- positive: its bits
    ffi.cast("uint32_t *", targets.ptr)[0] = largest + above
    return { moments = whole.moments, targets = assert(targets:to(device)) }
  end

  it("begin with the records without, on " .. at.name, function()
    local plain = assert(ctx:partial(samebits.batch(spec):to(device)))
    assert.same({ R, 64 }, whole.moments.shape)
    assert.same_bits(assert(plain.states:to "cpu"),
                     assert(whole.moments:to "cpu"):slice(1, 0, 32):contiguous())
    assert.same_bits(assert(plain.targets:to "cpu"), assert(whole.targets:to "cpu"))
  end)

  it("give entropy where others refuse to, on " .. at.name, function()
    local want = assert(ctx:logprob(samebits.batch(spec):to(device), ENTROPY)).entropy
    assert.same_bits(assert(want:to "cpu"), assert(finish(whole).entropy:to "cpu"))
    local plain = assert(ctx:partial(samebits.batch(spec):to(device)))
    says(misuse(function() finish(plain) end), "no moments, which entropy needs", "SB_MOMENTS")
    assert.is_nil(finish(whole, { outputs = { "token" } }).entropy)
  end)

  it("leave of a row what logprob leaves, on " .. at.name, function()
    for _, outputs in ipairs { { "saved" }, { "saved", "entropy" } } do
      local want = assert(ctx:logprob(samebits.batch(spec):to(device), { outputs = outputs })).saved
      assert.same_bits(assert(want:to "cpu"),
                       assert(finish(whole, { outputs = outputs }).saved:to "cpu"))
    end
  end)

  it("are refused where no shard gives them, on " .. at.name, function()
    says(merge_damaged(2, { 1, 0, 7 }), "row 1, shard 1: no state has J = 7")
    says(merge_damaged(3, { 1, 60, 1 }), "row 1, shard 2: the moments (", "then 00000001)")
    says(merge_damaged(1, { 0, 36, 0x20000000 }), "row 0, shard 0: the moments (2000000")
    says(merge_damaged(1, { 0, 56, 0x007fffff }), "row 0, shard 0: the moments (",
         "largest logit 007fffff")
    says(merge_damaged(1, { 0, 56, 0xff800000 }), "largest logit ff800000")
    says(merge_damaged(2, { 2, 32, 1 }), "row 2, shard 1: the moments (0000000000000001 0") -- empty
    says(merge_damaged(3, { 3, 56, 0x80000000 }), "row 3, shard 2", "80000000") -- poisoned
    says(merge_damaged(2, { 0, 4, 0x3f800000 }), "row 0, shard 1: the state is of another")
    says(finish_damaged({ 1, 60, 5 }), "row 1: the moments (", "then 00000005)")
    says(finish_damaged({ 1, 8, 1 }, { 3, 48, 1 }), "row 3: the moments (")
    assert.same_bits(assert(ctx:merge(list)).moments, whole.moments)
  end)

  it("are refused beside a target, and with a largest logit, that they cannot hold, on " .. at.name,
     function()
    assert(finish(with_target(0)))
    -- One that the sum alone would not tell from it.
    says(misuse(function() finish(with_target(1)) end),
         "row 0: the target's logit (41", "is larger than any that such a state holds")
    says(finish_damaged({ 0, 56, 0xc2c80000 }), "row 0: the moments (", "largest logit c2c80000")
  end)

  if at.backend == "cuda" then
    it("become NaN with such a target, unchecked, on " .. at.name, function()
      local outputs = { outputs = { "token", "lse", "entropy", "saved", "sequence" },
                        check = false }
      local out = assert(finish(with_target(1), outputs))
      says(misuse(function() ctx:check() end), "row 0: the target's logit is not among those")
      for _, name in ipairs { "token", "lse", "entropy", "sequence" } do
        assert.equal("7fc00000", hex.of(assert(out[name]:to "cpu"))[1], name)
      end
      assert.equal(("00"):rep(32), table.concat(assert(out.saved:to "cpu"):bits()[1]))
    end)

    it("are reported by kernels, too, on " .. at.name, function()
      local bad = shards.placed(at, damaged(list[1], { 1, 60, 1 }))
      local merged = assert(ctx:merge({ bad, list[2], list[3] }, { check = false }))
      says(misuse(function() ctx:check() end), "row 1: a state's moments are not those of leaves")
      says(misuse(function() finish(merged) end), "row 1: no state has J = 4294967295")
      local out = assert(finish(merged, { outputs = { "entropy", "saved" }, check = false }))
      says(misuse(function() ctx:check() end), "row 1: ")
      assert.equal("7fc00000", hex.of(assert(out.entropy:to "cpu"))[2])
      assert.equal(("00"):rep(32), table.concat(assert(out.saved:to "cpu"):bits()[2]))
    end)
  end
end

describe("records of shards with moments", function()
  backends.with("cpu", of_backend)
  backends.with("cuda", of_backend)

  it("are of their kind alone, and can be saved", function()
    local ctx = assert(samebits.open "cpu")
    finally(function() ctx:close() end)
    local spec = example()
    local with = assert(ctx:partial(spec, { entropy = true }))
    local without = assert(ctx:partial(spec))
    says(misuse(function() ctx:merge { without, with } end),
         "merge: shard 1: records with moments, those of shard 0 have states")
    says(misuse(function()
      ctx:merge { { moments = with.moments, states = without.states, targets = with.targets } }
    end), "states or moments, not both")
    says(misuse(function()
      ctx:finish({ moments = without.states, targets = with.targets }, spec)
    end), "finish: moments:", "expected uint8 [.., 64]")
    says(misuse(function() ctx:partial(spec, { entropy = 1 }) end), "entropy: expected a boolean")
    local files = temporary.folder()
    finally(function() files:remove() end)
    local path = files:path "whole.safetensors"
    assert(samebits.save(path, with))
    local want = ctx:logprob(spec, ENTROPY).entropy
    assert.same_bits(want, ctx:finish(assert(samebits.load(path)), spec, ENTROPY).entropy)
  end)
end)
