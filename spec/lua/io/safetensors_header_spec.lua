-- The header of a safetensors file: the entries that are read from it, those that break a rule of
-- the format, and the text that is written.

local ffi = require "ffi"
local json = require "dkjson"
local header = require "samebits.io.safetensors_header"
local refusal = require "samebits.io.refusal"

-- The entries of a header at byte 8 before so many bytes of data, and the metadata; nil and a
-- message where it is refused.
local function parse(text, data_size)
  local bytes = ffi.new("uint8_t[?]", #text + 1, text)
  return refusal.catch("f", header.parse, bytes, #text, 8, data_size)
end

local function entry(dtype, shape, first, last)
  return ('{"dtype":"%s","shape":[%s],"data_offsets":[%d,%d]}'):format(dtype, shape, first, last)
end

local function refuses(text, data_size, message)
  local list, why = parse(text, data_size)
  assert.is_nil(list, text)
  assert.equal("f: " .. message, why)
end

describe("the header of a safetensors file", function()
  it("gives entries in the order of their data, and the metadata", function()
    local list, metadata = parse('{"b":' .. entry("F32", "2,3", 3, 27) .. ',"__metadata__":' ..
      '{"k":"v"},"a":' .. entry("BOOL", "3", 0, 3) .. "}", 27)
    assert.same({ k = "v" }, metadata)
    assert.equal(2, #list)
    local a, b = unpack(list)
    assert.same({ "a", "bool", "BOOL", 0, 3 }, { a.name, a.dtype, a.code, a.first, a.last })
    assert.same({ "b", "float32", "F32", 3, 27 }, { b.name, b.dtype, b.code, b.first, b.last })
    assert.same({ 2, 3 }, { unpack(b.shape) })
    assert.same({ {}, {} }, { parse("{}", 0) })
  end)

  it("gives dtypes without a counterpart here, of the size that they must have", function()
    local list = parse('{"a":' .. entry("F4", "3,2", 0, 3) .. "}", 3)
    assert.same({ "F4", nil }, { list[1].code, list[1].dtype })
    assert.equal("Q7", parse('{"a":' .. entry("Q7", "3", 0, 5) .. "}", 5)[1].code)
    refuses('{"a":' .. entry("F8_E4M3", "4", 0, 3) .. "}", 3,
            "tensor 'a': F8_E4M3 [4] needs 4 bytes, data_offsets [0, 3] hold 3")
  end)

  it("is refused where an entry is not what it must be", function()
    refuses("", 0, "byte 8: header: expected {, found nothing")
    refuses('{"a":1}', 0, "tensor 'a': its entry is not an object")
    refuses('{"a":{"dtype":"F32","shape":["1"]}}', 0, "tensor 'a': shape is not a list of integers")
    refuses('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}}', 4,
            "tensor 'a': data_offsets are not two integers")
    refuses('{"__metadata__":{"k":1}}', 0, "header: __metadata__: the value of 'k' is not a string")
  end)

  it("is refused where data overlaps, is left out or is not there", function()
    local function two(first, last)
      return '{"a":' .. entry("U8", "4", 0, 4) .. ',"b":' ..
             entry("U8", last - first, first, last) .. "}"
    end
    assert.equal(2, #parse(two(4, 6), 6))
    refuses(two(3, 6), 6, "tensors 'a' and 'b' overlap: one ends at byte 4 of the data, " ..
                          "the other begins at 3")
    refuses(two(5, 6), 6, "bytes 4 to 5 of the data belong to no tensor")
    refuses(two(4, 6), 5, "tensor 'b': data_offsets [4, 6] leave the 5 bytes of data")
    refuses('{"a":' .. entry("U8", "1", 2, 1) .. "}", 2,
            "tensor 'a': data_offsets [2, 1] run backwards")
  end)

  it("is written by name, in multiples of 8 bytes, and read back", function()
    local list = {
      { name = 'b"', dtype = "bfloat16", shape = { 2 }, first = 0, last = 4 },
      { name = "a", dtype = "int64", shape = {}, first = 4, last = 12 },
    }
    local text = header.format(list, { z = "1", y = "2" }, json)
    assert.equal([[{"__metadata__":{"y":"2","z":"1"},]] ..
                 [["a":{"dtype":"I64","shape":[],"data_offsets":[4,12]},]] ..
                 [["b\"":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}]], text:match "^.-}}")
    assert.equal(0, #text % 8)
    local back = parse(text, 12)
    assert.same({ 'b"', "a" }, { back[1].name, back[2].name })
    assert.equal("{}      ", header.format({}, {}, json))
  end)
end)
