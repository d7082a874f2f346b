--- `samebits selftest`: checks the golden vectors on every backend of this machine.

local posix = require "samebits.io.posix"
local selftest = require "samebits.selftest"
local tell = require "samebits.cli.tell"

local M = {}

M.name = "selftest"
M.summary = "Check the golden vectors on every backend of this machine."

--- Adds the command's arguments to its argparse parser.
function M.define(command)
  command:option("--vectors", "Their folder; by default the one that came along.",
                 selftest.directory):argname "DIR":show_default(false)
  command:option("--only", "A file of them, such as rows.txt; may be given again. All by default.")
    :argname "FILE":count "*"
end

--- Runs the command with argparse's result. Returns the exit status.
function M.run(args)
  local progress
  if posix.is_terminal(2) then
    progress = function(done, total, what)
      io.stderr:write(("\r\27[K%d of %d: %s"):format(done, total, what))
      if done == total then io.stderr:write "\r\27[K" end
    end
  end
  local report = tell.try(selftest.run, { directory = args.vectors, progress = progress,
                                          files = args.only[1] and args.only })
  tell.write(selftest.text(report))
  return report.failed == 0 and tell.WELL or tell.NO
end

return M
