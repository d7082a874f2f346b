-- sb_head_backward: a fixed order of sums, which chunks, threads, instruction sets, other rows and
-- micro-batches leave as it is; terms that are left out; and its arguments, called as C calls them.
-- spec/lua/head_gradient_spec.lua compares it with differences of a loss.

local ffi = require "ffi"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local c_calls = require "spec.support.c_calls"
local heads = require "spec.support.heads"
local C = require("samebits.lib").C

local R, V, D = 70, 83, 77 -- neither fills its blocks

local function zeros(shape) return samebits.zeros(shape, "float64") end
local function doubles(t) return ffi.cast("double *", t.ptr) end
local function same(a, b, what) assert.is_true(samebits.same_bits(a, b), what) end

-- The derivatives by logits: any numbers, and one of four is 0.
local function some_grad(rows, dtype, seed)
  local grad = heads.values({ rows, V }, "float32", seed)
  local p = ffi.cast("float *", grad.ptr)
  for i = 0, rows * V - 1, 4 do p[i] = 0 end
  return grad:to(dtype)
end

local hidden = heads.values({ R, D }, "bfloat16", 61)
local weights = heads.values({ V, D }, "float32", 62)
local grad = some_grad(R, "float32", 63)

-- The sums over all ids in chunks, of some rows, added to by.
local function add(ctx, opts)
  local by = opts.by or { hidden = zeros { opts.hidden.shape[1], D }, weights = zeros { V, D },
                          bias = zeros { V } }
  local head = ctx:head(opts.weights or weights, opts.head)
  local batch = { hidden = opts.hidden, head = head, mask = opts.mask }
  for first = 0, V - 1, opts.chunk or V do
    local n = math.min(opts.chunk or V, V - first)
    local logits = head.softcap ~= 0 and ctx:logits(batch, { first = first, n = n }) or nil
    assert(ctx:head_backward(batch, {
      grad = opts.grad:slice(1, first, first + n):clone(), logits = logits,
      weights = (opts.weights or weights):slice(0, first, first + n),
      by_hidden = by.hidden, by_weights = by.weights:slice(0, first, first + n),
      by_bias = by.bias:slice(0, first, first + n),
    }, { first = first, n = n }))
  end
  return by
end

