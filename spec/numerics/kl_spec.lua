-- The divergence of two sets of logits on every backend and instruction set: it has the same bits
-- in any launch and layout, agrees with fp64, and is exact at the edges.

local ffi = require "ffi"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local bounds = require "spec.support.bounds"
local hex = require "spec.support.hex"
local judge = require "spec.support.judge"
local logits = require "spec.support.logits"
local oracle = require "spec.support.oracle"

local INF = math.huge
local ZERO, NAN, PLUS_INF = "00000000", "7fc00000", "7f800000"
local DTYPES = { "float32", "bfloat16", "float16" }

-- Rows of each kind beside rows of each kind, in two dtypes, some ids absent in both, some in p.
local SIZES = { { 1, 1 }, { 2, 17 }, { 3, 255 }, { 2, 1025 }, { 2, 4112 } }
local calls
local function all_calls()
  if calls then return calls end
  calls = {}
  for d, of_p in ipairs(logits.distributions) do
    for i, dtype in ipairs(DTYPES) do
      local of_q = logits.distributions[(d + 3 * i - 3) % #logits.distributions + 1]
      local rows, V = unpack(SIZES[(d + i) % #SIZES + 1])
      local p = logits.make(of_p, dtype, rows, V, d)
      local q = logits.make(of_q, DTYPES[(d + i) % 3 + 1], rows, V, 100 + d)
      for id = 2, V - 1, 5 do
        for r = 0, rows - 1 do
          p:set(-INF, r, id)
          if id % 2 == 0 then q:set(-INF, r, id) end
        end
      end
      calls[#calls + 1] = { p = { logits = p, temperature = logits.temperature(of_p) },
                            q = { logits = q, temperature = logits.temperature(of_q) } }
    end
  end
  return calls
end

local wanted = {}

backends.each(function(at)
  local function results(p, q, opts)
    local none = { ids = false }
    local out = assert(at.context():kl(at.batch(p, none), at.batch(q, none), opts))
    local here = {}
    for name, t in pairs(out) do here[name] = assert(t:to "cpu") end
    return here
  end

  local function tokens(p, q, opts) return hex.of(results(p, q, opts).token) end

  -- Of one row each, flat lists; temperatures may be nil.
  local function of_values(p, q, p_temperature, q_temperature)
    local t = results({ logits = hex.tensor(p, { 1, #p }), temperature = p_temperature },
                      { logits = hex.tensor(q, { 1, #q }), temperature = q_temperature }).token
    return hex.of(t)[1], t[0]
  end

  describe("divergences on " .. at.name, function()
    it("have the same bits as elsewhere", function()
      for k, call in ipairs(all_calls()) do
        local out = results(call.p, call.q)
        wanted[k] = wanted[k] or out
        for name, t in pairs(out) do assert.same_bits(wanted[k][name], t, k .. name) end
        for name in pairs(out) do
          local one = results(call.p, call.q, { outputs = { name } })
          assert.same_bits(out[name], one[name], name .. " alone")
        end
      end
    end)

    it("are right, against fp64", function()
      local judged = judge()
      for k, call in ipairs(all_calls()) do
        local out, V = results(call.p, call.q).token, call.p.logits.shape[2]
        local p = assert(call.p.logits:to "float32")
        local q = assert(call.q.logits:to "float32")
        for r = 0, call.p.logits.shape[1] - 1 do
          local truth = oracle.divergence(ffi.cast("const float *", p.ptr) + r * V,
                                          ffi.cast("const float *", q.ptr) + r * V, V,
                                          call.p.temperature, call.q.temperature)
          judged.within(("call %d, row %d"):format(k, r), out[r], truth.kl,
                        bounds.divergence(truth, out[r]))
        end
      end
      judged.done(50)
    end)

    it("are exactly +0 where rows and temperatures are the same", function()
      for d, distribution in ipairs(logits.distributions) do
        local t = logits.make(distribution, DTYPES[d % 3 + 1], 2, 333, 50 + d)
        for id = 1, 300, 7 do t:set(-INF, 0, id) end
        t:set(-1e4, 0, 20) -- far below what its leaf distinguishes
        for _, tau in ipairs { logits.temperature(distribution), 2 ^ -10, 2 ^ 10 } do
          for _, other in ipairs { t, assert(t:to "float32") } do
            assert.same({ ZERO, ZERO }, tokens({ logits = t, temperature = tau },
                                               { logits = other, temperature = tau }))
          end
        end
      end
      for _, x in ipairs { 0, 3.3, -1e30, 5e4, -0x1.fffffep127, 1e-40 } do
        assert.equal(ZERO, (of_values({ x }, { x })), x)
        assert.equal(ZERO, (of_values({ x, -INF, 1 }, { x, -INF, 1 })), x)
      end
      assert.equal(ZERO, (of_values({ 0, "80000000" }, { "80000000", 0 })))
    end)

    it("are never below +0", function()
      for seed = 1, 40 do
        local p, q = hex.values(48, seed), {}
        for i = 1, 48 do q[i] = p[i] + (i % 3 - 1) * 2 ^ -(seed / 2) end
        local bits, got = of_values(p, q)
        assert.is_true(got >= 0 and bits ~= "80000000", bits)
      end
    end)

    it("are +inf where q lacks an id that p has, and do without ids that p lacks", function()
      local V = 70
      for _, id in ipairs { 1, 16, 17, 40, 70 } do
        local p, q = hex.values(V, 5), hex.values(V, 6)
        local whole = { of_values(p, q) }
        q[id] = -INF
        assert.equal(PLUS_INF, (of_values(p, q)), id)
        p[id] = -1e30 -- never so little that it does not count
        assert.equal(PLUS_INF, (of_values(p, q)), id)
        p[id] = -INF
        local bits, got = of_values(p, q)
        assert.is_true(got > 0 and got < INF and bits ~= whole[1])
      end
      -- A whole leaf; one that the digits of p's sum do not reach; q's only ids are outside p's.
      local p, q = {}, {}
      for i = 1, 48 do p[i], q[i] = i > 16 and 0 or 500, i > 32 and -INF or 1 end
      assert.equal(PLUS_INF, (of_values(p, q)))
      for i = 1, 48 do p[i], q[i] = i > 16 and 0 or -INF, i > 16 and -INF or 1 end
      assert.equal(PLUS_INF, (of_values(p, q)))
    end)

    it("are NaN where a row of either is poisoned or empty", function()
      local function filled(x, seed)
        local values = hex.values(40, seed)
        values[21] = x
        return values
      end
      local empty = {}
      for i = 1, 40 do empty[i] = -INF end
      for _, poison in ipairs { INF, "7fc00000", "ffc00001", "7f800001", "ffffffff" } do
        assert.equal(NAN, (of_values(filled(poison, 1), hex.values(40, 2))))
        assert.equal(NAN, (of_values(hex.values(40, 1), filled(poison, 2))))
        local holed = filled(poison, 2)
        holed[3] = -INF -- which alone would give +inf
        assert.equal(NAN, (of_values(hex.values(40, 1), holed)))
        assert.equal(NAN, (of_values(empty, holed)))
      end
      for _, pair in ipairs { { empty, hex.values(40, 1) }, { hex.values(40, 1), empty },
                              { empty, empty } } do
        assert.equal(NAN, (of_values(pair[1], pair[2])))
      end
    end)

    it("do not depend on layout, container, neighbours, padding or the order of leaves", function()
      local V, rows = 160, 4
      local p_values, q_values = hex.values(V * rows, 11), hex.values(V * rows, 12)
      local p, q = hex.tensor(p_values, { rows, V }), hex.tensor(q_values, { rows, V })
      local want = tokens({ logits = p }, { logits = q, temperature = 0.7 })
      local function gives(what, one, other, list)
        other.temperature = other.temperature or 0.7
        assert.same(list or want, tokens(one, other), what)
      end
      for _, dtype in ipairs { "bfloat16", "float16" } do
        gives(dtype, { logits = assert(p:to(dtype)) }, { logits = q })
        gives(dtype, { logits = p }, { logits = assert(q:to(dtype)) })
      end
      for r = 0, rows - 1 do -- alone; and in another order
        gives("alone", { logits = p:slice(0, r, r + 1) }, { logits = q:slice(0, r, r + 1) },
              { want[r + 1] })
      end
      local turned_p, turned_q = samebits.zeros({ rows, V }), samebits.zeros({ rows, V })
      local leaves_p, leaves_q = samebits.zeros({ rows, V }), samebits.zeros({ rows, V })
      local wide_p, wide_q = samebits.zeros { rows, V + 23 }, samebits.zeros { rows, V + 7 }
      for r = 0, rows - 1 do
        turned_p:slice(0, r, r + 1):copy_(p:slice(0, rows - 1 - r, rows - r))
        turned_q:slice(0, r, r + 1):copy_(q:slice(0, rows - 1 - r, rows - r))
        for i = 0, V + 22 do
          local a, b = p_values[r * V + i + 1], q_values[r * V + i + 1]
          local to = (V / 16 - 1 - math.floor(i / 16)) * 16 + i % 16
          if i < V then
            leaves_p:set(a, r, to)
            leaves_q:set(b, r, to)
          end
          wide_p:set(i < V and a or -INF, r, i)
          if i < V + 7 then wide_q:set(i < V and b or -INF, r, i) end
        end
      end
      gives("rows turned round", { logits = turned_p }, { logits = turned_q },
            { want[4], want[3], want[2], want[1] })
      gives("leaves turned round", { logits = leaves_p }, { logits = leaves_q })
      gives("absent ids", { logits = wide_p:slice(1, 0, V + 7) }, { logits = wide_q })
      gives("strides", { logits = wide_p:slice(1, 0, V) }, { logits = wide_q:slice(1, 0, V) })
      for places = 1, 7 do -- every shift of the one beside another of the other
        local moved = {}
        for k, t in ipairs { assert(p:to "bfloat16"), q } do
          local n, size = places * (k == 1 and 1 or 3) % 8, t.itemsize
          local room = samebits.zeros({ rows * V + n }, t.dtype)
          ffi.copy(room.ptr + n * size, t.ptr, rows * V * size)
          moved[k] = { logits = room:slice(0, n, rows * V + n):view(rows, V) }
        end
        gives("odd places", moved[1], moved[2])
      end
      gives("two sequences", { logits = p:view(2, 2, V) }, { logits = q:view(2, 2, V) })
      gives("packed", { logits = p, cu_seqlens = { 0, 1, 1, 4 } }, { logits = q })
      gives("packed", { logits = p, cu_seqlens = { 0, 4 } }, { logits = q, cu_seqlens = { 0, 4 } })
      gives("ids", { logits = p, ids = { 1, 2, 3, 159 } }, { logits = q })
      gives("a temperature a row", { logits = p, temperature = { 1, 1, 1, 1 } },
            { logits = q, temperature = { 0.7, 0.7, 0.7, 0.7 } })
    end)

    it("are those of what a kept set keeps", function()
      local V = 100
      local p, q = hex.tensor(hex.values(2 * V, 21), { 2, V }), hex.tensor(hex.values(2 * V, 22),
                                                                          { 2, V })
      local flags, holed = { {}, {} }, { assert(p:clone()), assert(q:clone()) }
      for r = 1, 2 do
        for i = 0, V - 1 do
          local gone = i % (r + 3) == 1 or math.floor(i / 16) == 2 * r
          flags[r][i + 1] = gone and 0 or 1
          for k = 1, gone and 2 or 0 do holed[k]:set(-INF, r - 1, i) end
        end
      end
      local want = tokens({ logits = holed[1] }, { logits = holed[2] })
      assert.same(want, tokens({ logits = p, kept = flags }, { logits = q, kept = flags }))
      assert.same(want, tokens({ logits = p, kept = flags }, { logits = holed[2] }))
      assert.same(want, tokens({ logits = holed[1] }, { logits = q, kept = flags }))
      assert.same({ PLUS_INF, PLUS_INF }, tokens({ logits = p }, { logits = q, kept = flags }))
      p:set(0 / 0, 0, 1) -- not kept: not looked at
      assert.same(want, tokens({ logits = p, kept = flags }, { logits = q, kept = flags }))
    end)

    it("of ignored rows are +0, whatever the logits hold", function()
      local V = 40
      local p, q = hex.values(4 * V, 31), hex.values(4 * V, 32)
      local clean = tokens({ logits = hex.tensor(p, { 4, V }) },
                           { logits = hex.tensor(q, { 4, V }) })
      p[3], q[2 * V + 3] = "7fc00000", INF
      local want = { ZERO, clean[2], ZERO, clean[4] }
      for _, how in ipairs { { mask = { 0, 1, 0, 1 } }, { ids = { -100, 0, -100, 39 } },
                             { ids = { 99, 0, -7, 39 }, mask = { 0, 1, 0, 1 } },
                             { rows = { 1, 3 } },
                             { rows = { 1, 3 }, temperature = { 0, 1, 4096, 1 } } } do
        local tensors = {}
        for _, name in ipairs { "token", "sequence" } do
          local t = samebits.empty({ name == "token" and 4 or 1 }, "float32")
          ffi.fill(t.ptr, t:numel() * 4, 0x55)
          tensors[name] = assert(t:to(at.context().device))
        end
        how.logits = hex.tensor(p, { 4, V })
        local out = results(how, { logits = hex.tensor(q, { 4, V }), mask = { 1, 1, 1, 1 },
                                   temperature = how.rows and { 0, 1, 0, 1 } or 1 },
                            { out = tensors })
        assert.same(want, hex.of(out.token))
        local sum = tensors.sequence:to "cpu"
        assert.same(hex.of(samebits.open("cpu"):sums(out.token).sum), hex.of(sum))
      end
      assert.same({ ZERO, ZERO, ZERO, ZERO }, tokens({ logits = hex.tensor(p, { 4, V }),
        mask = { 0, 0, 0, 0 } }, { logits = hex.tensor(q, { 4, V }) }))
    end)

    it("stand beside their ids with shift, and add up by sequence", function()
      local V = 40
      local p, q = hex.tensor(hex.values(5 * V, 41), { 5, V }), hex.tensor(hex.values(5 * V, 42),
                                                                          { 5, V })
      local each = results({ logits = p }, { logits = q }).token
      local out = results({ logits = p, shift = 1, cu_seqlens = { 0, 2, 2, 5 } },
                          { logits = q, shift = 1 })
      local bits = hex.of(each)
      assert.same({ ZERO, bits[1], ZERO, bits[3], bits[4] }, hex.of(out.token))
      local sums = assert(samebits.open "cpu"):sums(out.token, { cu_seqlens = { 0, 2, 2, 5 } }).sum
      assert.same(hex.of(sums), hex.of(out.sequence))
      assert.equal(ZERO, hex.of(out.sequence)[2])
      out = results({ logits = p, mask = { 1, 0, 1, 1, 1 } }, { logits = q })
      assert.same(hex.of(samebits.open("cpu"):sums(each, { mask = { 1, 0, 1, 1, 1 } }).sum),
                  hex.of(out.sequence))
      p:set(INF, 0, 3)
      assert.equal(NAN, hex.of(results({ logits = p }, { logits = q }).sequence)[1])
      p:set(0, 0, 3)
      q:set(-INF, 4, 3)
      assert.equal(PLUS_INF, hex.of(results({ logits = p }, { logits = q }).sequence)[1])
    end)

    it("of nothing are nothing", function()
      local none = samebits.zeros({ 0, 8 }, "float32")
      local out = results({ logits = none }, { logits = none })
      assert.same({ 0 }, out.token.shape)
      assert.same({ ZERO }, hex.of(out.sequence))
    end)
  end)
end)
