-- sb_head_create and the other calls of heads, called as C calls them: the rules of samebits.h for
-- their arguments, by name; prepared bytes that were forged; and the older, shorter sb_batch.

local ffi = require "ffi"
local samebits = require "samebits"
local c_calls = require "spec.support.c_calls"
local heads = require "spec.support.heads"
local hex = require "spec.support.hex"
local C = require("samebits.lib").C

local sized, filled, untouched = c_calls.sized, c_calls.filled, c_calls.untouched
local V, D, R = 40, 20, 3

local ctx = assert(c_calls.open())
local function last_error() return c_calls.last_error(ctx) end
local function name_of(status) return ffi.string(C.sb_status_name(status)) end

local values = heads.values({ V, D }, "float32", 1)
local states = heads.values({ R, D }, "float32", 2)

local function weights_of()
  local w = sized "sb_head_weights"
  w.dtype, w.bias_dtype, w.format, w.scale = 1, 1, 1, 1
  w.weights, w.ids, w.width = values.ptr, V, D
  return w
end

local function head_of(weights)
  local handle = ffi.new "sb_head *[1]"
  assert.equal(0, tonumber(C.sb_head_create(ctx, handle, weights or weights_of(), nil, 0, nil)),
               last_error())
  return handle[0]
end

local head = head_of()
teardown(function() C.sb_head_free(ctx, head) end)

local function batch_of()
  local b = sized "sb_batch"
  b.logits_dtype, b.ids_dtype, b.cu_seqlens_dtype, b.hidden_dtype = 1, 4, 4, 1
  b.batch, b.time, b.vocab, b.temperature, b.ignore_index = 1, R, V, 1, -100
  b.head, b.hidden, b.hidden_width = head, states.ptr, D
  return b
end

