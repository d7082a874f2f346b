-- 8-bit floats as float16: all encodings, against the ones of another implementation.

local ffi = require "ffi"
local bit = require "bit"
local float8 = require "samebits.io.float8"
local expected = require "spec.support.float8"

-- The float16 encodings of 8-bit ones, in hex.
local function converted(code, bytes)
  local from, to = ffi.new("uint8_t[?]", #bytes, bytes), ffi.new("uint16_t[?]", #bytes)
  float8.to_float16(code, to, from, #bytes)
  local out = {}
  for i = 0, #bytes - 1 do out[i + 1] = bit.tohex(to[i], 4) end
  return out
end

-- NaN has no sign here.
local function unsigned(encoding)
  return tonumber(encoding, 16) > 0xfc00 and "7e00" or encoding
end

describe("8-bit floats", function()
  for code, text in pairs(expected) do
    it("of " .. code .. " become float16, each of the 256", function()
      local bytes, want = {}, {}
      for encoding in text:gmatch "%x+" do
        bytes[#bytes + 1] = #bytes
        want[#want + 1] = unsigned(encoding)
      end
      assert.equal(256, #want)
      assert.same(want, converted(code, bytes))
    end)
  end

  it("are written up to the count, and no further", function()
    local from, to = ffi.new("uint8_t[3]", 0x38, 0xb8, 0x7e), ffi.new("uint16_t[3]", 1, 1, 1)
    float8.to_float16("F8_E4M3", to, from, 2)
    assert.same({ 0x3c00, 0xbc00, 1 }, { to[0], to[1], to[2] })
    float8.to_float16("F8_E4M3", to, from, 0)
    assert.equal(0x3c00, to[0])
  end)

  it("are told by their dtype", function()
    assert.is_true(float8.is "F8_E4M3")
    assert.is_true(float8.is "F8_E5M2")
    for _, code in ipairs { "F8_E4M3FNUZ", "F8_E8M0", "F16", "f8_e5m2", "" } do
      assert.is_false(float8.is(code), code)
    end
  end)
end)
