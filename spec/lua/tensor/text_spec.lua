-- A tensor as text: the head line, how values line up and break into lines, and which are left out
-- of many.

local layout = require "samebits.tensor.layout"
local text = require "samebits.tensor.text"

-- What the module needs of a tensor: element k is k.
local function range(...)
  local shape = { ... }
  return { dtype = "int32", device = "cpu", shape = shape, strides = layout.dense(shape),
           ndim = #shape }
end

local function read(_, offset) return offset end

-- The lines below the head.
local function values(t, reader, columns)
  local said = text.describe(t, reader or read, columns)
  assert.equal(text.head(t) .. "\n", said:sub(1, #text.head(t) + 1))
  return said:sub(#text.head(t) + 2)
end

describe("a tensor's text", function()
  it("begins with its dtype, shape and device", function()
    assert.equal("tensor int32 [2, 3] cpu", text.head(range(2, 3)))
    assert.equal("tensor int32 [] cpu", text.head(range()))
  end)

  it("is the head alone where values cannot be read", function()
    local t = range(2, 3)
    assert.equal(text.head(t), text.describe(t, function() end))
    -- Of nothing, nothing has to be read.
    assert.equal("tensor int32 [0, 3] cpu\n[]", text.describe(range(0, 3), error))
  end)

  it("lines values up to the right, of any kind, by strides", function()
    assert.equal("[[ 0,  1,  2,  3],\n [ 4,  5,  6,  7],\n [ 8,  9, 10, 11]]", values(range(3, 4)))
    assert.equal("[[[0, 1]],\n\n [[2, 3]]]", values(range(2, 1, 2)))
    local t = range(2, 3)
    t.strides = { 1, 2 }
    assert.equal("[[0, 2, 4],\n [1, 3, 5]]", values(t))
    local list = { [0] = 0 / 0, -math.huge, 1 / 3, 9007199254740993LL, true, 1e10 }
    assert.equal("[             nan,             -inf,         0.333333, 9007199254740993,\n" ..
                 "             true,            1e+10]",
                 values(range(6), function(_, k) return list[k] end, 72))
    assert.equal("7", values(range(), function() return 7 end))
  end)

  it("breaks rows at the width", function()
    assert.equal("[0, 1, 2,\n 3, 4, 5,\n 6, 7]", values(range(8), read, 10))
    for line in values(range(120)):gmatch "[^\n]+" do assert.is_true(#line <= 97, line) end
  end)

  it("leaves out the middle of dimensions where there are more than 120 values", function()
    assert.is_nil(values(range(120)):find("...", 1, true))
    assert.equal("[  0,   1,   2, ..., 118, 119, 120]", values(range(121)))
    assert.equal("[[  0,   1,   2, ...,  17,  18,  19],\n [ 20,  21,  22, ...,  37,  38,  39],\n" ..
                 " [ 40,  41,  42, ...,  57,  58,  59],\n ...,\n" ..
                 " [ 80,  81,  82, ...,  97,  98,  99],\n [100, 101, 102, ..., 117, 118, 119],\n" ..
                 " [120, 121, 122, ..., 137, 138, 139]]", values(range(7, 20)))
  end)
end)
