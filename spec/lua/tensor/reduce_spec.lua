-- Sums, means and extremes of tensors: exact sums of every dtype, dimensions, NaN, nothing.

local samebits = require "samebits.tensor"
local refusal = require "spec.support.refusal"

local tensor, misuse, says = samebits.tensor, refusal.misuse, refusal.says

local function of(list, dtype) return tensor(list, { dtype = dtype }) end

describe("sums", function()
  it("are exact, and rounded once, in any order", function()
    for _, list in ipairs { { 1e30, 1, -1e30 }, { 1, 1e30, -1e30 }, { -1e30, 1e30, 1 } } do
      for _, dtype in ipairs { "float32", "bfloat16", "float64" } do
        assert.equal(1, of(list, dtype):sum(), dtype)
      end
    end
    -- Ties of the last addition of doubles are decided by what is left.
    local half = 2 ^ -53
    assert.equal(1, of({ 1, half }, "float64"):sum())
    assert.equal(1 + 2 ^ -52, of({ 1, half, 2 ^ -106 }, "float64"):sum())
    assert.equal(1, of({ 2 ^ -106, 1, half, -2 ^ -105 }, "float64"):sum())
    assert.equal(0, of({ 0.1, 0.2, -0.1, -0.2 }, "float64"):sum())
    local n = 2 ^ 24
    assert.equal(n + 2, tensor({ n, 1, 1 }):sum())  -- fp32 additions would stay at 2^24
  end)

  it("are those of ctx:sums", function()
    local list = {}
    for i = 1, 300 do list[i] = math.sin(i) * 10 ^ (i % 13) end
    local t = tensor(list)
    local ctx = require("samebits").open "cpu"
    local all = ctx:sums(t, { per = "batch" })
    assert.equal(all.sum[0], t:sum())
    assert.equal(all.mean[0], t:mean())
    local rows = t:view(20, 15)
    assert.is_true(require("samebits").same_bits(ctx:sums(rows).sum, rows:sum(1)))
    assert.is_true(require("samebits").same_bits(ctx:sums(rows:transpose():clone()).mean,
                                                 rows:mean(0)))
    ctx:close()
  end)

  it("of integers and bool are integers", function()
    assert.equal(3, of({ true, false, true, true }, "bool"):sum())
    assert.equal(0.75, of({ true, false, true, true }, "bool"):mean())
    assert.equal(2 ^ 25 + 1, of({ 2 ^ 25, 1 }, "int32"):sum())
    assert.equal(9007199254740993LL, of({ 2 ^ 53, 1 }, "int64"):sum())
    says(misuse(function() of({ 2 ^ 62, 2 ^ 62 }, "int64"):sum() end), "beyond int64")
    assert.equal(-2 ^ 63 + 0LL, of({ -2 ^ 62, -2 ^ 62 }, "int64"):sum())
    assert.equal("int64", of({ { 1 }, { 2 } }, "uint8"):sum(0).dtype)
  end)

  it("are along a dimension, or of everything", function()
    local t = tensor { { { 1, 2 }, { 3, 4 } }, { { 5, 6 }, { 7, 8 } } }
    assert.equal(36, t:sum())
    assert.same({ { 6, 8 }, { 10, 12 } }, t:sum(0):totable())
    assert.same({ { 4, 6 }, { 12, 14 } }, t:sum(1):totable())
    assert.same({ { 3, 7 }, { 11, 15 } }, t:sum(-1):totable())
    assert.same({ { 1.5, 3.5 }, { 5.5, 7.5 } }, t:mean(2):totable())
    assert.equal(5, tensor(5):sum())
    says(misuse(function() t:sum(3) end), "sum: dim 3 is outside [-3, 3)", "[2, 2, 2]")
    says(misuse(function() t:mean "x" end), "mean: dim the string 'x'")
  end)

  it("of nothing are 0, and means NaN", function()
    for _, dtype in ipairs { "float32", "float64", "int32" } do
      local none = samebits.zeros({ 0, 3 }, dtype)
      assert.equal(0, none:sum())
      assert.same({ 0, 0, 0 }, none:sum(0):totable())
      assert.same({ 0 }, samebits.zeros({ 0, 3 }, dtype):sum(1).shape)
      assert.is_true(none:mean() ~= none:mean())
    end
  end)

  it("carry infinities and NaN", function()
    for _, dtype in ipairs { "float32", "float64" } do
      assert.equal(math.huge, of({ 1, math.huge }, dtype):sum())
      for _, list in ipairs { { 1, 0 / 0 }, { math.huge, -math.huge } } do
        local sum = of(list, dtype):sum()
        assert.is_true(sum ~= sum)
      end
    end
  end)
end)

describe("extremes", function()
  local t = tensor { { 3, -1, 3 }, { 2, 7, 7 } }

  it("are elements, with their places", function()
    assert.equal(7, t:max())
    assert.equal(-1, t:min())
    assert.same({ 3, 7 }, t:max(1):totable())
    assert.same({ 2, -1, 3 }, t:min(0):totable())
    assert.same({ 1, 1 }, { t:argmax() })
    assert.equal(7, t:get(t:argmax()))
    assert.same({ 0, 1 }, t:argmax(1):totable())
    assert.equal("int64", t:argmax(0).dtype)
    for _, dtype in ipairs { "int8", "int64", "bool", "float16" } do
      local s = of({ 0, 1, 1 }, dtype)
      assert.equal(dtype == "bool" and true or 1, s:max())
      assert.equal(dtype, s:max(0).dtype)
      assert.equal(1, s:argmax())
    end
  end)

  it("are NaN where there is one", function()
    local s = tensor { 1, 0 / 0, 9 }
    assert.is_true(s:max() ~= s:max())
    assert.is_true(s:min() ~= s:min())
    assert.equal(1, s:argmax())
  end)

  it("of nothing are refused", function()
    says(misuse(function() samebits.zeros({ 0 }):max() end), "max: of no elements (shape [0])")
    says(misuse(function() samebits.zeros({ 2, 0 }):argmax(1) end), "argmax", "[2, 0]")
  end)
end)
