#!/usr/bin/env luajit
-- One experiment, divided in four ways: a step of 32 completions as one batch, as 4 micro-batches
-- of 8, as 32 of 1, and on two "ranks" of 16, each in micro-batches of 4. The division is a choice
-- of hardware and memory; it should not be able to change a result.
--
-- With samebits each call of policy_loss is told how many tokens the whole step has, so a token's
-- gradient is the same in any division; the loss is merged from the calls' records; and weight
-- gradients are exact sums over sequences. The conventional twin does what frameworks do: fp32
-- logprobs, a loss that is averaged within each micro-batch and weighted by its tokens, gradients
-- added up as they come, and ranks added to each other.
--
--     luajit examples/09_micro_batches.lua [FOLDER [STEPS]]
--
-- The example writes the losses of each division as CSV to FOLDER.

local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = here .. "/../lua/?.lua;" .. here .. "/support/?.lua;" .. package.path

local ffi = require "ffi"
local samebits = require "samebits"
local conventional = require "samebits.conventional"
local divided = require "divided"
local grpo = require "grpo"
local results = require "results".folder(arg[1])
local STEPS = assert(tonumber(arg[2] or 4), "STEPS is not a number")

local ctx = assert(samebits.open "cpu")
local DIVISIONS = {
  { name = "1 x 32", ranks = 1, micro = 32 },
  { name = "4 x 8", ranks = 1, micro = 8 },
  { name = "32 x 1", ranks = 1, micro = 1 },
  { name = "2 ranks of 4 x 4", ranks = 2, micro = 4 },
}
local PATHS = { { name = "samebits", logprob = ctx.logprob, step = divided.exact },
                { name = "conventional", logprob = conventional.logprob,
                  step = divided.conventional } }

-- The number of elements with different bits.
local function differ(a, b)
  local same, report = samebits.same_bits(a, b)
  return same and 0 or report.count
end

-- Runs a path in one division. Returns, for each step, the loss and the gradients by the tokens,
-- and the weights at the end.
local function train(path, division)
  local run = grpo.new(ctx, { seed = 7, logprob = path.logprob, micro = division.micro })
  local losses, gradients = {}, {}
  for step = 1, STEPS do
    local ids, rollout, rewards = run:rollout()
    for update = 1, grpo.UPDATES do
      local at = (step - 1) * grpo.UPDATES + update
      losses[at], gradients[at] = path.step(run, division, ids, rollout, run:advantages(rewards))
      run.policy:update(grpo.RATE)
    end
  end
  return { losses = samebits.tensor(losses), gradients = gradients, run = run }
end

local rows = {}
print "                                 of the bits of 1 x 32, how many differ in"
print "path           division          losses   gradients by tokens       weights"
for _, path in ipairs(PATHS) do
  local first
  for _, division in ipairs(DIVISIONS) do
    local done = train(path, division)
    first = first or done
    local gradients, total = 0, 0
    for i, t in ipairs(done.gradients) do
      gradients, total = gradients + differ(first.gradients[i], t), total + t:numel()
    end
    local weights, all = grpo.unequal_weights(first.run, done.run)
    print(("%-14s %-15s %3d of %2d     %6d of %6d  %5d of %5d"):format(
      path.name, division.name, differ(first.losses, done.losses), done.losses:numel(), gradients,
      total, weights, all))
    for at = 0, done.losses:numel() - 1 do
      local bits = ffi.cast("const uint32_t *", done.losses.ptr)[at]
      rows[#rows + 1] = { path.name, division.name, at + 1, done.losses[at],
                          ("%08x"):format(bits) }
    end
  end
end
print ""
results:csv("micro_batches.csv", { "path", "division", "update", "loss", "bits" }, rows)
