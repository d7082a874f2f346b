#!/usr/bin/env luajit
-- Before the first update, some ratios are far from 1, but not all. The rollout engine wrote
-- logprobs at the temperatures that it sampled with; the trainer scores at 1. Only the logprobs of
-- the rollout and the logits of the trainer are available. Which temperature was used, and in
-- which sequences?
--
--     luajit examples/07_temperature_mismatch.lua [FOLDER]
--
-- The example writes a CSV of every token, and a plot of the ratios before and after, to FOLDER.

local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = here .. "/../lua/?.lua;" .. here .. "/support/?.lua;" .. package.path

local samebits = require "samebits"
local results = require "results".folder(arg[1])

local ctx  = assert(samebits.open "cpu")
local data = assert(samebits.load(here .. "/../spec/vectors/smollm2.safetensors"))
local B, T = data.ids.shape[1], data.ids.shape[2]

local function score(temperature)
  return assert(ctx:logprob { logits = data.logits, ids = data.ids, mask = data.mask,
                              temperature = temperature }).token
end

-- The engine's side. The file says at which temperature each completion was sampled; the rest of
-- the example does not use that information again.
local hidden = {}
for number in data.metadata.sampling_temperatures:gmatch "[%d.]+" do
  hidden[#hidden + 1] = tonumber(number)
end
local rollout = score(hidden)

-- The trainer's side.
local trainer = score(1)
local function ratios(tokens)
  local low, high = math.huge, 0
  local met = assert(ctx:compare(rollout, tokens, { outputs = { "ratio" } }))
  for b = 0, B - 1 do
    for t = 0, T - 1 do
      local r = met.ratio:get(b, t)
      low, high = math.min(low, r), math.max(high, r)
    end
  end
  return low, high, met.ratio
end
local low, high, before = ratios(trainer)
print(("ratios, trainer over rollout: %.3f to %.3f\n"):format(low, high))

local function drift(temperature)
  return assert(samebits.drift(
    { logprobs = rollout, name = "rollout" },
    { logits = data.logits, temperature = temperature, name = "trainer" },
    { ids = data.ids, mask = data.mask, worst = 3 }))
end
local report = drift(1)
print(report:text())

-- The first cause in the report, and the sequences that it affects.
local cause = report.causes[1]
assert(cause.cause == "temperature" and report.unexplained == 0)
local found = {}
for b = 1, B do found[b] = 1 end
for _, sequence in ipairs(report.worst_sequences) do
  if sequence.different > 0 then found[sequence.sequence + 1] = cause.temperature end
end
print(("temperature %g explains %d of %d tokens to the last bit; by sequence: %s\n"):format(
      cause.temperature, cause.tokens_exactly, report.tokens.different, table.concat(found, ", ")))

-- At the temperature that was found, the trainer gets the bits of the rollout.
local fixed = score(found)
local after
low, high, after = ratios(fixed)
print(("ratios, trainer over rollout: %g to %g"):format(low, high))
print(tostring(drift(samebits.tensor(found))))

print ""
local rows, rollout_bits, fixed_bits = {}, rollout:bits(), fixed:bits()
for b = 0, B - 1 do
  for t = 0, T - 1 do
    if data.mask:get(b, t) ~= 0 then
      rows[#rows + 1] = { b, t, data.ids:get(b, t), found[b + 1], rollout_bits[b + 1][t + 1],
                          fixed_bits[b + 1][t + 1], before:get(b, t), after:get(b, t) }
    end
  end
end
results:csv("temperature.csv", { "sequence", "position", "id", "temperature", "rollout", "trainer",
                                 "ratio_before", "ratio_after" }, rows)
results:plot("ratios.svg", "ratio_scatter", {
  reference = rollout, mask = data.mask, series = {
    { name = "trainer at temperature 1", logprobs = trainer },
    { name = "trainer at the temperatures found", logprobs = fixed },
  },
})
