--- Gets PyTorch's logprobs of the cells of spec/support/tolerance.lua from a child process.
--
--     local run, why = torch.start()        -- nil and the reason where there is no PyTorch
--     run:add(cell, logits, truth)          -- for each cell
--     local results = run:finish()          -- results[cell.name][path][row][k], rows from 1
--
-- PYTHON names the interpreter; python3 by default.

local ffi = require "ffi"
local bit = require "bit"
local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

local M = {}

--- The PyTorch paths that are measured.
M.PATHS = { "log_softmax + gather", "gather - logsumexp" }

local PROGRAM = debug.getinfo(1, "S").source:match "^@(.*)%.lua$" .. "_logprobs.py"
local python = os.getenv "PYTHON" or "python3"

local found
--- PyTorch's version, or nil and one line that says why there is none.
function M.version()
  if not found then
    local text = shell.run("%s -c %s", python,
                           'import torch; print("torch", torch.__version__)')
    found = { version = text:match "torch (%S+)\n$", last = text:match "([^\n]*)\n*$" }
  end
  if found.version then return found.version end
  return nil, ("PyTorch: %s: %s"):format(python, found.last)
end

local Run = {}
Run.__index = Run

function M.start()
  local version, why = M.version()
  if not version then return nil, why end
  local files = temporary.folder()
  local results = files:path "results"
  local pipe = assert(io.popen(shell.line("%s %s %s >%s 2>&1", python, PROGRAM, results,
                                           files:path "said"), "w"))
  return setmetatable({ version = version, files = files, pipe = pipe, cells = {} }, Run)
end

function Run:add(cell, t, truth)
  local targets = #truth[1].ids
  local tau = ffi.new("union { float f; int32_t i; }", cell.tau)
  self.pipe:write(("%s %d %d %s %d\n"):format(cell.dtype, cell.rows, cell.vocab,
                                              bit.tohex(tau.i), targets))
  self.pipe:write(ffi.string(t.ptr, t:numel() * t.itemsize))
  local ids = ffi.new("int32_t[?]", cell.rows * targets)
  for r, row in ipairs(truth) do
    for k, id in ipairs(row.ids) do ids[(r - 1) * targets + k - 1] = id end
  end
  self.pipe:write(ffi.string(ids, ffi.sizeof(ids)))
  self.cells[#self.cells + 1] = { name = cell.name, rows = cell.rows, targets = targets }
end

function Run:finish()
  self.pipe:close()
  local file, data = io.open(self.files:path "results", "rb"), ""
  if file then
    data = file:read "*a"
    file:close()
  end
  local said = self.files:read "said"
  self.files:remove()
  local floats, at, results = ffi.cast("const float *", data), 0, {}
  for _, cell in ipairs(self.cells) do
    results[cell.name] = {}
    for _, path in ipairs(M.PATHS) do
      local rows = {}
      for r = 1, cell.rows do
        rows[r] = {}
        for k = 1, cell.targets do
          assert(4 * at < #data, ("PyTorch's results end at %s: %s"):format(cell.name, said))
          rows[r][k] = floats[at]
          at = at + 1
        end
      end
      results[cell.name][path] = rows
    end
  end
  assert(4 * at == #data, "PyTorch gave more results than were asked for")
  return results
end

return M
