-- The tokens of a plot: their positions, the mask, and the logprobs that are refused.

local misuse = require "samebits.misuse"
local samebits = require "samebits"
local tokens = misuse.guard(require "samebits.plot.tokens")
local refusal = require "spec.support.refusal"

local function series_of(...)
  local list = {}
  for s, values in ipairs { ... } do list[s] = { name = "s" .. s, logprobs = values } end
  return list
end

-- Tokens as { position, reference, value }.
local function triples(entry)
  local list = {}
  for i, token in ipairs(entry.tokens) do
    list[i] = { token.position, token.reference, token.value }
  end
  return list
end

describe("the tokens of a plot", function()
  local padded = samebits.tensor { { -1, -2, -3 }, { -4, -5, -6 } }

  it("have their position in a sequence, and both logprobs, in each series", function()
    local out = tokens("p", { reference = padded, series = series_of(padded, padded:clone()) })
    assert.same({ "s1", "s2" }, { out[1].name, out[2].name })
    assert.equal(2, #out)
    assert.same({ { 0, -1, -1 }, { 1, -2, -2 }, { 2, -3, -3 }, { 0, -4, -4 }, { 1, -5, -5 },
                  { 2, -6, -6 } }, triples(out[2]))
  end)

  it("are the active ones", function()
    local values = samebits.tensor { { 0, -0.5, 0 }, { 0, 0, -0.25 } }
    local out = tokens("p", { reference = padded, mask = { { 0, 1, 0 }, { 0, 0, 1 } },
                              series = series_of(values) })
    assert.same({ { 1, -2, -0.5 }, { 2, -6, -0.25 } }, triples(out[1]))
  end)

  it("count from each packed sequence's start, empty ones passed over", function()
    local packed = samebits.tensor { -1, -2, -3, -4 }
    local function positions(cu_seqlens)
      local list = {}
      for i, token in ipairs(tokens("p", { reference = packed, series = series_of(packed),
                                           cu_seqlens = cu_seqlens })[1].tokens) do
        list[i] = token.position
      end
      return list
    end
    assert.same({ 0, 0, 1, 2 }, positions { 0, 0, 1, 1, 4 })
    assert.same({ 0, 1, 2, 3 }, positions(nil))
  end)

  it("are refused where logprobs are not alike", function()
    local function refused(spec, message)
      assert.equal("p: " .. message, refusal.misuse(tokens, "p", spec))
    end
    refused({ reference = samebits.zeros { 1, 1, 1 } },
            "reference: shape [1, 1, 1], expected [B, T] or [N]")
    refused({ reference = padded }, "series: expected a list of { name =, logprobs = }")
    refused({ reference = padded, series = { 1 } }, "series[0]: expected a table, got number")
    refused({ reference = padded, series = series_of(padded, samebits.zeros { 2, 2 }) },
            "series[1].logprobs: shape [2, 2], expected the reference's [2, 3]")
    refused({ reference = padded, series = series_of(padded), cu_seqlens = { 0, 6 } },
            "cu_seqlens: given with logprobs [2, 3]; packed ones are [N]")
    refusal.says(refusal.misuse(tokens, "p", { reference = padded:to "float64" }),
                 "p: reference: expected a float32 tensor, got ")
  end)
end)
