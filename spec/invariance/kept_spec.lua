-- Kept sets: an id that is not kept counts as -inf, bit for bit, whatever its logit is, and targets
-- outside their kept sets are counted.

local ffi = require "ffi"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local hex = require "spec.support.hex"
local kept = require "spec.support.kept"
local prng = require "spec.support.prng"
local refusal = require "spec.support.refusal"
local shards = require "spec.support.shards"
local with = require "spec.support.with"

local misuse, says = refusal.misuse, refusal.says
local SIZES = { 1, 15, 16, 17, 31, 32, 33, 65, 255, 1023, 1025, 4099 }
local OUTPUTS = { "token", "lse", "sequence", "count" }

local function assert_same(want, got, what)
  for _, name in ipairs(OUTPUTS) do
    assert.same_bits(want[name], got[name], what .. ": " .. name)
  end
end

local example = kept.example

-- The active tokens whose id is not kept, by sequence.
local function outside_of(spec, flags, V)
  local active = samebits.batch(spec):active()
  local out = {}
  for b, ids in ipairs(spec.ids) do
    out[b] = 0
    for t, id in ipairs(ids) do
      if active:get(b - 1, t - 1) ~= 0 and not flags:get(b - 1, t - 1, id % V) then
        out[b] = out[b] + 1
      end
    end
  end
  return out
end

local function counts(t)
  local out = {}
  for b = 0, t.shape[1] - 1 do out[b + 1] = tonumber(t:get(b)) end
  return out
end

