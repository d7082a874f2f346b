--- `samebits drift A B`: compares two sets of logprobs or logits, and says why they differ.

local drift = require "samebits.drift"
local file = require "samebits.io.file"
local options = require "samebits.cli.options"
local posix = require "samebits.io.posix"
local tell = require "samebits.cli.tell"

local M = {}

M.name = "drift"
M.summary = "Compare two sets of logprobs or logits bit by bit, and say why they differ."

M.epilog = [[
A is the policy that the tokens were sampled from (the rollout), B the other one
(the trainer). Each is a FILE or FILE:NAME: a .npy file of logprobs [B, T] or
[N], or of logits [B, T, V]; or a .safetensors file that holds logprobs, logits,
ids, mask, cu_seqlens, temperature, kept: all that is there is used, and what
both hold of these has to be equal, too. Logits need ids. Logprobs [B, T - 1]
beside logits [B, T, V] and ids [B, T] are those of ids 1 to T - 1, each by the
logits of the position before. Sides in different layouts, such as padded and
packed, are aligned by their ids, if both have them. With the logits of a side
the report can tell a wrong temperature, top-k, top-p or padding from an op that
differs, and that from logits that differ already.

The verdict is one of: equal; explained (by a setting that was computed again);
localized (the logits, the op or the ids differ); unexplained; inconclusive
(what would decide it was not given).

Exit status: 0 equal, 1 any other verdict, 2 something given cannot be used.

    samebits drift rollout.safetensors trainer.safetensors
    samebits drift old.npy new.npy --logits-b logits.npy --ids ids.npy
    samebits drift dump.safetensors:old dump.safetensors:new --html drift.html]]

--- Adds the command's arguments to its argparse parser.
function M.define(command)
  command:epilog(M.epilog)
  command:argument("a", "The side that the tokens were sampled from."):argname "A"
  command:argument("b", "The other side."):argname "B"
  local function tensor(option, text) command:option(option, text):argname "FILE[:NAME]" end
  tensor("--ids", "Target ids, [B, T] or [N].")
  tensor("--mask", "The same shape, non-zero where a token counts.")
  tensor("--cu-seqlens", "[B + 1]: where the sequences of [N] tokens start and end.")
  for _, side in ipairs { "a", "b" } do
    local label = side:upper()
    tensor("--logits-" .. side, ("Logits behind %s, where %s is logprobs."):format(label, label))
  end
  command:option("--temperature", "Of both sides: a number, or FILE[:NAME] with one per token.")
    :argname "T"
  command:option("--temperature-a", "Of A."):argname "T"
  command:option("--temperature-b", "Of B."):argname "T"
  for _, side in ipairs { "a", "b" } do
    tensor("--kept-" .. side,
           ("Kept sets of %s (top-k, top-p, grammar), one row per token."):format(side:upper()))
    tensor("--kept-ids-" .. side, ("The same as lists: all kept ids of %s."):format(side:upper()))
    tensor("--kept-offsets-" .. side, "Where each token's kept ids begin, and their number.")
  end
  command:option("--vocab", "Ids of the vocabulary, where logits have padding behind them.", nil,
                 options.integer(1, 2 ^ 31)):argname "V"
  command:option("--name-a", "What to call A."):argname "NAME"
  command:option("--name-b", "What to call B."):argname "NAME"
  command:option("--ignore-index", "The id of tokens that do not count.", nil,
                 options.integer(-2 ^ 53, 2 ^ 53)):argname "N"
  command:flag("--align", "Align tokens by their ids, as is done where the layouts differ.")
  command:flag("--shift", "Logits of row t score id t + 1 of the same sequence.")
  command:option("--near", "Nats within which a token counts as nearly explained.", nil,
                 options.number(0, 1)):argname "NATS"
  command:option("--worst", "How many of the worst tokens to list.", nil, options.integer(0, 10000))
    :argname "N"
  command:option("--memory", "MiB of logits to hold at a time (256).", nil,
                 options.integer(1, 2 ^ 30)):argname "MIB"
  command:option("--backend", "cpu, cuda or auto: where to compute."):argname "NAME"
  command:option("--threads", "cpu: threads to work with.", nil, options.integer(1, 1024))
    :argname "N"
  command:flag("--json", "Print one JSON object.")
  command:option("--html", "Write a page with a heatmap, plots and tables, too."):argname "PAGE"
  command:option("--csv", "Write the tokens one by one as comma-separated values, too.")
    :argname "FILE"
  command:option("--jsonl", "Write the tokens one by one as JSON lines, too."):argname "FILE"
  command:option("--tokenizer", "A tokenizer.json or vocab.json, for the texts of ids.")
    :argname "FILE"
  command:option("--keep", "The most tokens to hold one by one, for --html, --csv and --jsonl " ..
                 "(4194304).", nil, options.integer(0, 2 ^ 31)):argname "N"
  command:flag("--hash", "Hash files of any size (by default, of up to 16 MiB).")
  command:flag("--quiet", "Print nothing but errors: the exit status tells.")
