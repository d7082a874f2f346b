#!/usr/bin/env luajit
-- A trainer scores four completions in one batch. A rollout engine scored them token by token while
-- it decoded. Others score them one by one, packed, or in a batch that is padded to another length.
-- The logits come from a real model and are the same to the last bit. Are the logprobs?
--
--     luajit examples/02_batch_invariance.lua [FOLDER]
--
-- The example writes a CSV of every token in every batching, and plots, to FOLDER.

local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = here .. "/../lua/?.lua;" .. here .. "/support/?.lua;" .. package.path

local samebits = require "samebits"
local conventional = require "samebits.conventional"
local results = require "results".folder(arg[1])

-- The bits of the conventional path depend on the number of threads, so it is fixed here.
local ctx  = assert(samebits.open("cpu", { threads = 8 }))
local data = assert(samebits.load(here .. "/../spec/vectors/smollm2.safetensors"))
local B, T = data.ids.shape[1], data.ids.shape[2]

-- The completions, each of them cut to its own length.
local sequences = {}
for b = 0, B - 1 do
  local length = 0
  for t = 0, T - 1 do length = length + data.mask:get(b, t) end
  sequences[b + 1] = { logits = data.logits[b]:slice(0, 0, length),
                       ids = data.ids[b]:slice(0, 0, length) }
end

-- A batching is a list of batches. Each batch has a function that maps a sequence and a position to
-- the row that scores it.
local function whole(spec)
  local batch = samebits.batch_from(spec)
  return { batch, function(b, t)
    local first, past = batch:bounds(b)
    local length = sequences[b + 1].ids:len()
    return (spec.layout == "left" and past - length or first) + t
  end }
end

local function one_by_one()
  local list = {}
  for b, sequence in ipairs(sequences) do
    list[b] = { samebits.batch(sequence), function(of, t) return of == b - 1 and t or nil end }
  end
  return list
end

local function as_decoded()
  local list = {}
  for t = 0, T - 1 do
    local batch = samebits.batch { logits = data.logits:slice(1, t, t + 1),
                                   ids = data.ids:slice(1, t, t + 1),
                                   mask = data.mask:slice(1, t, t + 1) }
    list[t + 1] = { batch, function(b, of) return of == t and b or nil end }
  end
  return list
end

local batchings = {
  { "one batch, padded on the right", { whole { sequences = sequences } } },
  { "as decoded, one position at a time", as_decoded() },
  { "each sequence alone", one_by_one() },
  { "padded on the left, to 40",
    { whole { sequences = sequences, layout = "left", length = 40 } } },
  { "packed end to end", { whole { sequences = sequences, layout = "packed" } } },
}

-- Scores a batching. Returns logprobs [B, T], with 0 where there is no token.
local function score(logprob, batching)
  local tokens = samebits.zeros { B, T }
  for _, entry in ipairs(batching) do
    local batch, row_of = entry[1], entry[2]
    local out = assert(logprob(ctx, batch)).token:view(-1)
    for b, sequence in ipairs(sequences) do
      for t = 0, sequence.ids:len() - 1 do
        local row = row_of(b - 1, t)
        if row then tokens:set(out[row], b - 1, t) end
      end
    end
  end
  return tokens
end

local function differences(a, b)
  local same, report = samebits.same_bits(a, b)
  return same and 0 or report.count, same and 0 or report.max_ulps
end

print(("%d sequences, %d ids; tokens whose logprob differs from that in the first batch\n"):format(
      B, data.logits.shape[3]))
print(("%-36s %10s %28s"):format("batching", "samebits", "conventional"))

local scored, rows, active = {}, {}, 0
for _, sequence in ipairs(sequences) do active = active + sequence.ids:len() end
for i, batching in ipairs(batchings) do
  local name = batching[1]
  local contract = score(ctx.logprob, batching[2])
  local control = score(conventional.logprob, batching[2])
  scored[i] = { name = name, contract = contract, control = control }
  local none = differences(contract, scored[1].contract)
  local some, ulps = differences(control, scored[1].control)
  print(("%-36s %4d of %d %10d of %d, by %3d ULPs"):format(name, none, active, some, active, ulps))
  assert(none == 0)
  local bits, control_bits = contract:bits(), control:bits()
  for b, sequence in ipairs(sequences) do
    for t = 1, sequence.ids:len() do
      rows[#rows + 1] = { name:gsub(",", ""), b - 1, t - 1, tonumber(sequence.ids[t - 1]),
                          bits[b][t], control_bits[b][t] }
    end
  end
end

-- The effect on a trainer that uses the logprobs of the rollout: ratios that differ from 1.
local out = assert(ctx:compare(scored[2].control, scored[1].control))
local contract = assert(ctx:compare(scored[2].contract, scored[1].contract))
local worst, worst_contract = 0, 0
for b = 0, B - 1 do
  for t = 0, sequences[b + 1].ids:len() - 1 do
    worst = math.max(worst, math.abs(out.ratio:get(b, t) - 1))
    worst_contract = math.max(worst_contract, math.abs(contract.ratio:get(b, t) - 1))
  end
end
print(("\nratios, first batch over as decoded: within %g of 1 by samebits, %.3g conventionally")
      :format(worst_contract, worst))

results:csv("batchings.csv", { "batching", "sequence", "position", "id", "samebits",
                               "conventional" }, rows)

local function plotted(name, kind, field, path)
  local series = {}
  for i = 2, #scored do series[i - 1] = { name = scored[i].name, logprobs = scored[i][field] } end
  results:plot(name, kind, { reference = scored[1][field], series = series, mask = data.mask,
                             title = path .. ", against the first batch" })
end
plotted("samebits_ulps.svg", "ulp_histogram", "contract", "samebits")
plotted("conventional_ulps.svg", "ulp_histogram", "control", "conventional")
plotted("conventional_positions.svg", "drift_by_position", "control", "conventional")
