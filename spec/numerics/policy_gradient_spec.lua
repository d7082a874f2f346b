-- The gradient of a policy loss in the same call as the logprobs: the bits of three calls, on every
-- variant; what is refused.

local samebits = require "samebits"
local backends = require "spec.support.backends"
local hex = require "spec.support.hex"
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

-- A batch, what a policy loss takes besides its logprobs, and the loss's options by a number.
local CASES = {
  { V = 200, dtype = "float32" },
  { V = 1000, dtype = "bfloat16" }, -- its logits may be read once
  { V = 1000, dtype = "bfloat16", in_place = true },
  { V = 1001, dtype = "bfloat16" }, -- rows of several alignments
  { V = 1000, dtype = "bfloat16", grad = "float32" },
  { V = 1000, dtype = "float16", grad = "bfloat16" },
  { V = 1000, dtype = "bfloat16", temperature = true },
  { V = 1000, dtype = "bfloat16", entropy = true },
  { V = 96, dtype = "bfloat16", kept = true },
  { V = 1000, dtype = "bfloat16", packed = true },
  { V = 1000, dtype = "bfloat16", infinite = true },
  { V = 1000, dtype = "bfloat16", unmasked = true }, -- there is nothing to count
}

local function example(case, shift)
  local V, random = case.V, prng.new(case.V)
  local logits, ids, mask, advantages, kept, temperature = {}, {}, {}, {}, {}, {}
  for i = 1, B * T * V do logits[i] = random:normal() * 3 end
  for i = 1, case.infinite and B * T * V or 0, 5 do
    logits[i] = i % (3 * V) == 1 and 0 / 0 or -math.huge
  end
  for b = 1, B do
    ids[b], mask[b], advantages[b], temperature[b] = {}, {}, random:normal(), {}
    for t = 1, T do
      ids[b][t] = random:uniform() < 0.1 and -100 or random:integer(0, V - 1)
      mask[b][t] = random:uniform() < 0.9 and 1 or 0
      temperature[b][t] = random:pick { 0.5, 1, 3 }
    end
  end
  for i = 1, B * T * V do kept[i] = i % 5 == 2 and 0 or 1 end
  local spec = { logits = assert(hex.tensor(logits, { B, T, V }):to(case.dtype)), ids = ids,
                 shift = shift and 1 or nil,
                 kept = case.kept and samebits.tensor(kept, { dtype = "uint8" }):view(B, T, V),
                 temperature = case.temperature and samebits.tensor(temperature) }
  local given = { advantages = samebits.tensor(advantages), mask = mask }
  local token = assert(cpu:logprob(spec, { outputs = { "token" } })).token
  for _, name in ipairs { "old", "ref", "rollout" } do
    local t = samebits.zeros { B, T }
    for b = 0, B - 1 do
      for i = 0, T - 1 do
        local x = token:get(b, i)
        t:set((x > -math.huge and x or -9) + random:normal() * 0.3, b, i)
      end
    end
    given[name] = t
  end
  if case.unmasked then given.mask = nil end
  if case.packed then -- the same rows in other sequences
    local flat = {}
    for b = 1, B do
      for t = 1, T do flat[#flat + 1] = mask[b][t] end
    end
    spec.logits, spec.cu_seqlens = spec.logits:view(B * T, V), { 0, 1, 11, 11, B * T }
    spec.ids = samebits.tensor(ids, { dtype = "int64" }):view(B * T)
    given.mask = flat
    for _, name in ipairs { "old", "ref", "rollout" } do given[name] = given[name]:view(B * T) end
  end
  return spec, given
end

-- The results of three calls.
local function apart(case, spec, given, opts)
  local batch = samebits.batch(spec)
  local outputs = case.entropy and { "token", "entropy", "saved" } or { "token", "saved" }
  local scored = assert(cpu:logprob(batch, { outputs = outputs }))
  local policy = assert(cpu:policy_loss(with(given, { now = scored.token,
                                                      cu_seqlens = spec.cu_seqlens }), opts))
  return { token = scored.token, entropy = scored.entropy, loss = policy.loss,
           record = policy.record, metrics = policy.metrics,
           grad = assert(cpu:backward(batch, { saved = scored.saved, token = policy.token },
                                      { dtype = case.grad })) }
end

describe("the gradient of a policy loss in one call:", function()
  backends.each(function(at)
    for c, case in ipairs(CASES) do
      it(("the bits of three calls, case %d on %s"):format(c, at.name), function()
        local ctx = at.context()
        for i, opts in ipairs(OPTIONS) do
          local spec, given = example(case, i % 2 == 0)
          local want, moved = apart(case, spec, given, opts), {}
          for name, t in pairs(given) do
            moved[name] = name == "mask" and t or assert(t:to(ctx.device))
          end
          local got = assert(ctx:logprob(assert(samebits.batch(spec):to(ctx.device)), {
            outputs = case.entropy and { "token", "entropy" } or { "token" },
            gradient = { policy = moved, options = opts, dtype = case.grad,
                         in_place = case.in_place } }))
          for name, t in pairs(want) do
            assert.same_bits(t, assert(got[name]:to "cpu"), ("%d: %s"):format(i, name))
          end
        end
      end)
    end
  end)

  it("refuses what needs other tokens, entropies or more than the batch gives", function()
    local spec, given = example(CASES[1], false)
    local batch = samebits.batch(spec)
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
