-- The reader of JSON: what it makes of a text, and at which byte it refuses which texts.

local ffi = require "ffi"
local json_read = require "samebits.io.json_read"
local refusal = require "samebits.io.refusal"

local LIMITS = { depth = 3, keys = 4, elements = 3 }

-- The value of a text that starts at byte 8 of its file; nil and a message where it is refused.
local function read(text)
  local bytes = ffi.new("uint8_t[?]", #text + 1, text)
  return refusal.catch("f", json_read.read, bytes, #text, 8, LIMITS)
end

local function refuses(text, message)
  local value, why = read(text)
  assert.is_nil(value, text)
  assert.equal("f: " .. message, why)
end

describe("JSON", function()
  it("gives objects with their keys in order, lists and numbers", function()
    local value = read ' {"b": [1, 9007199254740992], "a":\t{}, "c": "x"}\r\n'
    assert.is_true(json_read.is_object(value))
    assert.is_false(json_read.is_list(value))
    assert.same({ "b", "a", "c" }, { unpack(value) })
    assert.is_true(json_read.is_list(value.b))
    assert.same({ 1, 2 ^ 53 }, { unpack(value.b) })
    assert.is_true(json_read.is_object(value.a))
    assert.equal("x", value.c)
    assert.is_false(json_read.is_list "x")
  end)

  it("gives strings with their escapes resolved", function()
    assert.equal('"\\/\b\f\n\r\t', read [["\"\\\/\b\f\n\r\t"]])
    assert.equal("A\195\164\226\130\172\240\159\152\128", read [["\u0041\u00e4\u20AC\ud83d\ude00"]])
    assert.equal("\195\164\240\159\152\128", read '"\195\164\240\159\152\128"')
  end)

  it("is refused at the byte where it is wrong", function()
    refuses("", "byte 8: header: expected a value, found the end")
    refuses("[1 2]", "byte 11: header: expected , or ], found '2'")
    refuses("[1,]", "byte 11: header: expected a value, found ']'")
    refuses('{"a" 1}', "byte 13: header: expected :, found '1'")
    refuses("{a:1}", "byte 9: header: expected a key, found 'a'")
    refuses("1 2", "byte 10: header: '2' behind the value")
    refuses('["ab', "byte 9: header: this string does not end")
    refuses('"a\n"', "byte 10: header: control character 0a in a string")
    refuses('"a\255"', "byte 10: header: not UTF-8: ff")
    refuses([["\x41"]], "byte 9: header: unknown escape")
    refuses([["a\ud83dx"]], "byte 10: header: half a surrogate pair")
  end)

  it("is refused where decoders disagree", function()
    refuses('{"a":1,"\\u0061":2}', "byte 15: header: key 'a' twice")
    for _, word in ipairs { "-1", "1.0", "1e3", "01", "true", "null", "NaN" } do
      refuses(word, ("byte 8: header: '%s' is not a string, a list, an object or a " ..
                     "non-negative integer"):format(word))
    end
    refuses("9007199254740993", "byte 8: header: '9007199254740993' is too large")
  end)

  it("is refused beyond a limit, not at it", function()
    assert.truthy(read "[[[1]]]")
    refuses("[[[[1]]]]", "byte 11: header: more than 3 levels of nesting")
    assert.truthy(read "[1,2,3]")
    refuses("[1,2,3,4]", "byte 15: header: more than 3 elements")
    assert.truthy(read '{"a":{"b":1},"c":{"d":2}}')
    refuses('{"a":{"b":1},"c":{"d":2,"e":3}}', "byte 32: header: more than 4 keys")
  end)
end)
