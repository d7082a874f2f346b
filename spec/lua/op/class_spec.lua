-- The class of contexts: what is told to be one, and where its methods come from.

local call = require "samebits.op.call"
local class = require "samebits.op.class"
local samebits = require "samebits"

describe("the class of contexts", function()
  it("is that of the contexts that are opened, also once they are closed", function()
    local ctx = assert(samebits.open "cpu")
    finally(function() ctx:close() end)
    assert.equal(class.Context, getmetatable(ctx))
    assert.is_true(class.is_context(ctx))
    ctx:close()
    assert.is_true(class.is_context(ctx))
  end)

  it("is not that of anything else", function()
    for _, other in ipairs { {}, "cpu", 7, true, class.Context, samebits.zeros { 1 },
                             setmetatable({}, { __index = class.Context }) } do
      assert.is_false(class.is_context(other), tostring(other))
    end
    assert.is_false(class.is_context(nil))
  end)

  it("gives a context its methods, which other values are refused by", function()
    local ctx = setmetatable({ device = "cpu" }, class.Context)
    assert.equal("function", type(class.Context.logprob))
    assert.equal(class.Context.logprob, ctx.logprob)
    assert.is_nil(rawget(ctx, "logprob"))
    local op = call.op { name = "spec" }
    for what, given in pairs { ["spec: the context is closed"] = ctx,
                               ["spec: call it as ctx:spec(batch)"] = { device = "cpu" } } do
      local ok, raised = pcall(call.begin, op, "spec", given)
      assert.is_false(ok)
      assert.equal(what, tostring(raised))
    end
  end)
end)
