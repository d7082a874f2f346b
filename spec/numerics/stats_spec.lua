-- Ratios, KL estimates, exact sums and means: golden vectors, values known from elsewhere, edges,
-- and circumstances that cannot change a bit. Encodings are compared.

local samebits = require "samebits"
local backends = require "spec.support.backends"
local hex = require "spec.support.hex"
local prng = require "spec.support.prng"
local stat_vectors = require "spec.support.stat_vectors"

local INF, ONE, ZERO, NAN = math.huge, "3f800000", "00000000", "7fc00000"
local PLUS_INF, MINUS_INF = "7f800000", "ff800000"

-- sampled, other, and what mpmath gives for e^d, -d, d^2 / 2 and e^d - 1 - d at 50 digits, d being
-- the difference of the two fp32 values; each rounded to fp32.
local KNOWN = {
  { "bf800000", "bf99999a", "3f519856", "3e4cccd0", "3ca3d70f", "3c997141" }, -- -1, -1.2
  { "c0a00000", "bf800000", "425a6481", "c0800000", "41000000", "42466481" }, -- -5, -1
  { "bf800000", "bf7ffffe", "3f800001", "b4000000", "28000000", "28000000" }, -- 2 ulps apart
  { "bf800000", "c1a00000", "31c082b8", "41980000", "43348000", "41900000" }, -- -1, -20
  { "c2b00000", "00000000", "7ef882b7", "c2b00000", "45720000", "7ef882b7" }, -- e^88
}

-- A list in another order.
local function shuffled(random, list)
  local out = {}
  for i = 1, #list do out[i] = list[i] end
  for i = #out, 2, -1 do
    local j = random:integer(1, i)
    out[i], out[j] = out[j], out[i]
  end
  return out
end

