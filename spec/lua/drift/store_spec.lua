-- samebits.drift.store: the tokens one by one, and what explains them.

local ffi = require "ffi"
local samebits = require "samebits"
local store = require "samebits.drift.store"

describe("a store", function()
  it("holds encodings and states, whatever the chunks", function()
    local s = store.new(5)
    local a, b = ffi.new("int32_t[3]", { 1, 2, 3 }), ffi.new("int32_t[3]", { 1, 5, 3 })
    local on, off = ffi.new("uint8_t[3]", { 1, 1, 0 }), ffi.new("uint8_t[3]", { 1, 1, 1 })
    s:put(0, 3, a, b, on, off)
    s:put(3, 2, a, b, ffi.new("uint8_t[2]", { 1, 0 }), ffi.new("uint8_t[2]", { 0, 0 }))
    local states = {}
    for row = 0, 4 do states[row + 1] = store.NAMES[s.state[row]] end
    assert.same({ "equal", "different", "only_b", "only_a", "inactive" }, states)
    assert.same({ 2, 5 }, { s.a[1], s.b[1] })
    assert.equal("unexplained", s:explained(1).cause)
    s.kinds[2] = { cause = "op", cause_exact = true, by = 1 }
    s:explain(1, 2)
    assert.equal("op", s:explained(1).cause)
    s:explain(1, 2 ^ 16 + 2)
    assert.equal("unexplained", s:explained(1).cause)
  end)

  it("is left out where there are more tokens than may be kept", function()
    local a, b = { -1, -2, -3 }, { -1, -2, -4 }
    assert.equal(3, samebits.drift(a, b, { keep = 3 }).store.rows)
    local report = samebits.drift(a, b, { keep = 2 })
    assert.is_nil(report.store)
    assert.is_nil(report:html():find("<script", 1, true))
    assert.error_matches(function() report:csv() end, "none of its 3 tokens one by one: give keep")
  end)

  it("agrees with the report's counts by cause", function()
    local values = {}
    for i = 1, 40 do values[i] = -i / 7 end
    local bf16 = samebits.tensor(values):to("bfloat16"):to("float32")
    local report = samebits.drift(values, bf16)
    local n = 0
    for row = 0, 39 do
      if report.store.state[row] == store.DIFFERENT then
        local kind = report.store:explained(row)
        assert.same({ "container", true, 1 }, { kind.cause, kind.cause_exact, kind.by })
        n = n + 1
      end
    end
    assert.equal(report.causes[1].tokens, n)
  end)
end)
