-- Gradients on every backend and instruction set: they have the same bits in any launch and layout
-- and in one call with the logprobs, agree with fp64, and are exact at the edges; errors in the
-- arguments are reported.

local ffi = require "ffi"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local bounds = require "spec.support.bounds"
local hex = require "spec.support.hex"
local judge = require "spec.support.judge"
local logits = require "spec.support.logits"
local oracle = require "spec.support.oracle"
local refusal = require "spec.support.refusal"
local shards = require "spec.support.shards"
local with = require "spec.support.with"
local C = require("samebits.lib").C

local INF = math.huge
local misuse, says = refusal.misuse, refusal.says
local NANS = { float32 = "7fc00000", bfloat16 = "7fc0", float16 = "7e00" }

local function floats(values) return samebits.tensor(values, { dtype = "float32" }) end

-- A batch, its upstream gradients; V is 17 to 2049.
local calls
local function all_calls()
  if calls then return calls end
  calls = {}
  for d, distribution in ipairs(logits.distributions) do
    local dtype = ({ "float32", "bfloat16", "float16" })[d % 3 + 1]
    local V, ids, token, entropy = ({ 17, 255, 2049, 320 })[d % 4 + 1], {}, {}, {}
    local t = logits.make(distribution, dtype, 3, V, 70 + d)
    for i = 2, V - 1, 5 do t:set(-INF, 0, i) end
    for r = 1, 3 do
      ids[r], token[r], entropy[r] = r * 7919 % (V - 1), r - 1.75, (r - 2.5) / 4
    end
    ids[1] = 0
    calls[d] = { batch = { logits = t, ids = ids,
                           temperature = logits.temperature(distribution) },
                 token = floats(token), entropy = floats(entropy) }
  end
  return calls
end

local LOSSES = { { "token" }, { "entropy" }, { "token", "entropy" } }
local wanted = {}