end

-- Columns of the terminal, or 80 if unknown.
local function width(fd) return posix.columns(fd) or 80 end

local PERIOD = 0.1 -- seconds between two updates of the progress bar
local QUIET = 0.5  -- seconds before the first update

-- A progress bar on stderr, if stderr is a terminal.
local function progress()
  if not posix.is_terminal(2) then return nil end
  local start, last, shown = os.clock(), 0, false
  return function(done, total, what)
    local now = os.clock()
    if done == total and shown then
      io.stderr:write "\r\27[K"
      shown = false
    elseif now - start > QUIET and now - last > PERIOD and done < total then
      last, shown = now, true
      local room = math.max(10, math.min(40, width(2) - 30))
      local full = math.floor(room * done / total)
      io.stderr:write(("\r\27[K%-10s [%s%s] %3d %%"):format(what, ("#"):rep(full),
        ("."):rep(room - full), math.floor(100 * done / total)))
    end
  end
end

-- The command as words for a shell.
local function command_of(argv)
  local words = { "samebits" }
  for _, word in ipairs(argv) do
    words[#words + 1] = word:find "[^%w%-_./:=,+@%%]" and "'" .. word:gsub("'", "'\\''") .. "'" or
                        word
  end
  return table.concat(words, " ")
end

--- Runs the command with argparse's result and the words as given. Returns the exit status.
function M.run(args, _, argv)
  local temperatures = {}
  for _, name in ipairs { "temperature", "temperature_a", "temperature_b" } do
    temperatures[name] = options.temperature("--" .. name:gsub("_", "-"), args[name])
  end
  local report = tell.try(drift.drift, args.a, args.b, {
    ids = args.ids, mask = args.mask, cu_seqlens = args.cu_seqlens, vocab = args.vocab,
    temperature = temperatures.temperature,
    a = { logits = args.logits_a, temperature = temperatures.temperature_a,
          kept = args.kept_a, kept_ids = args.kept_ids_a, kept_offsets = args.kept_offsets_a,
          name = args.name_a },
    b = { logits = args.logits_b, temperature = temperatures.temperature_b,
          kept = args.kept_b, kept_ids = args.kept_ids_b, kept_offsets = args.kept_offsets_b,
          name = args.name_b },
    ignore_index = args.ignore_index, shift = args.shift, near = args.near, worst = args.worst,
    memory = args.memory and args.memory * 2 ^ 20, backend = args.backend, threads = args.threads,
    progress = progress(), align = args.align,
    tokenizer = args.tokenizer, hash = args.hash and 2 ^ 53 or nil,
    keep = args.keep or (args.csv or args.jsonl) and 2 ^ 31 or nil,
    command = argv and command_of(argv),
  })
  local tokens = report.tokens
  if tokens.compared + tokens.only_a + tokens.only_b == 0 then
    tell.fail "no token is active on either side: nothing was compared"
  end
  if args.html then tell.try(file.write, args.html, { report:html() }) end
  if args.csv then tell.try(report.csv, report, args.csv) end
  if args.jsonl then tell.try(report.jsonl, report, args.jsonl) end
  if args.json then
    tell.write(report:json())
  elseif not args.quiet then
    local tty = posix.is_terminal(1)
    tell.write(report:text { width = width(1), color = tty and not os.getenv "NO_COLOR" })
  end
  return report.verdict == "equal" and tell.WELL or tell.NO
end

return M