describe("sb_head_backward", function()
  local ctx = assert(samebits.open("cpu", { threads = 1 }))
  local whole = add(ctx, { hidden = hidden, grad = grad })

  it("adds products in fp64, ids and rows in ascending order", function()
    local g, h = ffi.cast("float *", grad.ptr), hidden:to "float32"
    local x, w = ffi.cast("float *", h.ptr), ffi.cast("float *", weights.ptr)
    local by = { hidden = zeros { R, D }, weights = zeros { V, D }, bias = zeros { V } }
    for r = 0, R - 1 do
      for v = 0, V - 1 do
        local d = g[r * V + v]
        doubles(by.bias)[v] = doubles(by.bias)[v] + d
        for k = 0, D - 1 do
          local a, b = doubles(by.hidden) + r * D + k, doubles(by.weights) + v * D + k
          a[0] = a[0] + d * w[v * D + k]
          b[0] = b[0] + d * x[r * D + k]
        end
      end
    end
    for name, t in pairs(by) do same(t, whole[name], name) end
  end)

  it("takes scale and softcap as the derivative of the logit, rounded once", function()
    local opts = { scale = 0.3, softcap = 2.5 }
    local head = ctx:head(weights, opts)
    local scale, cap = tonumber(ffi.new("float", 0.3)), 2.5
    local logits = ctx:logits { hidden = hidden, head = head }
    local x, g = ffi.cast("float *", logits.ptr), ffi.cast("float *", grad.ptr)
    local d = samebits.zeros { R, V }
    local p = ffi.cast("float *", d.ptr)
    for i = 0, R * V - 1 do
      local t = x[i] / cap
      p[i] = g[i] * (1 - t * t) * scale
    end
    local expected = add(ctx, { hidden = hidden, grad = d })
    local got = add(ctx, { hidden = hidden, grad = grad, head = opts })
    for name, t in pairs(expected) do same(t, got[name], name) end
  end)

  backends.each(function(at)
    if at.backend ~= "cpu" or at.context().device ~= "cpu" then return end
    it("has the same bits on " .. at.name .. ", in chunks of ids and in micro-batches", function()
      local own = at.context()
      for _, chunk in ipairs { V, 16, 64 } do
        local got = add(own, { hidden = hidden, grad = grad, chunk = chunk })
        for name, t in pairs(whole) do same(t, got[name], name .. chunk) end
      end
      local by
      for _, cut in ipairs { { 0, 1 }, { 1, 40 }, { 40, R } } do
        local part = add(own, { hidden = hidden:slice(0, cut[1], cut[2]):clone(),
                                grad = grad:slice(0, cut[1], cut[2]):clone(), chunk = 48,
                                by = by and { hidden = zeros { cut[2] - cut[1], D },
                                              weights = by.weights, bias = by.bias } })
        same(part.hidden, whole.hidden:slice(0, cut[1], cut[2]):clone(), "rows alone")
        by = part
      end
      same(by.weights, whole.weights, "weights of micro-batches")
      same(by.bias, whole.bias, "biases of micro-batches")
    end)
  end)

  it("takes gradients and operands of every dtype, as the numbers that they are", function()
    for _, dtype in ipairs { "bfloat16", "float16" } do
      local g, w = grad:to(dtype), weights:to(dtype)
      local h = hidden:to "float32":to(dtype)
      local expected = add(ctx, { hidden = h:to "float32", grad = g:to "float32",
                                  weights = w:to "float32" })
      local got = add(ctx, { hidden = h, grad = g, weights = w })
      for name, t in pairs(expected) do same(t, got[name], dtype .. name) end
    end
  end)

  it("reads nothing of ignored rows, and leaves out terms that are 0", function()
    local mask, spoilt, bad = {}, hidden:clone(), grad:clone()
    local kept = {}
    for r = 1, R do
      mask[r] = r % 3 == 0 and 0 or 1
      if mask[r] == 1 then kept[#kept + 1] = r - 1 end
      if mask[r] == 0 then
        spoilt:set(0 / 0, r - 1, 5)
        bad:set(0 / 0, r - 1, 7)
      end
    end
    local got = add(ctx, { hidden = spoilt, grad = bad, mask = mask, chunk = 32 })
    local function of(t)
      local rows = samebits.zeros({ #kept, t.shape[2] }, t.dtype)
      for i, r in ipairs(kept) do
        for k = 0, t.shape[2] - 1 do rows:set(t:get(r, k), i - 1, k) end
      end
      return rows
    end
    local expected = add(ctx, { hidden = of(hidden), grad = of(grad) })
    same(expected.weights, got.weights, "weights")
    same(expected.bias, got.bias, "bias")
    for i, r in ipairs(kept) do
      same(expected.hidden:slice(0, i - 1, i):clone(), got.hidden:slice(0, r, r + 1):clone())
    end
    same(got.hidden:slice(0, 2, 3):clone(), zeros { 1, D })

    -- An id whose derivative is 0 everywhere, and whose weights are NaN.
    local none, with_nan = grad:clone(), weights:clone()
    for r = 0, R - 1 do none:set(0, r, 20) end
    local clean = add(ctx, { hidden = hidden, grad = none })
    for k = 0, D - 1 do ffi.cast("uint32_t *", with_nan.ptr)[20 * D + k] = 0xffc12345 end
    local same_sums = add(ctx, { hidden = hidden, grad = none, weights = with_nan,
                                 head = { keep_bad = true } })
    for name, t in pairs(clean) do same(t, same_sums[name], name) end
    -- Where it is not 0, NaN has one encoding.
    local nan = add(ctx, { hidden = hidden, grad = grad, weights = with_nan,
                           head = { keep_bad = true } }).hidden
    for r = 0, R - 1 do
      assert.equal((r * V + 20) % 4 == 0 and "number" or "7ff8000000000000",
                   nan:get(r, 0) == nan:get(r, 0) and "number" or nan:bits()[r + 1][1])
    end
  end)

  -- Which rows of hidden states take part, in each layout, and a gradient whose rows are apart.
  it("goes by the rows of hidden states, with shift, row lists and packed", function()
    local head = ctx:head(weights)
    local function sums_of(batch, rows, g)
      batch.head = head
      local by = { hidden = zeros(batch.hidden.shape), weights = zeros { V, D },
                   bias = zeros { V } }
      assert(ctx:head_backward(batch, { grad = g, weights = weights, by_hidden = by.hidden,
                                        by_weights = by.weights, by_bias = by.bias }))
      by.hidden = by.hidden:view(R, D)
      local mask = {}
      for r = 1, R do mask[r] = 0 end
      for _, r in ipairs(rows) do mask[r + 1] = 1 end
      local expected = add(ctx, { hidden = hidden, grad = grad, mask = mask })
      for name, t in pairs(expected) do same(t, by[name], name) end
    end
    local T, shifted, packed = R / 2, {}, {}
    for r = 0, R - 1 do
      if r % T ~= T - 1 then shifted[#shifted + 1] = r end
      if r ~= 19 and r ~= R - 1 then packed[#packed + 1] = r end
    end
    local two, g = hidden:view(2, T, D), grad:view(2, T, V)
    sums_of({ hidden = two, shift = 1 }, shifted, g)
    sums_of({ hidden = two, rows = { 3, 36, 69 } }, { 3, 36, 69 }, g)
    sums_of({ hidden = hidden, shift = 1, cu_seqlens = { 0, 20, 20, R } }, packed, grad)
  end)

  it("refuses arguments by name, and other backends have none of it", function()
    local head = ctx:head(weights, { softcap = 3 })
    local by = zeros { R, D }
    local function refused(status, words, change)
      local b, g = c_calls.sized "sb_batch", c_calls.sized "sb_head_gradient"
      b.logits_dtype, b.ids_dtype, b.cu_seqlens_dtype, b.hidden_dtype = 1, 4, 4, 3
      b.batch, b.time, b.vocab, b.temperature, b.ignore_index = 1, R, V, 1, -100
      b.head, b.hidden, b.hidden_width = head.handle, hidden.ptr, D
      g.grad_dtype, g.weights_dtype, g.grad, g.weights = 1, 1, grad.ptr, weights.ptr
      g.logits, g.by_hidden = ffi.cast("float *", grad.ptr), doubles(by)
      change(g, b)
      local got = C.sb_head_backward(ctx.handle, g, b, nil)
      assert.equal(status, ffi.string(C.sb_status_name(got)))
      assert.equal(words, ffi.string(C.sb_last_error(ctx.handle)):sub(1, #words))
      same(by, zeros { R, D })
    end
    for _, case in ipairs {
      { "SB_ERR_ARGUMENT", "grad is null", function(g) g.grad = nil end },
      { "SB_ERR_ARGUMENT", "weights is null, and by_hidden needs them",
        function(g) g.weights = nil end },
      { "SB_ERR_ARGUMENT", "logits is null, and the head has a softcap",
        function(g) g.logits = nil end },
      { "SB_ERR_ARGUMENT", "reserved is 1", function(g) g.reserved = 1 end },
      { "SB_ERR_ARGUMENT", "sb_head_gradient.size is 8, not", function(g) g.size = 8 end },
      { "SB_ERR_ARGUMENT", "the batch has no hidden states and head",
        function(_, b) b.head, b.hidden, b.logits = nil, nil, weights.ptr end },
      { "SB_ERR_DTYPE", "grad_dtype is 4", function(g) g.grad_dtype = 4 end },
      { "SB_ERR_DTYPE", "weights_dtype is 0", function(g) g.weights_dtype = 0 end },
      { "SB_ERR_SHAPE", "weights_stride 76 is less than the 77",
        function(g) g.weights_stride = 76 end },
      { "SB_ERR_SHAPE", "grad's row_stride 82 is less", function(g) g.grad_row_stride = 82 end },
      { "SB_ERR_SHAPE", "the shard begins at id 8", function(g) g.first, g.held = 8, 16 end },
      { "SB_ERR_SHAPE", "the shard holds 96 ids", function(g) g.held = 96 end },
      { "SB_ERR_SHAPE", "hidden states have 76 elements", function(_, b) b.hidden_width = 76 end },
    } do
      refused(case[1], case[2], case[3])
    end
    assert.equal("SB_ERR_ARGUMENT", ffi.string(C.sb_status_name(
      C.sb_head_backward(ctx.handle, nil, nil, nil))))
  end)

  backends.with("cuda", function(at)
    it("is refused by cuda", function()
      local g, b = c_calls.sized "sb_head_gradient", c_calls.sized "sb_batch"
      local handle = at.context().handle
      assert.equal("SB_ERR_BACKEND", ffi.string(C.sb_status_name(
        C.sb_head_backward(handle, g, b, nil))))
      assert.truthy(ffi.string(C.sb_last_error(handle)):find("sb_logprob_backward", 1, true))
    end)
  end)
end)
