-- The C interface, called as C calls it: the rules of samebits.h for arguments, without the Lua
-- front end, which refuses most wrong arguments earlier and with other messages.

local ffi = require "ffi"
local samebits = require "samebits"
local c_calls = require "spec.support.c_calls"
local read = require("spec.support.files").read
local hex = require "spec.support.hex"
local C = require("samebits.lib").C

local filled, sized, open = c_calls.filled, c_calls.sized, c_calls.open
local name_of = c_calls.name_of
local ABI = samebits.abi
local B, T, V = 2, 3, 5
local N = B * T

local ctx = assert(open())
local function last_error() return c_calls.last_error(ctx) end

-- A correct call: batch, out and launch, and the arrays behind them. logits is [B, T, V] in fp32,
-- with the rows V + 1 apart.
local STRIDE = V + 1
local function arrays()
  local a = {
    logits = ffi.new("float[?]", N * STRIDE), ids = ffi.new("int32_t[?]", N),
    token = filled("float", N), lse = filled("float", N), sequence = filled("float", N),
    count = filled("int64_t", N),
    batch = sized "sb_batch", out = sized "sb_logprob_out", launch = sized "sb_launch",
  }
  for i = 0, N * STRIDE - 1 do a.logits[i] = (i * 37 % 23) / 4 - 2 end
  for i = 0, N - 1 do a.ids[i] = i % V end
  for _, name in ipairs { "token", "lse", "sequence", "count" } do a.out[name] = a[name] end
  local b = a.batch
  b.logits_dtype, b.ids_dtype, b.cu_seqlens_dtype = C.SB_F32, C.SB_I32, C.SB_I64
  b.logits, b.ids = a.logits, a.ids
  b.batch, b.time, b.vocab, b.row_stride = B, T, V, STRIDE
  b.temperature, b.ignore_index = 1, -100
  return a
end

local function int64s(...) return ffi.new("int64_t[?]", select("#", ...), ...) end

-- Packs the rows as sequences that end where cu says.
local function pack(a, ...)
  a.cu = int64s(...)
  a.batch.batch, a.batch.time, a.batch.rows = select("#", ...) - 1, 0, N
  a.batch.cu_seqlens = a.cu
end

local function list_rows(a, ...)
  a.rows = int64s(...)
  a.batch.row_list, a.batch.row_count = a.rows, select("#", ...)
end

local function untouched(a)
  for _, name in ipairs { "token", "lse", "sequence", "count" } do
    if not c_calls.untouched(a[name]) then return false end
  end
  return true
end

-- Changes a correct call, runs it, and compares the status and words of the message.
local function refused(status, words, change)
  local a = arrays()
  change(a.batch, a)
  local got = C.sb_logprob(ctx, a.out, a.batch, a.launch)
  local message = last_error()
  assert.equal(status, name_of(got), message)
  assert.truthy(message:find(words, 1, true), message)
  assert.is_true(untouched(a), "an output was written")
end

local function scored(change)
  local a = arrays()
  if change then change(a.batch, a) end
  local status = C.sb_logprob(ctx, a.out, a.batch, a.launch)
  assert.equal("SB_OK", name_of(status), last_error())
  assert.equal("", last_error())
  return a
end

local function words_of(array, n)
  local words, list = ffi.cast("uint32_t *", array), {}
  for i = 0, n - 1 do list[i + 1] = bit.tohex(words[i]) end
  return list
end

