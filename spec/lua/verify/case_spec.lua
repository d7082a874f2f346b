-- Cases: their fields, lists as text, the shards that cuts make, and fields drawn at random.

local cases = require "samebits.verify.case"
local prng = require "samebits.verify.prng"

describe("a case", function()
  it("is as simple as can be, but for the fields given", function()
    local case = cases.new { V = 40, kind = "wide" }
    assert.equal(40, case.V)
    assert.equal("wide", case.kind)
    assert.same({ 1, 1, "float32", 0, "none", "all", 1 },
                { case.n, case.T, case.dtype, case.gap, case.cuts, case.outputs, case.seed })
    for _, field in ipairs(cases.FIELDS) do
      assert.equal(field, cases.field_of[field.name])
      if field.name ~= "V" and field.name ~= "kind" then
        assert.equal(field.simplest, case[field.name])
      end
    end
  end)

  it("writes lists in order, and reads only such text", function()
    assert.equal("16,48,48", cases.list_text { 48, 16, 48 })
    assert.equal("none", cases.list_text {})
    assert.same({ 16, 48, 48 }, cases.list_of("16,48,48", 16))
    assert.same({}, cases.list_of("none", 16))
    for _, text in ipairs { "", "16,40", "48,16", "-16", "16,", "16,,32", "x", "1e2" } do
      assert.is_nil(cases.list_of(text, 16), text)
    end
  end)

  it("is cut into shards, empty ones beyond the vocabulary", function()
    assert.same({ { 0, 40 } }, cases.shards(cases.new {}, 40))
    assert.same({ { 0, 16 }, { 16, 16 }, { 16, 40 }, { 40, 40 } },
                cases.shards(cases.new { cuts = "16,16,48" }, 40))
    assert.same({ { 0, 0 }, { 0, 5 } }, cases.shards(cases.new { cuts = "0" }, 5))
  end)

  it("draws fields that are what the list of fields says", function()
    local random = prng.new(1)
    local case = cases.new { V = 100, T = 6, room = 3 }
    for _, field in ipairs(cases.FIELDS) do
      for _ = 1, field.name:match "^[nTV]$" and 0 or field.name == "shift" and 0 or 50 do
        local value = cases.draw(random, case, field.name)
        local ok = field.lowest and value >= field.lowest and value % 1 == 0
        for _, known in ipairs(field.values or {}) do ok = ok or value == known end
        if field.unit then ok = cases.list_of(value, field.unit) ~= nil end
        assert.is_true(ok, ("%s=%s"):format(field.name, value))
        if field.name == "pad" then assert.is_true(value <= 4) end
        if field.name == "piece" then assert.is_true(value <= 6) end
        if field.name == "copies" then assert.is_true(value >= 2 and value <= 5) end
      end
    end
  end)

  it("draws the same from the same seed", function()
    local case = cases.new { V = 100, room = 3 }
    local function drawn(seed)
      local random, list = prng.new(seed), {}
      for i = 1, 8 do list[i] = cases.draw(random, case, "cuts") end
      return table.concat(list, " ")
    end
    assert.equal(drawn(1), drawn(1))
    assert.are_not.equal(drawn(1), drawn(2))
  end)
end)
