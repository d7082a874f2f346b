-- Tensors: making them, indices, views, memory, and what misuse is told.

local ffi = require "ffi"
local samebits = require "samebits.tensor"
local refusal = require "spec.support.refusal"

local tensor, misuse, says = samebits.tensor, refusal.misuse, refusal.says
local DTYPES = { "float32", "float16", "bfloat16", "float64", "int8", "uint8", "int16", "int32",
                 "int64", "bool" }

-- [n] numbers 0 .. n - 1, in a shape.
local function range(shape, dtype)
  local n = 1
  for _, size in ipairs(shape) do n = n * size end
  local list = {}
  for i = 1, n do list[i] = i - 1 end
  return tensor(list, { dtype = dtype }):view(shape)
end

describe("a tensor from lists", function()
  it("has their shape and values", function()
    local t = tensor { { 1, 2, 3 }, { 4.5, -5, 6 } }
    assert.equal("float32", t.dtype)
    assert.equal("cpu", t.device)
    assert.same({ 2, 3 }, t.shape)
    assert.same({ 3, 1 }, t.strides)
    assert.equal(2, t.ndim)
    assert.equal(4, t.itemsize)
    assert.equal(6, t:numel())
    assert.equal(2, t:len())
    assert.equal(4.5, t:get(1, 0))
    assert.same({ { 1, 2, 3 }, { 4.5, -5, 6 } }, t:totable())
    assert.is_true(samebits.is_tensor(t))
    for _, other in ipairs { 1, "x", {}, false } do assert.is_false(samebits.is_tensor(other)) end
  end)

  it("may be one number, or nothing", function()
    local one = tensor(2.5)
    assert.same({}, one.shape)
    assert.equal(1, one:numel())
    assert.equal(2.5, one:get())
    assert.equal(2.5, one:totable())
    assert.equal("40200000", one:bits())
    assert.same({ 0 }, tensor({}).shape)
    assert.same({ 2, 0 }, tensor({ {}, {} }).shape)
    assert.same({ {}, {} }, tensor({ {}, {} }):totable())
  end)

  it("takes every dtype and gives its bits", function()
    local bits = {
      float32 = "3f800000", float16 = "3c00", bfloat16 = "3f80", float64 = "3ff0000000000000",
      int8 = "01", uint8 = "01", int16 = "0001", int32 = "00000001", int64 = "0000000000000001",
      bool = "01",
    }
    for _, dtype in ipairs(DTYPES) do
      local t = tensor({ { 1, 0 } }, { dtype = dtype })
      local zero = bits[dtype]:gsub("%x", "0")
      assert.same({ { bits[dtype], zero } }, t:bits())
      assert.equal(#bits[dtype] / 2, t.itemsize)
      assert.same({ { bits[dtype], zero } }, samebits.from_bits(t:bits(), dtype):bits())
      if dtype ~= "bool" then assert.same({ { 1, 0 } }, t:totable()) end
    end
    assert.same({ true, false }, tensor({ true, false }, { dtype = "bool" }):totable())
  end)

  it("keeps 64-bit integers exactly", function()
    local t = tensor({ 9007199254740993LL, -2LL ^ 63, 5, 7ULL }, { dtype = "int64" })
    assert.same({ "0020000000000001", "8000000000000000", "0000000000000005", "0000000000000007" },
                t:bits())
    assert.equal("cdata", type(t:get(0)))
    assert.is_true(t:get(0) == 9007199254740993LL)
    assert.equal("number", type(t:get(2)))
    assert.equal(-2 ^ 53, tensor({ -2 ^ 53 }, { dtype = "int64" }):get(0))
    says(misuse(tensor, { 2 ^ 63 }, { dtype = "int64" }), "data[0]", "outside int64")
    says(misuse(tensor, { 1, 2ULL ^ 63 }, { dtype = "int64" }), "data[1]", "outside int64")
    says(misuse(tensor, { 300LL }, { dtype = "uint8" }), "data[0] is 300, outside uint8 [0, 255]")
    says(misuse(tensor, { -1LL }, { dtype = "uint8" }), "data[0] is -1, outside uint8")
  end)

  it("says where they are ragged or hold something else", function()
    says(misuse(tensor, { { 1, 2 }, { 3, 4 }, { 5 } }), "ragged", "data[2] has 1 element",
         "data[0] has 2")
    says(misuse(tensor, { { { 1 }, { 2 } }, { { 3 }, { 4, 5 } } }), "data[1][1] has 2")
    says(misuse(tensor, { { 1 }, 2 }), "data[1] is 2, where others are lists")
    says(misuse(tensor, { 1, { 2 } }), "data[1] is a list")
    says(misuse(tensor, { 1, nil, 3 }), "data[1] is nil")
    says(misuse(tensor, { { 1, 2 }, { nil, 4 } }), "data[1][0] is nil")
    says(misuse(tensor, { { 1, 2 }, { 1, x = 2 } }), "data[1] has 1 element and the key x")
    says(misuse(tensor, { 1, 2, "3" }), "data[2] is the string '3'")
    says(misuse(tensor, { true }), "data[0] is true", "bool")
    says(misuse(tensor, { true, 2 }, { dtype = "bool" }), "data[1] is 2")
    says(misuse(tensor, "x"), "the string 'x'")
    says(misuse(tensor, nil), "nil")
    says(misuse(tensor, { 1, { 2 } }, { dtype = "int8" }), "data[1] is a list")
    says(misuse(tensor, tensor { 1 }), "is a tensor")
    says(misuse(tensor, { tensor { 1 } }), "data[0]")
    local loop = {}
    loop[1] = loop
    says(misuse(tensor, loop), "nested more than 64 deep")
  end)

  it("takes known options only", function()
    says(misuse(tensor, { 1 }, { dtype = "float33" }), "'float33'", "bfloat16")
    says(misuse(tensor, { 1 }, { type = "int8" }), "unknown option 'type'")
    says(refusal.message(tensor({ 1 }, { device = "moon" })), "tensor: moon:0", "moon")
    says(misuse(tensor, { 1 }, { device = "GPU 7" }), "GPU 7")
    says(misuse(tensor, { 1 }, { strides = { 1 } }), "strides")
    says(misuse(tensor, { 1 }, "int8"), "options")
    says(misuse(tensor, { 1, 2, 3 }, { shape = { 2, 2 } }), "shape [3] has 3 elements,",
         "[2, 2] has 4")
    assert.same({ { 1, 2 }, { 3, 4 } }, tensor({ 1, 2, 3, 4 }, { shape = { 2, 2 } }):totable())
  end)

  it("is made in blocks of any length", function()
    for _, n in ipairs { 1023, 1024, 1025, 2048, 2049 } do
      local list = {}
      for i = 1, n do list[i] = i % 100 end
      for _, dtype in ipairs { "float32", "int8", "bfloat16" } do
        assert.same(list, tensor(list, { dtype = dtype }):totable())
      end
      list[n] = 1000
      says(misuse(tensor, list, { dtype = "int8" }), ("data[%d] is 1000"):format(n - 1))
      list[n] = 1000LL
      says(misuse(tensor, list, { dtype = "int8" }), ("data[%d] is 1000"):format(n - 1))
    end
  end)
end)

describe("a tensor over memory", function()
  it("reads and writes it in place", function()
    local floats = ffi.new("float[6]", { 0, 1, 2, 3, 4, 5 })
    local t = tensor(floats, { shape = { 2, 3 }, dtype = "float32" })
    assert.same({ { 0, 1, 2 }, { 3, 4, 5 } }, t:totable())
    t:set(9, 1, 2)
    assert.equal(9, floats[5])
    t:pointer()[0] = 7
    assert.equal(7, t:get(0, 0))
    local strided = tensor(floats + 5, { shape = { 3 }, dtype = "float32", strides = { -2 } })
    assert.same({ 9, 3, 1 }, strided:totable())
    local repeated = tensor(floats, { shape = { 2, 2 }, dtype = "float32", strides = { 0, 1 } })
    assert.same({ { 7, 1 }, { 7, 1 } }, repeated:totable())
  end)

  it("at any alignment", function()
    local bytes = ffi.new("uint8_t[64]")
    for _, dtype in ipairs(DTYPES) do
      local t = tensor(bytes + 3, { shape = { 4 }, dtype = dtype })
      t:set(1, 2)
      assert.equal(dtype == "bool" or 1, t:get(2))
      assert.same(tensor({ 0, 0, 1, 0 }, { dtype = dtype }):bits(), t:bits())
      t:set(0, 2)
    end
  end)

  it("keeps the owner alive", function()
    local collected = 0
    local function make()
      local owner = ffi.gc(ffi.new("int[1]"), function() collected = collected + 1 end)
      local floats = ffi.gc(ffi.new("float[2]", { 1, 2 }), function() collected = collected + 1 end)
      return tensor(floats, { shape = { 2 }, dtype = "float32", owner = owner }):slice(0, 1)
    end
    local view = make()
    collectgarbage()
    collectgarbage()
    assert.equal(0, collected)
    assert.equal(2, view:get(0))
    view = nil  -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.equal(2, collected)
  end)

  it("refuses what cannot be meant", function()
    local floats = ffi.new("float[6]")
    says(misuse(tensor, floats, { dtype = "float32" }), "needs a shape")
    says(misuse(tensor, floats, { shape = { 6 } }), "dtype is missing")
    says(misuse(tensor, floats, { shape = { 7 }, dtype = "float32" }), "bytes 0 to 28",
         "array of 24 bytes")
    says(misuse(tensor, floats, { shape = { 3 }, dtype = "float32", strides = { -1 } }),
         "bytes -8 to 4")
    says(misuse(tensor, floats, { shape = { 2 }, dtype = "float32", strides = { 1, 1 } }),
         "strides [1, 1] for shape [2]")
    says(misuse(tensor, floats, { shape = { 2 }, dtype = "float32", strides = { 0.5 } }), "[0.5]")
    says(misuse(tensor, ffi.cast("float *", nil), { shape = { 2 }, dtype = "float32" }), "null")
    assert.equal(0, tensor(ffi.cast("float *", nil), { shape = { 0 }, dtype = "int8" }):numel())
  end)

  it("on a device that is not there can be viewed but not read", function()
    local t = tensor(ffi.cast("void *", 4096), { shape = { 2, 3 }, dtype = "float16",
                                                 device = "moon" })
    assert.equal("moon:0", t.device)
    assert.equal("tensor float16 [2, 3] moon:0", tostring(t))
    assert.equal("moon:0", t:slice(0, 1):transpose(0, 1).device)
    for name, call in pairs {
      get = function() t:get(0, 0) end, set = function() t:set(1, 0, 0) end,
      totable = function() t:totable() end, bits = function() t:bits() end,
    } do
      says(misuse(call), name .. ":", "moon:0")
    end
    for name, call in pairs {
      clone = function() return t:clone() end, to = function() return t:to "float32" end,
      contiguous = function() return t:transpose():contiguous() end,
      reshape = function() return t:transpose():reshape(6) end,
      copy_ = function() return samebits.zeros({ 2, 3 }, "float16"):copy_(t) end,
    } do
      says(refusal.message(call()), name .. ": moon:0:")
    end
    says(refusal.message(t:to "cpu"), "to: moon:0:")
  end)
end)

describe("zeros and empty", function()
  it("have a shape and a dtype", function()
    for _, dtype in ipairs(DTYPES) do
      local t = samebits.zeros({ 2, 3 }, dtype)
      assert.equal(dtype, t.dtype)
      assert.is_nil(ffi.string(t.ptr, t:numel() * t.itemsize):find("[^%z]"))
      assert.same({ 2, 3 }, samebits.empty({ 2, 3 }, dtype).shape)
    end
    assert.equal("float32", samebits.zeros({ 2 }).dtype)
    assert.equal(1, samebits.zeros({}):numel())
  end)

  it("may be large", function()
    local t = samebits.zeros({ 3, 1048577 }, "int16")
    assert.equal(0, t:get(2, 1048576))
    t:set(-5, 2, 1048576)
    assert.equal(-5, t[2][1048576])
  end)

  it("refuse shapes that are none", function()
    says(misuse(samebits.zeros, { 2, -1 }), "shape [2, -1]: dim 1")
    says(misuse(samebits.zeros, { 2.5 }), "shape [2.5]: dim 0")
    says(misuse(samebits.zeros, { "2" }), "shape [2]: dim 0")
    says(misuse(samebits.zeros, 3), "shape is number")
    says(misuse(samebits.zeros, { 2 ^ 30, 2 ^ 30 }), "too many elements")
    says(misuse(samebits.zeros, { 0, 2 ^ 30, 2 ^ 30 }), "too many elements")
    says(misuse(samebits.zeros, { 2 ^ 50 }), "no memory", "float32 [1125899906842624]")
    says(misuse(samebits.empty, { 1 }, "int7"), "empty", "'int7'")
    local deep = {}
    for d = 1, 65 do deep[d] = 1 end
    says(misuse(samebits.zeros, deep), "65 dimensions")
  end)
end)

describe("indices", function()
  local t = range({ 2, 3, 4 })

  it("count from 0", function()
    assert.equal(0, t:get(0, 0, 0))
    assert.equal(23, t:get(1, 2, 3))
    assert.equal(17, t[1][1][1])
    assert.same({ 3, 4 }, t[1].shape)
    local five = range { 1, 2, 1, 2, 3 }
    assert.equal(10, five:get(0, 1, 0, 1, 1))
    five:set(-1, 0, 1, 0, 1, 1)
    assert.equal(-1, five[0][1][0][1][1])
  end)

  it("below 0 count from the end", function()
    assert.equal(23, t:get(-1, -1, -1))
    assert.equal(12, t:get(-1, -3, -4))
    assert.equal(17, t[-1][-2][-3])
    assert.same(t:select(1, 2):totable(), t:select(-2, -1):totable())
    assert.same(t:slice(2, 1, 3):totable(), t:slice(-1, -3, -1):totable())
    assert.same(t:transpose(0, 2):totable(), t:transpose(-3, -1):totable())
    local s = samebits.zeros { 3 }
    s[-1] = 7
    assert.same({ 0, 0, 7 }, s:totable())
  end)

  it("go through the first dimension", function()
    local rows = {}
    for i, row in t:each() do rows[i] = row:totable() end
    assert.same(t[0]:totable(), rows[0])
    assert.same(t[1]:totable(), rows[1])
    assert.equal(1, #rows)
    for i, v in tensor({ 5, 6 }):each() do assert.equal(5 + i, v) end
    says(misuse(function() tensor(1):each() end), "no dimension")
    -- LuaJIT knows ipairs of anything but tables only with the metamethods of Lua 5.2.
    assert.equal(getmetatable(t).__ipairs, t.each)
    local compatible = #setmetatable({}, { __len = function() return 7 end }) == 7
    assert.equal(compatible, (pcall(ipairs, t)))
  end)

  it("have a length", function()
    assert.equal(2, #t)
    assert.equal(3, #t[0])
    assert.equal(0, #samebits.zeros { 0, 3 })
    says(misuse(function() return #tensor(1) end), "len: a tensor of shape [] has no dimension")
    local sum = 0
    for _ = 1, 300 do sum = sum + #t end -- in compiled code, too
    assert.equal(600, sum)
  end)

  it("go with what refers to them, also from their own fields", function()
    local live = setmetatable({}, { __mode = "k" })
    for _ = 1, 100 do
      local own = tensor { 1, 2 }
      own.itself, live[own], live[own:slice(0, 1)] = own, true, true
    end
    collectgarbage()
    collectgarbage()
    assert.is_nil(next(live))
    local kept = tensor({ 1, 2 }):slice(0, 1)
    collectgarbage()
    assert.equal(2, kept[0])
  end)

  it("store with set and t[i] = v", function()
    local s = samebits.zeros({ 2, 3 }, "int8")
    s:set(5, 1, 2)
    s[0][1] = -7
    assert.same({ { 0, -7, 0 }, { 0, 0, 5 } }, s:totable())
    says(misuse(function() s:set(128, 1, 2) end), "set: the value at [1, 2] is 128", "int8")
    says(misuse(function() s:set("x", 1, 2) end), "the string 'x'")
    says(misuse(function() s[0][1] = 0.5 end), "[1] is 0.5")
    says(misuse(function() s[0] = 1 end), "shape is [2, 3]")
    says(misuse(function() s[0][3] = 1 end), "index 3 in dim 0", "[-3, 3)")
    assert.same({ { 0, -7, 0 }, { 0, 0, 5 } }, s:totable())
  end)

  it("outside are refused by dim, index and shape", function()
    says(misuse(function() t:get(1, 3, 0) end), "get: index 3 in dim 1", "[-3, 3)", "[2, 3, 4]")
    says(misuse(function() t:get(-3, 0, 0) end), "index -3 in dim 0")
    says(misuse(function() t:get(0, 0, 0.5) end), "index 0.5 in dim 2")
    says(misuse(function() t:get(0, 0, 0 / 0) end), "index nan in dim 2")
    says(misuse(function() t:get("0", 0, 0) end), "'0' in dim 0")
    says(misuse(function() t:get(0, 0) end), "2 indices", "[2, 3, 4]")
    says(misuse(function() t:set(1) end), "set: 0 indices")
    says(misuse(function() range({ 1, 2, 1, 2 }):get(0, 0, 0, 2) end), "index 2 in dim 3")
    says(misuse(function() return t[2] end), "index 2 in dim 0", "[2, 3, 4]")
    says(misuse(function() return t[0][0][4] end), "index 4 in dim 0", "[4]")
    says(misuse(function() return tensor(1)[0] end), "no dimension")
    says(misuse(function() tensor(1):len() end), "no dimension")
    assert.is_nil(t.nonsense)
  end)

  it("give infinities and the largest numbers as they are", function()
    for _, dtype in ipairs { "float32", "float16", "bfloat16", "float64" } do
      local s = tensor({ math.huge, -math.huge }, { dtype = dtype })
      assert.same({ math.huge, -math.huge }, s:totable())
      assert.same({ math.huge, -math.huge }, s:to("float32"):to("float64"):totable())
    end
    local largest = samebits.from_bits({ "7fefffffffffffff", "ffefffffffffffff" }, "float64")
    assert.same({ 0x1.fffffffffffffp1023, -0x1.fffffffffffffp1023 }, largest:totable())
  end)

  it("give NaNs of any payload as NaN", function()
    -- LuaJIT takes some of these for nil, strings or tables where it loads them as they are.
    local bits = { "ffffffff", "fff80000", "7fc00000", "ff800001", "7f800001", "fff00000" }
    local single = samebits.from_bits(bits)
    local double = {}
    for high = 0xfff0, 0xffff do double[#double + 1] = ("%04x000000000001"):format(high) end
    double = samebits.from_bits(double, "float64")
    for _, s in ipairs { single, double } do
      for i = 0, s:len() - 1 do
        local v = s[i]
        assert.equal("number", type(v))
        assert.is_true(v ~= v)
      end
      for _, v in ipairs(s:totable()) do assert.is_true(type(v) == "number" and v ~= v) end
      assert.is_truthy(tostring(s):find("nan"))
    end
    assert.same(bits, single:clone():bits())
    assert.same(bits, samebits.from_bits({ bits, bits }):transpose():clone():transpose():bits()[1])
  end)
end)

describe("views", function()
  it("slice a dimension, half open", function()
    local t = range({ 3, 4 })
    assert.same({ { 4, 5, 6, 7 }, { 8, 9, 10, 11 } }, t:slice(0, 1):totable())
    assert.same({ { 1, 2 }, { 5, 6 }, { 9, 10 } }, t:slice(1, 1, 3):totable())
    assert.same({ { 0 }, { 4 }, { 8 } }, t:slice(1, nil, 1):totable())
    assert.same({ 3, 0 }, t:slice(1, 4, 4).shape)
    assert.same({ 0, 4 }, t:slice(0, 3).shape)
    t:slice(0, 1):slice(1, 2):set(-1, 0, 0)
    assert.equal(-1, t:get(1, 2))
    says(misuse(function() t:slice(2, 0, 1) end), "slice: dim 2", "[-2, 2)", "[3, 4]")
    says(misuse(function() t:slice(1, 0, 5) end), "bound 5 in dim 1", "[-4, 4]")
    says(misuse(function() t:slice(1, -5) end), "bound -5 in dim 1")
    says(misuse(function() t:slice(1, 3, 2) end), "from 3 to 2 in dim 1")
    says(misuse(function() t:slice(1, 1.5) end), "bound 1.5")
  end)

  it("select an index", function()
    local t = range({ 3, 4 })
    assert.same({ 4, 5, 6, 7 }, t:select(0, 1):totable())
    assert.same({ 3, 7, 11 }, t:select(1, 3):totable())
    assert.equal(6, t:select(1, 2):select(0, 1):get())
    says(misuse(function() t:select(1, 4) end), "select: index 4 in dim 1", "[3, 4]")
    says(misuse(function() t:select(nil, 0) end), "dim nil")
  end)

  it("exchange dimensions", function()
    local t = range({ 2, 3 })
    assert.same({ { 0, 3 }, { 1, 4 }, { 2, 5 } }, t:transpose():totable())
    assert.same({ 4, 3, 2 }, range({ 2, 3, 4 }):transpose(0, 2).shape)
    assert.equal(t:transpose(0, 1).ptr, t.ptr)
    assert.is_false(t:transpose():is_contiguous())
    says(misuse(function() range({ 2, 3, 4 }):transpose() end), "dim nil")
    says(misuse(function() t:transpose(0, 2) end), "transpose: dim 2")
  end)

  it("show the same elements in another shape", function()
    local t = range({ 2, 3, 4 })
    assert.same({ 6, 4 }, t:view(6, 4).shape)
    assert.same({ 6, 4 }, t:view({ 6, -1 }).shape)
    assert.equal(13, t:view(24):get(13))
    assert.equal(t.ptr, t:view(1, 24, 1).ptr)
    -- Some shapes of a strided tensor need no copy.
    local part = t:slice(2, 0, 2)
    assert.same({ 0, 1, 4, 5, 8, 9 }, part:slice(0, 0, 1):reshape(6):totable())
    assert.same({ { 0, 1 }, { 4, 5 }, { 8, 9 }, { 12, 13 }, { 16, 17 }, { 20, 21 } },
                part:view(6, 2):totable())
    assert.same({ { { 0 }, { 1 } }, { { 4 }, { 5 } } }, part:view(6, 2, 1):slice(0, 0, 2):totable())
    says(misuse(function() part:view(12) end), "view: shape [2, 3, 2]", "[12]")
    says(misuse(function() t:transpose(0, 1):view(6, 4) end), "strides [4, 12, 1]")
    says(misuse(function() t:view(5, 5) end), "has 24 elements, [5, 5] has 25")
    says(misuse(function() t:view(5, -1) end), "as [5, -1]")
    says(misuse(function() t:view(-1, -1) end), "[-1, -1]")
    assert.same({ 0, 5 }, samebits.zeros({ 5, 0 }):view(0, 5).shape)
    assert.same({}, samebits.zeros({ 1, 1 }):view({}).shape)
    assert.same({ 1, 1 }, tensor(3):view(1, 1).shape)
  end)

  it("reshape by a copy where they must", function()
    local t = range({ 2, 3 }):transpose()
    local flat = t:reshape(6)
    assert.same({ 0, 3, 1, 4, 2, 5 }, flat:totable())
    flat:set(9, 0)
    assert.equal(0, t:get(0, 0))
    assert.equal(range({ 4 }).ptr == nil, false)
    local dense = range({ 2, 3 })
    assert.equal(dense.ptr, dense:reshape(3, 2).ptr)
  end)

  it("are contiguous or made so, for every size of element", function()
    for _, dtype in ipairs(DTYPES) do
      if dtype ~= "bool" then
        local t = range({ 3, 4, 5 }, dtype)
        assert.is_true(t:is_contiguous())
        assert.equal(t, t:contiguous())
        local want = t:totable()
        for a = 0, 2 do
          for b = 0, 2 do
            local dense = t:transpose(a, b):contiguous()
            assert.is_true(dense:is_contiguous())
            assert.same(want, dense:transpose(a, b):totable())
          end
        end
        local part = t:slice(0, 1):slice(1, 1, 3):slice(2, 2, 4)
        assert.same(part:totable(), part:contiguous():totable())
      end
    end
    assert.is_true(samebits.zeros({ 1, 5 }):transpose():is_contiguous())
    assert.is_true(samebits.zeros({ 4, 0 }):transpose():is_contiguous())
    assert.is_true(tensor(1):is_contiguous())
  end)

  it("clone", function()
    local t = range({ 2, 3 })
    local copy = t:slice(1, 0, 2):clone()
    copy:set(9, 0, 0)
    assert.same({ { 9, 1 }, { 3, 4 } }, copy:totable())
    assert.equal(0, t:get(0, 0))
    assert.same({ 2, 1 }, copy.strides)
  end)
end)

describe("tostring", function()
  it("shows dtype, shape, device and values", function()
    assert.equal("tensor float32 [2, 3] cpu\n[[    1,   2.5, -1000],\n [  nan,   inf,     0]]",
                 tostring(tensor { { 1, 2.5, -1000 }, { 0 / 0, math.huge, 0 } }))
    assert.equal("tensor int64 [] cpu\n9007199254740993",
                 tostring(tensor(9007199254740993LL, { dtype = "int64" })))
    assert.equal("tensor bool [2] cpu\n[ true, false]",
                 tostring(tensor({ true, false }, { dtype = "bool" })))
    assert.equal("tensor int8 [2, 1, 2] cpu\n[[[0, 1]],\n\n [[2, 3]]]",
                 tostring(range({ 2, 1, 2 }, "int8")))
    assert.equal("tensor uint8 [0, 3] cpu\n[]", tostring(samebits.zeros({ 0, 3 }, "uint8")))
  end)

  it("leaves out the middle of what is large", function()
    local text = tostring(range({ 100, 200 }, "int32"))
    says(text, "[    0,     1,     2, ...,   197,   198,   199]", "\n ...,\n", "19999]]")
    assert.is_true(#text < 400)
    -- No dimension of an empty tensor is walked through.
    assert.equal("tensor int8 [9007199254740992, 0] cpu\n[]",
                 tostring(samebits.zeros({ 2 ^ 53, 0 }, "int8")))
    for line in tostring(range({ 120 })):gmatch("[^\n]+") do assert.is_true(#line <= 100) end
  end)
end)

describe("free", function()
  it("ends the use of a tensor, its views and batches, and gives large memory back", function()
    local t = samebits.zeros { 8, 2 ^ 17 }
    local row, text = t[3], tostring(t[0])
    local batch = require("samebits").batch { logits = t:view(8, 2 ^ 17), ids = { 0, 1, 2, 3, 4, 5,
                                                                            6, 7 } }
    local ctx = require("samebits").open "cpu"
    assert(ctx:logprob(batch))
    t:free()
    t:free()
    says(misuse(function() return row[0] end), "float32 [131072] has been freed")
    says(misuse(function() t:totable() end), "has been freed")
    says(misuse(function() return t + 1 end), "has been freed")
    says(misuse(function() t:clone() end), "has been freed")
    says(misuse(function() ctx:logprob(batch) end), "has been freed")
    assert.equal("tensor float32 [8, 131072] cpu, freed", tostring(t))
    assert.truthy(text)
    ctx:close()
  end)

  it("leaves alone what others may use", function()
    local array = ffi.new("float[4]", 1, 2, 3, 4)
    local t = tensor(array, { dtype = "float32", shape = { 4 } })
    local view = t:slice(0, 1)
    t:free()
    assert.same({ 2, 3, 4 }, view:totable())
    says(misuse(function() return t[0] end), "has been freed")
    local big = samebits.zeros { 2 ^ 19 }
    samebits.lend(big)
    view = big:slice(0, 5)
    big:free()
    assert.equal(0, view[0])
  end)
end)
