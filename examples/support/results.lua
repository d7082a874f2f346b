-- Stores the measurements of an experiment: tables as CSV, and plots if gnuplot is installed.
--
--     local results = require "results".folder(arg[1])   -- a new temporary folder if arg[1] is nil
--     results:csv("curve.csv", { "step", "reward" }, rows)
--     results:plot("curve.svg", "training", { curves = { ... } })

local plot = require "samebits.plot"

local M = {}

local Results = {}
Results.__index = Results

local function quoted(name) return "'" .. name:gsub("'", "'\\''") .. "'" end

function M.folder(name)
  if not name then
    name = os.tmpname()
    os.remove(name)
  end
  local status = os.execute("mkdir -p " .. quoted(name))
  if status ~= 0 and status ~= true then error("cannot make the folder " .. name, 0) end
  return setmetatable({ name = name }, Results)
end

function Results:path(name) return self.name .. "/" .. name end

-- Writes a number with enough digits to read the same value back.
local function cell(value)
  return type(value) == "number" and ("%.17g"):format(value) or tostring(value)
end

-- Each of rows is a list of values, in the order of the names.
function Results:csv(name, names, rows)
  local lines = { table.concat(names, ",") }
  for _, row in ipairs(rows) do
    local cells = {}
    for i = 1, #names do cells[i] = cell(row[i]) end
    lines[#lines + 1] = table.concat(cells, ",")
  end
  local file = assert(io.open(self:path(name), "w"))
  assert(file:write(table.concat(lines, "\n"), "\n"))
  assert(file:close())
  print("wrote " .. self:path(name))
end

-- kind names a function of samebits.plot.
function Results:plot(name, kind, spec)
  spec.out = self:path(name)
  local path, why = plot[kind](spec)
  print(path and "wrote " .. path or ("no %s: %s"):format(name, why))
end

return M
