#!/usr/bin/env luajit
-- A run looks wrong, so the rollout and the trainer dumped their data of four completions:
-- logprobs, logits, ids and mask. Three things are wrong at once, and each hides the next.
-- `samebits drift` compares the dumps and says why they differ. Each cause that it names is fixed,
-- until the dumps are the same.
--
--     luajit examples/04_drift_dump.lua [FOLDER]
--
-- The example writes the dumps, a page with the first comparison, a CSV of the findings, and a plot
-- of the drift by position to FOLDER.

local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = here .. "/../lua/?.lua;" .. here .. "/support/?.lua;" .. package.path

local samebits = require "samebits"
local conventional = require "samebits.conventional"
local results = require "results".folder(arg[1])

-- The bits of conventional logprobs depend on the number of threads, so it is fixed here.
local ctx  = assert(samebits.open("cpu", { threads = 8 }))
local data = assert(samebits.load(here .. "/../spec/vectors/smollm2.safetensors"))
local B, T, V = data.logits.shape[1], data.logits.shape[2], data.logits.shape[3]

-- The rollout engine decodes one position of every sequence at a time.
local function decoded(logprob)
  local tokens = samebits.zeros { B, T }
  for t = 0, T - 1 do
    local out = assert(logprob(ctx, samebits.batch {
      logits = data.logits:slice(1, t, t + 1), ids = data.ids:slice(1, t, t + 1),
      mask = data.mask:slice(1, t, t + 1) }))
    for b = 0, B - 1 do tokens:set(out.token:get(b, 0), b, t) end
  end
  return tokens
end

-- The trainer scores all positions at once.
local function whole(logprob, logits, mask)
  return assert(logprob(ctx, samebits.batch { logits = logits, ids = data.ids, mask = mask })).token
end

-- The trainer's mistakes. Its vocabulary is padded with ids whose logits are copies of the logit of
-- the pad token, id 2. Its mask takes the end of a completion, which has the same id, for padding.
local PADDING = 128
local padded = samebits.zeros({ B, T, V + PADDING }, "bfloat16")
local short = data.mask:clone()
for b = 0, B - 1 do
  for t = 0, T - 1 do
    local row, from = padded[b][t], data.logits[b][t]
    row:slice(0, 0, V):copy_(from)
    for i = V, V + PADDING - 1 do row[i] = from[2] end
    if data.ids:get(b, t) == 2 then short:set(0, b, t) end
  end
end

local function dump(name, logprobs, logits, mask)
  assert(samebits.save(results:path(name), { logprobs = logprobs, logits = logits, ids = data.ids,
                                             mask = mask }))
  return name
end

-- Runs `samebits drift` as a user would in a shell, and reads the same report from Lua. The first
-- report is shown in full, later ones only in part.
local rows = {}
local function quoted(word) return "'" .. word:gsub("'", "'\\''") .. "'" end
local function compare(what, rollout, trainer, options)
  local arguments = ("drift %s %s %s"):format(options, rollout, trainer)
  print(("\n==== %s\n$ samebits %s"):format(what, arguments))
  io.stdout:flush()
  local status = os.execute(('bin=$(cd %s/../bin && pwd); cd %s && luajit "$bin"/samebits %s')
    :format(quoted(here), quoted(results.name), arguments)) / 256
  print("exit status " .. status)
  local report = assert(samebits.drift(results:path(rollout), results:path(trainer)))
  print(report)
  local function row(cause, tokens, exactly)
    rows[#rows + 1] = { what, report.tokens.compared, report.tokens.different,
                        report.tokens.only_a, cause, tokens, exactly, status }
  end
  for _, cause in ipairs(report.causes) do
    print(("  %d of %d: %s"):format(cause.tokens, report.tokens.different, cause.text))
    row(cause.cause, cause.tokens, cause.tokens_exactly)
  end
  if report.unexplained > 0 then
    print(("  %d unexplained"):format(report.unexplained))
    row("unexplained", report.unexplained, 0)
  end
  if report.equal then row("none", 0, 0) end
end

local drifting = decoded(conventional.logprob)
local padded_tokens = whole(conventional.logprob, padded, data.mask)
local cut_tokens = whole(conventional.logprob, data.logits, data.mask)

local rollout = dump("rollout.safetensors", drifting, data.logits, data.mask)
compare("as dumped", rollout, dump("trainer1.safetensors",
        whole(conventional.logprob, padded, short), padded, short), "--worst 3 --html drift.html")

-- The report names the padding, and tokens that only the rollout counts, which is due to the mask.
compare("mask mended", rollout,
        dump("trainer2.safetensors", padded_tokens, padded, data.mask), "--quiet")
compare("vocabulary cut to its ids", rollout,
        dump("trainer3.safetensors", cut_tokens, data.logits, data.mask), "--quiet")

-- The logits are equal now. The operation still differs: it sums in an order that depends on the
-- shape of the batch. With samebits there is only one value, whatever the batch.
compare("both by samebits",
  dump("rollout4.safetensors", decoded(ctx.logprob), data.logits, data.mask),
  dump("trainer4.safetensors", whole(ctx.logprob, data.logits, data.mask), data.logits, data.mask),
  "--quiet")

print ""
results:csv("causes.csv", { "dump", "compared", "different", "only_rollout", "cause", "tokens",
                            "exactly", "status" }, rows)
results:plot("positions.svg", "drift_by_position", {
  title = "trainer and rollout, both conventional", logy = true, reference = drifting,
  mask = data.mask, series = { { name = "padded vocabulary", logprobs = padded_tokens },
                               { name = "vocabulary cut to its ids", logprobs = cut_tokens } },
})
