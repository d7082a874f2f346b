-- What stands for a file's tensor whose dtype is not supported: it can be told from other values,
-- and says why it cannot be used wherever it is.

local guard = require "samebits.misuse".guard
local refusal = require "spec.support.refusal"
local unsupported = require "samebits.tensor.unsupported"

local WHY = "tensor 'w': dtype F4 is not supported"

describe("an unsupported tensor", function()
  it("gives its reason, as no other value does", function()
    local t = unsupported.new(WHY)
    assert.equal(WHY, unsupported.why(t))
    assert.equal(WHY, tostring(t))
    for _, other in ipairs { { why = WHY }, setmetatable({ why = WHY }, {}), WHY, 7, true } do
      assert.is_nil(unsupported.why(other))
    end
    assert.is_nil(unsupported.why(nil))
  end)

  it("fails with it at the line that uses a field or a method", function()
    local t = unsupported.new(WHY)
    assert.equal(WHY, refusal.misuse(function() return t.shape end))
    assert.equal(WHY, refusal.misuse(function() return t:to "float32" end))
  end)

  it("is refused by name where it is an argument", function()
    local t, check = unsupported.new(WHY), guard(unsupported.check)
    assert.equal("logits: " .. WHY, refusal.misuse(check, t, "logits"))
    assert.equal(WHY, refusal.misuse(check, t))
    check({ why = WHY }, "logits")
    check(nil, "logits")
  end)
end)
