-- Checks that logprobs keep their bits when the batch around them changes.

require "samebits.luassert"
local dump = require "dump"
local policy = require "policy"

-- Plain Lua is slow, so a few rows must do.
local FEW = { rows = 12, rounds = 1 }

describe("logprobs", function()
  it("do not depend on the batch", function()
    assert.batch_invariant(policy.logprobs, dump)
  end)

  it("in plain Lua do not, either", function()
    assert.batch_invariant(policy.plain, dump, FEW)
  end)

  it("of centred logits do: what a mistake looks like", function()
    assert.is_not.batch_invariant(policy.centred, dump, FEW)
  end)
end)
