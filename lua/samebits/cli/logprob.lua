--- `samebits logprob FILE`: prints the logprobs of token ids.

local ffi = require "ffi"
local json = require "dkjson"
local options = require "samebits.cli.options"
local printable = require "samebits.text.printable"
local samebits = require "samebits"
local tell = require "samebits.cli.tell"

local M = {}

M.name = "logprob"
M.summary = "Print the logprobs of token ids."

local JSON = [[
--json prints one object: version, numerics, backend, isa, used (FILE or
FILE:NAME of logits, ids, ...), unused (a list: what else the files hold),
token, token_bits, lse, lse_bits (a list for each sequence), sequence,
sequence_bits, count. Numbers have 9 digits and read back to the same fp32; bits
are its encoding in hex. What is not finite is null, and its bits tell: ff800000
is -inf, 7fc00000 is NaN.

    samebits logprob dump.safetensors
    samebits logprob logits.npy ids.npy --mask mask.npy --temperature 0.7]]

--- Adds the command's arguments to its argparse parser.
function M.define(command)
  command:epilog(options.FILES .. "\n\n" .. JSON)
  command:argument("files", "Logits [B, T, V], or [N, V], or hidden states and a head, and what " ..
                            "else the files hold. Of .npy files floats are the logits, integers " ..
                            "the ids."):args "*"
    :argname "FILE[:NAME]"
  command:option("--logits", "Logits, as FILE."):argname "FILE[:NAME]"
  options.add_batch(command)
  command:option("--backend", "cpu, cuda or auto, the best one here.", "auto"):argname "NAME"
  options.add_cpu(command)
  command:flag("--json", "Print one JSON object.")
end

local function as_words(t) return ffi.cast("const uint32_t *", t.ptr) end
local function as_floats(t) return ffi.cast("const float *", t.ptr) end

-- Nine significant digits, which read back to the same fp32.
local function digits(x) return ("%.9g"):format(x) end
local function number(x) return tonumber(digits(x)) end
local function hex(word) return ("%08x"):format(word) end

-- B lists of f(row), one per sequence.
local function by_sequence(batch, f)
  local lists = {}
  for b = 0, batch.sequences - 1 do
    local list = setmetatable({}, { __jsontype = "array" })
    local first, past = batch:bounds(b)
    for row = first, past - 1 do list[#list + 1] = f(row) end
    lists[b + 1] = list
  end
  return setmetatable(lists, { __jsontype = "array" })
end

local function list(n, f)
  local values = setmetatable({}, { __jsontype = "array" })
  for i = 0, n - 1 do values[i + 1] = f(i) end
  return values
end

local KEYS = {
  "version", "numerics", "backend", "isa", "used", "unused", "token", "token_bits", "lse",
  "lse_bits", "sequence", "sequence_bits", "count",
}

local function as_json(ctx, batch, out, gathered)
  local function numbers_of(t) return function(i) return number(as_floats(t)[i]) end end
  local function bits_of(t) return function(i) return hex(as_words(t)[i]) end end
  local count = ffi.cast("const int64_t *", out.count.ptr)
  local used, unused = gathered:places()
  return printable.json(json.encode({
    version = samebits.version,
    numerics = samebits.numerics,
    backend = ctx.backend,
    isa = ctx.isa,
    used = used,
    unused = unused,
    token = by_sequence(batch, numbers_of(out.token)),
    token_bits = by_sequence(batch, bits_of(out.token)),
    lse = by_sequence(batch, numbers_of(out.lse)),
    lse_bits = by_sequence(batch, bits_of(out.lse)),
    sequence = list(batch.sequences, numbers_of(out.sequence)),
    sequence_bits = list(batch.sequences, bits_of(out.sequence)),
    count = list(batch.sequences, function(b) return tonumber(count[b]) end),
  }, { keyorder = KEYS })) .. "\n"
end

local function as_text(ctx, batch, out, told)
  local lines = {
    ("numerics %d, %s (%s)"):format(samebits.numerics, ctx.backend, ctx.isa), unpack(told),
  }
  local flags = batch:active()
  local active = ffi.cast("const uint8_t *", flags.ptr)
  local ids = ffi.cast(batch.ids.dtype == "int64" and "const int64_t *" or "const int32_t *",
                       batch.ids.ptr)
  local count = ffi.cast("const int64_t *", out.count.ptr)
  for b = 0, batch.sequences - 1 do
    local n = tonumber(count[b])
    lines[#lines + 1] = ("\nsequence %d: logprob %s, bits %s, %d token%s"):format(b,
      digits(as_floats(out.sequence)[b]), hex(as_words(out.sequence)[b]), n, n == 1 and "" or "s")
    local first, past = batch:bounds(b)
    if n > 0 then
      lines[#lines + 1] = ("%10s %10s %16s %9s %16s %9s"):format("position", "id", "logprob",
                                                                 "bits", "lse", "bits")
    end
    for row = first, past - 1 do
      if active[row] ~= 0 then
        lines[#lines + 1] = ("%10d %10d %16s %9s %16s %9s"):format(row - first, tonumber(ids[row]),
          digits(as_floats(out.token)[row]), hex(as_words(out.token)[row]),
          digits(as_floats(out.lse)[row]), hex(as_words(out.lse)[row]))
      end
    end
  end
  return table.concat(lines, "\n") .. "\n"
end

--- Runs the command with argparse's result. Returns the exit status.
function M.run(args)
  if #args.files == 0 and not args.logits then
    tell.misuse "give a FILE with logits and ids"
  end
  local spec, gathered = options.batch(args, args.files)
  if not spec.ids then
    local files = { unpack(args.files) }
    files[#files + 1] = args.logits
    tell.fail("no ids in %s: name them by --ids FILE[:NAME]", table.concat(files, " and "))
  end
  local told = options.settings(spec)
  -- Hidden states are scored on the cpu, where the files are, unless another backend is asked for.
  local backend = spec.head and args.backend == "auto" and "cpu" or args.backend
  local ctx = tell.try(samebits.open, backend, { threads = args.threads, isa = args.isa })
  if spec.head then
    if ctx.device ~= "cpu" then tell.misuse "hidden states need --backend cpu" end
    spec.head = tell.try(ctx.head, ctx, spec.head, { format = spec.format })
    spec.format = nil
  end
  local batch = tell.try(samebits.batch, spec)
  local moved = tell.try(batch.to, batch, ctx.device)
  local out = tell.try(ctx.logprob, ctx, moved)
  for name, t in pairs(out) do out[name] = tell.try(t.to, t, "cpu") end
  local text = args.json and as_json(ctx, batch, out, gathered) or
               as_text(ctx, batch, out, gathered:lines(told))
  options.check_files(gathered)
  tell.write(text)
  ctx:close()
  return tell.WELL
end

return M
