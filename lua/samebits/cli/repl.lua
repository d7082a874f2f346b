--- samebits repl: the command's options.

local M = {}

M.SUMMARY = "Open a prompt for Lua, with the library at hand."

local ABOUT = [[
Lines are Lua: an expression shows its values, a statement runs. help() lists
what is at hand. Where the input is no terminal its lines run as a script, and
the first error ends it with status 1.

-i runs SCRIPT first, with the words after it as its arguments, and then opens
the prompt, at which the script's outermost locals can be seen, even if it has
failed. A script that calls samebits.debug() opens the prompt there.

What is typed is kept in $XDG_STATE_HOME/samebits/history, by default in
~/.local/state/samebits/history.]]

--- Adds options to a command.
function M.define(command)
  command:epilog(ABOUT)
  command:usage "Usage: samebits repl [-h] [-i SCRIPT [ARGUMENT ...]]"
  command:option("-i", "Run this first."):argname "SCRIPT"
end

--- Splits a command line: what comes after `repl -i SCRIPT`, or `-i SCRIPT` alone, is the script's
-- own.
function M.split(argv)
  if argv[1] == "-i" then argv = { "repl", unpack(argv) } end
  local own, rest = {}, {}
  local script = argv[1] == "repl" and argv[2] == "-i" and 3 or #argv
  for i = 1, #argv do table.insert(i <= script and own or rest, argv[i]) end
  return own, rest
end

-- Relative entries of package.path and package.cpath, which bin/samebits takes away. A user's own
-- code at the prompt may rely on them: it gets them back behind the others, where they replace no
-- module that is installed.
M.relative = { path = "", cpath = "" }

--- Runs the prompt: its exit status, or nil and a message.
function M.run(args, script_arguments)
  local repl = require "samebits.repl"
  for name, entries in pairs(M.relative) do package[name] = package[name] .. ";" .. entries end
  return repl.run { script = args.i, arguments = script_arguments }
end

return M
