-- Random heads on every backend and instruction set: the logits have the bits that the Python
-- reference gives, which computes them in big integers from docs/numerics.md alone. PYTHON names
-- the Python. With SB_CASES=all there are more than 10^6 logits.

local budget = require "spec.support.budget"
local hex = require "spec.support.hex"
local heads = require "spec.support.heads"
local samebits = require "samebits"
local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

local CASES = budget.ALL and 1000 or 12

describe("random heads", function()
  local program = (os.getenv "PYTHON" or "") ~= "" and os.getenv "PYTHON" or "python3"
  local files, data
  setup(function()
    if not shell.has(program) then return end
    files = temporary.folder()
    local path = files:path "heads.safetensors"
    local said, status = shell.run("%s spec/parity/head.py %d %d %s", program,
                                   budget.SEED * 1000, CASES, path)
    assert.equal(0, status, said)
    data = assert(samebits.load(path))
  end)
  teardown(function() if files then files:remove() end end)

  local function fp32(word)
    return word ~= "-" and hex.tensor({ word }, { 1 }):get(0) or nil
  end

  heads.each(function(at)
    it("have the reference's bits on " .. at.name, function()
      if not data then return pending "there is no python3" end
      local ctx, logits = at.context(), 0
      for n = budget.SEED * 1000, budget.SEED * 1000 + CASES - 1 do
        local format, scale, cap = data.metadata[tostring(n)]:match "(%S+) (%S+) (%S+)"
        local head = heads.head(at, data["weights." .. n], {
          format = format, bias = data["bias." .. n], scale = fp32(scale), softcap = fp32(cap),
          keep_bad = true,
        })
        local got = assert(ctx:logits { hidden = heads.placed(at, data["hidden." .. n]),
                                        head = head })
        local expected = data["logits." .. n]
        assert.same_bits(expected, assert(got:to "cpu"), ("case %d, %s"):format(n, format))
        logits = logits + expected:numel()
      end
      assert.is_true(logits >= (budget.ALL and 1e6 or 12000))
    end)
  end)
end)
