--- The command line behind bin/samebits.
--
-- Each command is a module in samebits.cli:
--
-- * `name`, and `summary`, a line;
-- * `define(command)` adds the command's arguments to its argparse parser;
-- * `run(args, words, argv)` gets argparse's result, the words after a script, which belong to the
--   script, and all words as they were given; it returns the exit status. samebits.cli.tell defines
--   the statuses, and how a command writes and fails.

local argparse = require "argparse"
local lib = require "samebits.lib"
local printable = require "samebits.text.printable"
local repl = require "samebits.cli.repl"
local tell = require "samebits.cli.tell"

-- In the order of the help.
local COMMANDS = {
  require "samebits.cli.info",
  require "samebits.cli.logprob",
  require "samebits.cli.verify",
  require "samebits.cli.drift",
  require "samebits.cli.selftest",
  repl,
}

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

  for _, command in ipairs(COMMANDS) do
    command.define(parser:command(command.name, command.summary))
  end
  local command = parser:command("help", "Print help, on a command if one is named.")
  command:argument("topic", "A command."):args "?"

  parser:flag("--version", "Print the version and exit."):action(function()
    tell.write(("samebits %s, numerics %d, ABI %d\n"):format(lib.version, lib.numerics, lib.abi))
    os.exit(tell.WELL, true)
  end)

  -- Called with the parser of the command that was used wrongly.
  parser.error = function(at, message)
    io.stderr:write(at:get_usage(), "\n\nsamebits: ", printable.lines(message), "\n")
    os.exit(tell.UNUSABLE)
  end
  return parser
end

-- Joins a negative number to the option before it, because it is the option's value and not an
-- option.
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

local function named(name)
  for _, command in ipairs(COMMANDS) do
    if command.name == name then return command end
  end
end

local function parser_of(parser, name)
  for _, command in ipairs(parser._commands) do
    if command._name == name then return command end
  end
end

local function help(parser, topic)
  local about = topic and parser_of(parser, topic) or parser
  if topic and about == parser then parser:error(("unknown command '%s'"):format(topic)) end
  tell.write(about:get_help() .. "\n")
  return tell.WELL
end

local function run(argv)
  local parser = make_parser()
  local own, words = repl.split(argv)
  local args = parser:parse(join_negatives(own))
  if args.command == "help" then return help(parser, args.topic) end
  local ok, result = xpcall(function() return named(args.command).run(args, words, argv) end,
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
