-- `samebits info`: the lines that it prints, with backends that are there and ones that are not.

local lib = require "samebits.lib"
local samebits = require "samebits"
local info = require "samebits.cli.info"
local tell = require "samebits.cli.tell"
local variants = require "samebits.variants"
local refusal = require "spec.support.refusal"

-- What info prints, as its lines, and its exit status. backends: in the place of the machine's.
local function printed(backends)
  local write, known, text, status = tell.write, samebits.backends, "", nil
  tell.write = function(more) text = text .. more end
  if backends then samebits.backends = function() return backends end end
  local ok, err = pcall(function() status = info.run() end)
  tell.write, samebits.backends = write, known
  assert(ok, err)
  return text, status
end

describe("info", function()
  it("prints the versions, the library and each backend", function()
    local text, status = printed()
    assert.equal(tell.WELL, status)
    local start = ("samebits   %s\nnumerics   %d\nabi        %d\nlibrary    %s\n"):format(
      samebits.version, samebits.numerics, samebits.abi, lib.path)
    assert.equal(start, text:sub(1, #start))
    for _, backend in ipairs(samebits.backends()) do
      refusal.says(text, ("\nbackend    %s: %s"):format(
        backend.name, backend.available and "available, " or "unavailable: "))
    end
  end)

  it("prints each instruction set of the cpu, or why it is not here", function()
    local text = printed { { name = "cpu", available = true } }
    local isa = text:match "\nisa        ([^\n]+)\n$"
    local present, absent = isa:match "^([^()]+)", isa:match "%((.+)%)$" or ""
    for _, name in ipairs(variants.ISAS) do
      local ctx = samebits.open("cpu", { isa = name })
      assert.truthy((ctx and present or absent):find(name, 1, true), text)
      if ctx then ctx:close() end
    end
  end)

  it("says why a backend is unavailable", function()
    local text, status = printed {
      { name = "cuda", available = false, why = "no driver" },
      { name = "abacus", available = true },
    }
    assert.equal(tell.WELL, status)
    assert.matches("\nbackend    cuda: unavailable: no driver\n" ..
                   "backend    abacus: unavailable: [^\n]+\n$", text)
    assert.is_nil(text:find("isa ", 1, true))
  end)
end)
