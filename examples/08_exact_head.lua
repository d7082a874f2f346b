#!/usr/bin/env luajit
-- Drift begins before the logits: the last matrix product is cut in one way when a rollout decodes
-- a few rows, in another when a trainer scores thousands, and in yet another by tensor parallelism.
-- With an exact head, logprobs depend on hidden states and weights alone.
--
--     luajit examples/08_exact_head.lua [FOLDER [FILE]]
--
-- FILE is one that tools/make_smollm2_head.py makes; by default the slice in spec/vectors. The
-- example writes a CSV of every token, and a plot of how far the logprobs of two ranks are from
-- those of one, to FOLDER.

local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = here .. "/../lua/?.lua;" .. here .. "/support/?.lua;" .. package.path

local samebits = require "samebits"
local heads = require "heads"
local results = require "results".folder(arg[1])

local ctx  = assert(samebits.open "cpu")
local data = assert(samebits.load(arg[2] or here .. "/../spec/vectors/smollm2_head.safetensors"))
local B, T, D = unpack(data.hidden.shape)
local V = data.head.shape[1]
print(("hidden states [%d, %d, %d], a head of %d ids"):format(B, T, D, V))

-- How many tokens differ in their bits, and by how much at most.
local function compared(a, b)
  local count, largest, active = 0, 0, 0
  for s = 0, B - 1 do
    for t = 0, T - 1 do
      if data.mask:get(s, t) ~= 0 then
        active = active + 1
        local x, y = a:get(s, t), b:get(s, t)
        if x ~= y then count, largest = count + 1, math.max(largest, math.abs(x - y)) end
      end
    end
  end
  return count, largest, active
end

local function say(what, a, b)
  local count, largest, active = compared(a, b)
  print(("  %-48s %2d of %d%s"):format(what, count, active,
        count > 0 and (", by up to %.0e"):format(largest) or ""))
end

-- The exact head ----------------------------------------------------------------------------------

local format = "h24w16"
local head = assert(ctx:head(data.head, { format = format }))

-- The trainer scores everything at once. [B, T, V] logits exist nowhere.
local trainer = assert(ctx:logprob { hidden = data.hidden, head = head, ids = data.ids,
                                     mask = data.mask }).token

-- The rollout decodes one position of all sequences at a time, or of a single sequence.
local function rollout(together)
  local token = samebits.zeros { B, T }
  for b = 0, together and 0 or B - 1 do
    for t = 0, T - 1 do
      local function step(tensor)
        local some = together and tensor or tensor:slice(0, b, b + 1)
        return some:slice(1, t, t + 1):contiguous()
      end
      local out = assert(ctx:logprob { hidden = step(data.hidden), head = head,
                                       ids = step(data.ids), mask = step(data.mask) }).token
      for s = 0, out.shape[1] - 1 do token:set(out:get(s, 0), together and s or b, t) end
    end
  end
  return token
end

-- The vocabulary cut over ranks: each has a head of its own ids, and sends 40 bytes for a token.
local function vocabulary_ranks(ranks)
  local cuts, records = heads.cuts(V, ranks, 16), {}
  for r = 1, ranks do
    local mine = assert(ctx:head(data.head:slice(0, cuts[r], cuts[r + 1]),
                                 { format = format, first = cuts[r] }))
    records[r] = assert(ctx:partial { hidden = data.hidden, head = mine, vocab = V,
                                      ids = data.ids, mask = data.mask })
  end
  return assert(ctx:finish(assert(ctx:merge(records)),
                           { hidden = data.hidden, head = head, ids = data.ids,
                             mask = data.mask })).token
end

-- D cut over ranks: they agree on scales by a maximum, and add up integers.
local function width_ranks(ranks)
  local cuts, of_h, of_w, sums, mine = heads.cuts(D, ranks, 1), nil, nil, nil, nil
  local hidden, weights = {}, {}
  for r = 1, ranks do
    hidden[r] = data.hidden:slice(2, cuts[r], cuts[r + 1]):contiguous()
    weights[r] = data.head:slice(1, cuts[r], cuts[r + 1]):contiguous()
    local h, w = assert(ctx:scales(hidden[r])), assert(ctx:scales(weights[r]))
    of_h = of_h and heads.reduce("int32_t *", of_h, h, math.max) or h
    of_w = of_w and heads.reduce("int32_t *", of_w, w, math.max) or w
  end
  for r = 1, ranks do
    mine = assert(ctx:head(weights[r], { format = format, scales = of_w }))
    local products = assert(ctx:products({ hidden = hidden[r], head = mine, mask = data.mask },
                                         of_h))
    sums = sums and heads.reduce("int64_t *", sums, products, function(a, b) return a + b end)
           or products
  end
  local logits = assert(ctx:combine(sums, of_h, mine))
  return assert(ctx:logprob { logits = logits, ids = data.ids, mask = data.mask }).token
