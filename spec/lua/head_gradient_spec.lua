-- samebits.head_gradient: against differences of the loss in fp64, the same bits for any chunk and
-- context, and what it refuses.

local samebits = require "samebits"
local head_gradient = require "samebits.head_gradient"
local heads = require "spec.support.heads"
local hex = require "spec.support.hex"
local refusal = require "spec.support.refusal"

local R, V, D = 3, 37, 5
local SCALE, CAP = 0.5, 4

local function numbers(t)
  local list, flat = {}, t:reshape(t:numel())
  for i = 0, t:numel() - 1 do list[i + 1] = flat[i] end
  return list
end

describe("head_gradient.compute", function()
  local weights = heads.values({ V, D }, "float32", 31)
  local hidden = heads.values({ R, D }, "float32", 32)
  local bias = heads.values({ V }, "float32", 33)
  local ids, mask, by_token = { 3, 36, 16 }, { 1, 0, 1 }, { 0.5, 7, -1.25 }
  local ctx = assert(samebits.open("cpu", { threads = 1 }))

  local function compute(at, chunk)
    local head = at:head(weights, { format = "h24w24", bias = bias, scale = SCALE, softcap = CAP })
    local batch = samebits.batch { hidden = hidden, head = head, ids = ids, mask = mask }
    local saved = at:logprob(batch, { outputs = { "saved" } }).saved
    return head_gradient.compute(at, batch, weights,
                                 { saved = saved, token = hex.tensor(by_token, { R }) },
                                 { chunk = chunk })
  end

  -- The loss, from flat lists.
  local function loss(h, w, b)
    local sum = 0
    for r = 1, R do
      local x, total = {}, 0
      for v = 1, V do
        local dot = 0
        for d = 1, D do dot = dot + h[(r - 1) * D + d] * w[(v - 1) * D + d] end
        local y = (dot + b[v]) * SCALE
        x[v] = CAP * math.tanh(y / CAP)
        total = total + math.exp(x[v])
      end
      if mask[r] == 1 then sum = sum + by_token[r] * (x[ids[r] + 1] - math.log(total)) end
    end
    return sum
  end

  it("is the derivative of the loss", function()
    local by = compute(ctx)
    local all = { numbers(hidden), numbers(weights), numbers(bias) }
    for i, name in ipairs { "hidden", "weights", "bias" } do
      local got = numbers(by[name])
      for k = 1, #got do
        local kept, step = all[i][k], 1e-5
        all[i][k] = kept + step
        local up = loss(all[1], all[2], all[3])
        all[i][k] = kept - step
        local down = loss(all[1], all[2], all[3])
        all[i][k] = kept
        assert.near((up - down) / (2 * step), got[k], 2e-5, ("%s %d"):format(name, k))
      end
    end
    assert.same({ "00000000", "00000000", "00000000", "00000000", "00000000" },
                hex.of(by.hidden[1]:clone()))
  end)

  it("has the same bits for any chunk, threads and instruction set", function()
    local expected = compute(ctx)
    for _, opts in ipairs { { threads = 3 }, { isa = "scalar" } } do
      local by = compute(assert(samebits.open("cpu", opts)), opts.threads and 16 or 32)
      for name, t in pairs(expected) do assert.is_true(samebits.same_bits(by[name], t), name) end
    end
  end)

  it("refuses what it cannot use", function()
    local head = ctx:head(weights)
    local batch = samebits.batch { hidden = hidden, head = head, ids = ids }
    local function says(words, ...)
      local arguments = { ... }
      assert.truthy(refusal.misuse(function()
        local _ = head_gradient.compute(unpack(arguments, 1, 5))
      end):find(words, 1, true), words)
    end
    says("expected a context", 1, batch, weights, {})
    says("expected a batch with hidden and head", ctx, 2, weights, {})
    says("weights: expected those of the head, [37, 5]", ctx, batch, hidden, {})
    says("chunk: expected a multiple of 16, got 8", ctx, batch, weights, {}, { chunk = 8 })
  end)
end)
