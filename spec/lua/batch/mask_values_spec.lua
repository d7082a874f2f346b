-- Which tensors can be masks: flags of any dtype can, ids that were given as the mask by mistake
-- cannot, and are refused by their place.

local ffi = require "ffi"
local guard = require "samebits.misuse".guard
local mask_values = require "samebits.batch.mask_values"
local refusal = require "spec.support.refusal"
local samebits = require "samebits"

local check = guard(mask_values.check)
local WIDE = { "int16", "int32", "int64" }

local function tensor(list, dtype) return samebits.tensor(list, { dtype = dtype }) end

describe("a mask", function()
  it("holds 0, 1 and at most two other values", function()
    for _, dtype in ipairs(WIDE) do
      check("mask", tensor({ { 0, 1, 1 }, { 1, 0, 0 } }, dtype))
      check("mask", tensor({ { -1, 5, 1 }, { 5, -1, 0 } }, dtype))
      check("mask", samebits.zeros({ 2, 0 }, dtype))
      assert.equal("mask[1][0] is 9, after 3 and -7: a mask holds 0 and 1; are these ids?",
                   refusal.misuse(check, "mask", tensor({ { 3, 1, -7 }, { 9, 3, 0 } }, dtype)))
    end
  end)

  it("is named, and the value's place found, in views and in any number of dimensions", function()
    local t = tensor({ { 3, 1 }, { 0, 7 }, { 9, 4 } }, "int32"):transpose(0, 1)
    assert.equal("of row[1][1] is 7, after 3 and 9: a mask holds 0 and 1; are these ids?",
                 refusal.misuse(check, "of row", t))
    assert.equal("mask[2] is 4, after 2 and 3: a mask holds 0 and 1; are these ids?",
                 refusal.misuse(check, "mask", tensor({ 2, 3, 4 }, "int16")))
    assert.equal("mask[2] is 9007199254740993, after 2 and 3: a mask holds 0 and 1; are these ids?",
                 refusal.misuse(check, "mask",
                                samebits.tensor(ffi.new("int64_t[3]", 2, 3, 9007199254740993LL),
                                                { shape = { 3 }, dtype = "int64" })))
  end)

  it("is not the ids themselves, however few values they have", function()
    local ids = tensor({ { 1, 2 }, { 2, 0 } }, "int64")
    for _, dtype in ipairs(WIDE) do
      assert.equal("mask: these are the ids", refusal.misuse(check, "mask", ids:to(dtype), ids))
      assert.equal("mask: these are the ids", refusal.misuse(check, "mask", ids, ids:to(dtype)))
    end
    check("mask", tensor({ { 1, 2 }, { 2, 1 } }, "int64"), ids)
    check("mask", tensor({ 1, 2, 2 }, "int64"), ids)
  end)

  it("may equal ids that are all 0 and 1", function()
    local flags = tensor({ 1, 0, 1 }, "int64")
    check("mask", flags, flags)
  end)

  it("of bytes is taken as it is", function()
    for _, dtype in ipairs { "uint8", "int8" } do
      local t = tensor({ 2, 3, 4, 5 }, dtype)
      check("mask", t, t)
    end
    check("mask", tensor({ true, false }, "bool"))
  end)
end)