backends.each(function(at)
  local function there(values, shape)
    return assert(hex.tensor(values, shape):to(at.context().device))
  end

  local function compare(sampled, other)
    local n = { #sampled }
    local out, results = assert(at.context():compare(there(sampled, n), there(other, n))), {}
    for name, t in pairs(out) do results[name] = hex.of(assert(t:to "cpu")) end
    return results
  end

  -- Of each sequence, from a flat list.
  local function sums(values, shape, opts)
    opts = opts or {}
    local given = {}
    for key, value in pairs(opts) do given[key] = value end
    if opts.minus then given.minus = there(opts.minus, shape) end
    local out, results = assert(at.context():sums(there(values, shape), given)), {}
    for name, t in pairs(out) do
      t = assert(t:to "cpu")
      results[name] = name == "count" and t:totable() or hex.of(t)
    end
    return results
  end

  local function one(values, opts)
    local out = sums(values, { #values }, opts)
    return { out.sum[1], out.mean[1], out.exp_mean[1] }
  end

  describe("statistics on " .. at.name .. ":", function()
    it("golden vectors of compare", function()
      local want = stat_vectors.compare()
      assert.is_true(#want.sampled > 1500)
      local got = compare(want.sampled, want.other)
      for _, name in ipairs { "ratio", "k1", "k2", "k3" } do
        for i = 1, #want.sampled do
          if want[name][i] ~= got[name][i] then
            error(("%s of %s and %s: %s, expected %s"):format(name, want.sampled[i], want.other[i],
                                                            got[name][i], want[name][i]))
          end
        end
      end
    end)

    it("golden vectors of sums, alone and packed", function()
      local cases = stat_vectors.means()
      assert.is_true(#cases > 120)
      local x, ends, wants = {}, { 0 }, {}
      for _, case in ipairs(cases) do
        assert.same({ case.sum, case.mean, case.exp_mean }, one(case.x, { minus = case.minus }),
                    case.name)
        if not case.minus then
          for _, word in ipairs(case.x) do x[#x + 1] = word end
          ends[#ends + 1], wants[#wants + 1] = #x, case
        end
      end
      local packed = sums(x, { #x }, { cu_seqlens = ends })
      for b, case in ipairs(wants) do
        assert.same({ case.sum, case.mean, case.exp_mean },
                    { packed.sum[b], packed.mean[b], packed.exp_mean[b] }, case.name)
        assert.equal(#case.x, packed.count[b])
      end
    end)

    it("values known from elsewhere", function()
      for _, known in ipairs(KNOWN) do
        local got = compare({ known[1] }, { known[2] })
        assert.same({ known[3], known[4], known[5], known[6] },
                    { got.ratio[1], got.k1[1], got.k2[1], got.k3[1] }, known[1] .. " " .. known[2])
      end
    end)

    it("equal bits have ratio 1 and no divergence, whatever they are", function()
      local random = prng.new(3)
      local x = { ZERO, "80000000", MINUS_INF, PLUS_INF, "ff7fffff", "00000001" }
      for i = #x + 1, 2000 do x[i] = -random:uniform() * 40 end
      local got = compare(x, x)
      for i = 1, #x do
        assert.same({ ONE, ZERO, ZERO, ZERO }, { got.ratio[i], got.k1[i], got.k2[i], got.k3[i] })
      end
      assert.same({ ZERO, ZERO, ONE }, one(x, { minus = x }))
    end)

    it("infinities and NaN", function()
      local x = { MINUS_INF, -1, "ffc00001", -1, PLUS_INF, MINUS_INF }
      local y = { -1, MINUS_INF, -1, "7f800001", MINUS_INF, PLUS_INF }
      local got = compare(x, y)
      assert.same({ PLUS_INF, ZERO, NAN, NAN, ZERO, PLUS_INF }, got.ratio)
      assert.same({ MINUS_INF, PLUS_INF, NAN, NAN, PLUS_INF, MINUS_INF }, got.k1)
      assert.same({ PLUS_INF, PLUS_INF, NAN, NAN, PLUS_INF, PLUS_INF }, got.k2)
      assert.same({ PLUS_INF, PLUS_INF, NAN, NAN, PLUS_INF, PLUS_INF }, got.k3)
      assert.same({ NAN, NAN, NAN }, one { 1, "ffc00001" })
      assert.same({ NAN, NAN, NAN }, one { INF, 1, -INF })
      assert.same({ PLUS_INF, PLUS_INF, PLUS_INF }, one { 1, INF })
      assert.same({ MINUS_INF, MINUS_INF, ZERO }, one { -INF, 1 })
    end)

    it("what is masked out may be anything, and nothing is +0", function()
      local x = { 1, "7fc00000", MINUS_INF, 2, PLUS_INF, "7f800001" }
      local out = sums(x, { 2, 3 }, { mask = { { 1, 0, 0 }, { 255, 0, 0 } } })
      assert.same({ ONE, "40000000" }, out.sum)
      assert.same({ 1, 1 }, out.count)
      out = sums(x, { 2, 3 }, { mask = { { 0, 0, 0 }, { 0, 0, 0 } } })
      assert.same({ ZERO, ZERO }, out.sum)
      assert.same({ ZERO, ZERO }, out.mean)
      assert.same({ ONE, ONE }, out.exp_mean)
      assert.same({ 0, 0 }, out.count)
      assert.same({}, sums({}, { 0 }, { cu_seqlens = { 0 } }).sum)
      assert.same({ ZERO }, sums({}, { 1, 0 }).sum)
      assert.same({ ONE, ONE }, sums({}, { 2, 0 }).exp_mean)
    end)

    it("sums are of real numbers: 2^100 + 1 - 2^100 is 1", function()
      assert.same({ ONE, "3eaaaaab", "3fb2a36e" }, one { 2 ^ 100, 1, -2 ^ 100 })
      assert.same({ "7f7fffff" }, { one({ 0x1.fffffep127, 0x1.fffffep127, -0x1.fffffep127 })[1] })
    end)

    it("order, place, padding and packing cannot reach a bit", function()
      local random = prng.new(11)
      local lengths, sequences, minus = { 1, 7, 33, 700, 0, 1025 }, {}, {}
      for b, n in ipairs(lengths) do
        sequences[b], minus[b] = {}, {}
        for i = 1, n do
          sequences[b][i] = random:normal() * 2 ^ random:integer(-40, 40)
          minus[b][i] = random:normal() * 2 ^ random:integer(-40, 40)
        end
      end
      local want = {}
      for b in ipairs(lengths) do want[b] = one(sequences[b], { minus = minus[b] }) end

      -- Shuffled alike, packed behind each other.
      local x, y, ends = {}, {}, { 0 }
      for b, n in ipairs(lengths) do
        local places = {}
        for i = 1, n do places[i] = i end
        for _, i in ipairs(shuffled(random, places)) do
          x[#x + 1], y[#y + 1] = sequences[b][i], minus[b][i]
        end
        ends[b + 1] = #x
      end
      local packed = sums(x, { #x }, { minus = y, cu_seqlens = ends })
      -- Padded on both sides with rubbish.
      local T, padded, other, mask = 1100, {}, {}, {}
      for b, n in ipairs(lengths) do
        mask[b] = {}
        local before = random:integer(0, T - n)
        for t = 1, T do
          local i = t - before
          local inside = i >= 1 and i <= n
          mask[b][t] = inside and 1 or 0
          padded[#padded + 1] = inside and sequences[b][i] or NAN
          other[#other + 1] = inside and minus[b][i] or PLUS_INF
        end
      end
      local out = sums(padded, { #lengths, T }, { minus = other, mask = mask })
      for b, n in ipairs(lengths) do
        assert.same(want[b], { packed.sum[b], packed.mean[b], packed.exp_mean[b] })
        assert.same(want[b], { out.sum[b], out.mean[b], out.exp_mean[b] })
        assert.equal(n, out.count[b])
        assert.equal(n, packed.count[b])
      end
      -- The whole batch, by either shape.
      local all = sums(x, { #x }, { minus = y, per = "batch" })
      local same = sums(padded, { #lengths, T }, { minus = other, mask = mask, per = "batch" })
      assert.same(all, same)
      assert.same({ #x }, all.count)
    end)

    it("a token's results do not depend on its neighbours", function()
      local random, x, y = prng.new(5), {}, {}
      for i = 1, 5000 do
        x[i] = -random:uniform() * 20
        y[i] = x[i] + random:normal() * 2 ^ random:integer(-20, 3)
      end
      local all = compare(x, y)
      for _, i in ipairs { 1, 2, 31, 256, 257, 4096, 4097, 5000 } do
        local alone = compare({ x[i] }, { y[i] })
        for name, bits in pairs(all) do assert.equal(alone[name][1], bits[i]) end
      end
    end)

    it("the library's own logprobs sum to what logprob gives", function()
      local logits = hex.tensor(hex.values(6 * 40, 9), { 2, 3, 40 })
      local out = at.score { logits = logits, ids = { { 1, -100, 39 }, { 7, 8, 9 } } }
      local token = hex.of(out.token)
      local summed = sums(token, { 2, 3 }, { mask = { { 1, 0, 1 }, { 1, 1, 1 } } })
      assert.same(hex.of(out.sequence), summed.sum)
      assert.same(out.count:totable(), summed.count)
    end)
  end)
end)

describe("statistics:", function()
  it("a long sequence is summed as its parts are", function()
    local ctx = assert(samebits.open "cpu")
    local x, random = {}, prng.new(2)
    for i = 1, 30000 do x[i] = random:normal() end
    local t = hex.tensor(x, { 30000 })
    local padded = t:view(3, 10000)
    assert.same_bits(ctx:sums(t).sum, ctx:sums(padded, { per = "batch" }).sum)
    local four = assert(samebits.open("cpu", { threads = 4 }))
    assert.same_bits(ctx:sums(padded).sum, four:sums(padded).sum)
    assert.same_bits(ctx:compare(t, t:view(30000)).k3, samebits.zeros { 30000 })
  end)
end)
