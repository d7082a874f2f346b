#!/usr/bin/env luajit
-- A rollout samples tokens with top-k and top-p, in the shapes of a decoding engine: sequences join
-- and leave, so each step has another batch. The trainer replays the tokens in one padded batch,
-- from the kept sets that the rollout recorded.
--
-- Two things are exact. A token depends on its sequence's logits and on (seed, stream, position),
-- so every schedule draws the same tokens. And the trainer's logprob under the replayed kept set
-- has the bits of the rollout's, so that every ratio is exactly 1.
--
--     luajit examples/10_sample_and_replay.lua [FOLDER]
--
-- The logits come from a real model, as if it had answered its own prompts. The example writes a
-- CSV of every token to FOLDER.

local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = here .. "/../lua/?.lua;" .. here .. "/support/?.lua;" .. package.path

local samebits = require "samebits"
local results = require "results".folder(arg[1])

local FILTERS = { top_k = 50, top_p = 0.9, min_p = 0.01 }
local SEED, TEMPERATURE = 10, 1.25

local ctx  = assert(samebits.open "cpu")
local data = assert(samebits.load(here .. "/../spec/vectors/smollm2.safetensors"))
local B, T, V = unpack(data.logits.shape)
local W = math.ceil(V / 32)

-- The schedules of a decoding engine: the sequences of each step, as lists of { b, t }.
local schedules = {
  { name = "all sequences together", steps = {} },
  { name = "each sequence alone", steps = {} },
  { name = "sequences join one by one, in another order", steps = {} },
}
for t = 0, T - 1 do
  local step = {}
  for b = 0, B - 1 do step[#step + 1] = { b, t } end
  schedules[1].steps[t + 1] = step
end
for b = 0, B - 1 do
  for t = 0, T - 1 do table.insert(schedules[2].steps, { { b, t } }) end
end
for s = 0, T + B - 2 do
  local step = {}
  for b = B - 1, 0, -1 do
    if s - b >= 0 and s - b < T then step[#step + 1] = { b, s - b } end
  end
  schedules[3].steps[s + 1] = step
end

-- Draws the tokens of a schedule. Returns, in the trainer's layout, the tokens, their logprobs
-- under the kept sets and under the model, and the kept sets.
local function rollout(schedule)
  local out = { token = samebits.zeros({ B, T }, "int32"), kept_logprob = samebits.zeros { B, T },
                logprob = samebits.zeros { B, T }, kept = samebits.zeros({ B, T, W }, "int32") }
  for _, step in ipairs(schedule.steps) do
    local rows, how = {}, { seed = SEED, stream = {}, position = {} }
    for i, at in ipairs(step) do
      rows[i] = data.logits[at[1]]:slice(0, at[2], at[2] + 1)
      how.stream[i], how.position[i] = at[1], at[2]
    end
    for key, value in pairs(FILTERS) do how[key] = value end
    local drawn = assert(ctx:sample({ logits = samebits.pack(rows), temperature = TEMPERATURE },
                                    how, { outputs = { "token", "logprob", "kept_logprob",
                                                       "kept" } }))
    for i, at in ipairs(step) do
      for name, t in pairs(out) do
        if name == "kept" then t[at[1]][at[2]]:copy_(drawn.kept[i - 1])
        else t:set(drawn[name][i - 1], at[1], at[2]) end
      end
    end
  end
  return out
end

local first
for _, schedule in ipairs(schedules) do
  local out = rollout(schedule)
  first = first or out
  local same = true
  for name, t in pairs(out) do same = same and samebits.same_bits(t, first[name]) end
  print(("%-45s %3d steps: %s"):format(schedule.name, #schedule.steps,
                                       same and "the same tokens, logprobs and sets" or "others"))
  assert(same)
end

-- The trainer scores [B, T, V] at once, with the sets as lists of ids.
local ids, offsets = samebits.kept_lists(first.kept, V)
local replayed = assert(ctx:logprob { logits = data.logits, ids = first.token,
                                      temperature = TEMPERATURE, kept_ids = ids,
                                      kept_offsets = offsets })
local whole = assert(ctx:logprob { logits = data.logits, ids = first.token,
                                   temperature = TEMPERATURE })

local function ratios_of_one(tokens)
  local ratio = assert(ctx:compare(first.kept_logprob, tokens, { outputs = { "ratio" } })).ratio
  local count = 0
  for b = 0, B - 1 do
    for t = 0, T - 1 do count = count + (ratio:get(b, t) == 1 and 1 or 0) end
  end
  return count
end

print(("\n%d tokens; %.1f ids kept on average of %d"):format(B * T, ids.shape[1] / (B * T), V))
print(("ratios of 1 against the replayed sets: %d of %d"):format(ratios_of_one(replayed.token),
                                                                  B * T))
print(("ratios of 1 against all ids:           %d of %d"):format(ratios_of_one(whole.token), B * T))
assert(samebits.same_bits(first.kept_logprob, replayed.token))
assert(samebits.same_bits(first.logprob, whole.token))

local rows, kept, model = {}, first.kept_logprob:bits(), first.logprob:bits()
for b = 0, B - 1 do
  for t = 0, T - 1 do
    rows[#rows + 1] = { b, t, first.token:get(b, t), kept[b + 1][t + 1], model[b + 1][t + 1] }
  end
end
results:csv("tokens.csv", { "stream", "position", "id", "kept_logprob", "logprob" }, rows)
