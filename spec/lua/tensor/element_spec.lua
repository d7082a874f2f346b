-- Single elements in memory: what is read from an encoding, the encoding of what is written, and
-- the values that a dtype refuses.

local ffi = require "ffi"
local dtype = require "samebits.tensor.dtype"
local element = require "samebits.tensor.element"
local refusal = require "spec.support.refusal"

local message = refusal.message
local memory = ffi.new "uint64_t[4]"

-- The bits of a value, written as element 1 of a dtype.
local function bits_of(name, v)
  assert(element.put(name, memory, 1, v))
  return element.hex[dtype.of[name].size](memory, 1)
end

-- The value of bits, read as element 1 of a dtype.
local function value_of(name, digits)
  assert(element.put_hex(#digits / 2, memory, 1, digits))
  return element.read[name](memory, 1)
end

describe("an element", function()
  it("is written with the bits of its dtype, floats rounded to nearest even", function()
    for _, case in ipairs {
      { "float32", 0.1, "3dcccccd" }, { "float32", -0.0, "80000000" },
      { "float32", 16777217LL, "4b800000" }, { "float16", 65504, "7bff" },
      { "bfloat16", 1 / 3, "3eab" }, { "float64", -2, "c000000000000000" },
      { "int8", -1, "ff" }, { "uint8", 200, "c8" }, { "int16", -2, "fffe" },
      { "int32", -2 ^ 31, "80000000" }, { "int64", 9007199254740993LL, "0020000000000001" },
      { "bool", true, "01" }, { "float32", 0xffffffffffffffffULL, "5f800000" },
    } do
      local name, v, want = unpack(case)
      assert.equal(want, bits_of(name, v), name .. " " .. tostring(v))
    end
  end)

  it("is read as the value that its bits stand for", function()
    assert.equal(0.5, value_of("float32", "3f000000"))
    assert.equal(math.huge, value_of("float64", "7ff0000000000000"))
    assert.equal(-128, value_of("int8", "80"))
    assert.equal(-25536, value_of("int16", "9c40"))
    assert.is_true(value_of("bool", "02"))
    assert.equal("number", type(value_of("int64", "0020000000000000")))
    assert.is_true(value_of("int64", "0020000000000001") == 9007199254740993LL)
  end)

  it("that is any NaN reads as one, and is written with the dtype's own bits", function()
    for name, digits in pairs { float32 = "ffffffff", float16 = "fdff", bfloat16 = "7f81",
                                float64 = "fff0000000000001" } do
      local v = value_of(name, digits)
      assert.equal("number", type(v), name)
      assert.is_true(v ~= v, name)
      assert.equal(dtype.of[name].nan, bits_of(name, -v), name)
    end
  end)

  it("is refused where the dtype does not hold it", function()
    local function refused(name, v) return message(element.put(name, memory, 0, v)) end
    assert.equal("is 256, outside uint8 [0, 255]", refused("uint8", 256))
    assert.equal("is 1.5, not an integer", refused("int32", 1.5))
    assert.equal("is 9223372036854775808, outside int64", refused("int64", 2ULL ^ 63))
    assert.equal("is 2, not a boolean, 0 or 1", refused("bool", 2))
    assert.equal("is true, not a number (dtype 'bool' takes booleans)", refused("float32", true))
    assert.equal("is the string '7fc', not 4 hex digits",
                 message(element.put_hex(2, memory, 0, "7fc")))
  end)

  it("rounds a large int64 to odd, so that a second rounding is the only one", function()
    assert.equal(2 ^ 60 + 2 ^ 11, element.int64_to_odd(2LL ^ 60 + 1))
    assert.equal(-2 ^ 60 - 2 ^ 11, element.int64_to_odd(-(2LL ^ 60) - 1))
    -- Just above the midpoint of two fp32 numbers: rounded via double it would fall to the even.
    assert.equal("5d800001", bits_of("float32", 2LL ^ 60 + 2LL ^ 36 + 1))
  end)

  it("is named in messages so that other values are other texts", function()
    assert.equal("0.100000001", element.value_text("float32", tonumber(ffi.new("float", 0.1))))
    assert.equal("0.10000000000000001", element.value_text("float64", 0.1))
    assert.equal("18446744073709551615", element.text(0xffffffffffffffffULL))
  end)
end)
