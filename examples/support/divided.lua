-- One update of the policy in grpo.lua, computed in parts: on ranks, each of which takes a share of
-- the sequences, in micro-batches. `exact` gives the same bits in any division, `conventional` does
-- not. Both leave the gradients in the run's policy, and return the loss and its gradients by the
-- tokens, [B, T].

local ffi = require "ffi"
local samebits = require "samebits"
local grpo = require "grpo"

local M = {}

local B, T = grpo.PROMPTS * grpo.GROUP, grpo.TIME

local function floats(t) return ffi.cast("float *", t.ptr) end

-- Calls f(rank, first, past) for each micro-batch of each rank.
local function each_part(division, f)
  local share = B / division.ranks
  for rank = 0, division.ranks - 1 do
    for first = rank * share, (rank + 1) * share - 1, division.micro do
      f(rank, first, math.min(first + division.micro, (rank + 1) * share))
    end
  end
end

-- Scores a micro-batch. Returns its batch, the logprobs and the contexts of its tokens.
local function score(run, ids, first, past)
  local contexts = run.contexts_of(ids, first, past)
  local batch = samebits.batch {
    logits = run.policy:logits(contexts, run.training:slice(0, 0, past - first)),
    ids = ids:slice(0, first, past),
  }
  return batch, assert(run.logprob(run.ctx, batch)).token, contexts
end

-- The gradient of the logits, in their place.
local function logits_gradient(run, batch, by_token)
  return assert(run.ctx:logprob(batch, {
    outputs = {}, gradient = { token = by_token, in_place = true } })).grad
end

local function weights_of(policy)
  local list = {}
  for _, name in ipairs { "P", "C", "E" } do list[#list + 1] = policy.grads[name] end
  return list
end

-- Appends the policy's gradients to a column of a list, and sets them to 0.
local function take_gradients(policy, columns)
  local column = {}
  for _, t in ipairs(weights_of(policy)) do
    local g = floats(t)
    for i = 0, t:numel() - 1 do
      column[#column + 1] = g[i]
      g[i] = 0
    end
  end
  columns[#columns + 1] = column
end

local function put_gradients(policy, values)
  local at = 0
  for _, t in ipairs(weights_of(policy)) do
    local g = floats(t)
    for i = 0, t:numel() - 1 do g[i], at = values[at], at + 1 end
  end
end

-- The exact sum of columns, element by element.
local function summed(ctx, columns)
  local n = #columns[1]
  local all = samebits.zeros { n, #columns }
  local to = floats(all)
  for k, column in ipairs(columns) do
    for i = 1, n do to[(i - 1) * #columns + k - 1] = column[i] end
  end
  return assert(ctx:sums(all, { outputs = { "sum" } })).sum
end

function M.exact(run, division, ids, rollout, advantages)
  local records, columns, by_token = {}, {}, samebits.zeros { B, T }
  each_part(division, function(_, first, past)
    local batch, now, contexts = score(run, ids, first, past)
    local loss = assert(run.ctx:policy_loss({
      now = now, old = rollout:slice(0, first, past), advantages = advantages:slice(0, first, past),
    }, { eps_low = grpo.CLIP, eps_high = grpo.CLIP, tokens = B * T }))
    records[#records + 1] = loss.record
    by_token:slice(0, first, past):copy_(loss.token)
    local by_logits = logits_gradient(run, batch, loss.token)
    -- One contribution for each sequence: their number does not depend on the division.
    for b = 0, past - first - 1 do
      run.policy:backward({ unpack(contexts, b * T + 1, (b + 1) * T) },
                          by_logits:slice(0, b, b + 1))
      take_gradients(run.policy, columns)
    end
  end)
  put_gradients(run.policy, floats(summed(run.ctx, columns)))
  return assert(run.ctx:policy_merge(records)).loss[0], by_token
end

-- fp32, as a framework computes it.
local function rounded(x) return tonumber(ffi.cast("float", x)) end

-- The mean of a micro-batch's losses, and its gradients by the tokens.
local function mean_loss(now, old, advantages, scale)
  local sequences = now.shape[1]
  local by_token, sum, count = samebits.zeros { sequences, T }, 0, sequences * T
  for b = 0, sequences - 1 do
    local A = advantages[b]
    for t = 0, T - 1 do
      local ratio = rounded(math.exp(rounded(now:get(b, t) - old:get(b, t))))
      local clipped = math.max(math.min(ratio, 1 + grpo.CLIP), 1 - grpo.CLIP)
      local l = math.max(rounded(-ratio * A), rounded(-clipped * A))
      sum = rounded(sum + l)
      local passes = l == rounded(-ratio * A)
      by_token:set(passes and rounded(rounded(-A * ratio) * rounded(scale / count)) or 0, b, t)
    end
  end
  return rounded(sum / count), by_token
end

-- Adds the policy's gradients to a sum in fp32, and sets them to 0.
local function add_gradients(policy, sum)
  local columns = {}
  take_gradients(policy, columns)
  sum = sum or ffi.new("float[?]", #columns[1])
  for i, x in ipairs(columns[1]) do sum[i - 1] = sum[i - 1] + x end
  return sum, #columns[1]
end

function M.conventional(run, division, ids, rollout, advantages)
  local loss, by_token, ranks, n = 0, samebits.zeros { B, T }, {}, 0
  each_part(division, function(rank, first, past)
    local batch, now, contexts = score(run, ids, first, past)
    local scale = (past - first) / B
    local mean, gradient = mean_loss(now, rollout:slice(0, first, past),
                                     advantages:slice(0, first, past), scale)
    loss = rounded(loss + rounded(mean * scale))
    by_token:slice(0, first, past):copy_(gradient)
    run.policy:backward(contexts, logits_gradient(run, batch, gradient))
    ranks[rank], n = add_gradients(run.policy, ranks[rank])
  end)
  local total = ffi.new("float[?]", n)
  for rank = 0, division.ranks - 1 do
    for i = 0, n - 1 do total[i] = total[i] + ranks[rank][i] end
  end
  put_gradients(run.policy, total)
  return loss, by_token
end

return M