backends.each(function(at)
  local device = at.context().device

  local function derivatives(call, losses)
    local given = {}
    for _, name in ipairs(losses) do given[name] = assert(call[name]:to(device)) end
    return given
  end

  -- The gradient in memory, from two calls and from one. losses: "token", "entropy" of call.
  local function backward(call, losses, opts)
    local batch, given = at.batch(call.batch), derivatives(call, losses)
    local outputs = given.entropy and { "saved", "entropy" } or { "saved" }
    local saved = assert(at.context():logprob(batch, { outputs = outputs })).saved
    local grad = assert(assert(at.context():backward(batch, with(given, { saved = saved }),
                                                     opts)):to "cpu")
    local one = assert(at.context():logprob(batch, { outputs = {},
                                                     gradient = with(given, opts or {}) }))
    assert.same_bits(grad, assert(one.grad:to "cpu"), "in one call")
    return grad
  end

  local function simple(values, ids, change)
    local batch = { logits = hex.tensor(values, { #ids, #values / #ids }), ids = ids }
    for key, value in pairs(change or {}) do batch[key] = value end
    local ones = {}
    for r = 1, #ids do ones[r] = r end
    return { batch = batch, token = floats(ones), entropy = floats(ones) }
  end

  describe("gradients on " .. at.name, function()
    it("have the same bits as elsewhere, in every dtype", function()
      for k, call in ipairs(all_calls()) do
        for l, losses in ipairs(LOSSES) do
          for dtype in pairs(NANS) do
            local grad, key = backward(call, losses, { dtype = dtype }), k .. dtype .. l
            wanted[key] = wanted[key] or grad
            assert.same_bits(wanted[key], grad, key)
          end
          assert.same_bits(wanted[k .. "bfloat16" .. l],
                           assert(wanted[k .. "float32" .. l]:to "bfloat16"), "rounded " .. k)
          assert.same_bits(wanted[k .. "float16" .. l],
                           assert(wanted[k .. "float32" .. l]:to "float16"), "rounded " .. k)
        end
      end
    end)

    it("leave the bits of logprobs as they are, in any pieces and in place", function()
      local ALL = { "token", "lse", "sequence", "count", "entropy", "saved" }
      local SOME = { "token", "saved" }
      for k, call in ipairs(all_calls()) do
        local dtype = call.batch.logits.dtype
        for l, losses in ipairs(LOSSES) do
          for _, outputs in ipairs { ALL, l == 1 and SOME or nil } do
            local want = at.score(call.batch, { outputs = outputs })
            for split = 0, 3 do
              local batch = at.batch(with(call.batch, { logits = call.batch.logits:clone() }))
              local out = assert(at.context():logprob(batch, {
                outputs = outputs, split = split,
                gradient = with(derivatives(call, losses), { in_place = true }) }))
              assert.is_true(out.grad.ptr == batch.logits.ptr)
              assert.same_bits(wanted[k .. dtype .. l], assert(out.grad:to "cpu"), "in place")
              for _, name in ipairs(outputs) do
                assert.same_bits(want[name], assert(out[name]:to "cpu"), name)
              end
            end
          end
        end
      end
    end)

    it("are right, against fp64", function()
      local judged = judge()
      for k, call in ipairs(all_calls()) do
        local spec = call.batch
        local V, tau = spec.logits.shape[2], spec.temperature
        local dense = assert(spec.logits:to "float32") -- a pointer alone would not keep them
        local x = ffi.cast("const float *", dense.ptr)
        local of_token = backward(call, LOSSES[1], { dtype = "float32" })
        local of_entropy = backward(call, LOSSES[2], { dtype = "float32" })
        for r = 0, 2 do
          local truth = oracle.row(x + r * V, V, tau)
          local up, down, sum = call.token[r] / tau, call.entropy[r] / tau, 0
          for i = 0, V - 1 do
            local lp = truth.logprob(i)
            local p, is_target = math.exp(lp), i == spec.ids[r + 1]
            local exact, got = up * ((is_target and 1 or 0) - p), of_token:get(r, i)
            local where = ("call %d, row %d, id %d"):format(k, r, i)
            judged.within(where .. ", of the logprob", got, exact,
                          bounds.token_gradient(truth, lp, is_target, up, got))
            sum = sum + got
            exact, got = p == 0 and 0 or -down * p * (lp + truth.entropy), of_entropy:get(r, i)
            judged.within(where .. ", of the entropy", got, exact,
                          bounds.entropy_gradient(truth, lp, down, got))
          end
          judged.within("the sum of a row", sum, 0, bounds.GRADIENT_SUM * math.abs(up))
        end
      end
      judged.done(20000)
    end)

    it("are +0 in ignored rows, which are not read, and NaN in poisoned and empty ones", function()
      for dtype, nan in pairs(NANS) do
        local values = hex.values(5 * 40, 3)
        values[3], values[47], values[85] = "7fc00000", INF, "ffc00001"
        for i = 121, 160 do values[i] = -INF end
        for _, losses in ipairs(LOSSES) do
          local bits = backward(simple(values, { -100, 3, 7, 3, 3 }, { mask = { 1, 1, 0, 1, 1 } }),
                                losses, { dtype = dtype }):bits()
          for i = 1, 40 do
            assert.equal(("0"):rep(#nan), bits[1][i])
            assert.equal(nan, bits[2][i])
            assert.equal(("0"):rep(#nan), bits[3][i])
            assert.equal(nan, bits[4][i])
            assert.not_equal(nan, bits[5][i])
          end
        end
      end
    end)

    it("are +0 at absent logits and of a certain token, and never NaN there", function()
      local values = {}
      for i = 1, 50 do values[i] = -INF end
      values[20] = 3.25
      for _, id in ipairs { 19, 4 } do
        for _, losses in ipairs(LOSSES) do
          local bits = backward(simple(values, { id }), losses):bits()[1]
          for i = 1, 50 do
            if i ~= 20 or id == 19 or losses[1] == "entropy" then
              assert.equal("00000000", bits[i])
            else
              assert.equal("bf800000", bits[i]) -- absent target: of -ln sum alone
            end
          end
        end
      end
    end)

    it("stand in the rows of their logits, with shift, in packed rows and of a row list", function()
      local V = 33
      local values = hex.values(6 * V, 9)
      local ids = { 1, 2, 3, 4, 5, 6 }
      local plain = backward(simple(values, ids), { "token" }):bits()
      local zeros = {}
      for i = 1, V do zeros[i] = "00000000" end
      local list = backward(simple(values, ids, { rows = { 1, 4 } }), { "token" }):bits()
      assert.same({ zeros, plain[2], zeros, zeros, plain[5], zeros }, list)
      -- Id r stands for the logits of r - 1; sequences of 2, 0 and 4 rows.
      local call = simple(values, { 9, 1, 9, 3, 4, 5 },
                          { shift = 1, cu_seqlens = { 0, 2, 2, 6 } })
      call.token = floats { 99, 1, 99, 3, 4, 5 }
      local shifted = backward(call, { "token" }):bits()
      assert.same({ plain[1], zeros, plain[3], plain[4], plain[5], zeros }, shifted)
    end)

    it("may take the logits' place, and end in zeros", function()
      for dtype in pairs(NANS) do
        local V, W, rows = 100, 113, 3
        local wide = samebits.zeros({ 2, rows, W }, dtype)
        local values = hex.values(2 * rows * W, 5)
        for b = 0, 1 do
          for r = 0, rows - 1 do
            for i = 0, W - 1 do wide:set(values[(b * rows + r) * W + i + 1], b, r, i) end
          end
        end
        wide = assert(wide:to(device))
        if device == "cpu" then wide = wide:clone() end
        local batch = samebits.batch { logits = wide:slice(2, 0, V),
                                       ids = { { 5, -100, 99 }, { 0, 1, 2 } } }
        local ctx = at.context()
        local saved = assert(ctx:logprob(batch, { outputs = { "saved" } })).saved
        local up = assert(samebits.tensor({ { 1, 2, 3 }, { 4, 5, 6 } },
                                          { dtype = "float32" }):to(device))
        local given = { saved = saved, token = up }
        local want = assert(assert(ctx:backward(batch, given)):to "cpu"):bits()
        assert.same({ 2, rows, V }, assert(ctx:backward(batch, given)).shape)
        -- A view of wider rows: what lies behind it stays.
        local other = assert(wide:clone())
        assert(ctx:backward(batch, given, { grad = other:slice(2, 0, V) }))
        local before, after = assert(wide:to "cpu"):bits(), assert(other:to "cpu"):bits()
        -- All of the wider rows: zeros behind.
        assert(ctx:backward(batch, given, { grad = other }))
        local filled = assert(other:to "cpu"):bits()
        -- In place.
        assert(ctx:backward(batch, given, { grad = batch.logits }))
        local placed = assert(wide:to "cpu"):bits()
        for b = 1, 2 do
          for r = 1, rows do
            for i = 1, W do
              local w = want[b][r][i]
              assert.equal(w or before[b][r][i], after[b][r][i])
              assert.equal(w or ("0"):rep(#NANS[dtype]), filled[b][r][i])
              assert.equal(w or before[b][r][i], placed[b][r][i])
            end
          end
        end
      end
    end)

    it("of shards are the whole gradient's columns", function()
      local V, cuts = 100, { 0, 16, 16, 64, 100 }
      local spec = { logits = hex.tensor(hex.values(3 * V, 4), { 3, V }), ids = { 20, 63, 99 },
                     temperature = 0.7 }
      local call = { batch = spec, token = floats { 1, -2, 0.5 } }
      local want = backward(call, { "token" }):bits()
      local records = shards.merged(at, shards.records(function() return at end, spec, cuts))
      local saved = assert(at.context():finish(shards.placed(at, records),
        at.batch(shards.shard(spec, 0, 0)), { outputs = { "saved" } })).saved
      for s = 1, #cuts - 1 do
        local batch = at.batch(shards.shard(spec, cuts[s], cuts[s + 1]))
        if cuts[s] < cuts[s + 1] then
          local grad = assert(at.context():backward(batch, {
            saved = saved, token = assert(call.token:to(device)) }))
          local bits = assert(grad:to "cpu"):bits()
          for r = 1, 3 do
            for i = 1, cuts[s + 1] - cuts[s] do
              assert.equal(want[r][cuts[s] + i], bits[r][i])
            end
          end
        end
      end
    end)

    it("and entropy, of rows with kept sets, are those with -inf in the logits", function()
      local V, W = 3000, 94
      local values, cut = hex.values(2 * V, 8), {}
      for i = 1, 2 * V do cut[i] = values[i] end
      local kept = samebits.zeros({ 2, W }, "int32")
      for r = 0, 1 do
        for w = 0, W - 1 do
          local word = (w * 2654435 + r * 97) % 2 ^ 31
          kept:set(word, r, w)
          for b = 0, math.min(31, V - 32 * w - 1) do
            if math.floor(word / 2 ^ b) % 2 == 0 then cut[r * V + 32 * w + b + 1] = -INF end
          end
        end
      end
      local gone, held
      for i = 33, V do
        if cut[i] == -INF then gone = i else held = i end
      end
      values[gone] = "7fc00000" -- not looked at
      for _, ids in ipairs { { held - 1, 33 }, { gone - 1, 63 } } do
        local want, got = simple(cut, ids), simple(values, ids, { kept = kept })
        assert.same_bits(at.score(want.batch, { outputs = { "entropy" } }).entropy,
                         at.score(got.batch, { outputs = { "entropy" } }).entropy)
        for _, losses in ipairs(LOSSES) do
          assert.same_bits(backward(want, losses), backward(got, losses))
        end
      end
    end)

    it("are refused of saved rows of other calls, by row", function()
      local spec = simple(hex.values(80, 4), { 5, 6 })
      local ctx, batch = at.context(), at.batch(spec.batch)
      local function words(made_of, losses, outputs)
        local saved = assert(ctx:logprob(at.batch(made_of), {
          outputs = outputs or { "saved", "entropy" } })).saved
        local given = { saved = saved }
        for _, name in ipairs(losses or LOSSES[3]) do
          given[name] = assert(spec[name]:to(device))
        end
        return misuse(function() ctx:backward(batch, given) end)
      end
      local other = { logits = spec.batch.logits, ids = { 5, -100 } }
      says(words(other), "row 1", "no active row leaves such a saved record")
      other = { logits = spec.batch.logits, ids = { 5, 6 }, temperature = { 1, 0.5 } }
      says(words(other), "row 1", "another temperature", "4038aa3b, not 3fb8aa3b")
      says(words(spec.batch, LOSSES[2], { "saved" }), "row 0", "no entropy")
      local forged = assert(assert(ctx:logprob(batch, {
        outputs = { "saved", "entropy" } })).saved:to "cpu"):clone()
      ffi.cast("uint32_t *", forged.ptr + 32)[3] = 0x42c80000 -- 100 as row 1's largest logit
      says(misuse(function()
        ctx:backward(batch, { saved = assert(forged:to(device)),
                              entropy = assert(spec.entropy:to(device)) })
      end), "row 1", "no active row leaves such a saved record")
      local bad = at.batch { logits = spec.batch.logits, ids = { 5, 40 } }
      local saved = assert(ctx:logprob(batch, { outputs = { "saved" } })).saved
      says(misuse(function()
        ctx:backward(bad, { saved = saved, token = assert(spec.token:to(device)) })
      end), "row 1", "id 40")
    end)
  end)
end)

describe("backward refuses", function()
  local ctx, batch, saved, token
  setup(function()
    ctx = assert(samebits.open "cpu")
    batch = samebits.batch { logits = hex.tensor(hex.values(4 * 40, 4), { 2, 2, 40 }),
                             ids = { { 5, 6 }, { 7, 8 } } }
    saved = ctx:logprob(batch, { outputs = { "saved" } }).saved
    token = samebits.zeros({ 2, 2 }, "float32")
  end)
  teardown(function() ctx:close() end)

  local function words(given, opts)
    return misuse(function() ctx:backward(batch, given, opts) end)
  end
  local function words_of(grad) return words({ saved = saved, token = token }, { grad = grad }) end

  it("what is not given, or of another shape", function()
    says(words { saved = saved }, "neither token nor entropy")
    says(words { token = token }, "saved: expected a uint8 tensor, got nil")
    says(words { saved = token, token = token }, "saved: float32 [2, 2], expected uint8 [2, 2, 32]")
    says(words { saved = saved, token = token:view(4) }, "token: float32 [4]", "[2, 2]")
    says(words { saved = saved, token = 1 }, "token: expected a float32 tensor, got number")
    says(words { saved = saved, lse = token }, "unknown option 'lse'")
    says(words({ saved = saved, token = token }, { outputs = {} }), "unknown option 'outputs'")
    says(words({ saved = saved, token = token }, { dtype = "int8" }), "dtype", "int8")
  end)

  it("a grad that does not fit, or whose rows overlap", function()
    says(words_of(samebits.zeros({ 2, 2, 39 }, "float32")), "[2, 2, 39]", "[2, 2, 40]")
    says(words_of(samebits.zeros({ 4, 40 }, "float32")), "[4, 40]")
    says(words_of(samebits.zeros({ 2, 2, 40 }, "int32")), "int32")
    local t = samebits.zeros({ 200 }, "float32")
    local function strided(strides)
      return samebits.tensor(t.ptr, { dtype = "float32", shape = { 2, 2, 40 }, strides = strides,
                                      owner = t })
    end
    says(words_of(strided { 0, 40, 1 }), "rows overlap")
    says(words_of(strided { 60, 40, 1 }), "rows overlap")
    says(words_of(strided { 40, 60, 1 }), "rows overlap")
    says(words_of(strided { 80, 39, 1 }), "row_stride 39 is less than its width")
    says(words_of(strided { 80, 40, 2 }), "side by side")
    assert.equal("float32", ctx:backward(batch, { saved = saved, token = token },
                                         { grad = strided { 40, 80, 1 } }).dtype)
  end)

  it("logits' memory in another shape", function()
    local t = batch.logits
    says(words_of(samebits.tensor(t.ptr, { dtype = "float16", shape = { 2, 2, 40 }, owner = t })),
         "grad takes the logits' place")
    says(words_of(samebits.tensor(t.ptr, { dtype = "float32", shape = { 2, 2, 40 },
                                           strides = { 40, 80, 1 }, owner = t })),
         "grad takes the logits' place")
  end)

  it("no rows at all without complaint", function()
    for _, shape in ipairs { { 0 }, { 0, 3 }, { 3, 0 } } do
      local function shaped(last) return { shape[1], shape[2] or last, shape[2] and last } end
      local none = { logits = samebits.zeros(shaped(40)), ids = samebits.zeros(shape, "int32") }
      local out = ctx:logprob(none, { outputs = { "saved" } })
      assert.same(shaped(32), out.saved.shape)
      local grad = ctx:backward(none, { saved = out.saved, token = samebits.zeros(shape) })
      assert.same(shaped(40), grad.shape)
    end
    -- Several sequences, and the strides left to the library.
    local b, to = ffi.new "sb_batch", ffi.new "sb_gradient"
    b.size, b.logits_dtype, b.ids_dtype = ffi.sizeof "sb_batch", C.SB_F32, C.SB_I32
    b.batch, b.vocab, b.temperature, b.ignore_index = 3, 40, 1, -100
    to.size, to.dtype, to.token = ffi.sizeof "sb_gradient", C.SB_F32, ffi.new "float[1]"
    assert.equal(0, tonumber(C.sb_logprob_backward(ctx.handle, to, b, nil)),
                 ffi.string(C.sb_last_error(ctx.handle)))
  end)
end)

describe("logprob's gradient", function()
  local ctx, spec, token
  setup(function()
    ctx = assert(samebits.open "cpu")
    spec = { logits = hex.tensor(hex.values(4 * 40, 4), { 2, 2, 40 }),
             ids = { { 5, 6 }, { 7, 8 } } }
    token = samebits.zeros({ 2, 2 }, "float32")
  end)
  teardown(function() ctx:close() end)

  local function words(gradient, opts)
    opts = with(opts, { gradient = gradient })
    local said = misuse(function() ctx:workspace_size(spec, opts) end)
    assert.equal(misuse(function() ctx:logprob(spec, opts) end),
                 (said:gsub("workspace_size", "logprob")))
    return said
  end

  it("is refused where the table says nothing, or what it does not know", function()
    says(words(3), "gradient: expected a table, got number")
    says(words {}, "gradient: neither token nor entropy")
    says(words { token = token, saved = token }, "gradient: unknown option 'saved'")
    says(words { token = token, dtype = "int8" }, "gradient: dtype", "int8")
    says(misuse(function() ctx:logprob(spec, { gradient = { token = 1 } }) end),
         "gradient: token: expected a float32 tensor, got number")
    says(misuse(function() ctx:logprob(spec, { gradient = { entropy = token:view(4) } }) end),
         "gradient: entropy: float32 [4], expected float32 [2, 2]")
  end)

  it("is refused in two places, or where it does not fit", function()
    local grad = samebits.zeros({ 2, 2, 39 }, "float32")
    says(words { token = token, grad = grad }, "gradient: grad: float32 [2, 2, 39]", "[2, 2, 40]")
    says(words { token = token, grad = 1 }, "gradient: grad: expected a tensor")
    says(words { token = token, grad = grad, in_place = true }, "grad: given beside in_place")
    says(words { token = token, dtype = "float32", in_place = true },
         "dtype: given beside in_place")
    says(words { token = token, dtype = "float32", grad = spec.logits }, "dtype: given beside grad")
    says(words { token = token, in_place = 1 }, "in_place: expected a boolean, got 1")
  end)

  it("is written to the grad of out, and to the caller's grad with wider rows", function()
    local gradient = { token = samebits.tensor { { 1, -1 }, { 0.5, 2 } } }
    local first = ctx:logprob(spec, { gradient = gradient })
    local want, at = first.grad:clone(), first.grad.ptr
    ffi.fill(at, 16)
    assert.equal(first, ctx:logprob(spec, { gradient = gradient, out = first }))
    assert.is_true(first.grad.ptr == at)
    assert.same_bits(want, first.grad)
    says(words(gradient, { out = { grad = token } }), "out.grad: float32 [2, 2]")
    local wide = samebits.zeros({ 2, 2, 48 }, "float32")
    local out = ctx:logprob(spec, { gradient = with(gradient, { grad = wide }), out = first })
    assert.is_true(out.grad.ptr == wide.ptr)
    assert.same_bits(want, wide:slice(2, 0, 40))
    assert.same_bits(samebits.zeros({ 2, 2, 8 }, "float32"), wide:slice(2, 40, 48))
  end)

  it("is an option of no other call", function()
    local opts = { gradient = { token = token } }
    local conventional = require "samebits.conventional"
    says(misuse(function() conventional.logprob(ctx, spec, opts) end), "unknown option 'gradient'")
    local records = ctx:partial(spec)
    says(misuse(function() ctx:finish(records, spec, opts) end), "unknown option 'gradient'")
    says(misuse(function() ctx:topk(spec, 3, opts) end), "unknown option 'gradient'")
  end)
end)
