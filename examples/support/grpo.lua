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

-- The advantage of each completion over its group, in standard deviations.
local function advantages(rewards)
  local out = {}
  for first = 1, B, M.GROUP do
    local mean, square = 0, 0
    for b = first, first + M.GROUP - 1 do mean = mean + rewards[b] / M.GROUP end
    for b = first, first + M.GROUP - 1 do square = square + (rewards[b] - mean) ^ 2 / M.GROUP end
    for b = first, first + M.GROUP - 1 do
      out[b] = (rewards[b] - mean) / (math.sqrt(square) + 1e-4)
    end
  end
  return out
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

-- Adds the gradient of a micro-batch, sequences first .. past - 1, and records its statistics.
function Run:accumulate(first, past, ids, rollout, advantage, notes)
  local contexts = contexts_of(ids, first, past)
  local batch = samebits.batch {
    logits = self.policy:logits(contexts, self.training:slice(0, 0, past - first)),
    ids = ids:slice(0, first, past),
  }
  local new = assert(self.logprob(self.ctx, batch)).token
  local old = rollout:slice(0, first, past)
  local met = assert(self.ctx:compare(old, new))

  -- The loss is -mean(min(r A, clip(r) A)), and dr / dlogprob is r.
  local by_token = samebits.zeros { past - first, T }
  for b = 0, past - first - 1 do
    local A = advantage[first + b + 1]
    for t = 0, T - 1 do
      local r = met.ratio:get(b, t)
      local clipped = A > 0 and r > 1 + M.CLIP or A < 0 and r < 1 - M.CLIP
      by_token:set(clipped and 0 or -A * r / (B * T), b, t)
      notes.clipped = notes.clipped + (clipped and 1 or 0) / (B * T)
      notes.ratio = math.max(notes.ratio, math.abs(r - 1))
      notes.kl = notes.kl + met.k3:get(b, t) / (B * T)
      notes.unequal = notes.unequal + (new:get(b, t) == old:get(b, t) and 0 or 1)
    end
  end
  -- In place, since the logits are no longer needed.
  self.policy:backward(contexts, assert(self.ctx:logprob(batch, {
    outputs = {}, gradient = { token = by_token, in_place = true } })).grad)
end

-- Performs a rollout and the updates from it. Returns the mean `reward` and, for each update in
-- `updates`: `unequal`, the number of tokens whose logprobs differ from the rollout's; `ratio`, the
-- largest |ratio - 1|; `kl`, the mean k3; and `clipped`, the share of clipped tokens.
function Run:step()
  local ids, rollout, rewards = self:rollout()
  local advantage, notes = advantages(rewards), { reward = 0, updates = {} }
  for b = 1, B do notes.reward = notes.reward + rewards[b] / B end
  for u = 1, M.UPDATES do
    notes.updates[u] = { unequal = 0, ratio = 0, kl = 0, clipped = 0 }
    for first = 0, B - 1, self.micro do
      self:accumulate(first, math.min(first + self.micro, B), ids, rollout, advantage,
                      notes.updates[u])
    end
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
