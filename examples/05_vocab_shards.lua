#!/usr/bin/env luajit
-- Vocabulary shards (tensor parallelism): each of several ranks holds the logits of only some ids,
-- and all ranks get the bits of the whole rows. This single process plays all the ranks.
--
--     luajit examples/05_vocab_shards.lua [FOLDER]
--
-- The example writes a CSV of each shard's part of every token's lse, and a plot of those of the
-- first sequence, to FOLDER.

local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = here .. "/../lua/?.lua;" .. here .. "/support/?.lua;" .. package.path

local samebits = require "samebits"
local results = require "results".folder(arg[1])

local ctx  = assert(samebits.open())
local data = assert(samebits.load(here .. "/../spec/vectors/smollm2.safetensors"))
local V    = data.logits.shape[3]

local want = assert(ctx:logprob(samebits.batch { logits = data.logits, ids = data.ids,
                                                 mask = data.mask }:to(ctx.device)))

-- The work of one rank before the exchange. Its ids are first .. past - 1.
local function on_rank(first, past)
  local batch = samebits.batch {
    logits = data.logits:slice(2, first, past):contiguous(), first = first, vocab = V,
    ids = data.ids, mask = data.mask,                             -- ids of the whole vocabulary
  }
  return assert(ctx:partial(batch:to(ctx.device)))
end

-- The work of every rank after the exchange, with the merged records. It no longer needs its own
-- logits.
local batch = samebits.batch { logits = samebits.zeros { data.ids.shape[1], data.ids.shape[2], 0 },
                               vocab = V, ids = data.ids, mask = data.mask }:to(ctx.device)
local function finish(records) return assert(ctx:finish(records, batch)) end

print(("%d x %d tokens, %d ids; sequence 0 without shards: %s"):format(data.ids.shape[1],
      data.ids.shape[2], V, want.sequence:bits()[1]))