describe("kept sets", function()
  backends.each(function(at)
    for _, dtype in ipairs { "float32", "float16", "bfloat16" } do
      it(("are the bits of -inf, %s on %s"):format(dtype, at.name), function()
        for seed, V in ipairs(SIZES) do
          local random = prng.new(seed)
          local spec, flags = example(random, V)
          local what = ("V = %d, seed %d"):format(V, seed)
          local want = at.score(with(spec, { logits = kept.masked(spec.logits, flags):to(dtype) }))
          local got = at.score(with(spec, { logits = spec.logits:to(dtype), kept = flags }))
          assert_same(want, got, what)
          assert.same(outside_of(spec, flags, V), counts(got.outside), what)
          local poisoned = kept.poisoned_outside(spec.logits, flags):to(dtype)
          got = at.score(with(spec, { kept = flags, logits = poisoned }))
          assert_same(want, got, what .. ", poisoned outside")
        end
      end)
    end

    it("stand with the id, not with the logits, on " .. at.name, function()
      local random = prng.new(5)
      local spec, flags = example(random, 100)
      spec.shift, spec.rows = 1, { 1, 2, 3, 5, 6, 7, 9, 10 }
      local want = at.score(with(spec, { logits = kept.masked(spec.logits, flags, 1, 4) }))
      local got = at.score(with(spec, { kept = flags }))
      assert_same(want, got, "shift")
      assert.same(outside_of(spec, flags, 100), counts(got.outside))
    end)

    it("may be packed, strided and cut into shards, on " .. at.name, function()
      for seed, V in ipairs { 17, 100, 1025 } do
        local random = prng.new(seed + 40)
        local spec, flags = example(random, V)
        local want = at.score(with(spec, { logits = kept.masked(spec.logits, flags) }))
        local packed = { logits = spec.logits:view(12, V), kept = flags:view(12, V),
                         cu_seqlens = { 0, 4, 8, 12 } }
        for _, name in ipairs { "ids", "mask", "temperature" } do
          packed[name] = {}
          for b = 1, 3 do
            for t = 1, 4 do packed[name][#packed[name] + 1] = spec[name][b][t] end
          end
        end
        local got = at.score(packed)
        assert.same_bits(want.sequence, got.sequence)
        assert.same_bits(want.token:view(12), got.token)
        local want_entropy = at.score(with(spec, { logits = kept.masked(spec.logits, flags) }),
                                      { outputs = { "entropy" } }).entropy
        local cuts = shards.cuts(random, V, 4)
        local function here() return at end
        spec.kept = flags
        local merged = shards.merged(at, shards.records(here, spec, cuts))
        got = shards.finished(at, merged, spec)
        assert_same(want, got, "shards")
        merged = shards.merged(at, shards.records(here, spec, cuts, { entropy = true }))
        local entropy = shards.finished(at, merged, spec, { outputs = { "entropy" } }).entropy
        assert.same_bits(want_entropy, entropy)
        assert.same(outside_of(spec, flags, V), counts(got.outside))
      end
    end)

    it("of all ids change no bit, and of one give 0, on " .. at.name, function()
      local V = 1000
      local logits = hex.tensor(hex.values(2 * V, 3), { 2, V })
      local all = samebits.zeros({ 2, V }, "bool")
      ffi.fill(all.ptr, 2 * V, 1)
      local spec = { logits = logits, ids = { 3, 999 } }
      local want, got = at.score(spec), at.score(with(spec, { kept = all }))
      assert_same(want, got, "all")
      assert.same({ 0 }, counts(got.outside))
      assert.is_nil(want.outside)
      local one = samebits.zeros({ 2, V }, "bool")
      one:set(true, 0, 3)
      one:set(true, 1, 998)
      got = at.score(with(spec, { kept = one }))
      assert.same({ "00000000", "ff800000" }, got.token:bits())
      assert.same({ "ff800000" }, got.sequence:bits())
      assert.same({ 1 }, counts(got.outside))
      got = at.score(with(spec, { kept = samebits.zeros({ 2, V }, "bool") }))
      assert.same({ "7fc00000", "7fc00000" }, got.token:bits())
      assert.same({ 2 }, counts(got.outside))
    end)
  end)

  it("are words of 32 ids, or flags", function()
    local logits = hex.tensor(hex.values(80, 3), { 2, 40 })
    local spec = { logits = logits, ids = { 1, 39 } }
    local words = samebits.tensor({ { 7, 128 }, { -2147483648, 128 } }, { dtype = "int32" })
    local flags = {}
    for row = 1, 2 do
      flags[row] = {}
      for id = 0, 39 do flags[row][id + 1] = 0 end
    end
    for _, id in ipairs { 0, 1, 2, 39 } do flags[1][id + 1] = 1 end
    for _, id in ipairs { 31, 39 } do flags[2][id + 1] = 1 end
    local want = samebits.logprob(with(spec, { kept = flags }))
    assert_same(want, samebits.logprob(with(spec, { kept = words })), "words")
    assert_same(want, samebits.logprob(with(spec, { kept = samebits.tensor(flags):to "int64" })),
                "integers")
    assert.same(words:bits(), samebits.batch(with(spec, { kept = flags })).kept:bits())
    local there = { logits = assert(logits:to(backends.LOOPBACK)), ids = spec.ids,
                    kept = assert(samebits.tensor(flags):to("uint8"):to(backends.LOOPBACK)) }
    assert.same(words:bits(), assert(samebits.batch(there).kept:to "cpu"):bits())
    says(tostring(samebits.batch(with(spec, { kept = words }))), "kept", "int32 [2, 2]")
  end)

  it("that do not fit are refused", function()
    local logits = hex.tensor(hex.values(80, 3), { 2, 40 })
    local function words(value)
      return misuse(function() samebits.batch { logits = logits, ids = { 0, 1 }, kept = value } end)
    end
    says(words(samebits.zeros({ 2, 3 }, "int32")), "kept: int32 [2, 3]", "[2, 2]", "[2, 40]")
    says(words(samebits.zeros({ 2, 40 }, "float32")), "kept: dtype float32")
    says(words { { true }, { true } }, "kept[0] has 1 entries, expected 40")
    says(words(3), "kept: expected")
    local conventional = require "samebits.conventional"
    local ctx = assert(samebits.open "cpu")
    finally(function() ctx:close() end)
    says(misuse(function()
      conventional.logprob(ctx, { logits = logits, ids = { 0, 1 },
                                  kept = samebits.zeros({ 2, 2 }, "int32") })
    end), "takes no kept sets")
  end)
end)
