-- The header of a .npy file: the dict that is parsed, and the one that is written.

local npy_header = require "samebits.io.npy_header"
local refusal = require "samebits.io.refusal"

-- What a dict at byte 10 says, as a table; nil and a message where it is refused.
local function parse(text)
  return refusal.catch("f", function()
    local name, fortran_order, shape = npy_header.parse(text, 10)
    return { name, fortran_order, shape }
  end)
end

local function dict(descr, shape)
  return ("{'descr': '%s', 'fortran_order': False, 'shape': %s, }"):format(descr, shape)
end

local function refuses(text, message)
  local value, why = parse(text)
  assert.is_nil(value, text)
  assert.equal("f: byte " .. message, why)
end

describe("the header of a .npy file", function()
  it("is read in any order, with any quotes and white space", function()
    assert.same({ "float32", false, { 2, 3 } }, parse(dict("<f4", "(2, 3)")))
    assert.same({ "bfloat16", true, { 7 } },
                parse '\n{"shape":(7,),\t"fortran_order":True,"descr":"|V2"}  \n')
    assert.same({ "bool", false, {} }, parse(dict("|b1", "()")))
    assert.same({ "int64", false, { 2 ^ 53, 0 } }, parse(dict("<i8", "(9007199254740992, 0,)")))
  end)

  it("is refused at the byte where it is wrong", function()
    refuses("[]", "10: header: expected {, found '['")
    refuses("{'descr': '<f4'}", "26: header: key 'fortran_order' is missing")
    refuses("{'descr': '<f4', 'descr': '<f4'}", "34: header: key 'descr' twice")
    refuses("{'x': 1}", "14: header: unknown key 'x'")
    refuses("{'fortran_order': 0}", "28: header: fortran_order: expected True or False, found '0'")
    refuses(dict("<f4", "(1,)") .. "x", ("%d: header: 'x' behind the dict"):format(
      10 + #dict("<f4", "(1,)")))
  end)

  it("is refused with a dtype that is not known, with what to do", function()
    refuses(dict(">f4", "(1,)"), "20: dtype '>f4' is big-endian; write it with dtype '<f4'")
    refuses(dict("<c8", "(1,)"), "20: dtype '<c8' is not supported (<f4, <f2, <f8, " ..
            "<V2 (bfloat16), <i2, <i4, <i8, |i1, |u1, |b1)")
    refuses("{'descr': [('a', '<f4')]}",
            "20: header: descr is a list: structured arrays are not supported")
  end)

  it("is refused with a shape that is no tuple of sizes", function()
    local function shape_refused(shape, words)
      local value, why = parse(dict("<f4", shape))
      assert.is_nil(value, shape)
      assert.truthy(why:find(words, 1, true), why)
    end
    shape_refused("(3)", "shape: (3) is not a tuple")
    shape_refused("(2 3)", "shape: expected , or ), found '3'")
    shape_refused("(03,)", "shape: '03' is no number")
    shape_refused("(-1,)", "expected a size of digits in the shape, found '-'")
    shape_refused("(9007199254740993,)", "shape: '9007199254740993' is too large")
  end)

  it("is written as numpy writes it, and read back", function()
    assert.equal("\147NUMPY\1\0\118\0{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }" ..
                 (" "):rep(58) .. "\n", npy_header.format("float32", { 2, 3 }))
    for _, name in ipairs { "float32", "float16", "float64", "bfloat16", "int8", "int16", "int32",
                            "int64", "uint8", "bool" } do
      for _, shape in ipairs { {}, { 5 }, { 0, 4 }, { 2 ^ 53, 1, 2 } } do
        local header = npy_header.format(name, shape)
        assert.equal(0, #header % 64)
        assert.same({ name, false, shape }, parse(header:sub(11)))
      end
    end
  end)
end)
