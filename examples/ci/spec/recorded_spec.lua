-- Checks that the logprobs are the recorded ones, to the last bit. A new machine, compiler or
-- release of samebits gives the same ones as long as its numerics version is the same.

require "samebits.luassert"
local samebits = require "samebits"
local dump = require "dump"
local policy = require "policy"
local recorded = require "recorded"

describe("logprobs", function()
  it("are those that were recorded", function()
    assert.equal(recorded.numerics, samebits.numerics)
    assert.same_bits(recorded.token, policy.logprobs(samebits.batch(dump)))
  end)

  it("are right: near those of plain Lua, which computes in doubles", function()
    local batch = samebits.batch(dump)
    local ours, plain = policy.logprobs(batch), policy.plain(batch)
    for b = 0, ours.shape[1] - 1 do
      for t = 0, ours.shape[2] - 1 do
        assert.near(plain:get(b, t), ours:get(b, t), 2e-6)
      end
    end
  end)
end)
