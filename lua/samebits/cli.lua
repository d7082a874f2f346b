--- The command line behind bin/samebits.
--
-- Exit status: 0; 1 for an error, told in one line on stderr; 2 for wrong usage, with the usage.
-- Of verify and drift: 1 where bits change or differ, 2 for errors, too.

local ffi = require "ffi"
local argparse = require "argparse"
local json = require "dkjson"
local samebits = require "samebits"
local lib = require "samebits.lib"
local repl = require "samebits.cli.repl"
local formats = require "samebits.formats"
local selftest = require "samebits.selftest"
local variants = require "samebits.variants"
local verify = require "samebits.cli.verify"

-- Raised by fail, caught by main.
local Failure = {}

local function fail(format, ...)
  error(setmetatable({ message = select("#", ...) > 0 and format:format(...) or format }, Failure),
        0)
end

-- f's result; any failure of it, of either kind, ends the command.
local function try(f, ...)
  local ok, result, message = pcall(f, ...)
  if not ok then
    if getmetatable(result) == Failure then error(result, 0) end
    fail("%s", tostring(result))
  end
  if result == nil then fail("%s", tostring(message)) end
  return result
end

local function write(text)
  local ok, why = io.stdout:write(text)
  if ok then ok, why = io.stdout:flush() end
  if not ok then fail("cannot write the output: %s", tostring(why)) end
end

-- info -------------------------------------------------------------------------------------------

