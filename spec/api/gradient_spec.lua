-- The gradient that sb_logprob computes, as C calls it: what is refused and with which words, and
-- that every bit is the one that sb_logprob and sb_logprob_backward give in two calls.
-- spec/numerics/gradient_spec.lua has the values.

local ffi = require "ffi"
local c_calls = require "spec.support.c_calls"
local C = require("samebits.lib").C
require "samebits.conventional" -- declares sb_conventional_logprob

local filled, sized, name_of = c_calls.filled, c_calls.sized, c_calls.name_of
local ARGUMENT, SHAPE = "SB_ERR_ARGUMENT", "SB_ERR_SHAPE"
local B, T, V = 2, 3, 21
local N, WIDE = B * T, V + 4
local BIG = 2LL ^ 62

local ctx = assert(c_calls.open())
local function last_error() return c_calls.last_error(ctx) end

-- A correct call: the structs, and the arrays behind them. grad has room for rows of WIDE elements
-- of any dtype.
local function arrays()
  local a = {
    logits = ffi.new("float[?]", N * WIDE),
    ids = ffi.new("int32_t[?]", N, { 3, 20, -100, 0, 7, 7 }),
    by_token = ffi.new("float[?]", N, { 1, -2, 3, 0.5, 0, -0.25 }),
    by_entropy = ffi.new("float[?]", N, { 0.5, 1, 3, -1, 2, 0 }),
    token = filled("float", N), lse = filled("float", N), sequence = filled("float", B),
    entropy = filled("float", N), saved = filled("sb_saved_row", N),
    grad = filled("float", N * WIDE),
    batch = sized "sb_batch", out = sized "sb_logprob_out", gradient = sized "sb_gradient",
    launch = sized "sb_launch",
  }
  for i = 0, N * WIDE - 1 do a.logits[i] = (i * 37 % 23) / 4 - 2 end
  local b, g = a.batch, a.gradient
  b.logits_dtype, b.ids_dtype = C.SB_F32, C.SB_I32
  b.logits, b.ids = a.logits, a.ids
  b.batch, b.time, b.vocab = B, T, V
  b.temperature, b.ignore_index = 0.75, -100
  g.dtype, g.grad, g.token = C.SB_F32, a.grad, a.by_token
  a.out.token, a.out.gradient = a.token, g
  return a
end

local OUTPUTS = { "token", "lse", "sequence", "entropy", "saved", "grad" }

local function untouched(a)
  for _, name in ipairs(OUTPUTS) do
    if not c_calls.untouched(a[name]) then return false end
  end
  return true
end

local function bytes(array) return ffi.string(array, ffi.sizeof(array)) end

-- Changes a correct call, runs it, and compares the status and words of the message.
local function refused(status, words, change, call)
  local a = arrays()
  change(a.gradient, a)
  local logits = bytes(a.logits)
  c_calls.fails(ctx, status, words, (call or C.sb_logprob)(ctx, a.out, a.batch, a.launch))
  assert.is_true(untouched(a), "an output was written")
  assert.equal(logits, bytes(a.logits))
end

local function works(status) assert.equal("SB_OK", name_of(status), last_error()) end

-- Runs the call, and the same as two calls; all outputs must be the same. Returns the one call's.
local function compared(change)
  local one, two = arrays(), arrays()
  if change then
    change(one.gradient, one)
    change(two.gradient, two)
  end
  works(C.sb_logprob(ctx, one.out, one.batch, one.launch))
  two.out.gradient, two.out.saved = nil, two.saved
  if two.gradient.entropy ~= nil then two.out.entropy = two.entropy end
  works(C.sb_logprob(ctx, two.out, two.batch, two.launch))
  two.gradient.saved = two.saved
  works(C.sb_logprob_backward(ctx, two.gradient, two.batch, two.launch))
  for _, name in ipairs { "token", "lse", "sequence", "grad", "logits" } do
    assert.equal(bytes(two[name]), bytes(one[name]), name)
  end
  for _, name in ipairs { "entropy", "saved" } do
    if one.out[name] ~= nil then assert.equal(bytes(two[name]), bytes(one[name]), name) end
  end
  return one
end

