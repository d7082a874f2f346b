-- Objects: their fields, their length, and that they are collected with what they hold.

local objects = require "samebits.object"

describe("an object", function()
  local prototype, metatable = objects.class("thing", {})
  metatable.__len = function(self) return objects.fields_of[self].n end

  it("has a kind, fields of its own, and a length", function()
    local a, b = objects.new(prototype, { n = 3 }), objects.new(prototype, { n = 70 })
    assert.equal(metatable, getmetatable(a))
    assert.equal("thing", require("samebits.misuse").kind(b))
    assert.same({ { n = 3 }, { n = 70 } }, { objects.fields_of[a], objects.fields_of[b] })
    local sum = 0
    for _ = 1, 300 do sum = sum + #a + #b end -- in compiled code, too
    assert.equal(300 * 73, sum)
    assert.is_nil(objects.fields_of[{}])
  end)

  it("keeps its fields, and is collected when only they refer to it", function()
    local fields = { n = 1 }
    fields.itself = objects.new(prototype, fields)
    local seen = setmetatable({ fields.itself }, { __mode = "v" })
    fields = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.is_nil(seen[1])
    local kept = objects.new(prototype, { n = 5 })
    collectgarbage()
    collectgarbage()
    assert.equal(5, #kept)
  end)
end)