-- What the cpu offers: "avx2, scalar; avx512 is not: why".
local function describe_cpu()
  local present, absent = {}, {}
  for _, isa in ipairs(variants.ISAS) do
    local ctx, why = samebits.open("cpu", { isa = isa })
    if ctx then
      present[#present + 1] = isa
      ctx:close()
    else
      absent[#absent + 1] = why
    end
  end
  local text = table.concat(present, ", ")
  if #absent > 0 then text = text .. " (" .. table.concat(absent, "; ") .. ")" end
  return text
end

local function info()
  local lines = {}
  local function add(...) lines[#lines + 1] = string.format(...) end
  add("samebits   %s", samebits.version)
  add("numerics   %d", samebits.numerics)
  add("abi        %d", samebits.abi)
  add("library    %s", lib.path)
  for _, backend in ipairs(samebits.backends()) do
    if not backend.available then
      add("backend    %s: unavailable: %s", backend.name, backend.why)
    else
      local ctx, why = samebits.open(backend.name)
      if not ctx then
        add("backend    %s: unavailable: %s", backend.name, why)
      else
        add("backend    %s: available, %s", ctx.backend, ctx:describe())
        ctx:close()
        if backend.name == "cpu" then add("isa        %s", describe_cpu()) end
      end
    end
  end
  write(table.concat(lines, "\n") .. "\n")
  return 0
end

-- logprob ----------------------------------------------------------------------------------------

local function load(spec, role)
  if not spec then return nil end
  local loaded, why = formats.load_one(spec, role)
  if not loaded then fail("--%s: %s", role:gsub("_", "-"), why) end
  return loaded
end

local function as_words(t) return ffi.cast("const uint32_t *", t.ptr) end
local function as_floats(t) return ffi.cast("const float *", t.ptr) end

-- Nine significant digits, which read back to the same fp32.
local function digits(x) return ("%.9g"):format(x) end
local function number(x) return tonumber(digits(x)) end
local function hex(word) return ("%08x"):format(word) end

-- B lists of f(row), one a sequence.
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
  "version", "numerics", "backend", "isa", "token", "token_bits", "lse", "lse_bits", "sequence",
  "sequence_bits", "count",
}

local function as_json(ctx, batch, out)
  local function numbers_of(t) return function(i) return number(as_floats(t)[i]) end end
  local function bits_of(t) return function(i) return hex(as_words(t)[i]) end end
  local count = ffi.cast("const int64_t *", out.count.ptr)
  return json.encode({
    version = samebits.version,
    numerics = samebits.numerics,
    backend = ctx.backend,
    isa = ctx.isa,
    token = by_sequence(batch, numbers_of(out.token)),
    token_bits = by_sequence(batch, bits_of(out.token)),
    lse = by_sequence(batch, numbers_of(out.lse)),
    lse_bits = by_sequence(batch, bits_of(out.lse)),
    sequence = list(batch.sequences, numbers_of(out.sequence)),
    sequence_bits = list(batch.sequences, bits_of(out.sequence)),
    count = list(batch.sequences, function(b) return tonumber(count[b]) end),
  }, { keyorder = KEYS }) .. "\n"
end

local function as_text(ctx, batch, out)
  local lines = {
    ("numerics %d, %s (%s)"):format(samebits.numerics, ctx.backend, ctx.isa),
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

-- What batches are made from, but for the logits and the ids.
local function batch_options(args)
  return {
    mask = load(args.mask, "mask"),
    cu_seqlens = load(args.cu_seqlens, "cu_seqlens"),
    temperature = tonumber(args.temperature or 1) or load(args.temperature, "temperature"),
    ignore_index = args.ignore_index,
    shift = args.shift,
  }
end

local function logprob(args)
  local spec = batch_options(args)
  spec.logits, spec.ids = load(args.logits, "logits"), load(args.ids, "ids")
  local batch = try(samebits.batch, spec)
  local ctx = try(samebits.open, args.backend, { threads = args.threads, isa = args.isa })
  local moved = try(batch.to, batch, ctx.device)
  local out = try(ctx.logprob, ctx, moved)
  for name, t in pairs(out) do out[name] = try(t.to, t, "cpu") end
  write((args.json and as_json or as_text)(ctx, batch, out))
  ctx:close()
  return 0
end

-- selftest ---------------------------------------------------------------------------------------

ffi.cdef "int isatty(int fd);"

local function run_selftest(args)
  local progress
  if ffi.C.isatty(2) == 1 then
    progress = function(done, total, what)
      io.stderr:write(("\r\27[K%d of %d: %s"):format(done, total, what))
      if done == total then io.stderr:write "\r\27[K" end
    end
  end
  local report = try(selftest.run, { directory = args.vectors, progress = progress })
  write(selftest.text(report))
  return report.failed == 0 and 0 or 1
end

-- repl -------------------------------------------------------------------------------------------

local function run_repl(args, script_arguments) return try(repl.run, args, script_arguments) end

-- verify -----------------------------------------------------------------------------------------

-- What fail ends the command with.
local failure_status = 1

local function run_verify(args)
  failure_status = verify.UNUSABLE
  return verify.run(args, { fail = fail, try = try, write = write, load = load,
                            batch_options = batch_options })
end

-- usage ------------------------------------------------------------------------------------------

local FORMATS = [[
FILE[:NAME] is a .npy file, or a .safetensors file and the name of a tensor in
it. A path that exists as it stands wins over a name after a colon. NAME may be
left out where the file holds one tensor, or one called logits, ids, mask,
cu_seqlens or temperature as the option is.]]

local JSON = [[--json prints one object: version, numerics, backend, isa, token, token_bits,
lse, lse_bits (a list for each sequence), sequence, sequence_bits, count.
Numbers have 9 digits and read back to the same fp32; bits are its encoding in
hex. What is not finite is null, and its bits tell: ff800000 is -inf, 7fc00000
is NaN.]]

local function integer(low, high)
  return function(text)
    local n = tonumber(text)
    if n and n % 1 == 0 and n >= low and n <= high then return n end
    return nil, ("'%s' is not an integer from %.0f to %.0f"):format(text, low, high)
  end
end

-- Ids are 64-bit; a Lua number holds them up to 2^53.
local WIDEST = 2 ^ 53

-- Commands in files of their own: name, summary, define(parser), run(args).
local MODULES = { require "samebits.cli.drift" }

local function add_batch_options(command)
  command:option("--mask", "The same shape, non-zero where a token counts."):argname "FILE[:NAME]"
  command:option("--cu-seqlens", "[B + 1]: where the sequences of [N, V] start and end.")
    :argname "FILE[:NAME]"
  command:option("--ignore-index", "The id of tokens not to score.",
                 tostring(lib.constants.SB_IGNORE_INDEX),
                 integer(-WIDEST, WIDEST)):argname "N"
  command:option("--temperature",
                 "A number, or FILE[:NAME] with one a row or one a sequence. (default: 1)")
    :argname "T"
  command:flag("--shift", "Logits of row t score id t + 1 of the same sequence.")
end

local function add_cpu_options(command)
  command:option("--threads", "cpu: threads to work with.", nil, integer(1, 1024)):argname "N"
  command:option("--isa", "cpu: scalar, avx2 or avx512."):argname "NAME"
end

local function make_parser()
  local parser = argparse("samebits", "Token and sequence logprobs, the same bits every time.")
  parser:require_command(true)
  parser:command_target "command"
  parser:usage_max_width(90)
  parser:help_max_width(90)

  parser:command("info", "Print the version, the numerics, and the backends of this machine.")

  local command = parser:command("logprob", "Print the logprobs of token ids.")
  command:epilog(FORMATS .. "\n\n" .. JSON)
  command:option("--logits", "Logits [B, T, V], or [N, V]."):argname "FILE[:NAME]":count(1)
  command:option("--ids", "Target ids, [B, T] or [N]."):argname "FILE[:NAME]":count(1)
  add_batch_options(command)
  command:option("--backend", "cpu, cuda or auto, the best one here.", "auto"):argname "NAME"
  add_cpu_options(command)
  command:flag("--json", "Print one JSON object.")

  verify.define(parser:command("verify", verify.SUMMARY), {
    formats = FORMATS, integer = integer, add_batch_options = add_batch_options,
    add_cpu_options = add_cpu_options,
  })

  command = parser:command("selftest", "Check the golden vectors on every backend of this machine.")
  command:option("--vectors", "Their folder; by default the one that came along.",
                 selftest.directory):argname "DIR":show_default(false)

  repl.define(parser:command("repl", repl.SUMMARY))

  for _, module in ipairs(MODULES) do
    module.define(parser:command(module.name, module.summary))
  end

  command = parser:command("help", "Print help, on a command if one is named.")
  command:argument("topic", "A command."):args "?"

  -- Called with the parser of the command at fault.
  parser.error = function(at, message)
    io.stderr:write(at:get_usage(), "\n\nsamebits: ", message, "\n")
    os.exit(2)
  end
  return parser
end

-- A negative number after an option is its value, not an option.
local function join_negatives(argv)
  local out = {}
  for i = 1, #argv do
    local before = out[#out]
    if before and before:match "^%-%-%a[%a-]*$" and argv[i]:match "^%-[%d.]" then
      out[#out] = before .. "=" .. argv[i]
    else
      out[#out + 1] = argv[i]
    end
  end
  return out
end

local COMMANDS = { info = info, logprob = logprob, verify = run_verify, selftest = run_selftest,
                   repl = run_repl }
for _, module in ipairs(MODULES) do COMMANDS[module.name] = module.run end

local function run(argv)
  local parser = make_parser()
  local own, script_arguments = repl.split(argv)
  local args = parser:parse(join_negatives(own))
  if args.command ~= "help" then return COMMANDS[args.command](args, script_arguments) end
  if not args.topic then
    write(parser:get_help() .. "\n")
    return 0
  end
  for _, command in ipairs(parser._commands) do
    if command._name == args.topic then
      write(command:get_help() .. "\n")
      return 0
    end
  end
  parser:error(("unknown command '%s'"):format(args.topic))
end

local M = {}

--- Runs a command line.
-- @tparam table argv its words
-- @treturn number the exit status
function M.main(argv)
  local ok, result = xpcall(function() return run(argv) end, function(err)
    return getmetatable(err) == Failure and err.message or tostring(err)
  end)
  if ok then return result end
  io.stderr:write("samebits: ", (result:gsub("%s*\n%s*", " ")), "\n")
  return failure_status
end

return M