-- Even and uneven cuts, at multiples of 16; one shard is empty.
for _, cuts in ipairs { { 0, V }, { 0, V / 2, V }, { 0, 16, 48, 48, V - 160, V } } do
  local records = {}
  for r = 1, #cuts - 1 do records[r] = on_rank(cuts[r], cuts[r + 1]) end

  -- Merges all records at once, as after an all-gather, and two at a time, from the last rank to
  -- the first.
  local gathered, chain = assert(ctx:merge(records)), records[#records]
  for r = #records - 1, 1, -1 do chain = assert(ctx:merge { chain, records[r] }) end
  assert(samebits.same_bits(gathered.states, chain.states))
  assert(samebits.same_bits(gathered.targets, chain.targets))

  local out = finish(gathered)
  print(("%d shard%s cut at %-22s sequence 0: %s"):format(#records, #records == 1 and ", " or "s,",
        table.concat(cuts, " "), out.sequence:bits()[1]))
  for _, name in ipairs { "token", "lse", "sequence", "count" } do
    assert(samebits.same_bits(out[name], want[name]))
  end
end
print "the same bits in all of them"

-- For each token, a rank sends 40 bytes: the sum over its ids, and the logit of the target if it
-- holds it. These are the records of row [0, 0] from two ranks:
print "\nrow 0 from two ranks:"
local left, right = on_rank(0, V / 2), on_rank(V / 2, V)
for _, records in ipairs { left, right } do
  print(table.concat(records.states:bits()[1][1]) .. "  " ..
        table.concat(records.targets:bits()[1][1]))
end

-- Ranks also draw tokens together, in rounds of small messages: here with top-p, in 7 rounds.
local how = { top_p = 0.9, seed = 5, stream = samebits.zeros(data.ids.shape, "int64"),
              position = samebits.zeros(data.ids.shape, "int64") }
for b = 0, data.ids.shape[1] - 1 do
  for t = 0, data.ids.shape[2] - 1 do
    how.stream:set(b, b, t)
    how.position:set(t, b, t)
  end
end
how.stream, how.position = how.stream:to(ctx.device), how.position:to(ctx.device)
local drawn = assert(ctx:sample(samebits.batch({ logits = data.logits, mask = data.mask },
                                               { ids = false }):to(ctx.device), how))
local draws, all = {}, nil
for r, first in ipairs { 0, V / 2 } do
  local shard = samebits.batch({ logits = data.logits:slice(2, first, first + V / 2):contiguous(),
                                 first = first, vocab = V, mask = data.mask }, { ids = false })
  draws[r] = assert(ctx:draw(shard:to(ctx.device), how, { shard = r - 1, shards = 2 }))
end
while draws[1].round < draws[1].rounds do
  local messages = {}
  for r, draw in ipairs(draws) do messages[r] = assert(ctx:draw_round(draw, all)) end
  all = messages               -- with NCCL: all = ctx:all_gather(message, comm)
end
for _, draw in ipairs(draws) do
  local out = assert(ctx:draw_finish(draw, all))
  assert(samebits.same_bits(out.token, drawn.token))
  assert(samebits.same_bits(out.kept_logprob, drawn.kept_logprob))
end
print(("drawn by 2 ranks in %d rounds: the tokens of whole rows"):format(draws[1].rounds))

-- If each rank is a process with a GPU of its own, NCCL sends the records: ctx:exchange gathers and
-- merges them. Here, if there is a GPU, the world consists of one rank.
local id, absent = ctx:comm_id()           -- rank 0 makes it; the others get these 128 bytes
if id then
  local comm    = assert(ctx:communicator { id = id, ranks = 1, rank = 0 })
  local records = assert(ctx:exchange(on_rank(0, V), comm))
  assert(samebits.same_bits(finish(records).token, want.token))
  assert(comm:close())
  print("\nexchanged with NCCL, in a world of one rank: the same bits")
else
  print("\nnot exchanged with NCCL: " .. absent)
end

-- If a rank is missing, finish refuses to give a number.
local ok, message = pcall(ctx.finish, ctx, left, batch)
assert(not ok)
print("\nwithout the second half: " .. tostring(message))

-- If a rank has another temperature, merge refuses its records.
local other = samebits.batch { logits = data.logits:slice(2, V / 2, V):contiguous(), first = V / 2,
                               vocab = V, ids = data.ids, mask = data.mask, temperature = 0.9 }
ok, message = pcall(ctx.merge, ctx, { left, assert(ctx:partial(other:to(ctx.device))) })
assert(not ok)
print("at two temperatures: " .. tostring(message))

-- The contribution of each of four ranks: the lse over its own ids, beside that over all ids.
local rows, series = {}, {}
for r = 0, 4 do
  local first, past = r < 4 and r * V / 4 or 0, r < 4 and (r + 1) * V / 4 or V
  local part = samebits.batch { logits = data.logits:slice(2, first, past):contiguous(),
                                ids = samebits.zeros(data.ids.shape, "int64"), mask = data.mask }
  local lse = assert(ctx:logprob(part:to(ctx.device))).lse:to "cpu"
  local name, bits, x, y = r < 4 and "rank " .. r or "all", lse:bits(), {}, {}
  for b = 0, data.ids.shape[1] - 1 do
    for t = 0, data.ids.shape[2] - 1 do
      if data.mask:get(b, t) ~= 0 then
        rows[#rows + 1] = { name, b, t, lse:get(b, t), bits[b + 1][t + 1] }
        if b == 0 then x[#x + 1], y[#y + 1] = t, lse:get(b, t) end
      end
    end
  end
  series[r + 1] = { name = name, x = x, y = y }
end
results:csv("shards.csv", { "rank", "sequence", "position", "lse", "samebits" }, rows)
results:plot("shards.svg", "draw", { kind = "lines", title = "lse of each rank's ids, and of all",
                                     xlabel = "position", ylabel = "lse", series = series })
