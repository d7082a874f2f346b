-- Sides of a drift that give hidden states and a head: their logits are the library's, from files
-- and from tables, and what does not fit is refused.

local refusal = require "spec.support.refusal"
local samebits = require "samebits"
local temporary = require "spec.support.temporary"

local FILE = "spec/vectors/smollm2_head.safetensors"

describe("a drift of hidden states", function()
  local data, ctx, files
  setup(function()
    data, ctx, files = assert(samebits.load(FILE)), assert(samebits.open "cpu"),
                       temporary.folder()
  end)
  teardown(function() files:remove() end)

  local function token(format, temperature)
    local head = assert(ctx:head(data.head, { format = format }))
    return assert(ctx:logprob { hidden = data.hidden, head = head, ids = data.ids,
                                mask = data.mask, temperature = temperature }).token
  end

  it("has the bits of logprobs from the same head", function()
    local rollout = files:path "rollout.safetensors"
    assert(samebits.save(rollout, { token = token "h24w16" }))
    local report = assert(samebits.drift(rollout, FILE))
    assert.same({ 41, 0 }, { report.tokens.compared, report.tokens.different })
    assert.same({ "B's logits are those of its hidden states and head, in h24w16" }, report.notes)
    assert.same({ "vocab" }, report.b.unused)
    local side = { hidden = data.hidden, head = data.head, format = "h24w24" }
    report = assert(samebits.drift({ logprobs = token "h24w24" }, side,
                                   { ids = data.ids, mask = data.mask }))
    assert.equal(0, report.tokens.different)
  end)

  it("finds causes in the logits", function()
    local report = assert(samebits.drift({ logprobs = token("h24w16", 0.8) }, FILE))
    assert.equal("temperature", report.causes[1].cause)
    assert.is_true(report.causes[1].tokens_exactly > 30)
    -- Another format has other logits.
    report = assert(samebits.drift(
      { hidden = data.hidden, head = data.head, format = "h24w24", softcap = 30 }, FILE))
    assert.is_true(report.tokens.different > 30)
    assert.equal("logits", report.causes[1].cause)
  end)

  it("prefers logits that are given", function()
    local head = assert(ctx:head(data.head))
    local side = { hidden = data.hidden, head = data.head, ids = data.ids, mask = data.mask,
                   logits = assert(ctx:logits { hidden = data.hidden, head = head }) }
    local report = assert(samebits.drift(side, { logprobs = token "h24w16" }))
    assert.same({ 0, {} }, { report.tokens.different, report.notes })
  end)

  it("refuses what does not fit", function()
    local function refused(side)
      return refusal.misuse(function()
        local _ = samebits.drift(side, { logprobs = data.ids:to "float32" }, { ids = data.ids })
      end)
    end
    assert.equal("A: head is missing: hidden states need a head, and a head hidden states",
                 refused { hidden = data.hidden })
    assert.equal("A: hidden is missing: hidden states need a head, and a head hidden states",
                 refused { head = data.head })
    assert.equal("A: hidden: bfloat16 [4, 12, 575], expected [B, T, D] or [N, D] with the " ..
                 "head's D of 576",
                 refused { hidden = data.hidden:slice(2, 0, 575), head = data.head })
    assert.matches("^A: .*format", refused { hidden = data.hidden, head = data.head,
                                             format = "bf16" })
  end)
end)
