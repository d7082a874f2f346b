--- `samebits verify FILE`: shows which changes around a token change its logprob's bits.

local options = require "samebits.cli.options"
local posix = require "samebits.io.posix"
local samebits = require "samebits"
local tell = require "samebits.cli.tell"

local M = {}

M.name = "verify"
M.summary = "Show which changes around a token change its logprob's bits."

local ABOUT = [[
Lays the sequences of FILE out anew in many ways (alone, in larger batches,
shuffled, padded, packed, in pieces, at other addresses, with other threads, in
shards ..), scores each, and counts the tokens whose logprob or lse has not the
bits that one batch of them all gives: for samebits, and for conventional fp32
log_softmax, which stands for what frameworks do.

Without ids each row's likeliest id is scored. Of a large file some rows are
taken, chosen by --seed.

Exit status: 0, no bit of samebits' changed; 1, some did; 2, FILE is unusable.]]

local JSON = [[
--json prints one object: version, numerics, ok, used (FILE or FILE:NAME of
logits, ids, ...), unused, seed, rounds, dtype, shape, sampled, paths (what was
verified: tokens, mismatches, max_ulps, first ..) and transforms, each with
results, one per path, false where it does not apply.]]

--- Adds the command's arguments to its argparse parser.
function M.define(command)
  command:summary(M.summary)
  command:description(ABOUT)
  command:epilog(options.FILES .. "\n\n" .. JSON)
  command:argument("file", "Logits [B, T, V], or [N, V], and what else it holds.")
    :argname "FILE[:NAME]"
  options.add_batch(command)
  command:option("--seed", "Where choices start.", "1", options.integer(1, 2 ^ 31)):argname "N"
  command:option("--rows", "Take at most so many rows.", nil, options.integer(1, 2 ^ 31))
    :argname "N"
  command:option("--rounds", "How often to try each transform.", "2", options.integer(1, 1000))
    :argname "N"
  command:option("--backend", "The one to verify: cpu or cuda; all that are here by default.")
    :argname "NAME"
  options.add_cpu(command)
  command:flag("--json", "Print one JSON object.")
  command:option("--html", "Write a page, too."):argname "PAGE"
end

--- Runs the command with argparse's result. Returns the exit status.
function M.run(args)
  local spec, gathered = options.batch(args, { args.file })
  local report = tell.try(samebits.verify, spec, {
    seed = args.seed, rows = args.rows, rounds = args.rounds, backend = args.backend,
    threads = args.threads, isa = args.isa,
  })
  options.check_files(gathered)
  report.used, report.unused = gathered:places()
  if args.html then tell.try(report.html, report, args.html) end
  if args.json then
    tell.write(tell.try(report.json, report))
  else
    local told = table.concat(gathered:lines(options.settings(spec)), "\n")
    tell.write(("%s\n\n%s"):format(told, report:text { width = posix.columns(1) }))
  end
  return report.ok and tell.WELL or tell.NO
end

return M
