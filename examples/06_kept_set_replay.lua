#!/usr/bin/env luajit
-- Top-p sampling draws only from the likeliest ids, and its logprobs are renormalised over the ids
-- that it kept. A trainer that scores the drawn tokens against the whole vocabulary gets other
-- numbers, however exact they are: each ratio is off by the mass that was cut away. If the rollout
-- passes its kept sets on and the trainer scores with them, all ratios are 1.
--
--     luajit examples/06_kept_set_replay.lua [FOLDER]
--
-- The logits come from a real model. The example writes a CSV of every token, and a plot of the
-- ratios, to FOLDER.

local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = here .. "/../lua/?.lua;" .. here .. "/support/?.lua;" .. package.path

local bit = require "bit"
local samebits = require "samebits"
local random = require("random").new(6)
local results = require "results".folder(arg[1])

local TOP_P, TOP_K = 0.9, 64    -- the sampler keeps the fewest of the first 64 ids with this mass
local DRAWS = 8                 -- tokens drawn from each row
local RATE = 0.5                -- the step size of the update in the second part

local ctx  = assert(samebits.open "cpu")
local data = assert(samebits.load(here .. "/../spec/vectors/smollm2.safetensors"))
local V    = data.logits.shape[3]

-- The rows that score a token, concatenated.
local rows = {}
for b = 0, data.mask.shape[1] - 1 do
  for t = 0, data.mask.shape[2] - 1 do
    if data.mask:get(b, t) ~= 0 then rows[#rows + 1] = data.logits[b]:slice(0, t, t + 1) end
  end
end
local logits = samebits.pack(rows)
local N = #rows

-- Finds, for each row, the shortest list of first ids with that mass. Returns the kept sets [N, W],
-- in which an id is bit id % 32 of word id / 32, and for each row the ids, their probabilities and
-- their mass.
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

-- sets: words, or { ids = .., offsets = .. }, the lists of the kept ids; both give the same bits.
local function score(of, ids, sets)
  local lists = sets and not samebits.is_tensor(sets)
  return assert(ctx:logprob { logits = of, ids = ids, kept = not lists and sets or nil,
                              kept_ids = lists and sets.ids or nil,
                              kept_offsets = lists and sets.offsets or nil })
end

-- The rollout draws each token from the kept ids and scores it separately, as a decoding engine
-- does.
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

-- The trainer scores all rows at once, with or without kept sets. Returns logprobs [DRAWS, N], and
-- the number of tokens that are not in the sets.
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

-- Engines record sets as lists, which take the kept ids of each token instead of V bits, and cost
-- the trainer no more than these ids.
local recorded = {}
recorded.ids, recorded.offsets = samebits.kept_lists(kept, V)
report("against the kept sets, as lists", trained(logits, recorded))
assert(samebits.same_bits(rollout, (trained(logits, recorded))))

-- An update makes every second token less likely and the others likelier. If the trainer derives
-- sets from its own new logits, they miss some of the drawn tokens, whose ratios become 0. Replayed
-- sets contain every drawn token, so a ratio then shows only the change of the policy.
print "after an update"
local updated = assert(logits:to "float32")
for d = 0, DRAWS - 1 do
  local batch = samebits.batch { logits = logits, ids = ids[d] }
  local by_token = samebits.zeros { N }
  for row = 0, N - 1 do by_token[row] = (row + d) % 2 == 0 and RATE or -RATE end
  local step = assert(ctx:logprob(batch, {
    outputs = {}, gradient = { token = by_token, dtype = "float32" } })).grad
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
