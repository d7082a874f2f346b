--- `samebits info`: prints the version, the numerics, and the backends of this machine.

local lib = require "samebits.lib"
local samebits = require "samebits"
local tell = require "samebits.cli.tell"
local variants = require "samebits.variants"

local M = {}

M.name = "info"
M.summary = "Print the version, the numerics, and the backends of this machine."

--- The command has no arguments.
function M.define() end

-- The instruction sets of the cpu: "avx2, scalar; avx512 is not: why".
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

--- Prints the information. Returns the exit status.
function M.run()
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
  tell.write(table.concat(lines, "\n") .. "\n")
  return tell.WELL
end

return M
