#!/usr/bin/env luajit
-- Top-p sampling draws from the likeliest ids only, and its logprobs are those of the ids it kept,
-- renormalised. A trainer that scores the drawn tokens against the whole vocabulary gets other
-- numbers, however exact: each ratio is off by the mass that was cut away. If the rollout hands its
-- kept sets on, the trainer scores with those, and all ratios are 1.
--
--     luajit examples/06_kept_set_replay.lua [FOLDER]
--
-- The logits are a real model's. FOLDER gets a CSV of every token, and a plot of the ratios.

local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = here .. "/../lua/?.lua;" .. here .. "/support/?.lua;" .. package.path

local bit = require "bit"
local samebits = require "samebits"
local random = require("random").new(6)
local results = require "results".folder(arg[1])

local TOP_P, TOP_K = 0.9, 64    -- what the sampler keeps: enough of the first 64 ids for this mass
local DRAWS = 8                 -- tokens drawn from each row
local RATE = 0.5                -- of the update in the second part

local ctx  = assert(samebits.open "cpu")
local data = assert(samebits.load(here .. "/../spec/vectors/smollm2.safetensors"))
local V    = data.logits.shape[3]

-- The rows that score a token, one after the other.
local rows = {}
for b = 0, data.mask.shape[1] - 1 do
  for t = 0, data.mask.shape[2] - 1 do
    if data.mask:get(b, t) ~= 0 then rows[#rows + 1] = data.logits[b]:slice(0, t, t + 1) end
  end
end
local logits = samebits.pack(rows)
local N = #rows

-- The shortest list of first ids with that mass: kept sets [N, W], bit id % 32 of word id / 32; and
-- of each row the ids, their probabilities and the mass.
local function top_p(of)
  local first = assert(ctx:topk(samebits.batch({ logits = of }, { ids = false }), TOP_K))
  local kept, lists = samebits.zeros({ N, math.ceil(V / 32) }, "int32"), {}
  for row = 0, N - 1 do
    local list = { mass = 0 }
    for k = 0, TOP_K - 1 do
      if list.mass >= TOP_P then break end
      local id, p = first.ids:get(row, k), math.exp(first.logprob:get(row, k))
      local word = math.floor(id / 32)
      kept:set(bit.bor(kept:get(row, word), bit.lshift(1, id % 32)), row, word)
      list[#list + 1], list.mass = { id = id, p = p }, list.mass + p
    end
    lists[row] = list
  end
  return kept, lists
end

local function draw(list)
  local left = random:uniform() * list.mass
  for _, entry in ipairs(list) do
    left = left - entry.p
    if left < 0 then return entry.id end
  end
  return list[#list].id
end

local function score(of, ids, sets)
  return assert(ctx:logprob { logits = of, ids = ids, kept = sets })
end

-- The rollout: each token by itself, as a decoding engine meets it, from the ids that are kept.
local kept, lists = top_p(logits)
local ids = samebits.zeros({ DRAWS, N }, "int32")
local rollout = samebits.zeros { DRAWS, N }
for d = 0, DRAWS - 1 do
  for row = 0, N - 1 do
    local id = draw(lists[row])
    ids:set(id, d, row)
    local out = score(logits:slice(0, row, row + 1), { id }, kept:slice(0, row, row + 1))
    rollout:set(out.token[0], d, row)
  end
end

-- The trainer: all rows at once, with or without kept sets. Logprobs [DRAWS, N], and the tokens
-- that the sets leave out.
local function trained(of, sets)
  local tokens, outside = samebits.zeros { DRAWS, N }, 0
  for d = 0, DRAWS - 1 do
    local out = score(of, ids[d], sets)
    tokens[d]:copy_(out.token)
    if out.outside then outside = outside + out.outside[0] end
  end
  return tokens, outside
end

local function report(name, tokens, outside)
  local met = assert(ctx:compare(rollout, tokens, { outputs = { "ratio" } }))
  local low, high, equal = math.huge, -math.huge, 0
  for d = 0, DRAWS - 1 do
    for row = 0, N - 1 do
      local r = met.ratio:get(d, row)
      low, high, equal = math.min(low, r), math.max(high, r), equal + (r == 1 and 1 or 0)
    end
  end
  local mean = assert(ctx:sums(met.ratio, { per = "batch" })).mean[0]
  print(("  %-38s %8d %10.6f %10.6f %10.6f %8d"):format(name, equal, low, mean, high, outside))
  return met.ratio
end

local smallest, largest, cut = math.huge, 0, 0
for row = 0, N - 1 do
  smallest, largest = math.min(smallest, #lists[row]), math.max(largest, #lists[row])
  cut = cut + (1 - lists[row].mass) / N
end
print(("%d tokens drawn from %d rows of %d ids; %d to %d ids are kept, and %.1f %% of the mass cut")
      :format(DRAWS * N, N, V, smallest, largest, 100 * cut))
print(("\n  %-38s %8s %32s %8s"):format("", "ratios", "ratio                ", "not in"))
print(("  %-38s %8s %10s %10s %10s %8s"):format("the trainer scores", "of 1", "least", "mean",
                                                "most", "its set"))

print "the policy that sampled"
local whole, replayed = trained(logits), trained(logits, kept)
local whole_ratio = report("against all ids", whole, 0)
local replayed_ratio = report("against the kept sets, replayed", replayed, 0)
assert(samebits.same_bits(rollout, replayed))

-- An update makes every second token less likely and the others likelier. Sets that the trainer
-- takes from its own, new logits miss some of the tokens that were drawn: ratios of 0. Replayed
-- ones hold each token, and what is left of a ratio is what the policy has changed.
print "after an update"
local updated = assert(logits:to "float32")
for d = 0, DRAWS - 1 do
  local batch = samebits.batch { logits = logits, ids = ids[d] }
  local out = assert(ctx:logprob(batch, { outputs = { "saved" } }))
  local by_token = samebits.zeros { N }
  for row = 0, N - 1 do by_token[row] = (row + d) % 2 == 0 and RATE or -RATE end
  local step = assert(ctx:backward(batch, { saved = out.saved, token = by_token },
                                   { dtype = "float32" }))
  local to, from = updated:pointer(), step:pointer()
  for i = 0, N * V - 1 do to[i] = to[i] + from[i] end
end
report("against all ids", trained(updated), 0)
report("against its own top-p sets", trained(updated, (top_p(updated))))
report("against the kept sets, replayed", trained(updated, kept))

local table_of, bits = {}, rollout:bits()
local replayed_bits = replayed:bits()
for d = 0, DRAWS - 1 do
  for row = 0, N - 1 do
    table_of[#table_of + 1] = { d, row, ids:get(d, row), #lists[row], lists[row].mass,
                                bits[d + 1][row + 1], replayed_bits[d + 1][row + 1],
                                whole_ratio:get(d, row), replayed_ratio:get(d, row) }
  end
end
print ""
results:csv("replay.csv", { "draw", "row", "id", "kept", "mass", "rollout", "replayed",
                            "ratio_all", "ratio_replayed" }, table_of)
results:plot("ratios.svg", "ratio_scatter", { reference = rollout, series = {
  { name = "against all ids", logprobs = whole },
  { name = "against the kept sets, replayed", logprobs = replayed } } })
