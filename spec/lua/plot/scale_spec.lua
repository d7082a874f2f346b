-- Axes: ranges that follow the data, marks at round values, labels that are short and differ.

local scale = require "samebits.plot.scale"

local function labels(...)
  local out = {}
  for i, mark in ipairs(scale.marks(...)) do out[i] = mark[2] end
  return out
end

describe("an axis", function()
  it("has a little more than the range of the data", function()
    assert.same({ -0.4, 10.4 }, { scale.range(0, 10) })
    local low, high = scale.range(1e-6, 1e-2, true)
    assert.is_true(low > 5e-7 and low < 1e-6 and high > 1e-2 and high < 2e-2)
    for _, v in ipairs { 0, -3, 1e9 } do
      low, high = scale.range(v, v)
      assert.is_true(low < v and v < high)
    end
    low, high = scale.range(1e-7, 1e-7, true)
    assert.is_true(low < 1e-7 and high > 1e-7)
  end)

  it("places values", function()
    assert.equal(0.25, scale.place(1, 0, 4))
    assert.is_true(math.abs(scale.place(1e-6, 1e-7, 1e-5, true) - 0.5) < 1e-12)
  end)

  it("has round marks", function()
    assert.same({ "0", "50", "100", "150", "200" }, labels(-8, 207, false, 6))
    assert.same({ "-2e-6", "0", "2e-6" }, labels(-3.5e-6, 3.5e-6, false, 4))
    assert.same({ "1e-7", "1e-6", "1e-5", "1e-4", "0.001", "0.01" }, labels(9e-8, 2e-2, true, 8))
    assert.same({ "1e-12", "1e-8", "1e-4", "1" }, labels(9e-13, 2, true, 4))
    assert.same({ "2", "5", "10", "20" }, labels(1.5, 30, true, 8))
    assert.same({ "0.99998", "1", "1.00002" }, labels(0.999975, 1.000025, false, 3))
  end)

  it("has labels without idle zeros", function()
    for text, v in pairs { ["1e-7"] = 1e-7, ["2.5e9"] = 2.5e9, ["0"] = -0, ["1200"] = 1200,
                           ["0.25"] = 0.25, ["123457"] = 123457, ["-1e-5"] = -1e-5 } do
      assert.equal(text, scale.label(v))
    end
  end)
end)
