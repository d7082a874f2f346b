--- Runs other processes, beside each other or in the background.

local shell = require "spec.support.shell"

local M = {}

--- Runs shell commands at the same time and returns a list of their standard outputs. A command
-- that fails raises an error with everything that it wrote.
function M.together(commands, files)
  local script = {}
  for i, command in ipairs(commands) do
    local name = files:path("child" .. i)
    script[i] = ("{ %s; } "):format(command) ..
      shell.line(">%s 2>%s; echo $? >%s", name, name .. ".errors", name .. ".status")
  end
  os.execute("(" .. table.concat(script, ") & (") .. ") & wait")
  local outputs = {}
  for i, command in ipairs(commands) do
    local name = "child" .. i
    outputs[i] = files:read(name)
    if files:read(name .. ".status") ~= "0\n" then
      error(("%s: %s%s"):format(command, outputs[i], files:read(name .. ".errors")), 0)
    end
  end
  return outputs
end

-- Computes for at most 5 minutes, so that it ends even if nobody ends it.
local LOOP = "local past = os.time() + 300; while os.time() < past do end"

--- Starts n processes that do nothing but compute, for at most 5 minutes. Returns a function that
-- ends them and tells whether all were still computing.
function M.busy(n)
  local pids = {}
  for i = 1, n do
    -- One simple command: the number is that of the process that computes.
    local pipe = io.popen(("luajit -e '%s' >/dev/null 2>&1 & echo $!"):format(LOOP))
    pids[i] = assert(pipe:read "*n", "no process was started")
    pipe:close()
  end
  return function()
    return os.execute(("kill %s 2>/dev/null"):format(table.concat(pids, " "))) == 0
  end
end

return M
