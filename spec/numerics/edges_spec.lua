-- Every row of the edge table of docs/numerics.md, through the Lua API, on every backend and
-- instruction set. Encodings are compared.

local ffi = require "ffi"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local bounds = require "spec.support.bounds"
local hex = require "spec.support.hex"

local INF, LOWEST = math.huge, -0x1.fffffep127
local ZERO, MINUS_INF, NAN = "00000000", "ff800000", "7fc00000"
local QUIET_NAN = "7fc00000"
-- Quiet and signalling, either sign, payloads at both ends.
local NANS = { QUIET_NAN, "ffc00000", "7f800001", "ff800001", "7fffffff", "ffffffff" }

ffi.cdef [[
void *mmap(void *address, size_t length, int protection, int flags, int fd, long offset);
int munmap(void *address, size_t length);
]]

-- V = 40: two leaves and half a one.
local V = 40

local function row(seed, changes)
  local values = hex.values(V, seed)
  for id, x in pairs(changes or {}) do values[id + 1] = x end
  return values
end

local function rows(...)
  local all = {}
  for _, values in ipairs { ... } do
    for _, x in ipairs(values) do all[#all + 1] = x end
  end
  return hex.tensor(all, { select("#", ...), #(...) })
end

backends.each(function(at)
  -- Into memory that holds something else: whatever an output is to say has to be written.
  local function score(spec)
    local batch, outputs = at.batch(spec), {}
    for name, t in pairs(assert(at.context():logprob(batch))) do
      local filled = samebits.empty(t.shape, t.dtype)
      ffi.fill(filled.ptr, t:numel() * t.itemsize, 0x55)
      outputs[name] = assert(t:copy_(filled))
    end
    return at.score(batch, { out = outputs })
  end

  local function bits_of(values, id, temperature)
    local out = score { logits = hex.tensor(values, { 1, #values }), ids = { id },
                        temperature = temperature }
    return hex.of(out.token)[1], hex.of(out.lse)[1]
  end

  describe("edges on " .. at.name .. ":", function()
    it("an ignored id gives +0 and counts nowhere", function()
      local out = score { logits = rows(row(1), row(2), row(3)), ids = { 5, -100, 7 } }
      local alone = score { logits = rows(row(1), row(3)), ids = { 5, 7 } }
      local token, lse = hex.of(out.token), hex.of(out.lse)
      assert.equal(ZERO, token[2])
      assert.equal(ZERO, lse[2])
      assert.same({ hex.of(alone.token)[1], hex.of(alone.token)[2] }, { token[1], token[3] })
      assert.same(hex.of(alone.sequence), hex.of(out.sequence))
      assert.equal(2, tonumber(out.count:get(0)))
    end)

    it("ignore_index wins inside [0, V), and another one makes -100 an error", function()
      local out = score { logits = rows(row(1), row(2)), ids = { 5, 7 }, ignore_index = 7 }
      assert.equal(ZERO, hex.of(out.token)[2])
      assert.equal(1, tonumber(out.count:get(0)))
      assert.error_matches(function()
        score { logits = rows(row(1)), ids = { -100 }, ignore_index = 7 }
      end, "%-100")
    end)

    it("a mask of 0 wins over an id out of range", function()
      for _, id in ipairs { -1, V, 2 ^ 31, -2 ^ 40 } do
        local out = score { logits = rows(row(1), row(2)), ids = { id, 3 }, mask = { 0, 1 } }
        assert.equal(ZERO, hex.of(out.token)[1])
        assert.equal(ZERO, hex.of(out.lse)[1])
        assert.not_equal(ZERO, hex.of(out.token)[2])
      end
    end)

    it("ignored rows may be poisoned", function()
      local out = score { logits = rows(row(1, { [3] = QUIET_NAN }), row(2)), ids = { 3, 4 },
                          mask = { 0, 1 } }
      assert.equal(ZERO, hex.of(out.token)[1])
    end)

    local it_in_memory = at.context().device == "cpu" and it or function() end
    it_in_memory("ignored rows may be unmapped", function()
      -- Four pages of which only the second can be read; a row is a page.
      local page = 4096
      local base = ffi.cast("uint8_t *", ffi.C.mmap(nil, 4 * page, 0, 0x22, -1, 0))
      assert(base ~= ffi.cast("void *", -1))
      ffi.C.munmap(base + page, page)
      local readable = ffi.C.mmap(base + page, page, 3, 0x32, -1, 0)
      assert(readable == base + page)
      local logits = samebits.tensor(base, { dtype = "float32", shape = { 4, page / 4 } })
      local alone = samebits.zeros({ 1, page / 4 }, "float32")
      local want = hex.of(score({ logits = alone, ids = { 9 } }).token)[1]
      for _, spec in ipairs {
        { ids = { -100, 9, -100, -100 } },
        { ids = { 1, 9, 2, 3 }, mask = { false, true, false, false } },
        { ids = { 1, 9, 2, 3 }, rows = { 1 } },
        -- Row 2 is scored by the logits of row 1.
        { ids = { 1, -100, 9, -100 }, shift = 1 },
      } do
        spec.logits = logits
        local got = hex.of(score(spec).token)
        local place = spec.shift and 3 or 2
        for r = 1, 4 do assert.equal(r == place and want or ZERO, got[r]) end
      end
      ffi.C.munmap(base, 4 * page)
    end)

    it("an active id outside [0, V) is an error that names row and id", function()
      for _, id in ipairs { -1, V, -99, 2 ^ 31, 2 ^ 32 + 5, -2 ^ 40 } do
        for place = 0, 2 do
          local ids = { 1, 2, 3 }
          ids[place + 1] = id
          local ok, why = pcall(score, { logits = rows(row(1), row(2), row(3)), ids = ids })
          assert.is_false(ok)
          assert.matches(("%%f[%%w]%d%%f[%%W]"):format(place), why)
          assert.truthy(why:find(("%d"):format(id), 1, true), why)
        end
      end
    end)

    it("names the first bad row", function()
      local ok, why = pcall(score, { logits = rows(row(1), row(2), row(3)), ids = { 1, 77, 88 } })
      assert.is_false(ok)
      assert.truthy(why:find("77", 1, true))
      assert.is_nil(why:find("88", 1, true))
    end)

    it("a NaN or +inf anywhere makes that row NaN, and no other", function()
      local clean = score { logits = rows(row(1), row(2), row(3)), ids = { 0, 1, 2 } }
      local poisons = { INF }
      for _, nan in ipairs(NANS) do poisons[#poisons + 1] = nan end
      for _, poison in ipairs(poisons) do
        for _, id in ipairs { 0, 1, 7, 8, 15, 16, 31, 32, V - 1 } do
          local out = score { logits = rows(row(1), row(2, { [id] = poison }), row(3)),
                              ids = { 0, 1, 2 } }
          local token, lse = hex.of(out.token), hex.of(out.lse)
          local where = ("%s at id %d"):format(tostring(poison), id)
          assert.equal(NAN, token[2], where)
          assert.equal(NAN, lse[2], where)
          assert.equal(hex.of(clean.token)[1], token[1], where)
          assert.equal(hex.of(clean.token)[3], token[3], where)
          assert.equal(hex.of(clean.lse)[3], lse[3], where)
          assert.equal(NAN, hex.of(out.sequence)[1], where)
        end
      end
    end)

    it("poison comes before an absent target, in the same and in another leaf", function()
      for _, id in ipairs { 5, 35 } do
        local token, lse = bits_of(row(1, { [id] = QUIET_NAN, [6] = -INF }), 6)
        assert.same({ NAN, NAN }, { token, lse })
      end
    end)

    it("a row of -inf is NaN, that row only", function()
      local empty = {}
      for i = 1, V do empty[i] = -INF end
      local out = score { logits = rows(empty, row(2)), ids = { 0, 1 } }
      assert.equal(NAN, hex.of(out.token)[1])
      assert.equal(NAN, hex.of(out.lse)[1])
      assert.same({ bits_of(row(2), 1) }, { hex.of(out.token)[2], hex.of(out.lse)[2] })
    end)

    it("an absent target is -inf, with a finite lse", function()
      local token, lse = bits_of(row(1, { [20] = -INF }), 20)
      assert.equal(MINUS_INF, token)
      -- The others are unmoved by which id was asked for.
      local _, other = bits_of(row(1, { [20] = -INF }), 21)
      assert.equal(other, lse)
    end)

    it("absent ids and absent leaves leave nothing behind", function()
      local base = row(4)
      local want = { bits_of(base, 17) }
      -- Padding columns of -inf, to the leaf's end and by whole leaves.
      for _, more in ipairs { 1, 8, 24, 1000 } do
        local wider = row(4)
        for _ = 1, more do wider[#wider + 1] = -INF end
        assert.same(want, { bits_of(wider, 17) })
      end
      -- A whole absent leaf in front.
      local moved = {}
      for i = 1, 16 do moved[i] = -INF end
      for i = 1, V do moved[16 + i] = base[i] end
      assert.same(want, { bits_of(moved, 33) })
      -- Leaves in another order.
      local swapped = {}
      for i = 1, 16 do swapped[i], swapped[16 + i] = base[16 + i], base[i] end
      for i = 33, V do swapped[i] = base[i] end
      assert.same(want, { bits_of(swapped, 1) })
    end)

    it("a token that stands alone is exactly +0", function()
      for _, x in ipairs { 0, 1.5, -3, 1e4, -1e4, 3e38, LOWEST, 2 ^ -149 } do
        for _, id in ipairs { 0, 7, 15, 16, V - 1 } do
          local alone = {}
          for i = 1, V do alone[i] = -INF end
          alone[id + 1] = x
          assert.equal(ZERO, (bits_of(alone, id)))
        end
        assert.equal(ZERO, (bits_of({ x }, 0)))
      end
    end)

    it("V of 1, 15, 16, 17, 31, 33, 1023, 1025: rows padded to a wider stride", function()
      for _, vocab in ipairs { 1, 15, 16, 17, 31, 33, 1023, 1025 } do
        local values, wide = hex.values(2 * vocab, vocab), {}
        for r = 0, 1 do
          for i = 1, vocab do wide[r * (vocab + 3) + i] = values[r * vocab + i] end
          for i = 1, 3 do wide[r * (vocab + 3) + vocab + i] = NANS[i] end
        end
        local ids = { vocab - 1, 0 }
        local dense = score { logits = hex.tensor(values, { 2, vocab }), ids = ids }
        local padded = hex.tensor(wide, { 2, vocab + 3 }):slice(1, 0, vocab)
        local strided = score { logits = padded, ids = ids }
        assert.same(hex.of(dense.token), hex.of(strided.token))
        assert.same(hex.of(dense.lse), hex.of(strided.lse))
      end
    end)

    it("containers of the same values give the same bits", function()
      for _, vocab in ipairs { 1, 16, 33, 1025 } do
        local logits = hex.tensor(hex.values(vocab, 9), { 1, vocab })
        local want = score { logits = logits, ids = { vocab - 1 } }
        for _, dtype in ipairs { "float16", "bfloat16" } do
          local got = score { logits = logits:to(dtype), ids = { vocab - 1 } }
          assert.same(hex.of(want.token), hex.of(got.token))
          assert.same(hex.of(want.lse), hex.of(got.lse))
        end
      end
    end)

    it("poison and absence in halves, too", function()
      for _, dtype in ipairs { "float16", "bfloat16" } do
        local function bits(changes, id)
          local out = score { logits = rows(row(1, changes)):to(dtype), ids = { id } }
          return hex.of(out.token)[1]
        end
        assert.equal(NAN, bits({ [9] = QUIET_NAN }, 3))
        assert.equal(NAN, bits({ [9] = INF }, 3))
        assert.equal(MINUS_INF, bits({ [3] = -INF }, 3))
        assert.equal(bits_of(row(1, { [9] = -INF }), 3), bits({ [9] = -INF }, 3))
      end
    end)

    it("the sign of zero has no effect", function()
      local plus, minus = row(5, { [2] = 0, [20] = 0 }),
        row(5, { [2] = "80000000", [20] = "80000000" })
      for _, id in ipairs { 2, 3, 20 } do
        assert.same({ bits_of(plus, id) }, { bits_of(minus, id) })
      end
    end)

    it("saturated logits tie, and the lowest float is just a very small logit", function()
      assert.same({ bits_of({ 3e38, 1e38, 0 }, 0) }, { bits_of({ 3e38, 1e38, 0 }, 1) })
      assert.equal("bf317218", (bits_of({ 3e38, 1e38, 0 }, 0)))        -- -ln 2
      assert.equal(ZERO, (bits_of({ LOWEST, 0 }, 1)))
      assert.equal("bf317218", (bits_of({ LOWEST, LOWEST }, 1)))
      local token = bits_of({ LOWEST, 0 }, 0)
      assert.is_true(tonumber(token, 16) > tonumber("c9000000", 16) and token ~= MINUS_INF, token)
    end)

    it("logits saturate where docs/numerics.md says, at any temperature", function()
      for _, t in ipairs { 2 ^ -10, 0.02, 0.7, 0.99, 1, 1.01, 1.4142, 3, 50, 2 ^ 10 } do
        local tau = tonumber(ffi.new("float", t))
        for _, sign in ipairs { -1, 1 } do
          local low, high = sign * bounds.LINEAR * tau, sign * bounds.SATURATED * tau
          for id = 0, 1 do
            assert.equal("bf317218", (bits_of({ high, 1.001 * high }, id, tau)), t)  -- -ln 2
            assert.not_equal("bf317218", (bits_of({ low, 0.999 * low }, id, tau)), t)
          end
        end
      end
    end)

    it("the six vectors that random rows do not replace", function()
      local TAU = 0x1.715476p+0            -- c is exactly 1
      for _, case in ipairs {
        { -1, -INF, "b3ffffff", "bf317216" },
        { -1, -90, "b3ffffff", "bf317216" },
        { 4015, -INF, "00000000", "452defc7" },
        { -4017, -INF, "00000000", "c52e05f5" },
        { 4095, -INF, "b3ffffff", "45316701" },
        { -4097, -INF, "b3ffffff", "c5317d2f" },
      } do
        local m, low = case[1], case[2]
        local values = {}
        for i = 1, 16 do values[i] = low end
        values[1], values[2], values[4] = m, m - 24, m - 48
        assert.same({ case[3], case[4] }, { bits_of(values, 0, TAU) })
      end
    end)

    -- c is 1: m * c + 1.5 * 2^24, which A is read from, is 0.
    it("logits whose octave is -1.5 * 2^24", function()
      local m, values = -1.5 * 2 ^ 24, {}
      for i = 1, 16 do values[i] = m - 8 end
      values[1], values[16] = m, m - 4
      assert.same({ "c0317218", "c9b17202" }, { bits_of(values, 0, 0x1.715476p+0) })
    end)

    it("temperatures outside [2^-10, 2^10] are refused, after rounding to fp32", function()
      local logits = rows(row(1), row(2))
      for _, bad in ipairs { 0, -1, 2 ^ -11, 2 ^ 11, INF, -INF, 0 / 0, 1e300 } do
        assert.has_error(function() score { logits = logits, ids = { 1, 2 },
                                            temperature = bad } end)
        local ok, why = pcall(score, { logits = logits, ids = { 1, 2 }, temperature = { 1, bad } })
        assert.is_false(ok)
        assert.matches("%f[%w]1%f[%W]", why)
      end
      -- Within half an fp32 ulp of the bounds: rounded onto them, and taken.
      for _, good in ipairs { 2 ^ -10, 2 ^ 10, 2 ^ -10 * (1 - 2 ^ -30), 2 ^ 10 * (1 + 2 ^ -30) } do
        score { logits = logits, ids = { 1, 2 }, temperature = good }
        score { logits = logits, ids = { 1, 2 }, temperature = { good, good } }
      end
    end)

    it("a bad temperature of an ignored row is not looked at", function()
      local out = score { logits = rows(row(1), row(2)), ids = { -100, 2 },
                          temperature = { 0 / 0, 1 } }
      assert.equal(ZERO, hex.of(out.token)[1])
    end)

    it("sequences: NaN before -inf, +0 where nothing is active, one token's own bits", function()
      local nan, absent, plain = row(1, { [0] = QUIET_NAN }), row(2, { [1] = -INF }), row(3)
      local all = {}
      for _, values in ipairs { nan, absent, absent, plain, plain, plain } do
        for _, x in ipairs(values) do all[#all + 1] = x end
      end
      local out = score {
        logits = hex.tensor(all, { 3, 2, V }),
        ids = { { 1, 1 }, { 1, 5 }, { 5, 6 } },
        mask = { { 1, 1 }, { 1, 1 }, { 0, 1 } },
      }
      local token, sequence = hex.of(out.token), hex.of(out.sequence)
      assert.same({ NAN, MINUS_INF, token[6] }, sequence)

      out = score { logits = hex.tensor(all, { 3, 2, V }), ids = { { 1, 1 }, { 1, 5 }, { 5, 6 } },
                    mask = { { 0, 0 }, { 0, 0 }, { 0, 0 } } }
      assert.same({ ZERO, ZERO, ZERO }, hex.of(out.sequence))
      for b = 0, 2 do assert.equal(0, tonumber(out.count:get(b))) end
    end)

    it("no rows, no sequences", function()
      for _, shape in ipairs { { 0, 3, V }, { 3, 0, V }, { 0, 0, V }, { 0, V } } do
        local spec = { logits = samebits.zeros(shape, "float32"), shift = 1 }
        local ids = { shape[1], #shape == 3 and shape[2] or nil }
        spec.ids = samebits.zeros(ids, "int32")
        local out = score(spec)
        assert.equal(0, out.token:numel())
        local sequences = #shape == 3 and shape[1] or 1
        assert.equal(sequences, out.sequence:numel())
        for b = 1, sequences do assert.equal(ZERO, hex.of(out.sequence)[b]) end
      end
    end)
  end)
end)