describe("sb_logprob refuses", function()
  it("a struct of the wrong size, and what the call has itself", function()
    refused(ARGUMENT, "sb_gradient.size is 4, not 96: start from SB_GRADIENT_INIT",
            function(g) g.size = 4 end)
    refused(ARGUMENT, "gradient.saved is not null", function(g, a) g.saved = a.saved end)
    refused(ARGUMENT, "gradient.first is 16 and held 0, not 0", function(g) g.first = 16 end)
    refused(ARGUMENT, "gradient.first is 0 and held 21, not 0", function(g) g.held = V end)
  end)

  it("a gradient without derivatives or memory, and one of no float", function()
    refused(ARGUMENT, "neither token nor entropy", function(g) g.token = nil end)
    refused(ARGUMENT, "grad is null", function(g) g.grad = nil end)
    for _, dtype in ipairs { 0, C.SB_I32, C.SB_I64, 6, -1 } do
      refused("SB_ERR_DTYPE", ("grad's dtype is %d"):format(tonumber(dtype)),
              function(g) g.dtype = dtype end)
    end
  end)

  it("rows that are too short, overlap, or pass the address space", function()
    refused(SHAPE, "grad's width 20 is less than the 21 logits", function(g) g.width = V - 1 end)
    refused(SHAPE, "row_stride 21 is less than its width",
            function(g) g.width, g.row_stride = WIDE, V end)
    refused(SHAPE, "grad's batch_stride is -1", function(g) g.batch_stride = -1 end)
    refused(SHAPE, "grad's rows overlap", function(g) g.batch_stride = 1 end)
    refused(SHAPE, "reach past the address space", function(g) g.row_stride = BIG end)
  end)

  it("the logits' place for other rows", function()
    local words = "grad takes the logits' place, but has another dtype or other strides"
    refused(ARGUMENT, words, function(g, a) g.grad, g.dtype = a.logits, C.SB_BF16 end)
    refused(ARGUMENT, words, function(g, a) g.grad, g.row_stride = a.logits, WIDE end)
  end)

  it("bad rows by name, before it writes to the logits' place", function()
    refused("SB_ERR_ID", "row 4 (sequence 1, position 1): id 21 is outside [0, 21)", function(g, a)
      g.grad, a.ids[4] = a.logits, V
    end)
    refused("SB_ERR_TEMPERATURE", "row 5 (sequence 1, position 2): temperature", function(g, a)
      a.taus = ffi.new("float[?]", N, { 1, 1, 1, 1, 1, 0 })
      g.grad, a.batch.temperatures = a.logits, a.taus
    end)
  end)

  it("it in calls that compute none", function()
    refused(ARGUMENT, "the conventional logprob gives no entropy, saved rows or gradient",
            function() end, C.sb_conventional_logprob)
    local a = arrays()
    local states, targets = ffi.new("sb_state_record[?]", N), ffi.new("sb_target_record[?]", N)
    local records = sized "sb_records"
    records.kind, records.states, records.targets = C.SB_SUMS, states, targets
    works(C.sb_partial(ctx, records, a.batch, 0, V, nil))
    assert.equal(ARGUMENT, name_of(C.sb_finish(ctx, a.out, a.batch, records, nil)))
    assert.equal("records hold no logits, which the gradient needs: see sb_logprob_backward",
                 last_error())
    assert.is_true(untouched(a))
  end)
end)

describe("sb_logprob with a gradient", function()
  it("has the bits of two calls, for each loss and any other output", function()
    for loss = 1, 3 do
      for subset = 0, 31 do
        local function has(k) return math.floor(subset / 2 ^ k) % 2 == 1 end
        compared(function(g, a)
          g.token = loss ~= 2 and a.by_token or nil
          g.entropy = loss ~= 1 and a.by_entropy or nil
          for k, name in ipairs(OUTPUTS) do
            if name ~= "grad" then a.out[name] = has(k - 1) and a[name] or nil end
          end
        end)
      end
    end
  end)

  it("has them in wider rows, strided rows, packed rows and in place", function()
    compared(function(g) g.width = WIDE end)
    compared(function(g) g.row_stride = WIDE end)
    -- Sequences between each other's rows.
    compared(function(g) g.batch_stride, g.row_stride = V, 2 * V end)
    for shift = 0, 1 do
      compared(function(g, a)
        a.cu = ffi.new("int64_t[4]", 0, 2, 2, N)
        a.batch.cu_seqlens, a.batch.cu_seqlens_dtype = a.cu, C.SB_I64
        a.batch.batch, a.batch.time, a.batch.rows = 3, 0, N
        a.batch.shift, g.entropy = shift, a.by_entropy
      end)
      for split = 0, 3 do
        local a = compared(function(g, a)
          a.launch.split, a.batch.shift = split, shift
          a.batch.row_stride, a.batch.batch_stride = WIDE, T * WIDE
          g.grad, g.row_stride, g.batch_stride = a.logits, WIDE, T * WIDE
        end)
        assert.is_true(c_calls.untouched(a.grad))
      end
    end
  end)

  it("takes no workspace on the cpu, and only says so", function()
    local a, needed = arrays(), ffi.new("uint64_t[1]", 7)
    a.launch.needed = needed
    works(C.sb_logprob(ctx, a.out, a.batch, a.launch))
    assert.equal(0, tonumber(needed[0]))
    assert.is_true(untouched(a))
    -- But it checks its arguments.
    refused(ARGUMENT, "grad is null", function(g, c) g.grad, c.launch.needed = nil, needed end)
  end)

  it("takes no rows, null pointers and all", function()
    local a = arrays()
    a.batch.batch, a.batch.logits, a.batch.ids = 0, nil, nil
    a.gradient.grad, a.gradient.token = nil, nil
    works(C.sb_logprob(ctx, a.out, a.batch, a.launch))
    a.batch.batch, a.batch.time, a.out.sequence = BIG, 0, nil
    works(C.sb_logprob(ctx, a.out, a.batch, a.launch))
    assert.is_true(untouched(a))
  end)

  it("leaves a struct alone that ends before it", function()
    local a = arrays()
    a.out.size = ffi.offsetof("sb_logprob_out", "gradient")
    a.out.gradient = ffi.cast("const struct sb_gradient *", 8)
    works(C.sb_logprob(ctx, a.out, a.batch, a.launch))
    assert.is_false(c_calls.untouched(a.token))
    assert.is_true(c_calls.untouched(a.grad))
  end)
end)
