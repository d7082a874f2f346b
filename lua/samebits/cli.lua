--- The command line behind bin/samebits.
--
-- samebits.cli.tell says what the exit statuses are.

local argparse = require "argparse"
local posix = require "samebits.io.posix"
local samebits = require "samebits"
local lib = require "samebits.lib"
local printable = require "samebits.text.printable"
local repl = require "samebits.cli.repl"
local selftest = require "samebits.selftest"
local tell = require "samebits.cli.tell"
local variants = require "samebits.variants"

local try, write = tell.try, tell.write

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
  return tell.WELL
end

-- selftest ---------------------------------------------------------------------------------------

local function run_selftest(args)
  local progress
  if posix.is_terminal(2) then
    progress = function(done, total, what)
      io.stderr:write(("\r\27[K%d of %d: %s"):format(done, total, what))
      if done == total then io.stderr:write "\r\27[K" end
    end
  end
  local report = try(selftest.run, { directory = args.vectors, progress = progress })
  write(selftest.text(report))
  return report.failed == 0 and tell.WELL or tell.NO
end

-- repl -------------------------------------------------------------------------------------------

local function run_repl(args, script_arguments) return try(repl.run, args, script_arguments) end

-- usage ------------------------------------------------------------------------------------------

-- Commands in files of their own: name, summary, define(parser), run(args).
local MODULES = { require "samebits.cli.logprob", require "samebits.cli.verify",
                  require "samebits.cli.drift" }

local EXIT_STATUS = [[
Exit status: 0; 1 where bits differ (drift, verify), a vector does not hold
(selftest) or a statement fails (repl); 2 for wrong usage, and where what was
given cannot be used: a line on stderr says why.]]

local function make_parser()
  local parser = argparse("samebits", "Token and sequence logprobs, the same bits every time.")
  parser:epilog(EXIT_STATUS)
  parser:require_command(true)
  parser:command_target "command"
  parser:usage_max_width(90)
  parser:help_max_width(90)

  parser:command("info", "Print the version, the numerics, and the backends of this machine.")

  for _, module in ipairs(MODULES) do
    module.define(parser:command(module.name, module.summary))
  end

  local command = parser:command("selftest",
                                 "Check the golden vectors on every backend of this machine.")
  command:option("--vectors", "Their folder; by default the one that came along.",
                 selftest.directory):argname "DIR":show_default(false)

  repl.define(parser:command("repl", repl.SUMMARY))

  command = parser:command("help", "Print help, on a command if one is named.")
  command:argument("topic", "A command."):args "?"

  parser:flag("--version", "Print the version and exit."):action(function()
    write(("samebits %s, numerics %d, ABI %d\n"):format(samebits.version, samebits.numerics,
                                                        samebits.abi))
    os.exit(tell.WELL, true)
  end)

  -- Called with the parser of the command at fault.
  parser.error = function(at, message)
    io.stderr:write(at:get_usage(), "\n\nsamebits: ", printable.lines(message), "\n")
    os.exit(tell.UNUSABLE)
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

local COMMANDS = { info = info, selftest = run_selftest, repl = run_repl }
for _, module in ipairs(MODULES) do COMMANDS[module.name] = module.run end

local function parser_of(parser, name)
  for _, command in ipairs(parser._commands) do
    if command._name == name then return command end
  end
end

local function help(parser, topic)
  local about = topic and parser_of(parser, topic) or parser
  if topic and about == parser then parser:error(("unknown command '%s'"):format(topic)) end
  write(about:get_help() .. "\n")
  return tell.WELL
end

local function run(argv)
  local parser = make_parser()
  local own, script_arguments = repl.split(argv)
  local args = parser:parse(join_negatives(own))
  if args.command == "help" then return help(parser, args.topic) end
  local ok, result = xpcall(function() return COMMANDS[args.command](args, script_arguments) end,
                            function(err) return { tell.message(err) } end)
  if ok then return result end
  local message, is_usage = unpack(result)
  if is_usage then parser.error(parser_of(parser, args.command), message) end
  tell.fail("%s", message)
end

local M = {}

--- Runs a command line.
-- @tparam table argv its words
-- @treturn number the exit status
function M.main(argv)
  local ok, result = pcall(run, argv)
  if ok then return result end
  io.stderr:write("samebits: ", printable.message((tell.message(result))), "\n")
  return tell.UNUSABLE
end

return M
