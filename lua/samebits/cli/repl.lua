--- `samebits repl`: opens the prompt, after a script if one is given.

local tell = require "samebits.cli.tell"

local M = {}

M.name = "repl"
M.summary = "Open a prompt for Lua, with the library at hand."

local ABOUT = [[
Lines are Lua: an expression shows its values, a statement runs. help() lists
what is at hand. Where the input is no terminal its lines run as a script, and
the first error ends it with status 1.

-i runs SCRIPT first, with the words after it as its arguments, and then opens
the prompt, at which the script's outermost locals can be seen, even if it has
failed. A script that calls samebits.debug() opens the prompt there.

What is typed is kept in $XDG_STATE_HOME/samebits/history, by default in
~/.local/state/samebits/history.]]

--- Adds the command's arguments to its argparse parser.
function M.define(command)
  command:epilog(ABOUT)
  command:usage "Usage: samebits repl [-h] [-i SCRIPT [ARGUMENT ...]]"
  command:option("-i", "Run this first."):argname "SCRIPT"
end

--- Splits a command line into samebits' own words and the script's, which follow `repl -i SCRIPT`,
-- or `-i SCRIPT` without a command.
function M.split(argv)
  if argv[1] == "-i" then argv = { "repl", unpack(argv) } end
  local own, rest = {}, {}
  local script = argv[1] == "repl" and argv[2] == "-i" and 3 or #argv
  for i = 1, #argv do table.insert(i <= script and own or rest, argv[i]) end
  return own, rest
end

-- Relative entries of package.path and package.cpath, which bin/samebits removes. Users' code at
-- the prompt may rely on them, so they are restored at the end of the paths, where they cannot
-- replace an installed module.
M.relative = { path = "", cpath = "" }

--- Runs the command with argparse's result and the script's own words. Returns the exit status.
function M.run(args, words)
  local repl = require "samebits.repl"
  for name, entries in pairs(M.relative) do package[name] = package[name] .. ";" .. entries end
  return tell.try(repl.run, { script = args.i, arguments = words })
end

return M
