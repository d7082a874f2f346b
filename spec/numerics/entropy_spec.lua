-- Entropy on every backend and instruction set: it has the same bits in any launch and layout,
-- agrees with fp64, is exact at the edges, and changes no other output.

local ffi = require "ffi"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local bounds = require "spec.support.bounds"
local hex = require "spec.support.hex"
local judge = require "spec.support.judge"
local logits = require "spec.support.logits"
local oracle = require "spec.support.oracle"
local refusal = require "spec.support.refusal"

local INF = math.huge
local ZERO, NAN = "00000000", "7fc00000"

local function ids_of(rows, V)
  local list = {}
  for r = 1, rows do list[r] = r * 7919 % V end
  return list
end

-- Rows of each kind with some ids absent, and the results of the first variant for them.
local SIZES = { { 1, 1 }, { 2, 17 }, { 3, 255 }, { 2, 1025 }, { 2, 4112 } }
local calls
local function all_calls()
  if calls then return calls end
  calls = {}
  for d, distribution in ipairs(logits.distributions) do
    for _, dtype in ipairs { "float32", "bfloat16", "float16" } do
      local rows, V = unpack(SIZES[(d + #dtype) % #SIZES + 1])
      local t = logits.make(distribution, dtype, rows, V, d)
      for i = 2, V - 1, 5 do t:set(-INF, 0, i) end
      calls[#calls + 1] = { logits = t, ids = ids_of(rows, V),
                            temperature = logits.temperature(distribution) }
    end
  end
  return calls
end

local wanted = {}

backends.each(function(at)
  local function entropies(spec, outputs)
    return at.score(spec, { outputs = outputs or { "entropy" } }).entropy
  end

  local function of_values(values, temperature)
    local t = entropies { logits = hex.tensor(values, { 1, #values }), ids = { 0 },
                          temperature = temperature }
    return hex.of(t)[1], t[0]
  end

  describe("entropy on " .. at.name, function()
    it("has the same bits as elsewhere, and moves no other output", function()
      for k, spec in ipairs(all_calls()) do
        local out = at.score(spec, { outputs = { "entropy", "count", "token", "lse", "sequence" } })
        wanted[k] = wanted[k] or out.entropy
        assert.same_bits(wanted[k], out.entropy, "call " .. k)
        local plain = at.score(spec)
        assert.is_nil(plain.entropy)
        for name, t in pairs(plain) do assert.same_bits(t, out[name], name) end
      end
    end)

    it("is right, against fp64", function()
      local judged = judge()
      for k, spec in ipairs(all_calls()) do
        local out, V = entropies(spec), spec.logits.shape[2]
        local dense = assert(spec.logits:to "float32") -- a pointer alone would not keep them
        local x = ffi.cast("const float *", dense.ptr)
        for r = 0, spec.logits.shape[1] - 1 do
          local truth = oracle.row(x + r * V, V, spec.temperature)
          judged.within(("call %d, row %d"):format(k, r), out[r], truth.entropy,
                        bounds.entropy(truth, out[r]))
        end
      end
      judged.done(50)
    end)

    -- The token that dominates is the only present id of its leaf: nothing of the others is lost
    -- in its rounding.
    it("is right relatively where one token dominates", function()
      local judged = judge()
      for _, lead in ipairs { 8, 12, 16, 20, 25, 30 } do
        local values = {}
        for i = 1, 40 do values[i] = (i < 17 or i > 32) and 0 or -INF end
        values[20] = lead
        local _, got = of_values(values)
        local t = hex.tensor(values, { 40 })
        local truth = oracle.row(ffi.cast("const float *", t.ptr), 40, 1)
        judged.within("lead " .. lead, got, truth.entropy, bounds.entropy_alone(truth, 40, got))
      end
      judged.done(6)
    end)

    it("does not depend on container, layout, padding or the order of leaves", function()
      local V, rows = 160, 4
      local values = hex.values(V * rows, 11)
      local t = hex.tensor(values, { rows, V })
      local ids = ids_of(rows, V)
      local want = hex.of(entropies { logits = t, ids = ids })
      for _, dtype in ipairs { "bfloat16", "float16" } do
        assert.same(want, hex.of(entropies { logits = assert(t:to(dtype)), ids = ids }), dtype)
      end
      -- Rows further apart, padded by -inf, and begun at an odd place.
      local wide = samebits.zeros({ rows, V + 23 }, "float32")
      for r = 0, rows - 1 do
        for i = 0, V + 22 do wide:set(i < V and values[r * V + i + 1] or -INF, r, i) end
      end
      assert.same(want, hex.of(entropies { logits = wide, ids = ids }), "absent ids")
      assert.same(want, hex.of(entropies { logits = wide:slice(1, 0, V), ids = ids }), "strides")
      local moved = samebits.zeros({ rows * V + 1 }, "float32")
      ffi.copy(moved.ptr + 4, t.ptr, rows * V * 4)
      assert.same(want, hex.of(entropies {
        logits = moved:slice(0, 1, rows * V + 1):view(rows, V), ids = ids }), "an odd place")
      local turned = samebits.zeros({ rows, V }, "float32")
      for r = 0, rows - 1 do
        for i = 0, V - 1 do
          turned:set(values[r * V + i + 1], r, (V / 16 - 1 - math.floor(i / 16)) * 16 + i % 16)
        end
      end
      assert.same(want, hex.of(entropies { logits = turned, ids = ids }), "leaves turned round")
      local two = entropies { logits = t:view(2, 2, V), ids = { { 1, 2 }, { 3, 4 } } }
      assert.same({ 2, 2 }, two.shape)
      assert.same(want, hex.of(two), "two sequences")
    end)

    it("is exactly +0 where one id is present, and ln 2 where two are alike", function()
      for _, x in ipairs { 0, 3.3, -1e30, 5e4, -0x1.fffffep127, 1e-40 } do
        assert.equal(ZERO, (of_values { x }))
        local values = {}
        for i = 1, 50 do values[i] = -INF end
        values[38] = x
        for _, tau in ipairs { 2 ^ -10, 0.7, 2 ^ 10 } do
          assert.equal(ZERO, (of_values(values, tau)), x)
        end
        values[3] = x
        assert.equal("3f317218", (of_values(values)), x)
      end
    end)

    it("is never below +0", function()
      for seed = 1, 40 do
        local values = hex.values(48, seed)
        for i = 1, 48 do values[i] = values[i] * 2 end
        values[seed] = 30 + seed
        local bits, got = of_values(values)
        assert.is_true(got >= 0 and bits ~= "80000000", bits)
      end
    end)

    it("is NaN in poisoned and empty rows, and +0 in ignored ones", function()
      local function filled(x)
        local values = hex.values(40, 2)
        values[21] = x
        return values
      end
      for _, poison in ipairs { INF, "7fc00000", "ffc00001", "7f800001", "ffffffff" } do
        assert.equal(NAN, (of_values(filled(poison))))
      end
      local empty = {}
      for i = 1, 40 do empty[i] = -INF end
      assert.equal(NAN, (of_values(empty)))
      local values = filled "7fc00000"
      for _, x in ipairs(filled(1)) do values[#values + 1] = x end
      local alone = (of_values(filled(1)))
      for _, how in ipairs { { ids = { -100, 5 } }, { ids = { 1, 5 }, mask = { 0, 1 } },
                             { ids = { 99, 5 }, rows = { 1 } } } do
        how.logits = hex.tensor(values, { 2, 40 })
        assert.same({ ZERO, alone }, hex.of(entropies(how)))
        local out = { entropy = samebits.empty({ 2 }, "float32") }
        ffi.fill(out.entropy.ptr, 8, 0x55)
        out = { entropy = assert(out.entropy:to(at.context().device)) }
        assert(at.context():logprob(at.batch(how), { outputs = { "entropy" }, out = out }))
        assert.same({ ZERO, alone }, hex.of(assert(out.entropy:to "cpu")))
      end
      local shifted = entropies { logits = hex.tensor(values, { 2, 40 }), ids = { 0, 0 },
                                  shift = 1 }
      assert.same({ ZERO, NAN }, hex.of(shifted))
    end)

    it("is not given for a bad id", function()
      assert.error_matches(function()
        entropies { logits = hex.tensor(hex.values(40, 1), { 1, 40 }), ids = { 40 } }
      end, "id 40")
    end)

    it("is refused of records", function()
      local spec = { logits = hex.tensor(hex.values(40, 1), { 1, 40 }), ids = { 4 } }
      local batch = at.batch(spec)
      local records = assert(at.context():partial(batch))
      refusal.says(refusal.misuse(function()
        at.context():finish(records, batch, { outputs = { "entropy" } })
      end), "no moments, which entropy needs")
    end)
  end)
end)

describe("sb_logprob_out", function()
  local lib = require "samebits.lib"
  local function call(size)
    local ctx = assert(samebits.open "cpu")
    local batch = samebits.batch { logits = hex.tensor(hex.values(40, 1), { 1, 40 }), ids = { 4 } }
    local token, entropy = ffi.new("float[1]", 9), ffi.new("float[1]", 9)
    local out = ffi.new "sb_logprob_out"
    out.size, out.token, out.entropy = size, token, entropy
    local status = tonumber(lib.C.sb_logprob(ctx.handle, out, batch.c, nil))
    local message = ffi.string(lib.C.sb_last_error(ctx.handle))
    ctx:close()
    return status, token[0], entropy[0], message
  end

  it("may end before entropy, which is then not written", function()
    local status, token, entropy = call(40)
    assert.equal(0, status)
    assert.is_true(token < 0)
    assert.equal(9, entropy)
    status, token, entropy = call(ffi.sizeof "sb_logprob_out")
    assert.equal(0, status)
    assert.is_true(token < 0 and entropy > 0 and entropy < 9)
  end)

  it("of another size is refused", function()
    for _, size in ipairs { 0, 8, 32, 39, 41, 44, 1024, 2 ^ 32 - 8 } do
      local status, token, _, message = call(size)
      assert.equal(1, status)
      assert.equal(9, token)
      refusal.says(message, "sb_logprob_out.size is")
    end
  end)
end)
