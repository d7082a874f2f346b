-- Sequences put beside those of a batch: how many there are, and what their logits hold.

local samebits = require "samebits"
local cases = require "samebits.verify.case"
local strangers = require "samebits.verify.strangers"

-- The strangers beside `n` sequences, from 0 on, and how many.
local function beside(n, fields)
  local case = cases.new(fields)
  case.n = n
  local sequences = {}
  for s = 0, n - 1 do sequences[s] = "own" end
  strangers.add(case, sequences)
  for s = 0, n - 1 do assert.equal("own", sequences[s]) end
  assert.equal(case.n - 1, #sequences)
  local list = {}
  for s = n, case.n - 1 do list[s - n] = sequences[s] end
  return list, case.n - n
end

describe("strangers", function()
  it("are as many as the sequences, but four at most", function()
    for n, count in pairs { [1] = 1, [3] = 3, [4] = 4, [9] = 4 } do
      assert.equal(count, (select(2, beside(n, { wild = "nan", V = 2 }))))
    end
  end)

  it("hold one NaN or inf at the last id, nothing, or the largest numbers", function()
    local inf = math.huge
    for wild, want in pairs { nan = { "00000000", "00000000", "7fc00000" },
                              inf = { "00000000", "00000000", "7f800000" },
                              absent = { "ff800000", "ff800000", "ff800000" },
                              huge = { "7f7fffff", "7f7fffff", "ff7fffff" } } do
      local list = beside(1, { wild = wild, V = 3, T = 5 })
      assert.same({ want, want }, list[0].logits:bits(), wild)
    end
    local half = beside(1, { wild = "huge", V = 2, dtype = "float16" })[0].logits
    assert.equal("float16", half.dtype)
    assert.same({ { 65504, -65504 } }, half:totable())
    assert.same({ { -inf, -inf } },
                beside(1, { wild = "absent", V = 2, dtype = "bfloat16" })[0].logits:totable())
  end)

  it("have one or two active tokens, of id 0, at the case's temperature", function()
    local made = beside(1, { wild = "inf", V = 2, T = 7, tau = 0.5 })[0]
    assert.same({ 2, { [0] = 0, 0 }, { [0] = 0.5, 0.5 }, { [0] = true, true } },
                { made.length, made.ids, made.temperatures, made.active })
    assert.equal(1, beside(1, { wild = "inf", V = 2, T = 1 })[0].length)
    assert.equal(1, beside(1, { wild = "inf", V = 2, tau = "own" })[0].temperatures[0])
  end)

  it("can be scored: what they hold poisons their own rows", function()
    local made = beside(1, { wild = "nan", V = 3 })[0]
    local out = assert(samebits.logprob { logits = made.logits, ids = { made.ids[0] } })
    assert.is_true(out.token:get(0) ~= out.token:get(0))
  end)
end)