end

print(("\nexact head, %s (%d bytes): tokens whose bits differ from the trainer's"):format(format,
      head.bytes))
say("rollout, all sequences, one position at a time", trainer, rollout(true))
say("rollout, one sequence, one position at a time", trainer, rollout(false))
local exact_ranks = {}
for _, ranks in ipairs { 1, 2, 3, 5 } do
  say(("ranks of the vocabulary: %d"):format(ranks), trainer, vocabulary_ranks(ranks))
end
for _, ranks in ipairs { 1, 2, 3, 5 } do
  exact_ranks[ranks] = width_ranks(ranks)
  say(("ranks of D: %d"):format(ranks), trainer, exact_ranks[ranks])
end

-- Conventional heads ------------------------------------------------------------------------------

-- Their logits are scored by the same exact logprob, so all drift is the product's.
local function score(logits)
  return assert(ctx:logprob { logits = logits, ids = data.ids, mask = data.mask }).token
end
local product = heads.conventional(data.hidden, data.head, data.mask)
local conventional = {}
for _, dtype in ipairs { "bfloat16", "float32" } do
  local of = { [1] = score(product(dtype, 1)) }
  print(("\nconventional head, %s logits: tokens that differ from the trainer's"):format(dtype))
  -- Few rows do not fill a GPU, so libraries cut D into pieces ("split-K"), summed in fp32.
  local split = score(product("float32", 4):to(dtype))
  say("rollout: D in four pieces", of[1], split)
  for _, ranks in ipairs { 2, 3, 5 } do
    of[ranks] = score(product(dtype, ranks))
    say(("ranks of D: %d"):format(ranks), of[1], of[ranks])
  end
  conventional[dtype] = of
end

-- Accuracy, and the plot --------------------------------------------------------------------------

local wide = heads.conventional(data.hidden, data.head, data.mask, true)
local truth = score(wide("float32", 1))
local fine = assert(ctx:logprob { hidden = data.hidden, ids = data.ids, mask = data.mask,
                                  head = assert(ctx:head(data.head, { format = "h24w24" })) }).token
print "\nlargest error of a logprob, against sums in fp64:"
for _, of in ipairs { { "bf16 logits", conventional.bfloat16[1] },
                      { "float32 logits", conventional.float32[1] },
                      { "exact, h24w16", trainer }, { "exact, h24w24", fine } } do
  local _, largest = compared(truth, of[2])
  print(("  %-16s %.1e"):format(of[1], largest))
end

print ""
local rows, bits, two = {}, trainer:bits(), exact_ranks[2]:bits()
local series = { { "bf16 logits", conventional.bfloat16 },
                 { "float32 logits", conventional.float32 },
                 { "exact", { trainer, exact_ranks[2] } } }
for _, one in ipairs(series) do one.x, one.y, one.name = {}, {}, one[1] end
for b = 0, B - 1 do
  for t = 0, T - 1 do
    if data.mask:get(b, t) ~= 0 then
      local row = { b, t, data.ids:get(b, t), bits[b + 1][t + 1], two[b + 1][t + 1] }
      for _, one in ipairs(series) do
        local difference = one[2][2]:get(b, t) - one[2][1]:get(b, t)
        row[#row + 1] = difference
        one.x[#one.x + 1], one.y[#one.y + 1] = #one.x, math.max(math.abs(difference), 1e-9)
      end
      rows[#rows + 1] = row
    end
  end
end
results:csv("exact_head.csv", { "sequence", "position", "id", "samebits", "rank", "bf16", "float32",
                                "exact" }, rows)
for i, one in ipairs(series) do series[i] = { name = one.name, x = one.x, y = one.y } end
results:plot("exact_head.svg", "draw", {
  kind = "scatter", title = "logprobs of two ranks of D, beside those of one (1e-9: none)",
  xlabel = "token", ylabel = "difference, nats", logy = true, series = series,
})
