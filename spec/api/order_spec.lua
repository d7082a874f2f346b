-- sb_logprob_ids and sb_topk, called as C calls them: the rules of samebits.h for their arguments;
-- a call that fails writes nothing.

local ffi = require "ffi"
local c_calls = require "spec.support.c_calls"
local hex = require "spec.support.hex"
local C = require("samebits.lib").C

local filled, sized, untouched = c_calls.filled, c_calls.sized, c_calls.untouched
local R, V, K = 2, 40, 3

local ctx = assert(c_calls.open())
local function last_error() return c_calls.last_error(ctx) end

local function arrays(kind)
  local a = { values = hex.tensor(hex.values(R * V, 4), { R, V }),
              numbers = ffi.new("int32_t[?]", R * K, { 3, 31, 39, 0, -100, 5 }),
              integers = filled("int32_t", R * K), logprob = filled("float", R * K),
              lse = filled("float", R), batch = sized "sb_batch", out = sized(kind) }
  local b, out = a.batch, a.out
  b.logits_dtype, b.ids_dtype, b.logits, b.ids = C.SB_F32, C.SB_I32, a.values.ptr, a.numbers
  b.batch, b.time, b.vocab, b.temperature, b.ignore_index = 1, R, V, 1, -100
  out.logprob, out.lse = a.logprob, a.lse
  return a
end

local CALLS = {
  { name = "sb_logprob_ids", out = "sb_ids_out", field = "rank", init = "SB_IDS_OUT_INIT" },
  { name = "sb_topk", out = "sb_topk_out", field = "ids", init = "SB_TOPK_OUT_INIT" },
}

for _, entry in ipairs(CALLS) do
  describe(entry.name, function()
    local function call(a, k) return C[entry.name](ctx, a.out, a.batch, k, nil) end

    local function refused(status, words, k, change)
      local a = arrays(entry.out)
      a.out[entry.field] = a.integers
      if change then change(a) end
      c_calls.fails(ctx, status, words, call(a, k or K))
      for _, name in ipairs { "integers", "logprob", "lse" } do
        assert.is_true(untouched(a[name]), name)
      end
    end

    it("refuses structs of another size, null pointers and other k", function()
      refused("SB_ERR_ARGUMENT", entry.init, K, function(a) a.out.size = 8 end)
      refused("SB_ERR_ARGUMENT", "sb_batch.size is 4", K, function(a) a.batch.size = 4 end)
      refused("SB_ERR_ARGUMENT", "logits is null", K, function(a) a.batch.logits = nil end)
      refused("SB_ERR_SHAPE", "k is 0", 0)
      refused("SB_ERR_SHAPE", "k is -1", -1)
      refused("SB_ERR_SHAPE", "k is 1048577", 1048577)
      local a = arrays(entry.out)
      assert.equal(1, tonumber(C[entry.name](nil, a.out, a.batch, K, nil)))
      assert.equal(1, tonumber(C[entry.name](ctx, nil, a.batch, K, nil)))
      assert.equal("out is null", last_error())
      assert.equal(1, tonumber(C[entry.name](ctx, a.out, nil, K, nil)))
      assert.equal("batch is null", last_error())
    end)

    it("checks ids and temperatures before it writes", function()
      refused("SB_ERR_ID", "row 0 (sequence 0, position 0", K, function(a) a.numbers[0] = V end)
      refused("SB_ERR_TEMPERATURE", "temperature 0 ", K, function(a) a.batch.temperature = 0 end)
      refused("SB_ERR_DTYPE", "ids_dtype is 7", K, function(a) a.batch.ids_dtype = 7 end)
    end)

    it("writes the outputs that are asked for, all of each", function()
      local a = arrays(entry.out)
      a.out[entry.field] = a.integers
      assert.equal(0, tonumber(call(a, K)), last_error())
      for _, name in ipairs { "integers", "logprob", "lse" } do
        local words = ffi.cast("uint32_t *", a[name])
        for i = 0, ffi.sizeof(a[name]) / 4 - 1 do assert.not_equal(0x55555555, words[i], name) end
      end
      for _, only in ipairs { "logprob", "lse", entry.field } do
        local one = arrays(entry.out)
        one.out.logprob, one.out.lse = nil, nil
        local array = only == entry.field and one.integers or one[only]
        one.out[only] = array
        assert.equal(0, tonumber(call(one, K)), last_error())
        local want = only == entry.field and a.integers or a[only]
        assert.equal(ffi.string(want, ffi.sizeof(want)), ffi.string(array, ffi.sizeof(array)), only)
      end
      local none = arrays(entry.out)
      none.out.logprob, none.out.lse = nil, nil
      assert.equal(0, tonumber(call(none, K)), last_error())
    end)
  end)
end

describe("sb_topk", function()
  it("takes a batch without ids, and ignores rows for theirs", function()
    local a = arrays "sb_topk_out"
    a.out.ids = a.integers
    a.numbers[0], a.numbers[1] = -100, 7
    assert.equal(0, tonumber(C.sb_topk(ctx, a.out, a.batch, K, nil)), last_error())
    assert.equal(-1, a.integers[0])
    assert.equal(0, ffi.cast("int32_t *", a.logprob)[0])
    local second = a.integers[K]
    a.batch.ids = nil
    assert.equal(0, tonumber(C.sb_topk(ctx, a.out, a.batch, K, nil)), last_error())
    assert.truthy(a.integers[0] >= 0)
    assert.equal(second, a.integers[K])
    assert.not_equal("SB_OK", ffi.string(C.sb_status_name(
      C.sb_logprob_ids(ctx, ffi.new("sb_ids_out", { size = 32 }), a.batch, K, nil))))
    assert.equal("ids is null", last_error())
  end)
end)