describe("sb_logprob refuses", function()
  local ARGUMENT, SHAPE, DTYPE = "SB_ERR_ARGUMENT", "SB_ERR_SHAPE", "SB_ERR_DTYPE"
  local TEMPERATURE, ID = "SB_ERR_TEMPERATURE", "SB_ERR_ID"
  local BIG = 2LL ^ 62

  it("structs of the wrong size", function()
    refused(ARGUMENT, "sb_batch.size is 0", function(b) b.size = 0 end)
    refused(ARGUMENT, "start from SB_BATCH_INIT", function(b) b.size = b.size + 8 end)
    refused(ARGUMENT, "sb_logprob_out.size is 4", function(_, a) a.out.size = 4 end)
    refused(ARGUMENT, "sb_launch.size is 0", function(_, a) a.launch.size = 0 end)
  end)

  it("null pointers", function()
    local a = arrays()
    assert.equal(ARGUMENT, name_of(C.sb_logprob(nil, a.out, a.batch, a.launch)))
    assert.equal(ARGUMENT, name_of(C.sb_logprob(ctx, nil, a.batch, a.launch)))
    assert.equal("out is null", last_error())
    assert.equal(ARGUMENT, name_of(C.sb_logprob(ctx, a.out, nil, a.launch)))
    assert.equal("batch is null", last_error())
    assert.equal("ctx is null", ffi.string(C.sb_last_error(nil)))
    refused(ARGUMENT, "logits is null", function(b) b.logits = nil end)
    refused(ARGUMENT, "ids is null", function(b) b.ids = nil end)
  end)

  it("options it does not know", function()
    for _, split in ipairs { -1, 65537, -2 ^ 31 } do
      refused(ARGUMENT, ("split is %d"):format(split), function(_, a) a.launch.split = split end)
    end
    for _, shift in ipairs { -1, 2 } do
      refused(ARGUMENT, ("shift is %d"):format(shift), function(b) b.shift = shift end)
    end
  end)

  it("dtypes", function()
    for _, dtype in ipairs { 0, C.SB_I32, C.SB_I64, 6, -1 } do
      refused(DTYPE, ("logits_dtype is %d"):format(tonumber(dtype)),
              function(b) b.logits_dtype = dtype end)
    end
    for _, dtype in ipairs { 0, C.SB_F32, C.SB_BF16, 6 } do
      refused(DTYPE, ("ids_dtype is %d"):format(tonumber(dtype)),
              function(b) b.ids_dtype = dtype end)
      refused(DTYPE, ("cu_seqlens_dtype is %d"):format(tonumber(dtype)), function(b, a)
        pack(a, 0, N)
        b.cu_seqlens_dtype = dtype
      end)
    end
  end)

  it("extents", function()
    for _, vocab in ipairs { 0, -1, 2 ^ 20 + 1 } do
      refused(SHAPE, ("vocab is %d"):format(vocab), function(b)
        b.vocab, b.row_stride = vocab, 0
      end)
    end
    refused(SHAPE, "batch is -1", function(b) b.batch = -1 end)
    refused(SHAPE, "time is -1", function(b) b.time = -1 end)
    refused(SHAPE, "rows is -1", function(b, a) pack(a, 0, N); b.rows = -1 end)
    refused(SHAPE, "passes 2^63", function(b) b.batch, b.time = BIG, 2 end)
    refused(SHAPE, "at most 2^24", function(b) b.batch, b.time = 1, 2 ^ 24 + 1 end)
    refused(SHAPE, "sequence 1 has 16777217", function(b, a)
      pack(a, 0, 3, 3 + 2 ^ 24 + 1)
      b.rows = 3 + 2 ^ 24 + 1
    end)
    -- The largest sequence passes.
    refused(ARGUMENT, "ids is null", function(b) b.batch, b.time, b.ids = 1, 2 ^ 24, nil end)
  end)

  it("strides", function()
    refused(SHAPE, "row_stride 4 is less than the 5 logits of a row",
            function(b) b.row_stride = V - 1 end)
    refused(SHAPE, "row_stride -6", function(b) b.row_stride = -STRIDE end)
    local set = ffi.new("uint32_t[1]")
    for _, stride in ipairs { -1, -BIG } do
      local words = ("kept_stride %s is less"):format(tostring(stride):match "-%d+")
      refused(SHAPE, words, function(b) b.kept, b.kept_stride = set, stride end)
    end
    refused(SHAPE, "kept_stride 4611686018427387904 reaches past the address space",
            function(b) b.kept, b.kept_stride = set, BIG end)
    refused(SHAPE, "batch_stride is -1", function(b) b.batch_stride = -1 end)
    for _, strides in ipairs {
      { row = BIG }, { row = BIG / 2, batch = 1 }, { batch = BIG }, { batch = BIG / 2 },
      { row = BIG / T, batch = BIG / T },
    } do
      refused(SHAPE, "reach past the address space", function(b)
        b.batch = 3
        b.row_stride, b.batch_stride = strides.row or STRIDE, strides.batch or 0
      end)
    end
    -- The elements fit, their bytes do not.
    refused(SHAPE, "reach past the address space", function(b)
      b.batch, b.time, b.row_stride = 1, 1, BIG / 2
    end)
    refused(SHAPE, "reach past the address space", function(b, a)
      pack(a, 0, N)
      b.row_stride = BIG / 4
    end)
  end)

  -- Lists of kept ids: the offsets, then the ids.
  local function keep(a, offsets, ...)
    a.offsets, a.kept = int64s(unpack(offsets)), int64s(...)
    a.batch.kept_offsets, a.batch.kept_offsets_dtype = a.offsets, C.SB_I64
    a.batch.kept_ids, a.batch.kept_ids_dtype = a.kept, C.SB_I64
    a.batch.kept_count = select("#", ...)
  end

  it("lists of kept ids", function()
    for _, case in ipairs {
      { "row 0: kept_offsets[0] is 1, not 0", { 1, 1, 1, 1, 1, 1, 2 } },
      { "row 2 (sequence 0, position 2): kept_offsets[3] is 1: it must lie in [2, 2]",
        { 0, 0, 2, 1, 1, 1, 2 } },
      { "row 4 (sequence 1, position 1): kept_offsets[5] is 3: it must lie in [0, 2]",
        { 0, 0, 0, 0, 0, 3, 2 } },
      { "row 5: kept_offsets[6] is 1, not kept_count 2", { 0, 0, 0, 0, 0, 0, 1 } },
    } do
      -- offsets are looked at before any id
      refused(SHAPE, case[1], function(_, a) a.ids[0] = V; keep(a, case[2], 3, 1) end)
    end
    for _, case in ipairs {
      { "row 3 (sequence 1, position 0): kept id 1 (entry 1) is not above the 3 before it", 3, 1 },
      { "row 3 (sequence 1, position 0): kept id 3 (entry 1) is not above the 3 before it", 3, 3 },
      { "row 3 (sequence 1, position 0): kept id 5 (entry 1) is outside [0, 5)", 0, 5 },
      { "kept id -1 (entry 0) is outside [0, 5)", -1, 0 },
      { "kept id 4294967297 (entry 1) is outside [0, 5)", 0, 2 ^ 32 + 1 },
    } do
      refused(ID, case[1], function(_, a) keep(a, { 0, 0, 0, 0, 2, 2, 2 }, case[2], case[3]) end)
    end
    local offsets = { 0, 0, 0, 0, 2, 2, 2 }
    refused(ID, "row 3 (sequence 1, position 0): id 5 is outside [0, 5)", function(_, a)
      a.ids[3] = V
      keep(a, offsets, 3, 1)
    end)
    scored(function(_, a) -- an ignored row's ids are not looked at
      a.ids[3] = -100
      keep(a, offsets, 3, 1)
    end)
    refused(ARGUMENT, "kept and kept_offsets are both given", function(b, a)
      keep(a, offsets, 3, 4)
      b.kept = ffi.new "uint32_t[6]"
    end)
    refused(ARGUMENT, "kept_offsets is null", function(b, a)
      keep(a, offsets, 3, 4)
      b.kept_offsets = nil
    end)
    refused(ARGUMENT, "kept_ids is null", function(b, a)
      keep(a, offsets, 3, 4)
      b.kept_ids = nil
    end)
    for _, count in ipairs { -1, -BIG, BIG } do
      refused(SHAPE, "kept_count is", function(b, a)
        keep(a, offsets, 3, 4)
        b.kept_count = count
      end)
    end
    for _, name in ipairs { "kept_ids_dtype", "kept_offsets_dtype" } do
      refused(DTYPE, name .. " is 1", function(b, a)
        keep(a, offsets, 3, 4)
        b[name] = C.SB_F32
      end)
    end
  end)

  it("cu_seqlens", function()
    for _, case in ipairs {
      { "cu_seqlens[0] is 1, not 0", 1, N },
      { "cu_seqlens[2] is 2: it must lie in [3, 6]", 0, 3, 2, N },
      { "cu_seqlens[1] is 7: it must lie in [0, 6]", 0, 7, N },
      { "cu_seqlens[1] is -1: it must lie in [0, 6]", 0, -1, N },
      { "cu_seqlens[2] is 5, not the number of rows 6", 0, 3, 5 },
      { "cu_seqlens[0] is 0, not the number of rows 6", 0 },
    } do
      refused(SHAPE, case[1], function(_, a) pack(a, unpack(case, 2)) end)
    end
    refused(SHAPE, "cu_seqlens[1] is 7", function(b, a)
      pack(a, 0, 0)
      a.narrow = ffi.new("int32_t[2]", 0, 7)
      b.cu_seqlens, b.cu_seqlens_dtype = a.narrow, C.SB_I32
    end)
  end)

  it("row lists", function()
    for _, case in ipairs {
      { "row_list[0] is -1, outside [0, 6)", -1 }, { "row_list[1] is 6, outside [0, 6)", 0, 6 },
      { "row_list[2] is 3, not above the 3 before it", 0, 3, 3 },
      { "row_list[1] is 2, not above the 4 before it", 4, 2 },
      { "row_count is 7, outside [0, 6]", 0, 1, 2, 3, 4, 5, 6 },
    } do
      refused(SHAPE, case[1], function(_, a) list_rows(a, unpack(case, 2)) end)
    end
    refused(SHAPE, "row_count is -1", function(b, a) list_rows(a, 0); b.row_count = -1 end)
  end)

  it("temperatures, the one of the call even where there is no row", function()
    for _, bad in ipairs { 0, -1, 1024.001, 0x1.fffffep-11, math.huge, 0 / 0 } do
      refused(TEMPERATURE, "outside [2^-10, 2^10]", function(b) b.temperature = bad end)
      refused(TEMPERATURE, "outside [2^-10, 2^10]", function(b)
        b.temperature, b.batch = bad, 0
      end)
      refused(TEMPERATURE, "row 4 (sequence 1, position 1): temperature", function(b, a)
        a.taus = ffi.new("float[?]", N, 1)
        for i = 0, N - 1 do a.taus[i] = i < 4 and 1 or bad end
        b.temperatures, b.temperature = a.taus, 0
      end)
    end
  end)

  it("ids, naming row, sequence and position", function()
    for row = 0, N - 1 do
      refused(ID, ("row %d (sequence %d, position %d): id 5 is outside [0, 5)"):format(row,
        math.floor(row / T), row % T), function(_, a) a.ids[row] = V end)
    end
    -- Packed, with empty sequences at both ends and between.
    local cu = { 0, 0, 2, 2, 2, 5, 6, 6 }
    local where = { { 1, 0 }, { 1, 1 }, { 4, 0 }, { 4, 1 }, { 4, 2 }, { 5, 0 } }
    for row = 0, N - 1 do
      refused(ID, ("row %d (sequence %d, position %d): id -1"):format(row, unpack(where[row + 1])),
              function(_, a)
        pack(a, unpack(cu))
        a.ids[row] = -1
      end)
    end
    refused(ID, "row 2 (sequence 0, position 2): id 4294967296", function(b, a)
      a.wide = int64s(0, 0, 2 ^ 32, 0, 0, 0)
      b.ids, b.ids_dtype = a.wide, C.SB_I64
    end)
  end)
end)

