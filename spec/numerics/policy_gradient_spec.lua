-- The gradient of a policy loss in the same call as the logprobs: the bits of three calls, on the
-- cpu; what is refused.

local samebits = require "samebits"
local backends = require "spec.support.backends"
local prng = require "spec.support.prng"
local refusal = require "spec.support.refusal"
local with = require "spec.support.with"

local B, T = 4, 9
local cpu = assert(samebits.open "cpu")

local OPTIONS = {
  { norm = "sequence-mean", beta = 0.04 },
  { loss = "cispo", weight = "truncate", w_high = 1.5 },
  { norm = "constant", constant = 33, kl = "k1+", beta = 0.1, dual = 2 },
  { norm = "token-mean", tokens = 500 },
  { loss = "reinforce", norm = "sequence-sum", beta = 0.5, kl = "k2" },
}

local function example(V, dtype, shift)
  local random = prng.new(V)
  local logits, ids, mask, advantages = {}, {}, {}, {}
  for i = 1, B * T * V do logits[i] = random:normal() * 3 end
  for b = 1, B do
    ids[b], mask[b], advantages[b] = {}, {}, random:normal()
    for t = 1, T do
      ids[b][t] = random:uniform() < 0.1 and -100 or random:integer(0, V - 1)
      mask[b][t] = random:uniform() < 0.9 and 1 or 0
    end
  end
  local batch = samebits.batch { logits = assert(samebits.tensor(logits):view(B, T, V):to(dtype)),
                                 ids = ids, shift = shift }
  local token = assert(cpu:logprob(batch, { outputs = { "token" } })).token
  local given = { advantages = samebits.tensor(advantages), mask = mask }
  for _, name in ipairs { "old", "ref", "rollout" } do
    local t = samebits.zeros { B, T }
    for b = 0, B - 1 do
      for i = 0, T - 1 do t:set(token:get(b, i) + random:normal() * 0.3, b, i) end
    end
    given[name] = t
  end
  return batch, given
end

-- The results of three calls.
local function apart(batch, given, opts)
  local scored = assert(cpu:logprob(batch, { outputs = { "token", "saved" } }))
  local policy = assert(cpu:policy_loss(with(given, { now = scored.token }), opts))
  return { token = scored.token, loss = policy.loss, record = policy.record,
           metrics = policy.metrics,
           grad = assert(cpu:backward(batch, { saved = scored.saved, token = policy.token })) }
end

describe("the gradient of a policy loss in one call:", function()
  backends.each(function(at)
    if at.backend == "cuda" then
      it("refused on " .. at.name, function()
        local ctx, batch, given = at.context(), example(200, "float32", false)
        local moved = { advantages = assert(given.advantages:to(ctx.device)) }
        refusal.says(refusal.message(ctx:logprob(assert(batch:to(ctx.device)), {
          gradient = { policy = moved } })), "the cuda backend has no gradient of a policy loss")
      end)
      return
    end

    it("the bits of three calls, on " .. at.name, function()
      local ctx = at.context()
      for i, opts in ipairs(OPTIONS) do
        for _, size in ipairs { 200, 1000 } do
          local batch, given = example(size, size == 200 and "float32" or "bfloat16", i % 2 == 0)
          local want, moved = apart(batch, given, opts), {}
          for name, t in pairs(given) do
            moved[name] = name == "mask" and t or assert(t:to(ctx.device))
          end
          local got = assert(ctx:logprob(assert(batch:to(ctx.device)), {
            outputs = { "token" }, gradient = { policy = moved, options = opts } }))
          for name, t in pairs(want) do
            assert.same_bits(t, assert(got[name]:to "cpu"), ("%d: %s"):format(i, name))
          end
        end
      end
    end)
  end)

  it("refuses what needs other tokens, entropies or more than the batch gives", function()
    local batch, given = example(200, "float32", false)
    for _, case in ipairs {
      { given, { loss = "gspo" }, "ratios or weights of sequences need all logprobs" },
      { given, { weight = "drop", w_high = 1, level = "geometric" }, "ratios or weights" },
      { with(given, { entropy = given.old }), { eta = 1 }, "eta is 1" },
      { given, { tokens = 3 }, "tokens is 3, and" },
      { with(given, { now = given.old }), {}, "now: given by the batch" },
      { with(given, { oldd = given.old }), {}, "unknown input 'oldd'" },
    } do
      local policy, opts, words = unpack(case)
      refusal.says(refusal.misuse(function()
        cpu:logprob(batch, { gradient = { policy = policy, options = opts } })
      end), words)
    end
    refusal.says(refusal.misuse(function()
      cpu:logprob(batch, { gradient = { policy = given, token = given.old } })
    end), "token: given beside policy")
  end)
end)
