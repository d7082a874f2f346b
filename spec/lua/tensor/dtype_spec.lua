-- The table of element types: sizes, ranges, NaNs, and how an unknown name is refused.

local ffi = require "ffi"
local dtype = require "samebits.tensor.dtype"
local element = require "samebits.tensor.element"
local refusal = require "spec.support.refusal"

local message = refusal.message
local memory = ffi.new "uint64_t[1]"

describe("the table of dtypes", function()
  it("finds each of the names that messages list, and no others", function()
    local count = 0
    for name in dtype.names:gmatch "[^, ]+" do
      count = count + 1
      local found = assert(dtype.find(name))
      assert.equal(name, found.name)
      assert.equal(found, dtype.of[name])
    end
    for _ in pairs(dtype.of) do count = count - 1 end
    assert.equal(0, count)
  end)

  it("gives each its size and kind", function()
    local want = {
      float32 = { 4, "float" }, float16 = { 2, "float" }, bfloat16 = { 2, "float" },
      float64 = { 8, "float" }, int8 = { 1, "int" }, uint8 = { 1, "int" }, int16 = { 2, "int" },
      int32 = { 4, "int" }, int64 = { 8, "int" }, bool = { 1, "bool" },
    }
    for name, found in pairs(dtype.of) do
      assert.same(want[name], { found.size, found.kind }, name)
      local p = ffi.cast(element.pointer[name], memory)
      assert.equal(found.size, ffi.cast("char *", p + 1) - ffi.cast("char *", p), name)
    end
  end)

  it("bounds integers by numbers that the type holds", function()
    for name, low_and_high in pairs {
      int8 = { -128, 127 }, uint8 = { 0, 255 }, int16 = { -32768, 32767 },
      int32 = { -2147483648, 2147483647 }, int64 = { -2 ^ 63, 9223372036854774784 },
    } do
      assert.same(low_and_high, { dtype.of[name].min, dtype.of[name].max }, name)
    end
    -- The next double above is 2^63 itself.
    assert.is_true(dtype.of.int64.max + 1024 == 2 ^ 63)
    assert.is_nil(dtype.of.float32.min)
  end)

  it("has one NaN for each float type", function()
    assert.equal("7fc00000", dtype.of.float32.nan)
    assert.equal("7e00", dtype.of.float16.nan)
    assert.equal("7fc0", dtype.of.bfloat16.nan)
    assert.equal("7ff8000000000000", dtype.of.float64.nan)
    for name, found in pairs(dtype.of) do
      assert.equal(found.kind == "float" and 2 * found.size or nil, found.nan and #found.nan, name)
    end
  end)

  it("refuses other names, and says which are known", function()
    assert.equal("unknown dtype 'float33' (known: " .. dtype.names .. ")",
                 message(dtype.find "float33"))
    assert.equal("unknown dtype 32 (known: " .. dtype.names .. ")", message(dtype.find(32)))
    assert.equal("dtype is missing", message(dtype.find(nil)))
  end)
end)
