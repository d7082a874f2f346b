#!/usr/bin/env luajit
-- Computes the logprobs of a real model's tokens, then shows the bits of one sequence in four
-- different batches.
--
--     luajit examples/01_quickstart.lua [FILE.safetensors [FOLDER]]
--
-- FILE holds logits [B, T, V], ids [B, T] and a mask [B, T] that is 1 on the tokens of each
-- completion; logits[b, t] score ids[b, t]. The example writes a CSV of the tokens and a plot of
-- their logprobs by position to FOLDER.

local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = here .. "/../lua/?.lua;" .. here .. "/support/?.lua;" .. package.path

local samebits = require "samebits"
local results = require "results".folder(arg[2])

-- The main job.
local ctx   = assert(samebits.open())
local data  = assert(samebits.load(arg[1] or here .. "/../spec/vectors/smollm2.safetensors"))
local batch = samebits.batch { logits = data.logits, ids = data.ids, mask = data.mask,
                               temperature = 1.0 }
-- On a GPU, the batch must be in the GPU's memory. The results stay there, and are copied when they
-- are read.
local out   = assert(ctx:logprob(batch:to(ctx.device)))
                                              -- out.token [B, T], out.sequence [B], out.lse [B, T]

print(ctx)
print(batch)

local token, sequence = out.token:totable(), out.sequence:totable()
local token_bits, sequence_bits = out.token:bits(), out.sequence:bits()
local B, T = out.token.shape[1], out.token.shape[2]
local rows, series = {}, {}

print(("\n%10s %10s %8s %16s %10s"):format("sequence", "position", "id", "logprob", "bits"))
for b = 0, B - 1 do
  local x, y = {}, {}
  for t = 0, T - 1 do
    if data.mask:get(b, t) ~= 0 then
      print(("%10d %10d %8d %16.9g %10s"):format(b, t, data.ids:get(b, t), token[b + 1][t + 1],
                                                 token_bits[b + 1][t + 1]))
      rows[#rows + 1] = { b, t, tonumber(data.ids:get(b, t)), token[b + 1][t + 1],
                          token_bits[b + 1][t + 1] }
      x[#x + 1], y[#y + 1] = t, token[b + 1][t + 1]
    end
  end
  series[b + 1] = { name = "sequence " .. b, x = x, y = y }
  print(("%10d %10s %8s %16.9g %10s"):format(b, "sum", "", sequence[b + 1], sequence_bits[b + 1]))
  print()
end

-- The same sequence together with others. Each sequence is first cut to its own length.
local ragged = {}
for b = 0, B - 1 do
  local length = 0
  for t = 0, T - 1 do length = length + tonumber(data.mask:get(b, t)) end
  ragged[b + 1] = { logits = data.logits[b]:slice(0, 0, length),
                    ids = data.ids[b]:slice(0, 0, length) }
end
local mine = ragged[1]

local batches = {
  { "alone", 0,
    samebits.batch { logits = mine.logits, ids = mine.ids } },
  { "last of four, padded on the right", 3,
    samebits.batch_from { sequences = { ragged[4], ragged[3], ragged[2], mine } } },
  { "in the middle, padded on the left to 40", 1,
    samebits.batch_from { sequences = { ragged[2], mine, ragged[3] }, layout = "left",
                          length = 40 } },
  { "packed between others", 2,
    samebits.batch_from { sequences = { ragged[3], ragged[2], mine, ragged[4] },
                          layout = "packed" } },
}

print(("sequence 0 in four batches\n%-42s %16s %10s  token bits"):format("", "logprob", "bits"))
for _, entry in ipairs(batches) do
  local name, b, made = entry[1], entry[2], entry[3]
  local result = assert(ctx:logprob(made:to(ctx.device)))
  local active, all = made:active():view(-1), result.token:view(-1)
  local tokens = {}
  local first, past = made:bounds(b)
  for row = first, past - 1 do
    if active[row] ~= 0 then tokens[#tokens + 1] = all[row] end
  end
  tokens = samebits.tensor(tokens)
  local sum = result.sequence:slice(0, b, b + 1)
  print(("%-42s %16.9g %10s  %s .. %s"):format(name, sum[0], sum:bits()[1], tokens:bits()[1],
                                               tokens:bits()[tokens:len()]))

  -- The point of the library: the bits are not merely close, but the same.
  assert(samebits.same_bits(tokens, out.token[0]:slice(0, 0, tokens:len())))
  assert(samebits.same_bits(sum, out.sequence:slice(0, 0, 1)))
end
print("the same bits in all of them")

results:csv("tokens.csv", { "sequence", "position", "id", "logprob", "samebits" }, rows)
results:plot("tokens.svg", "draw", { kind = "lines", title = "Logprobs of a real model's tokens",
                                     xlabel = "position", ylabel = "logprob", series = series })
