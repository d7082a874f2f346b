-- Verifications of hidden states and a head: no transform changes a bit of the library's, and one
-- that does is seen.

local refusal = require "spec.support.refusal"
local samebits = require "samebits"

local FILE = "spec/vectors/smollm2_head.safetensors"

describe("a verification of hidden states", function()
  local IDS = 70
  local data, head, hidden, ids
  setup(function() -- a small part of the file: a verification scores it some hundred times
    data = assert(samebits.load(FILE))
    head = data.head:slice(0, 0, IDS):slice(1, 0, 40):contiguous()
    hidden = data.hidden:slice(2, 0, 40):contiguous()
    ids = data.ids:clone()
    for b = 0, 3 do
      for t = 0, 11 do ids:set(ids:get(b, t) % IDS, b, t) end
    end
  end)

  local function batch(change)
    local spec = { hidden = hidden, head = head, ids = ids, mask = data.mask }
    for key, value in pairs(change or {}) do spec[key] = value end
    return spec
  end

  local function refused(spec, options)
    return refusal.misuse(function() local _ = samebits.verify(spec, options) end)
  end

  it("changes no bit, whether the head is made or weights", function()
    local report = assert(samebits.verify(batch { format = "h24w24" },
                                          { rounds = 1, backend = "cpu" }))
    assert.is_true(report.ok, tostring(report))
    assert.equal(1, #report.paths)
    assert.is_true(report.paths[1].tokens > 400)
    local names = {}
    for _, line in ipairs(report.transforms) do names[line.name] = true end
    assert.is_true(names.steps and names.windows and names.threads and names.variants)
    assert.is_nil(names.vocabulary)
    local ctx = assert(samebits.open "cpu")
    local made = samebits.batch(batch { head = assert(ctx:head(head)) })
    assert.is_true(assert(samebits.verify(made, { rounds = 1, backend = "cpu",
                                                  transforms = { "alone", "steps" } })).ok)
    ctx:close()
  end)

  it("sees a bit that changes", function()
    local module = require "samebits.verify.hidden"
    local take = module.take
    module.take = function(value)
      local spec, logprob = take(value)
      return spec, function(ctx, rows, opts)
        local out = assert(logprob(ctx, rows, opts))
        -- As a product whose order depends on the layout.
        for row = 0, out.token and rows.logits.ndim == 2 and out.token:numel() - 1 or -1 do
          out.token:set(out.token:get(row) - 1e-5, row)
        end
        return out
      end
    end
    local ok, report = pcall(samebits.verify, batch(), { rounds = 2, backend = "cpu" })
    module.take = take
    assert.is_true(ok, report)
    assert.is_false(report.ok)
  end)

  it("refuses what it cannot verify", function()
    assert.equal("verify: ids: missing beside hidden states",
                 refused { hidden = hidden, head = head })
    assert.equal("verify: kept sets cannot be verified with hidden states",
                 refused(batch { kept = data.mask }))
    assert.equal("verify: head: expected a head or weights [V, D], got nil",
                 refused { hidden = hidden, ids = ids })
    assert.equal("verify: fn: not with hidden states",
                 refused(batch(), { fn = function() return {} end }))
  end)
end)
