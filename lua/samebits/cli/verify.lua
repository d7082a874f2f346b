--- samebits verify: the command's options and output.

local json = require "dkjson"
local formats = require "samebits.formats"
local samebits = require "samebits"
local tensor = require "samebits.tensor"

local M = {}

M.SUMMARY = "Show which changes around a token change its logprob's bits."

--- The exit status of errors: neither yes nor no.
M.UNUSABLE = 2

local ABOUT = [[
Lays the sequences of FILE out anew in many ways (alone, in larger batches,
shuffled, padded, packed, in pieces, at other addresses, with other threads, in
shards ..), scores each, and counts the tokens whose logprob or lse has not the
bits that one batch of them all gives: for samebits, and for conventional fp32
log_softmax, which stands for what frameworks do.

FILE is a .safetensors file, whose tensors logits, ids, mask, cu_seqlens and
temperature are taken where present, or a .npy file of logits. Options name
others. Without ids each row's likeliest id is scored. Of a large file some
rows are taken, chosen by --seed.

Exit status: 0, no bit of samebits' changed; 1, some did; 2, FILE is unusable.]]

local JSON = [[
--json prints one object: version, numerics, ok, seed, rounds, dtype, shape,
sampled, paths (what was verified: tokens, mismatches, max_ulps, first ..) and
transforms, each with results, one a path, false where it does not apply.]]

--- Adds arguments and options to a command.
function M.define(command, shared)
  command:summary(M.SUMMARY)
  command:description(ABOUT)
  command:epilog(shared.formats .. "\n\n" .. JSON)
  command:argument("file", "Logits [B, T, V], or [N, V], and what else it holds.")
    :argname "FILE[:NAME]"
  command:option("--ids", "Target ids, [B, T] or [N]."):argname "FILE[:NAME]"
  shared.add_batch_options(command)
  command:option("--seed", "Where choices start.", "1", shared.integer(1, 2 ^ 31)):argname "N"
  command:option("--rows", "Take at most so many rows.", nil, shared.integer(1, 2 ^ 31))
    :argname "N"
  command:option("--rounds", "How often to try each transform.", "2", shared.integer(1, 1000))
    :argname "N"
  command:option("--backend", "The one to verify: cpu or cuda; all that are here by default.")
    :argname "NAME"
  shared.add_cpu_options(command)
  command:flag("--json", "Print one JSON object.")
end

local OTHERS = { "ids", "mask", "cu_seqlens", "temperature" }

-- What the file itself holds beside logits, where no option names another.
local function add_from_file(args, spec)
  local held = formats.load(args.file) or formats.load((args.file:gsub(":[^:]*$", "")))
  if not held or tensor.is_tensor(held) then return end
  for _, name in ipairs(OTHERS) do
    if args[name] == nil and rawget(held, name) then spec[name] = held[name] end
  end
end

local KEYS = {
  "version", "numerics", "ok", "seed", "rounds", "dtype", "shape", "vocab", "sampled",
  "chosen_ids", "paths", "transforms", "name", "kind", "backend", "context", "about", "results",
  "tokens", "mismatches", "sequences", "sequence_mismatches", "differences", "max_ulps",
  "max_apart", "error", "first", "transform", "output", "sequence", "position", "id", "want", "got",
  "want_value", "got_value", "ulps", "text",
}

local function as_json(report)
  return json.encode(report, { keyorder = KEYS }) .. "\n"
end

--- Runs the command; its exit status. tools: what the command line has to load, write and fail.
function M.run(args, tools)
  local spec = tools.batch_options(args)
  spec.logits = tools.try(formats.load_one, args.file, "logits")
  if args.ids then spec.ids = tools.load(args.ids, "ids") end
  add_from_file(args, spec)
  local report = tools.try(samebits.verify, spec, {
    seed = args.seed, rows = args.rows, rounds = args.rounds, backend = args.backend,
    threads = args.threads, isa = args.isa,
  })
  tools.write(args.json and as_json(report) or tostring(report) .. "\n")
  return report.ok and 0 or 1
end

return M
