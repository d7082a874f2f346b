-- Group-relative policy optimisation of the policy in policy.lua. The rollout decodes all sequences
-- together, position by position; the trainer scores whole sequences, a few at a time. Both score
-- with the same function, ctx.logprob or another one with its interface.

local ffi = require "ffi"
local samebits = require "samebits"
local policies = require "policy"
local random = require "random"

local M = {
  VOCAB = 131,     -- odd, like 50257, so that rows begin anywhere in a cache line
  PROMPTS = 4,     -- prompt p asks for tokens with id % PROMPTS == p
  GROUP = 8,       -- completions of each prompt
  TIME = 7,        -- tokens of each completion
  UPDATES = 2,     -- updates per rollout: the first on-policy, the others off-policy
  CLIP = 0.2,      -- no gradient moves a ratio beyond 1 +- CLIP any further
  RATE = 0.03,
  START = 0,       -- the token before the first
}
local V, T, B = M.VOCAB, M.TIME, M.PROMPTS * M.GROUP

local function floats(t) return ffi.cast("float *", t.ptr) end

local Run = {}
Run.__index = Run

-- options: `seed`; `logprob`, the function that scores; `micro`, the number of sequences in a
-- batch of the trainer.
function M.new(ctx, options)
  return setmetatable({
    ctx = ctx, logprob = options.logprob, micro = options.micro, steps = 0,
    policy = policies.new(V, M.PROMPTS, options.seed),
    sampler = random.new(options.seed + 1000),
    decoding = policies.aligned { B, 1, V }, training = policies.aligned { options.micro, T, V },
  }, Run)
end

local function prompt_of(b) return math.floor(b / M.GROUP) end

-- Draws an id with the probabilities that a row of logits gives.
local function draw(logits, uniform)
  local most, sum = -math.huge, 0
  for v = 0, V - 1 do most = math.max(most, logits[v]) end
  for v = 0, V - 1 do sum = sum + math.exp(logits[v] - most) end
  local left = uniform * sum
  for v = 0, V - 1 do
    left = left - math.exp(logits[v] - most)
    if left < 0 then return v end
  end
  return V - 1
end

-- Samples completions. Returns ids and logprobs [B, T], and a list of rewards.
function Run:rollout()
  local ids, logprobs = samebits.zeros({ B, T }, "int32"), samebits.zeros { B, T }
  local rewards, contexts = {}, {}
  for b = 0, B - 1 do rewards[b + 1], contexts[b + 1] = 0, { prompt_of(b), M.START } end
  for t = 0, T - 1 do
    local logits = floats(self.policy:logits(contexts, self.decoding))
    for b = 0, B - 1 do
      local id = draw(logits + b * V, self.sampler:uniform())
      ids:set(id, b, t)
      contexts[b + 1][2] = id
      if id % M.PROMPTS == prompt_of(b) then rewards[b + 1] = rewards[b + 1] + 1 / T end
    end
    local out = assert(self.logprob(self.ctx, samebits.batch {
      logits = self.decoding, ids = ids:slice(1, t, t + 1) }))
    for b = 0, B - 1 do logprobs:set(out.token:get(b, 0), b, t) end
  end
  return ids, logprobs, rewards
end

-- The advantage of each completion over its group, in standard deviations: a tensor [B].
function Run:advantages(rewards)
  local groups = samebits.tensor(rewards):view(M.PROMPTS, M.GROUP)
  return assert(self.ctx:group_advantages(groups, { population = true })).advantages:view(B)
end

local function contexts_of(ids, first, past)
  local list = {}
  for b = first, past - 1 do
    for t = 0, T - 1 do
      list[#list + 1] = { prompt_of(b), t > 0 and ids:get(b, t - 1) or M.START }
    end
  end
  return list
end

-- For support/divided.lua.
Run.contexts_of = contexts_of

-- Adds the gradient of a micro-batch, sequences first .. past - 1. Returns the record of its loss
-- and the number of its tokens whose logprobs differ from the rollout's.
function Run:accumulate(first, past, ids, rollout, advantages)
  local contexts = contexts_of(ids, first, past)
  local batch = samebits.batch {
    logits = self.policy:logits(contexts, self.training:slice(0, 0, past - first)),
    ids = ids:slice(0, first, past),
  }
  local new = assert(self.logprob(self.ctx, batch)).token
  local old = rollout:slice(0, first, past)
  -- The mean over the tokens of the whole step, of which the micro-batch is a part.
  local loss = assert(self.ctx:policy_loss({
    now = new, old = old, advantages = advantages:slice(0, first, past),
  }, { eps_low = M.CLIP, eps_high = M.CLIP, tokens = B * T }))
  -- In place, since the logits are no longer needed.
  self.policy:backward(contexts, assert(self.ctx:logprob(batch, {
    outputs = {}, gradient = { token = loss.token, in_place = true } })).grad)
  local same, report = samebits.same_bits(new, old)
  return loss.record, same and 0 or report.count
end

-- The updates' notes: what the records of its micro-batches say together.
function Run:notes(records, unequal)
  local m = self.ctx:policy_metrics(assert(self.ctx:policy_merge(records)).metrics)
  return { unequal = unequal, kl = m.k3, clipped = m.high + m.low, loss = m.loss,
           ratio = math.max(math.abs(m.ratio_min - 1), math.abs(m.ratio_max - 1)) }
end

-- Performs a rollout and the updates from it. Returns the mean `reward` and, for each update in
-- `updates`: `unequal`, the number of tokens whose logprobs differ from the rollout's; `ratio`, the
-- largest |ratio - 1|; `kl`, the mean k3; `clipped`, the share of clipped tokens; and `loss`.
function Run:step()
  local ids, rollout, rewards = self:rollout()
  local advantages, notes = self:advantages(rewards), { reward = 0, updates = {} }
  for b = 1, B do notes.reward = notes.reward + rewards[b] / B end
  for u = 1, M.UPDATES do
    local records, unequal = {}, 0
    for first = 0, B - 1, self.micro do
      local record, differ = self:accumulate(first, math.min(first + self.micro, B), ids, rollout,
                                             advantages)
      records[#records + 1], unequal = record, unequal + differ
    end
    notes.updates[u] = self:notes(records, unequal)
    self.policy:update(M.RATE)
  end
  self.steps = self.steps + 1
  return notes
end

-- Saves everything that the next step depends on as a .safetensors file.
function Run:save(path)
  local tensors = self.policy:state()
  tensors.sampler = samebits.tensor({ self.sampler.state }, { dtype = "int32" })
  assert(samebits.save(path, tensors, {
    steps = tostring(self.steps), updates = tostring(self.policy.updates),
    numerics = tostring(samebits.numerics) }))
end

-- Resumes from a saved run.
function M.resume(ctx, path, options)
  local run, saved = M.new(ctx, options), assert(samebits.load(path))
  if saved.metadata.numerics ~= tostring(samebits.numerics) then
    error(("%s: made with numerics %s, this is %d"):format(path, saved.metadata.numerics,
                                                         samebits.numerics), 0)
  end
  run.policy:restore(saved, tonumber(saved.metadata.updates))
  run.sampler = random.from_state(saved.sampler[0])
  run.steps = tonumber(saved.metadata.steps)
  return run
end

-- Returns the number of weights that differ between two runs, and the number of all weights.
function M.unequal_weights(a, b)
  local count, total = 0, 0
  for name, t in pairs(a.policy.weights) do
    local same, report = samebits.same_bits(t, b.policy.weights[name])
    if not same then count = count + report.count end
    total = total + t:numel()
  end
  return count, total
end

return M
