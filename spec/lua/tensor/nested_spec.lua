-- Nested lists to elements in memory and back, and what is refused of lists that are ragged, have
-- holes or hold something else.

local ffi = require "ffi"
local element = require "samebits.tensor.element"
local guard = require "samebits.misuse".guard
local nested = require "samebits.tensor.nested"
local refusal = require "spec.support.refusal"

local memory = ffi.new "float[16]"

local function put(p, k, v) return element.put("float32", p, k, v) end
local function read(p, k) return element.read.float32(p, k) end

-- As tensor.tensor goes through lists: the shape, then the elements.
local function fill(data, dtype)
  local shape = nested.shape(data, "spec")
  nested.fill(data, shape, memory, "spec", put, dtype)
  return shape
end

local function refused(data) return refusal.misuse(guard(fill), data) end

describe("nested lists", function()
  it("have the shape of their first elements", function()
    assert.same({ 2, 3 }, nested.shape({ { 1, 2, 3 }, {} }, "spec"))
    assert.same({ 0 }, nested.shape({}, "spec"))
    assert.same({ 1, 0 }, nested.shape({ {} }, "spec"))
    assert.same({}, nested.shape(7, "spec"))
    local loop = {}
    loop[1] = loop
    assert.equal("spec: data is nested more than 64 deep",
                 refusal.misuse(guard(nested.shape), loop, "spec"))
  end)

  it("fill memory in index order, with and without a conversion in one go", function()
    for _, dtype in ipairs { "float32", false } do
      ffi.fill(memory, ffi.sizeof(memory), 0xff)
      assert.same({ 2, 1, 3 }, fill({ { { 1, 2, 3 } }, { { 4, 5LL, 0.1 } } }, dtype))
      local words = {}
      for k = 0, 6 do words[k + 1] = element.hex[4](memory, k) end
      assert.same({ "3f800000", "40000000", "40400000", "40800000", "40a00000", "3dcccccd",
                    "ffffffff" }, words)
    end
  end)

  it("come back from memory by any strides", function()
    for k = 0, 5 do memory[k] = k end
    assert.same({ { 0, 1, 2 }, { 3, 4, 5 } }, nested.to(memory, { 2, 3 }, { 3, 1 }, read))
    assert.same({ { 0, 3 }, { 1, 4 }, { 2, 5 } }, nested.to(memory, { 3, 2 }, { 1, 3 }, read))
    assert.same({ 5, 3, 1 }, nested.to(memory + 5, { 3 }, { -2 }, read))
    assert.same({ {}, {} }, nested.to(memory, { 2, 0 }, { 1, 1 }, read))
    assert.equal(4, nested.to(memory + 4, {}, {}, read))
  end)

  it("are refused where they are ragged", function()
    assert.equal("spec: ragged data: data[1] has 1 element, data[0] has 2",
                 refused { { 1, 2 }, { 3 } })
    assert.equal("spec: data[1] is 2, where others are lists", refused { { 1 }, 2 })
    assert.equal("spec: data[1] is a list, where others are numbers", refused { 1, { 2 } })
  end)

  it("are refused where an entry is missing, named, or no number", function()
    assert.equal("spec: data[1][0] is nil", refused { { 1, 2 }, { nil, 4 } })
    assert.equal("spec: data[1] has 1 element and the key x besides",
                 refused { { 1 }, { 1, x = 2 } })
    assert.equal("spec: data[0][1] is the string 'a', not a number", refused { { 1, "a" } })
  end)
end)