describe("sb_logprob takes", function()
  local plain
  setup(function()
    local a = scored()
    plain = { token = words_of(a.token, N), lse = words_of(a.lse, N),
              sequence = words_of(a.sequence, B) }
    assert.same({ 3, 3 }, { tonumber(a.count[0]), tonumber(a.count[1]) })
    -- As the Lua front end has it.
    local x = {}
    for row = 0, N - 1 do
      for i = 0, V - 1 do x[#x + 1] = a.logits[row * STRIDE + i] end
    end
    local out = samebits.logprob { logits = hex.tensor(x, { B, T, V }), ids = { { 0, 1, 2 },
                                                                              { 3, 4, 0 } } }
    assert.same(hex.of(out.token), plain.token)
    assert.same(hex.of(out.sequence), plain.sequence)
  end)

  it("a null launch, and the widest split", function()
    local a = arrays()
    assert.equal("SB_OK", name_of(C.sb_logprob(ctx, a.out, a.batch, nil)))
    assert.same(plain.token, words_of(a.token, N))
    for _, split in ipairs { 1, 2, 65536 } do
      a = scored(function(_, c) c.launch.split = split end)
      assert.same(plain.token, words_of(a.token, N))
    end
  end)

  it("any subset of the outputs", function()
    local names = { "token", "lse", "sequence", "count" }
    for subset = 0, 15 do
      local function wanted(k) return math.floor(subset / 2 ^ (k - 1)) % 2 == 1 end
      local a = scored(function(_, c)
        for k, name in ipairs(names) do if not wanted(k) then c.out[name] = nil end end
      end)
      for k, name in ipairs(names) do
        if not wanted(k) then
          assert.equal(c_calls.BYTE, ffi.cast("uint8_t *", a[name])[0])
        elseif name == "count" then
          assert.same({ 3, 3 }, { tonumber(a.count[0]), tonumber(a.count[1]) })
        else
          assert.same(plain[name], words_of(a[name], #plain[name]))
        end
      end
      -- Nothing is written past the end.
      assert.equal("55555555", words_of(a.sequence, N)[B + 1])
    end
  end)

  it("a batch stride of 0 for the dense one, which counts row strides", function()
    local a = scored(function(b) b.batch_stride = T * STRIDE end)
    assert.same(plain.token, words_of(a.token, N))
    -- Sequences that overlap by a row.
    a = scored(function(b) b.batch_stride = (T - 1) * STRIDE end)
    local token = words_of(a.token, N)
    assert.same({ unpack(plain.token, 1, T) }, { unpack(token, 1, T) })
    assert.is_false(token[4] == plain.token[4])
  end)

  it("calls without rows, null pointers and all", function()
    for _, change in ipairs {
      function(b) b.batch = 0 end, function(b) b.time = 0 end,
      function(b, a) pack(a, 0, 0, 0); b.rows = 0 end,
    } do
      local a = scored(function(b, c)
        change(b, c)
        b.logits, b.ids = nil, nil
      end)
      assert.equal("55555555", words_of(a.token, 1)[1])
      for i = 0, tonumber(a.batch.batch) - 1 do
        assert.equal("00000000", words_of(a.sequence, B)[i + 1])
        assert.equal(0, tonumber(a.count[i]))
      end
    end
  end)

  it("any number of sequences without rows, where nothing is wanted for each", function()
    local a = scored(function(b, c)
      b.batch, b.time = 2LL ^ 62, 0
      c.out.sequence, c.out.count = nil, nil
    end)
    assert.is_true(untouched(a))
  end)

  it("an empty row list, and a mask of any byte that is not 0", function()
    local a = scored(function(b, c) list_rows(c, 0); b.row_count = 0 end)
    assert.same({ "00000000", "00000000" }, words_of(a.sequence, B))
    a = scored(function(b, c)
      c.mask = ffi.new("uint8_t[?]", N, 255)
      for i = 0, N - 1 do c.mask[i] = ({ 1, 2, 128, 255, 0, 64 })[i + 1] end
      b.mask = c.mask
    end)
    local want = { unpack(plain.token) }
    want[5] = "00000000"
    assert.same(want, words_of(a.token, N))
  end)

  it("the message of a failure only until the next call", function()
    local a = arrays()
    a.batch.vocab = 0
    C.sb_logprob(ctx, a.out, a.batch, nil)
    assert.not_equal("", last_error())
    scored()
  end)
end)

describe("sb_open", function()
  local function fails(status, words, call)
    local why, handle = ffi.new("char[256]", "before"), ffi.new "sb_context *[1]"
    handle[0] = ffi.cast("sb_context *", 8)
    assert.equal(status, name_of(call(handle, why)))
    assert.truthy(ffi.string(why):find(words, 1, true), ffi.string(why))
    assert.is_true(handle[0] == nil)
  end
  local function options(set)
    local o = ffi.new "sb_open_options"
    o.size = ffi.sizeof "sb_open_options"
    for key, value in pairs(set) do o[key] = value end
    return o
  end

  it("refuses another ABI", function()
    for _, abi in ipairs { 0, ABI + 1 } do
      fails("SB_ERR_ABI", ("ABI %d, the library has ABI %d"):format(abi, ABI), function(h, why)
        return C.sb_open(h, abi, "cpu", nil, why, 256)
      end)
    end
  end)

  it("refuses null pointers and backends that it does not know", function()
    local why = ffi.new "char[256]"
    assert.equal("SB_ERR_ARGUMENT", name_of(C.sb_open(nil, ABI, "cpu", nil, why, 256)))
    assert.equal("ctx is null", ffi.string(why))
    fails("SB_ERR_ARGUMENT", "backend is null", function(h, w)
      return C.sb_open(h, ABI, nil, nil, w, 256)
    end)
    for _, name in ipairs { "tpu", "", "CPU", "cpu ", "cp", "cpu:0", ("x"):rep(1000) } do
      fails("SB_ERR_BACKEND", ('"%s"; known: '):format(name:sub(1, 40)), function(h, w)
        return C.sb_open(h, ABI, name, nil, w, 256)
      end)
    end
  end)

  it("refuses options", function()
    for set, words in pairs {
      [{ size = 0 }] = "sb_open_options.size is 0",
      [{ threads = -1 }] = "threads is -1, outside [0, 1024]",
      [{ threads = 1025 }] = "threads is 1025",
      [{ isa = "sse9" }] = 'no isa is called "sse9"; known: avx512, avx2, scalar, or auto',
      [{ isa = "" }] = 'no isa is called ""',
    } do
      fails("SB_ERR_ARGUMENT", words, function(h, w)
        return C.sb_open(h, ABI, "cpu", options(set), w, 256)
      end)
    end
  end)

  it("does as it is told", function()
    for _, threads in ipairs { 1, 2, 7 } do
      local c = assert(open(options { threads = threads, isa = "scalar" }))
      assert.equal("cpu", ffi.string(C.sb_context_backend(c)))
      assert.equal("scalar", ffi.string(C.sb_context_isa(c)))
      assert.equal(threads, C.sb_context_threads(c))
      assert.equal("", ffi.string(C.sb_last_error(c)))
    end
    local best, auto = assert(open()), assert(open(options { isa = "auto" }))
    assert.equal(ffi.string(C.sb_context_isa(best)), ffi.string(C.sb_context_isa(auto)))
    assert.is_true(C.sb_context_threads(best) >= 1)
    C.sb_close(nil)
  end)

  it("writes no more of its message than there is room for", function()
    for size = 0, 12 do
      for _, call in ipairs {
        function(w) return C.sb_open(ffi.new "sb_context *[1]", ABI, "tpu", nil, w, size) end,
        function(w) return C.sb_probe("tpu", w, size) end,
      } do
        local why = ffi.new("char[16]", ("#"):rep(15))
        assert.equal("SB_ERR_BACKEND", name_of(call(why)))
        local want = size > 0 and ("no backend is called"):sub(1, size - 1) .. "\0" or ""
        assert.equal(want .. ("#"):rep(15 - size), ffi.string(why, 15))
      end
    end
    assert.equal("SB_ERR_BACKEND", name_of(C.sb_probe("tpu", nil, 0)))
    assert.equal("SB_ERR_ARGUMENT", name_of(C.sb_probe(nil, nil, 0)))
    local why = ffi.new("char[8]", "before")
    assert.equal("SB_OK", name_of(C.sb_probe("cpu", why, 8)))
    assert.equal("", ffi.string(why))
  end)
end)

describe("names:", function()
  it("of backends, until null", function()
    local n = 0
    while C.sb_backend_name(n) ~= nil do n = n + 1 end
    assert.is_true(n >= 1)
    assert.equal("cpu", ffi.string(C.sb_backend_name(n - 1)))
    for _, index in ipairs { -1, n + 1, -2 ^ 31, 2 ^ 31 - 1 } do
      assert.is_true(C.sb_backend_name(index) == nil)
    end
  end)

  it("of statuses", function()
    local header = read "src/samebits.h"
    local seen = 0
    for name, number, text in header:gmatch 'X%((SB_[%u_]+), (%d+), "([^"]+)"%)' do
      assert.equal(name, name_of(tonumber(number)))
      assert.equal(text, ffi.string(C.sb_status_text(tonumber(number))))
      seen = seen + 1
    end
    assert.is_true(seen >= 10)
    for _, number in ipairs { -1, 99 } do
      assert.equal("unknown status", name_of(number))
      assert.equal("unknown status", ffi.string(C.sb_status_text(number)))
    end
  end)
end)
