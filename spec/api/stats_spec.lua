-- sb_compare and sb_sums, called as C calls them: the rules of samebits.h for their arguments; a
-- call that fails writes nothing.

local ffi = require "ffi"
local c_calls = require "spec.support.c_calls"
local C = require("samebits.lib").C

local filled, sized = c_calls.filled, c_calls.sized
local N = 6

local ctx = assert(c_calls.open())
local function last_error() return c_calls.last_error(ctx) end

local COMPARE, SUMS = { "ratio", "k1", "k2", "k3" }, { "sum", "mean", "exp_mean", "count" }

-- Correct calls.
local function arrays()
  local a = {
    x = ffi.new("float[?]", N, { -1, -2, -3, -4, -5, -6 }),
    y = ffi.new("float[?]", N, { -1, -2.5, -3, -4, -4, -6 }),
    mask = ffi.new("uint8_t[?]", N, { 1, 1, 0, 1, 1, 0 }),
    ends = ffi.new("int64_t[?]", 4, { 0, 2, 2, N }),
    compare = sized "sb_compare_out", sums = sized "sb_sums_out", values = sized "sb_values",
    launch = sized "sb_launch", made = {}, count = N,
  }
  for _, name in ipairs(COMPARE) do
    a.made[name] = filled("float", N)
    a.compare[name] = a.made[name]
  end
  for _, name in ipairs(SUMS) do
    a.made[name] = filled(name == "count" and "int64_t" or "float", 3)
    a.sums[name] = a.made[name]
  end
  a.values.values, a.values.minus, a.values.mask = a.x, a.y, a.mask
  a.values.batch, a.values.time, a.values.cu_seqlens_dtype = 2, 3, C.SB_I64
  return a
end

local function compare(a)
  return tonumber(C.sb_compare(ctx, a.compare, a.x, a.y, a.count, a.launch))
end
local function sums(a) return tonumber(C.sb_sums(ctx, a.sums, a.values, a.launch)) end

local function untouched(a)
  for name, array in pairs(a.made) do
    assert.is_true(c_calls.untouched(array), name)
  end
end

local function refused(call, status, words, change)
  local a = arrays()
  change(a)
  c_calls.fails(ctx, status, words, call(a))
  untouched(a)
  assert.equal(0, call(arrays()))
  assert.equal("", last_error())
end

