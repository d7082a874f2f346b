-- Values from one dtype to another: every 16-bit float, and roundings against a search among them.

local ffi = require "ffi"
local samebits = require "samebits.tensor"
local prng = require "spec.support.prng"
local refusal = require "spec.support.refusal"

local tensor, INF, NAN = samebits.tensor, math.huge, 0 / 0

-- The 65536 encodings of a 16-bit dtype, as a tensor of it.
local function encodings(dtype)
  local words = ffi.new("uint16_t[65536]")
  for i = 0, 65535 do words[i] = i end
  return tensor(words, { shape = { 65536 }, dtype = dtype })
end

-- What an encoding means, from the definition of the formats.
local function meaning(h, exponent_bits)
  local mantissa_bits = 15 - exponent_bits
  local sign = h >= 0x8000 and -1 or 1
  local e = math.floor(h % 0x8000 / 2 ^ mantissa_bits)
  local m = h % 2 ^ mantissa_bits
  local top, bias = 2 ^ exponent_bits - 1, 2 ^ (exponent_bits - 1) - 1
  if e == top then return m == 0 and sign * INF or NAN end
  if e == 0 then return sign * m * 2 ^ (1 - bias - mantissa_bits) end
  return sign * (2 ^ mantissa_bits + m) * 2 ^ (e - bias - mantissa_bits)
end

local FORMATS = {
  { dtype = "float16", exponent_bits = 5, nan = "7e00", infinity = 0x7c00, limit = 65520 },
  { dtype = "bfloat16", exponent_bits = 8, nan = "7fc0", infinity = 0x7f80,
    limit = (2 - 2 ^ -8) * 2 ^ 127 },
}

