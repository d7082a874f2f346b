-- ctx:policy_loss, ctx:policy_merge and ctx:group_advantages: what they refuse, in which words, and
-- what they return.

local samebits = require "samebits"
local refusal = require "spec.support.refusal"

local ctx = assert(samebits.open "cpu")
local T = samebits.tensor

local function tokens(more)
  local given = { now = T { { -1, -2 }, { -3, -4 } }, old = T { { -1, -2.5 }, { -3, -4 } },
                  advantages = T { 1, -1 } }
  for name, value in pairs(more or {}) do given[name] = value end
  return given
end

describe("policy losses in Lua", function()
  it("return all outputs by default, and entropy's gradient with eta", function()
    local out = ctx:policy_loss(tokens())
    assert.same({ 784 }, { unpack(out.record.shape) })
    assert.same({ 2, 2 }, { unpack(out.token.shape) })
    assert.is_nil(out.entropy)
    local more = ctx:policy_loss(tokens { entropy = T { { 1, 1 }, { 1, 1 } } }, { eta = 0.5 })
    assert.equal(-0.125, more.entropy[1][1])
    local metrics = ctx:policy_metrics(out.metrics)
    assert.equal(out.loss[0], metrics.loss)
    assert.equal(0.25, metrics.high)
  end)

  it("take advantages per token, packed tokens, and one sequence", function()
    local each = ctx:policy_loss(tokens { advantages = T { { 1, 1 }, { -1, -1 } } })
    assert.same_bits(ctx:policy_loss(tokens()).token, each.token)
    local flat = { now = T { -1, -2, -3, -4 }, old = T { -1, -2.5, -3, -4 },
                   advantages = T { 1, -1 }, cu_seqlens = { 0, 2, 4 } }
    assert.same_bits(each.token:view(4), ctx:policy_loss(flat).token)
    flat.cu_seqlens, flat.advantages = nil, T { 1, 1, -1, -1 }
    assert.same_bits(each.token:view(4), ctx:policy_loss(flat).token)
  end)

  it("say how much workspace they need: none on the cpu", function()
    assert.equal(0, ctx:policy_workspace_size(tokens()))
  end)

  for _, case in ipairs {
    { "expected a table { now", function() ctx:policy_loss(T { 1 }) end },
    { "unknown input 'olld'", function() ctx:policy_loss(tokens { olld = 1 }) end },
    { "now: expected a tensor", function() ctx:policy_loss { advantages = T { 1 } } end },
    { "old: float32 [2], expected float32 [2, 2]",
      function() ctx:policy_loss(tokens { old = T { 1, 2 } }) end },
    { "advantages: float32 [3], expected [2] or [2, 2]",
      function() ctx:policy_loss(tokens { advantages = T { 1, 2, 3 } }) end },
    { "advantages: expected a tensor", function() ctx:policy_loss(tokens { advantages = 1 }) end },
    { "loss: expected one of cispo, clip, gspo, reinforce; got ppo",
      function() ctx:policy_loss(tokens(), { loss = "ppo" }) end },
    { "beta: expected a number", function() ctx:policy_loss(tokens(), { beta = "1" }) end },
    { "tokens: expected an integer", function() ctx:policy_loss(tokens(), { tokens = 1.5 }) end },
    { "tokens is 3, and 4 tokens are active",
      function() ctx:policy_loss(tokens(), { tokens = 3 }) end },
    { "cu_seqlens: given with now [2, 2]",
      function() ctx:policy_loss(tokens { cu_seqlens = { 0, 4 } }) end },
    { "an empty list", function() ctx:policy_merge {} end },
    { "record 0: expected uint8 [.., 784]", function() ctx:policy_merge { T { 1 } } end },
    { "record 1: its first sum", function()
      ctx:policy_merge { ctx:policy_loss(tokens()).record,
                         ctx:policy_loss(tokens(), { norm = "sequence-mean" }).record }
    end },
    { "scale: expected one of group, none, step; got std",
      function() ctx:group_advantages(T { 1 }, { scale = "std" }) end },
    { "records: 1 of 2 groups", function()
      local records = ctx:group_advantages(T { 1 }).records
      ctx:group_advantages(T { { 1 }, { 2 } }, { records = records })
    end },
    { "policy_metrics: expected float32 [16]", function() ctx:policy_metrics(T { 1 }) end },
  } do
    local words, call = unpack(case)
    it("refuse: " .. words, function() refusal.says(refusal.misuse(call), words) end)
  end
end)
