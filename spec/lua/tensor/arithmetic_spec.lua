-- Arithmetic and comparisons of tensors: one rounding each, the dtypes of results, NaN, shapes.

local samebits = require "samebits.tensor"
local refusal = require "spec.support.refusal"

local tensor, from_bits = samebits.tensor, samebits.from_bits
local misuse, says = refusal.misuse, refusal.says

local function f64(list) return tensor(list, { dtype = "float64" }) end

describe("arithmetic", function()
  local t = tensor { { 1, -2 }, { 3, 8 } }

  it("is element by element, with tensors and numbers on either side", function()
    assert.same({ { 2, -1 }, { 4, 9 } }, (t + 1):totable())
    assert.same({ { 0, 3 }, { -2, -7 } }, (1 - t):totable())
    assert.same({ { 1, 4 }, { 9, 64 } }, (t * t):totable())
    assert.same({ 2, -1, 2 / 3, 0.25 }, (2 / f64 { 1, -2, 3, 8 }):totable())
    assert.same({ 1 }, (f64 { 49 } / 49):totable())  -- not 49 times 1 / 49
    assert.same({ "80000000", "3f800000" }, (-tensor { 0, -1 }):bits())
    assert.same({ 1, 2 }, t[0]:abs():totable())
    -- Operands stay as they are, whatever their strides.
    assert.same({ { 1, 3 }, { -2, 8 } }, (t:transpose() + 0):totable())
    assert.same({ { 1, -2 }, { 3, 8 } }, t:totable())
  end)

  it("rounds each result once, to nearest even", function()
    local one, up = "3f800000", "3f800001"
    local cases = {
      { "+", one, "33800000", one }, { "+", up, "33800000", "3f800002" }, -- ties of 2^-24
      { "+", one, "33800001", up },
      { "/", one, "40400000", "3eaaaaab" }, { "/", "40000000", "40400000", "3f2aaaab" },
      { "*", up, up, "3f800002" }, { "*", "7f7fffff", "40000000", "7f800000" },
      { "*", "00000001", "3f000000", "00000000" }, { "*", "00000003", "3f000000", "00000002" },
      { "-", "00800000", "00000001", "007fffff" }, { "-", "7f800000", "7f800000", "7fc00000" },
      { "+", "ffffffff", one, "7fc00000" }, { "*", "80000000", one, "80000000" },
    }
    local made = {}
    for i, case in ipairs(cases) do
      local x, y = from_bits { case[2] }, from_bits { case[3] }
      made[i] = { case[1], case[2], case[3],
                  (case[1] == "+" and x + y or case[1] == "-" and x - y or
                   case[1] == "*" and x * y or x / y):bits()[1] }
    end
    assert.same(cases, made)
  end)

  it("gives float32, or float64 where float32 may not hold the operands", function()
    local expected = { float32 = "float32", float16 = "float32", bfloat16 = "float32",
                       bool = "float32", int8 = "float32", uint8 = "float32", int16 = "float32",
                       int32 = "float64", int64 = "float64", float64 = "float64" }
    for dtype, result in pairs(expected) do
      local s = tensor({ 1, 0 }, { dtype = dtype })
      assert.equal(result, (s + 1).dtype, dtype)
      assert.same({ 2, 1 }, (s + 1):totable())
      assert.same({ 2, 3 }, (tensor { 1, 3 } + s):totable())
      assert.equal(result, s:exp().dtype)
      assert.equal("bool", s:lt(1).dtype)
    end
    -- A number takes the dtype of the result.
    assert.same({ true }, tensor({ 0.1 }):eq(0.1):totable())
    assert.same({ 2 ^ 40 + 1 }, (tensor({ 2 ^ 40 }, { dtype = "int64" }) + 1):totable())
    local big = tensor({ 0, 9007199254740993LL }, { dtype = "int64" })
    says(misuse(function() return big + 1 end), "element [1] is 9007199254740993, beyond 2^53")
  end)

  it("repeats dimensions of size 1", function()
    assert.same({ { 2, -1 }, { 13, 18 } }, (t + tensor { { 1 }, { 10 } }):totable())
    assert.same({ { 2, 8 }, { 4, 18 } }, (t + tensor { 1, 10 }):totable())
    assert.same({ 2, 3, 2 }, (samebits.zeros { 2, 1, 2 } + samebits.zeros { 3, 1 }).shape)
    assert.same({ 0, 2 }, (samebits.zeros { 0, 2 } * tensor { 1, 2 }).shape)
    assert.same({ { 1, 1 }, { 2, 2 } }, tensor({ { 1 }, { 2 } }):expand({ 2, 2 }):totable())
    says(misuse(function() return t + tensor { 1, 2, 3 } end), "+: shapes [2, 2] and [3]")
    says(misuse(function() t:expand { 4 } end), "expand: from shape [2, 2] to [4]")
    says(misuse(function() t:expand { 2, 3 } end), "to [2, 3]")
  end)

  it("works in blocks of any length", function()
    for _, n in ipairs { 1, 1023, 1024, 1025, 2050 } do
      local list, twice = {}, {}
      for i = 1, n do list[i], twice[i] = i, 2 * i end
      assert.same(twice, (tensor(list) + tensor(list)):totable())
    end
  end)

  it("refuses everything else", function()
    says(misuse(function() return t * "2" end), "*: expected a tensor or a number", "'2'")
    says(misuse(function() return {} - t end), "-: expected", "a table")
    says(misuse(function() return t < t end), "t:lt(u)")
    says(misuse(function() return t >= t end), "t:le(u)")
    says(misuse(function() t:lt() end), "lt: expected a tensor or a number, got nil")
  end)

  it("has e^x and logarithms", function()
    local e = tensor({ 0, 1, -1, math.huge, -math.huge, 0 / 0 }):exp():bits()
    assert.same({ "3f800000", "402df854", "3ebc5ab2", "7f800000", "00000000", "7fc00000" }, e)
    assert.same({ "ff800000", "00000000", "3f317218", "7fc00000" },
                tensor({ 0, 1, 2, -1 }):log():bits())
  end)
end)

describe("comparisons", function()
  local nan = 0 / 0
  local x, y = tensor { 1, 2, 3, nan, 0 }, tensor { 2, 2, 2, nan, -0 }

  it("give masks", function()
    local expected = {
      lt = { true, false, false, false, false }, le = { true, true, false, false, true },
      gt = { false, false, true, false, false }, ge = { false, true, true, false, true },
      eq = { false, true, false, false, true }, ne = { true, false, true, true, false },
    }
    for name, mask in pairs(expected) do
      assert.same(mask, x[name](x, y):totable(), name)
      assert.equal("bool", x[name](x, y).dtype)
    end
    assert.same({ false, false, true, false, false }, x:gt(2):totable())
    assert.same({ 1, 2, 0 }, (x:slice(0, 0, 3) * x:slice(0, 0, 3):lt(3)):totable())
  end)
end)