for _, format in ipairs(FORMATS) do
  describe(format.dtype, function()
    -- The encoding nearest to x >= 0, ties to even, by bisection over the non-negative ones.
    local function nearest(x)
      if x >= format.limit then return format.infinity end
      local low, high = 0, format.infinity - 1
      while low < high do
        local middle = math.ceil((low + high) / 2)
        if meaning(middle, format.exponent_bits) <= x then low = middle else high = middle - 1 end
      end
      local below = meaning(low, format.exponent_bits)
      local above = low + 1 == format.infinity and format.limit * 2 - below or
                    meaning(low + 1, format.exponent_bits)
      if x - below < above - x then return low end
      if x - below > above - x then return low + 1 end
      return low % 2 == 0 and low or low + 1
    end

    -- Converts a list of numbers at once, from a dtype that holds them exactly, and one by one.
    local function check(list, from)
      local source = tensor(list, { dtype = from })
      local got, single = source:to(format.dtype), samebits.zeros({ 1 }, format.dtype)
      local bits = got:bits()
      for i, x in ipairs(list) do
        local want = nearest(math.abs(x))
        if x < 0 or 1 / x < 0 then want = want + 0x8000 end
        local hex = ("%04x"):format(want)
        assert(bits[i] == hex, ("%.17g: %s, not %s"):format(x, bits[i], hex))
        single:set(x, 0)
        assert(single:bits()[1] == hex, ("set %.17g: %s, not %s"):format(x, single:bits()[1], hex))
      end
      assert.same(bits, tensor(list, { dtype = format.dtype }):bits())
    end

    it("widens all encodings exactly", function()
      local source = encodings(format.dtype)
      for _, wide in ipairs { "float32", "float64" } do
        local values = source:to(wide)
        for h = 0, 65535 do
          local want, got = meaning(h, format.exponent_bits), values:get(h)
          local one = source:get(h)
          assert(got == want or got ~= got and want ~= want, ("%04x is %.17g"):format(h, got))
          assert(one == want or one ~= one and want ~= want, ("%04x is %.17g"):format(h, one))
          assert(want ~= 0 or 1 / got == 1 / want, ("%04x lost its sign"):format(h))
        end
      end
    end)

    it("comes back from wider dtypes", function()
      local source = encodings(format.dtype)
      local want = source:bits()
      for h = 0, 65535 do
        if meaning(h, format.exponent_bits) ~= meaning(h, format.exponent_bits) then
          want[h + 1] = format.nan
        end
      end
      assert.same(want, source:to("float32"):to(format.dtype):bits())
      assert.same(want, source:to("float64"):to(format.dtype):bits())
    end)

    it("rounds midpoints to even, and what lies beside them to the nearest", function()
      local list = {}
      for h = 0, format.infinity - 2, 7 do
        local x, y = meaning(h, format.exponent_bits), meaning(h + 1, format.exponent_bits)
        local middle = (x + y) / 2
        list[#list + 1] = middle
        list[#list + 1] = -middle
        -- Nearer than fp32 can tell: a rounding by way of fp32 would be a second one.
        list[#list + 1] = middle * (1 + 2 ^ -50)
        list[#list + 1] = middle * (1 - 2 ^ -50)
      end
      check(list, "float64")
    end)

    it("rounds floats of all sizes to the nearest", function()
      local random, list = prng.new(16), {}
      for i = 1, 4000 do
        list[i] = random:normal() * 2 ^ random:integer(-28, 17)
      end
      check(list, "float64")
      check({ 0.0, -0.0, 2 ^ -149, -2 ^ -149, 2 ^ -25, 2 ^ -24, 1.5 * 2 ^ -25, 65504, 65519.99,
              65520, -65520, 2 ^ 127, 1e300, -1e300, INF, -INF, 2 ^ -133, 2 ^ -134, 3.38e38,
              3.4e38 }, "float64")
      check(tensor(list):totable(), "float32")
    end)
  end)
end

describe("conversion", function()
  local function hex(value, from, to)
    return tensor({ value }, { dtype = from }):to(to):bits()[1]
  end

  it("of doubles to fp32 rounds once, with subnormals and infinities", function()
    assert.equal("3f800000", hex(1 + 2 ^ -24, "float64", "float32"))
    assert.equal("3f800001", hex(1 + 2 ^ -24 + 2 ^ -52, "float64", "float32"))
    assert.equal("3f800002", hex(1 + 3 * 2 ^ -24, "float64", "float32"))
    assert.equal("00000001", hex(2 ^ -149, "float64", "float32"))
    assert.equal("00000000", hex(2 ^ -150, "float64", "float32"))
    assert.equal("80000001", hex(-2 ^ -150 * (1 + 2 ^ -40), "float64", "float32"))
    assert.equal("7f800000", hex(2 ^ 128, "float64", "float32"))
    assert.equal("7f7fffff", hex(2 ^ 128 - 2 ^ 103 - 2 ^ 80, "float64", "float32"))
    assert.equal("7f800000", hex(2 ^ 128 - 2 ^ 103, "float64", "float32"))
  end)

  it("gives every NaN one encoding", function()
    for from, list in pairs {
      float32 = { "7f800001", "7fffffff", "ff800001", "ffc00000", "ffffffff" },
      float64 = { "7ff0000000000001", "7fffffffffffffff", "fff0000000000001", "fffaffffffffffff",
                  "ffffffffffffffff", "7ff0000100000000" },
      float16 = { "7c01", "ffff" },
      bfloat16 = { "7f81", "ffff" },
    } do
      local source = samebits.from_bits(list, from)
      for to, nan in pairs { float32 = "7fc00000", float64 = "7ff8000000000000",
                             float16 = "7e00", bfloat16 = "7fc0" } do
        if to ~= from then
          for _, got in ipairs(source:to(to):bits()) do assert.equal(nan, got) end
        end
      end
    end
    for dtype, nan in pairs { float32 = "7fc00000", float64 = "7ff8000000000000",
                              float16 = "7e00", bfloat16 = "7fc0" } do
      assert.same({ nan, nan }, tensor({ NAN, -NAN }, { dtype = dtype }):bits())
      local one = samebits.zeros({ 1 }, dtype)
      one:set(NAN, 0)
      assert.same({ nan }, one:bits())
    end
  end)

  it("of large int64 rounds once, to nearest even", function()
    -- By way of a double the first two would become 5e800000: both are above the midpoint.
    assert.equal("5e800001", hex(0x4000004000000001LL, "int64", "float32"))
    assert.equal("de800001", hex(-0x4000004000000001LL, "int64", "float32"))
    assert.equal("5e800000", hex(0x4000004000000000LL, "int64", "float32"))
    assert.equal("5f000000", hex(0x7fffffffffffffffLL, "int64", "float32"))
    assert.equal("df000000", hex(-0x7fffffffffffffffLL - 1, "int64", "float32"))
    assert.equal("4340000000000000", hex(0x20000000000001LL, "int64", "float64"))
    assert.equal("4340000000000002", hex(0x20000000000003LL, "int64", "float64"))
    assert.equal("5e81", hex(0x4040000000000001LL, "int64", "bfloat16"))
    assert.equal("5e80", hex(0x4040000000000000LL, "int64", "bfloat16"))
    assert.equal("7c00", hex(70000, "int64", "float16"))
    -- The same through elements given as 64-bit integers.
    assert.equal("5e800001", tensor(0x4000004000000001LL):bits())
    assert.equal("5f000000", tensor(0x8000000000000001ULL):bits())
    assert.equal("5f000001", tensor(0x8000008000000001ULL):bits())
  end)

  it("to integers takes integers in range and names the first other one", function()
    local edges = {
      int8 = { -128, 127 }, uint8 = { 0, 255 }, int16 = { -32768, 32767 },
      int32 = { -2 ^ 31, 2 ^ 31 - 1 }, int64 = { -2 ^ 63, 2 ^ 63 - 1024 },
    }
    for dtype, pair in pairs(edges) do
      local back = tensor(pair, { dtype = "float64" }):to(dtype)
      assert.same(pair, back:to("float64"):totable())
      for i, beyond in ipairs { pair[1] - 1, pair[2] + 1 } do
        if dtype == "int64" then beyond = ({ -2 ^ 63 - 2048, 2 ^ 63 })[i] end
        local source = tensor({ { 0, 1 }, { beyond, 2 } }, { dtype = "float64" })
        refusal.says(refusal.misuse(function() source:to(dtype) end), "element [1, 0] is", dtype)
        refusal.says(refusal.misuse(function() tensor({ { 0, 1 }, { beyond, 2 } },
                                                      { dtype = dtype }) end),
                     "data[1][0] is", dtype)
      end
    end
    for value, words in pairs { [0.5] = "0.5, not an integer", [INF] = "inf, not an integer",
                                [-2 ^ -149] = "not an integer" } do
      refusal.says(refusal.misuse(function() tensor { 1, value }:to("int64") end), "[1]", words)
    end
    refusal.says(refusal.misuse(function() tensor { 1, 2, NAN }:to("int8") end),
                 "element [2] is nan")
    refusal.says(refusal.misuse(function()
      tensor({ 1, 0x7fffffffffffffffLL }, { dtype = "int64" }):to("int32")
    end), "element [1] is 9223372036854775807, outside int32")
    -- Beyond the first block of the conversion loops.
    local long = samebits.zeros({ 3, 1000 })
    long:set(300, 2, 999)
    refusal.says(refusal.misuse(function() long:to("uint8") end), "[2, 999] is 300")
    assert.same("00", tensor(-0.0):to("int8"):bits())
  end)

  it("to bool is true for whatever is not zero", function()
    assert.same({ true, false, false, true, true },
                tensor({ 0.25, 0, -0.0, NAN, -INF }):to("bool"):totable())
    local odd = samebits.from_bits({ "00", "02", "ff" }, "bool")
    assert.same({ 0, 1, 1 }, odd:to("uint8"):totable())
    assert.same({ false, true, true }, odd:totable())
  end)

  it("goes through the order of indices, whatever the strides", function()
    local t = tensor { { 1, 2, 3 }, { 4, 5, 6 } }
    assert.same({ { 1, 4 }, { 2, 5 }, { 3, 6 } }, t:transpose():to("int16"):totable())
    assert.same({ { 3 }, { 6 } }, t:slice(1, 2):to("float64"):totable())
  end)

  it("to the same dtype is the tensor itself", function()
    local t = tensor { 1, 2 }
    assert.equal(t, t:to("float32"))
    assert.equal(t, t:to("cpu"))
  end)

  it("refuses dtypes that are none, and says why a device cannot be had", function()
    refusal.says(refusal.misuse(function() tensor { 1 }:to("float33") end), "'float33'", "bfloat16")
    refusal.says(refusal.misuse(function() tensor { 1 }:to(nil) end), "nil")
    refusal.says(refusal.message(tensor { 1 }:to("cuda:3")), "cuda:3")
  end)
end)