describe("the calls of samebits.h for statistics", function()
  it("write the outputs asked for, and no others", function()
    local a = arrays()
    a.compare.k1, a.sums.mean = nil, nil
    assert.equal(0, compare(a))
    assert.equal(0, sums(a))
    assert.equal(1, a.made.ratio[0])
    assert.equal(0.5, a.made.sum[0])
    assert.equal(-1, a.made.sum[1])
    assert.equal(2, tonumber(a.made.count[1]))
    local others = { made = { k1 = a.made.k1, mean = a.made.mean } }
    untouched(others)
  end)

  it("take packed values, and launch null", function()
    local a = arrays()
    a.values.cu_seqlens, a.values.batch, a.values.rows, a.values.time = a.ends, 3, N, -5
    assert.equal(0, tonumber(C.sb_sums(ctx, a.sums, a.values, nil)), last_error())
    assert.same({ 0.5, 0, -1 }, { a.made.sum[0], a.made.sum[1], a.made.sum[2] })
    assert.same({ 2, 0, 2 }, { tonumber(a.made.count[0]), tonumber(a.made.count[1]),
                               tonumber(a.made.count[2]) })
  end)

  it("take arrays at any address", function()
    local a, b = arrays(), arrays()
    local bytes = ffi.new("uint8_t[?]", 8 * N + 1)
    ffi.copy(bytes + 1, a.x, 4 * N)
    ffi.copy(bytes + 1 + 4 * N, a.y, 4 * N)
    a.x, a.y = ffi.cast("float *", bytes + 1), ffi.cast("float *", bytes + 1 + 4 * N)
    a.values.values, a.values.minus = a.x, a.y
    for _, call in ipairs { compare, sums } do
      assert.equal(0, call(a))
      assert.equal(0, call(b))
    end
    for name, array in pairs(a.made) do
      assert.equal(ffi.string(b.made[name], ffi.sizeof(array)),
                   ffi.string(array, ffi.sizeof(array)), name)
    end
  end)

  it("take nothing to do", function()
    local a = arrays()
    assert.equal(0, tonumber(C.sb_compare(ctx, a.compare, nil, nil, 0, nil)), last_error())
    a.values.batch, a.values.values = 0, nil
    assert.equal(0, sums(a), last_error())
    untouched(a)
    a.values.batch, a.values.time = 2, 0
    assert.equal(0, sums(a), last_error())
    assert.equal(0, a.made.sum[1])
    assert.equal(1, a.made.exp_mean[1])
  end)

  for _, case in ipairs {
    { compare, "SB_ERR_ARGUMENT", "sb_compare_out.size is 3",
      function(a) a.compare.size = 3 end },
    { compare, "SB_ERR_ARGUMENT", "sb_compare_out is null", function(a) a.compare = nil end },
    { compare, "SB_ERR_ARGUMENT", "sb_launch.size is 0", function(a) a.launch.size = 0 end },
    { compare, "SB_ERR_ARGUMENT", "sampled is null", function(a) a.x = nil end },
    { compare, "SB_ERR_ARGUMENT", "other is null", function(a) a.y = nil end },
    { compare, "SB_ERR_SHAPE", "count is -1", function(a) a.count = -1 end },
    { compare, "SB_ERR_SHAPE", "count is 2305843009213693952",
      function(a) a.count = 2305843009213693952LL end },
    { sums, "SB_ERR_ARGUMENT", "sb_sums_out.size is 3", function(a) a.sums.size = 3 end },
    { sums, "SB_ERR_ARGUMENT", "sb_sums_out is null", function(a) a.sums = nil end },
    { sums, "SB_ERR_ARGUMENT", "sb_values.size is 3", function(a) a.values.size = 3 end },
    { sums, "SB_ERR_ARGUMENT", "sb_values is null", function(a) a.values = nil end },
    { sums, "SB_ERR_ARGUMENT", "sb_launch.size is 1", function(a) a.launch.size = 1 end },
    { sums, "SB_ERR_ARGUMENT", "values is null", function(a) a.values.values = nil end },
    { sums, "SB_ERR_SHAPE", "batch is -1", function(a) a.values.batch = -1 end },
    { sums, "SB_ERR_SHAPE", "time is -1", function(a) a.values.time = -1 end },
    { sums, "SB_ERR_SHAPE", "time is 536870913", function(a) a.values.time = 536870913 end },
    { sums, "SB_ERR_SHAPE", "passes 2^63", function(a)
      a.values.batch, a.values.time = 2 ^ 40, 2 ^ 29
    end },
    { sums, "SB_ERR_SHAPE", "batch times time is", function(a)
      a.values.batch, a.values.time = 2 ^ 33, 2 ^ 29
    end },
    { sums, "SB_ERR_SHAPE", "rows is -1", function(a)
      a.values.cu_seqlens, a.values.rows = a.ends, -1
    end },
    { sums, "SB_ERR_DTYPE", "cu_seqlens_dtype is 1", function(a)
      a.values.cu_seqlens, a.values.rows, a.values.cu_seqlens_dtype = a.ends, N, C.SB_F32
    end },
    { sums, "SB_ERR_SHAPE", "cu_seqlens[3] is 6, not the number of rows 7", function(a)
      a.values.cu_seqlens, a.values.batch, a.values.rows = a.ends, 3, 7
    end },
    { sums, "SB_ERR_SHAPE", "cu_seqlens[2] is 1", function(a)
      a.ends[2] = 1
      a.values.cu_seqlens, a.values.batch, a.values.rows = a.ends, 3, N
    end },
  } do
    local call, status, words, change = unpack(case)
    it("refuse: " .. words, function() refused(call, status, words, change) end)
  end

  it("refuse a null context", function()
    local a = arrays()
    assert.equal(C.SB_ERR_ARGUMENT, C.sb_compare(nil, a.compare, a.x, a.y, N, nil))
    assert.equal(C.SB_ERR_ARGUMENT, C.sb_sums(nil, a.sums, a.values, nil))
    untouched(a)
  end)
end)
