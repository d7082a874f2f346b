#!/usr/bin/env luajit
-- GRPO on a small policy, run twice: with the logprobs of samebits, and with conventional ones.
--
-- A rollout decodes 32 completions position by position and keeps their logprobs; the trainer
-- scores the same tokens in micro-batches of whole sequences. Before the first update, the policy
-- and its logits are the same, to the last bit, so all ratios should be 1 and the KL 0. The example
-- then shows the effect of the micro-batch size on the weights, and whether a run that was stopped
-- and resumed gives the same result as one that was not.
--
--     luajit examples/03_grpo.lua [FOLDER [STEPS [SEEDS]]]
--
-- The example writes the curves as CSV and plots, and a checkpoint, to FOLDER. The algorithm is in
-- support/grpo.lua.

local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = here .. "/../lua/?.lua;" .. here .. "/support/?.lua;" .. package.path

local samebits = require "samebits"
local conventional = require "samebits.conventional"
local grpo = require "grpo"
local results = require "results".folder(arg[1])
local STEPS = assert(tonumber(arg[2] or 60), "STEPS is not a number")
local SEEDS = assert(tonumber(arg[3] or 2), "SEEDS is not a number")

local ctx = assert(samebits.open "cpu")
local PATHS = { { name = "samebits", logprob = ctx.logprob },
                { name = "conventional", logprob = conventional.logprob } }

local function train(run, steps, visit)
  for _ = 1, steps do
    local notes = run:step()
    if visit then visit(run.steps, notes) end
  end
  return run
end

local HEAD = [[

%s, seed 1
       step   reward | on the rollout's policy, in the trainer's batches  | after the update
                     | tokens unequal   |ratio - 1| <=           KL (k3) |    KL (k3)  clipped]]
local LINE = "%11d %8.3f | %14d %16.3g %17.3g | %10.3g %8.3f"

-- Runs each path with several seeds. The run of the first seed is examined, and saved halfway.
local half, checkpoint = math.ceil(STEPS / 2), results:path "checkpoint.safetensors"
local rows, curves, firsts = {}, { reward = {}, ratio = {}, kl = {} }, {}
for _, path in ipairs(PATHS) do
  for seed = 1, SEEDS do
    if seed == 1 then print(HEAD:format(path.name)) end
    local run = grpo.new(ctx, { seed = seed, logprob = path.logprob, micro = 4 })
    local at = { reward = {}, ratio = {}, kl = {} }
    train(run, STEPS, function(step, notes)
      local on, off = notes.updates[1], notes.updates[2]
      at.reward[step], at.ratio[step], at.kl[step] = notes.reward, on.ratio, on.kl
      rows[#rows + 1] = { path.name, seed, step, notes.reward, on.unequal, on.ratio, on.kl, off.kl,
                          off.clipped }
      if seed > 1 then return end
      if step == 1 or step % math.ceil(STEPS / 6) == 0 then
        print(LINE:format(step, notes.reward, on.unequal, on.ratio, on.kl, off.kl, off.clipped))
      end
      if path.name == "samebits" and step == half then run:save(checkpoint) end
    end)
    firsts[path.name] = firsts[path.name] or run
    for what, list in pairs(curves) do
      list[#list + 1] = { name = ("%s, seed %d"):format(path.name, seed), y = at[what] }
    end
  end
end

local function compare(what, path, a, b)
  local unequal, weights = grpo.unequal_weights(a, b)
  print(("%-28s %-14s %4d of %d weights differ"):format(what, path, unequal, weights))
end

-- The same seed with other micro-batches, and a run that resumes from halfway.
print(("\nafter %d steps:"):format(STEPS))
for _, path in ipairs(PATHS) do
  local other = grpo.new(ctx, { seed = 1, logprob = path.logprob, micro = 16 })
  compare("micro-batches of 4 and of 16", path.name, firsts[path.name], train(other, STEPS))
end
local resumed = grpo.resume(ctx, checkpoint, { seed = 1, logprob = ctx.logprob, micro = 4 })
compare(("resumed at step %d"):format(half), "samebits", firsts.samebits,
        train(resumed, STEPS - half))
print ""

results:csv("grpo.csv", { "path", "seed", "step", "reward", "unequal", "ratio", "kl", "kl_updated",
                          "clipped" }, rows)
local steps = {}
for step = 1, STEPS do steps[step] = step end
results:plot("reward.svg", "training", { title = "reward", steps = steps, curves = curves.reward })
results:plot("ratio.svg", "training", { title = "largest |ratio - 1|, on the rollout's own policy",
                                        steps = steps, curves = curves.ratio })
results:plot("kl.svg", "training", { title = "KL to the rollout (k3), on the rollout's own policy",
                                     steps = steps, curves = curves.kl })