local function refused(status, words, got)
  assert.equal(status, name_of(got), last_error())
  assert.equal(words, last_error():sub(1, #words))
end

describe("sb_head_create", function()
  local handle = ffi.new "sb_head *[1]"
  local function create(w) return C.sb_head_create(ctx, handle, w, nil, 0, nil) end

  it("refuses weights by name", function()
    for _, case in ipairs {
      { "SB_ERR_SHAPE", "weights are of 0 ids, outside [1, 1048576]", "ids", 0 },
      { "SB_ERR_SHAPE", "weights are of 1048577 ids", "ids", 1048577 },
      { "SB_ERR_SHAPE", "weights have a width D of 0, outside [1, 32768]", "width", 0 },
      { "SB_ERR_SHAPE", "weights have a width D of 32769", "width", 32769 },
      { "SB_ERR_SHAPE", "the weights' row_stride 19 is less than their width", "row_stride", 19 },
      { "SB_ERR_SHAPE", "the weights' row_stride 4611686018427387904 reaches past", "row_stride",
        2LL ^ 62 },
      { "SB_ERR_SHAPE", "the first id of the weights is 8", "first", 8 },
      { "SB_ERR_SHAPE", "the first id of the weights is 1048576", "first", 1048576 },
      { "SB_ERR_DTYPE", "the weights' dtype is 4", "dtype", 4 },
      { "SB_ERR_DTYPE", "bias_dtype is 0", "bias_dtype", 0 },
      { "SB_ERR_ARGUMENT", "format is 3", "format", 3 },
      { "SB_ERR_ARGUMENT", "scale is 0, outside", "scale", 0 },
      { "SB_ERR_ARGUMENT", "scale is nan, outside", "scale", 0 / 0 },
      { "SB_ERR_ARGUMENT", "softcap is -1, neither", "softcap", -1 },
      { "SB_ERR_ARGUMENT", "softcap is 2097152, neither", "softcap", 2097152 },
      { "SB_ERR_ARGUMENT", "keep_bad is 2", "keep_bad", 2 },
      { "SB_ERR_ARGUMENT", "norms is 2, not 0 or 1", "norms", 2 },
      { "SB_ERR_ARGUMENT", "sb_head_weights.size is 80, not 88: start from", "size", 80 },
      { "SB_ERR_ARGUMENT", "weights is null", "weights", nil },
    } do
      local w = weights_of()
      w[case[3]] = case[4]
      handle[0] = ffi.cast("sb_head *", 8)
      refused(case[1], case[2], create(w))
      assert.is_true(handle[0] == nil)
    end
    refused("SB_ERR_ARGUMENT", "sb_head_weights is null", create(nil))
    refused("SB_ERR_ARGUMENT", "head is null",
            C.sb_head_create(ctx, nil, weights_of(), nil, 0, nil))
  end)

  it("names the first bad row and counts the others, unless they are asked for", function()
    local bad = values:clone()
    bad:set(0 / 0, 7, 3)
    bad:set(math.huge, 30, 19)
    bad:set(2 ^ 48, 31, 0)
    local w = weights_of()
    w.weights = bad.ptr
    refused("SB_ERR_STATE", "row 7 of the weights (id 7) has NaN, infinity or a number of about " ..
            "2^48 or more, as 3 of 40 rows do", create(w))
    w.first = 16
    refused("SB_ERR_STATE", "row 7 of the weights (id 23) has", create(w))
    local bias = ffi.new("float[?]", V)
    bias[7], w.bias, w.first = -math.huge, bias, 0
    refused("SB_ERR_STATE", "row 30 of the weights (id 30) has", create(w))
    bias[30], bias[31] = -math.huge, -math.huge
    assert.equal(0, tonumber(create(w)), last_error())
    C.sb_head_free(ctx, handle[0])
    w.bias, w.keep_bad = nil, 1
    local kept = head_of(w)
    refused("SB_ERR_STATE", "row 7 of the weights", C.sb_head_update(ctx, kept,
            (function() w.keep_bad = 0; return w end)(), nil))
    C.sb_head_free(ctx, kept)
  end)

  it("refuses scales below those of the weights", function()
    local scales, w = ffi.new("uint32_t[?]", V), weights_of()
    C.sb_scales(ctx, scales, values.ptr, 1, V, D, 0, nil)
    w.scales = scales
    local made = head_of(w)
    C.sb_head_free(ctx, made)
    scales[5] = scales[5] - 1
    refused("SB_ERR_STATE", "the scale of row 5 of the weights is", create(w))
  end)

  it("refuses memory that is too small or not aligned", function()
    local bytes, w = ffi.new "uint64_t[1]", weights_of()
    assert.equal(0, tonumber(C.sb_head_bytes(ctx, bytes, w)))
    local space = ffi.new("char[?]", tonumber(bytes[0]) + 512)
    local at = space + (256 - tonumber(ffi.cast("uintptr_t", space) % 256)) % 256
    refused("SB_ERR_ARGUMENT", "memory has 16 bytes, the head takes",
            C.sb_head_create(ctx, handle, w, at, 16, nil))
    refused("SB_ERR_ARGUMENT", "memory (0x",
            C.sb_head_create(ctx, handle, w, at + 1, bytes[0], nil))
    assert.equal(0, tonumber(C.sb_head_create(ctx, handle, w, at, bytes[0], nil)))
    local again = ffi.new "sb_head *[1]"
    assert.equal(0, tonumber(C.sb_head_open(ctx, again, at, bytes[0])), last_error())
    local told = sized "sb_head_weights"
    assert.equal(0, tonumber(C.sb_head_describe(ctx, told, again[0])))
    assert.same({ V, D, 1 }, { tonumber(told.ids), tonumber(told.width), told.format })
    C.sb_head_free(ctx, again[0])
    C.sb_head_free(ctx, handle[0])

    -- Forged, cut or foreign bytes.
    local form = ffi.string(at, 256)
    local function forged(words, change, size)
      ffi.copy(at, form, 256)
      change()
      refused("SB_ERR_STATE", words, C.sb_head_open(ctx, again, at, size or bytes[0]))
      assert.is_true(again[0] == nil)
    end
    forged("these bytes are no head", function() at[0] = 0 end)
    forged("the head has numerics 255", function() at[8], at[9], at[10], at[11] = 255, 0, 0, 0 end)
    forged("the head has layout 99, the cpu backend", function() at[12], at[13] = 99, 0 end)
    for offset = 16, 79 do
      forged("the head's first bytes have been changed", function() at[offset] = at[offset] + 1 end)
    end
    forged("the head has " .. tonumber(bytes[0]) .. " bytes, memory", function() end,
           tonumber(bytes[0]) - 1)
    refused("SB_ERR_ARGUMENT", "memory is null", C.sb_head_open(ctx, again, nil, 5))
    refused("SB_ERR_ARGUMENT", "memory has 8 bytes", C.sb_head_open(ctx, again, at, 8))
  end)

  it("updates only weights of the same kind", function()
    local mine = head_of()
    for _, case in ipairs {
      { "number of ids", "ids", 39 }, { "width", "width", 19 }, { "first id", "first", 16 },
      { "format", "format", 2 }, { "norms (with or without them)", "norms", 1 },
      { "bias (with or without one)", "bias", values.ptr },
    } do
      local w = weights_of()
      w[case[2]] = case[3]
      refused("SB_ERR_ARGUMENT", "the weights have another " .. case[1],
              C.sb_head_update(ctx, mine, w, nil))
    end
    C.sb_head_free(ctx, mine)
  end)
end)

describe("a batch of hidden states", function()
  local token = filled("float", R)
  local out = sized "sb_logprob_out"
  out.token = token
  local ids = ffi.new("int32_t[3]", 3, 31, 39)

  local function score(change)
    local b = batch_of()
    b.ids = ids
    change(b)
    return C.sb_logprob(ctx, out, b, nil)
  end

  it("is refused by name, before anything is written", function()
    local no_head = ffi.new "char[256]"
    for _, case in ipairs {
      { "SB_ERR_ARGUMENT", "hidden is null", function(b) b.hidden = nil end },
      { "SB_ERR_ARGUMENT", "the batch has logits as well as a head",
        function(b) b.logits = values.ptr end },
      { "SB_ERR_ARGUMENT", "the batch has hidden states, and no head",
        function(b) b.head = nil end },
      { "SB_ERR_ARGUMENT", "hidden_reserved is 1", function(b) b.hidden_reserved = 1 end },
      { "SB_ERR_ARGUMENT", "head (0x",
        function(b) b.head = ffi.cast("const sb_head *", no_head) end },
      { "SB_ERR_DTYPE", "hidden_dtype is 4", function(b) b.hidden_dtype = 4 end },
      { "SB_ERR_SHAPE", "hidden states have 19 elements, the head's weights 20",
        function(b) b.hidden_width = 19 end },
      { "SB_ERR_SHAPE", "hidden states have 0 elements", function(b) b.hidden_width = 0 end },
      { "SB_ERR_SHAPE", "hidden_row_stride 19 is less than the 20 elements of a row",
        function(b) b.hidden_row_stride = 19 end },
      { "SB_ERR_SHAPE", "hidden_batch_stride is -1", function(b) b.hidden_batch_stride = -1 end },
      { "SB_ERR_SHAPE", "the hidden states' strides (batch",
        function(b) b.hidden_row_stride = 2LL ^ 61 end },
      { "SB_ERR_SHAPE", "the call is about the ids 0 to 40, the head has weights of the ids 0",
        function(b) b.vocab = 41 end },
      { "SB_ERR_ID", "row 1 (sequence 0, position 1): id 40 is outside [0, 40)",
        function(b) b.ids = ffi.new("int32_t[3]", 3, 40, 0) end },
      { "SB_ERR_TEMPERATURE", "temperature 0 ", function(b) b.temperature = 0 end },
    } do
      refused(case[1], case[2], score(case[3]))
      assert.is_true(untouched(token))
    end
    assert.equal(0, tonumber(score(function() end)), last_error())
  end)

  it("is refused by the control group, which takes logits", function()
    local ok, why = pcall(require("samebits.conventional").logprob, assert(samebits.open "cpu"),
                          { hidden = states, ids = { 1, 2, 3 },
                            head = samebits.open("cpu"):head(values) })
    assert.is_false(ok)
    assert.truthy(tostring(why):find("hidden states", 1, true), tostring(why))
  end)

  it("may come in the struct of before there were heads", function()
    local b = batch_of()
    b.head, b.hidden, b.hidden_width = ffi.cast("const sb_head *", 8), nil, 7 -- past its end
    b.size, b.ids, b.logits = ffi.offsetof("sb_batch", "head"), ids, values.ptr
    assert.equal(0, tonumber(C.sb_logprob(ctx, out, b, nil)), last_error())
    b.size = 160
    refused("SB_ERR_ARGUMENT", "sb_batch.size is 160", C.sb_logprob(ctx, out, b, nil))
  end)
end)

describe("sb_logits and columns of D", function()
  local to = sized "sb_logits_out"
  local logits = filled("float", R * V)
  to.dtype, to.logits = 1, logits

  it("refuse what they cannot write", function()
    local function of(words, status, change)
      local b, o = batch_of(), ffi.new("sb_logits_out", to)
      change(o, b)
      refused(status, words, C.sb_logits(ctx, o, b, nil))
      assert.is_true(untouched(logits))
    end
    of("logits is null", "SB_ERR_ARGUMENT", function(o) o.logits = nil end)
    of("the logits' dtype is 4", "SB_ERR_DTYPE", function(o) o.dtype = 4 end)
    of("logits's row_stride 39 is less", "SB_ERR_SHAPE", function(o) o.row_stride = 39 end)
    of("the shard begins at id 8", "SB_ERR_SHAPE", function(o) o.first, o.held = 8, 16 end)
    of("the shard holds 48 ids", "SB_ERR_SHAPE", function(o) o.held = 48 end)
    of("the batch has no hidden states", "SB_ERR_ARGUMENT",
       function(_, b) b.head, b.hidden, b.logits = nil, nil, values.ptr end)
    of("sb_logits_out.size is 40", "SB_ERR_ARGUMENT", function(o) o.size = 40 end)
  end)

  it("refuse scales and shapes that do not belong together", function()
    local scales, sums = ffi.new("uint32_t[3]"), ffi.new("int64_t[?]", R * V)
    local b = batch_of()
    assert.equal(0, tonumber(C.sb_scales(ctx, scales, states.ptr, 1, R, D, 0, nil)))
    assert.equal(0, tonumber(C.sb_products(ctx, sums, b, scales, 0, V, nil)), last_error())
    scales[1] = scales[1] - 1
    refused("SB_ERR_STATE", "row 1: its scale is", C.sb_products(ctx, sums, b, scales, 0, V, nil))
    refused("SB_ERR_ARGUMENT", "scales is null", C.sb_products(ctx, sums, b, nil, 0, V, nil))
    refused("SB_ERR_SHAPE", "width is 0", C.sb_scales(ctx, scales, states.ptr, 1, R, 0, 0, nil))
    refused("SB_ERR_SHAPE", "row_stride 3 is less",
            C.sb_scales(ctx, scales, states.ptr, 1, R, D, 3, nil))
    refused("SB_ERR_DTYPE", "dtype is 5", C.sb_scales(ctx, scales, states.ptr, 5, R, D, 0, nil))
    refused("SB_ERR_SHAPE", "rows is -1", C.sb_scales(ctx, scales, states.ptr, 1, -1, D, 0, nil))
    refused("SB_ERR_SHAPE", "41 ids from 0 on: the head has weights of 40 ids from 0 on",
            C.sb_combine(ctx, logits, sums, scales, head, R, 0, V + 1, nil))
    refused("SB_ERR_ARGUMENT", "sums is null",
            C.sb_combine(ctx, logits, nil, scales, head, R, 0, V, nil))
    refused("SB_ERR_ARGUMENT", "head is null",
            C.sb_combine(ctx, logits, sums, scales, nil, R, 0, V, nil))
  end)
end)

describe("ctx:head", function()
  local own = assert(samebits.open "cpu")
  local function says(words, f)
    local ok, why = pcall(f)
    assert.is_false(ok)
    assert.truthy(tostring(why):find(words, 1, true), tostring(why))
  end

  it("says in Lua what is wrong", function()
    local made = own:head(values)
    assert.equal("samebits head: [40, 20] h24w16 on cpu", tostring(made))
    says("head: weights: expected a tensor [V, D]", function() own:head(states[0]) end)
    says("format: expected \"h24w16\" or \"h24w24\", got bf16",
         function() own:head(values, { format = "bf16" }) end)
    says("bias: shape [20]", function() own:head(values, { bias = states[0] }) end)
    says("head: expected a head, which ctx:head makes",
         function() own:logits { hidden = states, head = 1 } end)
    says("batch: head is missing", function() own:logits { hidden = states } end)
    says("logits: given beside hidden and head",
         function() own:logits { hidden = states, head = made, logits = states } end)
    says("hidden: shape [3, 20], but the head's weights are [40, 10]",
         function() own:logits { hidden = states, head = own:head(values:slice(1, 0, 10)) } end)
    says("the batch has logits, not hidden states", function() own:logits { logits = states } end)
  end)

  it("outlives its context, and is finalised after it", function()
    local short = assert(samebits.open "cpu")
    local made = short:head(values)
    local bits = hex.of(own:logits { hidden = states, head = made })
    short:close()
    assert.same(bits, hex.of(own:logits { hidden = states, head = made }))
    made = nil -- luacheck: ignore
    collectgarbage()
  end)

  -- The collector may run at any time; here it does between a call and the question what was wrong.
  it("does not take a failure's message along when it is collected", function()
    local call = require "samebits.op.call"
    for _ = 1, 3 do own:head(values) end
    call.after = function()
      collectgarbage()
      collectgarbage()
    end
    local ok, why = pcall(own.logprob, own, { logits = states, ids = { 1, 2, 99 } })
    call.after = nil
    assert.is_false(ok)
    assert.truthy(tostring(why):find("row 2 (", 1, true), tostring(why))
    local unused = own.alive.unused -- of these heads, unless they were collected before the call
    local count = #unused
    assert(own:logprob { logits = states, ids = { 1, 2, 3 } })
    assert.is_true(count == 0 or unused ~= own.alive.unused) -- the next call has freed them
  end)

  it("is freed on request", function()
    local made = own:head(values)
    local batch = samebits.batch { hidden = states, head = made, ids = { 1, 2, 3 } }
    made:free()
    made:free()
    says("logprob: the head has been freed", function() own:logprob(batch) end)
  end)
end)
