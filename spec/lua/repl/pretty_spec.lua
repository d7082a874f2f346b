-- How the prompt shows values: numbers, strings, tables, tensors, structs, reports and functions.

local ffi = require "ffi"
local samebits = require "samebits"
local lib = require "samebits.lib"
local pretty = require "samebits.repl.pretty"

describe("showing", function()
  it("numbers with the digits that tell them apart", function()
    for text, value in pairs { ["0.1"] = 0.1, ["0.30000000000000004"] = 0.1 + 0.2, ["nan"] = 0 / 0,
                               ["-inf"] = -1 / 0, ["inf"] = 1 / 0, ["-0"] = -1 / (1 / 0),
                               ["1048576"] = 2 ^ 20, ["5LL"] = 5LL,
                               ["18446744073709551615ULL"] = -1ULL } do
      assert.equal(text, pretty.text(value))
    end
  end)

  it("strings quoted, or of several lines as they stand", function()
    assert.equal([["a"]], pretty.text "a")
    assert.equal([['say "a"']], pretty.text 'say "a"')
    assert.equal([["\"it's\""]], pretty.text [["it's"]])
    assert.equal([["a\x00b\tc\x1b"]], pretty.text "a\0b\tc\27")
    assert.equal("a\nb", pretty.text "a\nb\n")
    assert.equal([[{ "a\nb" }]], pretty.text { "a\nb" })
  end)

  it("tables with what is in them, sorted", function()
    assert.equal("{}", pretty.text {})
    assert.equal([[{ 1, "two", a = { b = false }, ["end"] = 3, ["x y"] = 4 }]],
                 pretty.text { 1, "two", ["x y"] = 4, a = { b = false }, ["end"] = 3 })
    assert.equal("{ [0] = 1, [2.5] = 2 }", pretty.text { [0] = 1, [2.5] = 2 })
    local circle = { name = "c" }
    circle.self, circle.list = circle, { circle }
    assert.equal("{\n  list = { { itself, from further out } },\n  name = \"c\",\n" ..
                 "  self = { itself, from further out },\n}", pretty.text(circle))
    assert.equal("{ { { { { ... } } } } }", pretty.text { { { { { 1 } } } } })
    local shared = { 1 }
    assert.equal("{ { 1 }, { 1 } }", pretty.text { shared, shared })
  end)

  it("long ones cut, and says by how much", function()
    local long = {}
    for i = 1, 1000 do long[i] = i end
    local text = pretty.text(long)
    assert.matches("40,\n  %.%.%. %(960 more%),\n}$", text)
    for line in text:gmatch "[^\n]+" do assert.is_true(#line <= 80) end
    assert.matches("%(100 bytes more%)", pretty.text { ("x"):rep(500) })
    for i = 1, 100 do long["k" .. i] = i end
    assert.matches("%(1060 more%)", pretty.text(long))
  end)

  it("tensors, batches and contexts in their own words", function()
    local t = samebits.tensor { { 1, 2 }, { 3, 4 } }
    assert.equal(tostring(t), pretty.text(t))
    assert.equal("{ t = tensor float32 [2, 2] cpu }", pretty.text { t = t })
    assert.equal("{ tensor float32 [2] cpu [1, 2] }", pretty.text { t[0] })
    local batch = samebits.batch { logits = t, ids = { 0, 1 } }
    assert.equal(tostring(batch), pretty.text(batch))
    assert.matches("^sb_batch {\n  size = %d+,", (pretty.text(batch.c):gsub("^struct ", "")))
    assert.matches("vocab = 2LL", pretty.text(batch.c))
  end)

  it("statuses by name, number and meaning", function()
    assert.equal("SB_ERR_ID (4): " ..
                 "an id of an active row outside [0, V), or kept ids that do not rise",
                 pretty.text(ffi.new("sb_status", 4)))
    assert.matches("^SB_OK %(0%)", pretty.text(lib.C.sb_probe("cpu", nil, 0)))
  end)

  it("reports in full, and inside of others in a line", function()
    local Report = { text = function() return "line 1\nline 2\n" end }
    Report.__index, Report.__tostring = Report, function() return "short" end
    local report = setmetatable({}, Report)
    assert.equal("line 1\nline 2", pretty.text(report))
    assert.equal("{ short }", pretty.text { report })
    local bad = setmetatable({}, { __tostring = function() error("no words", 0) end })
    assert.matches("no words", pretty.text(bad))
  end)

  it("functions by their place, wrapped ones by the inner", function()
    assert.matches("^function: .*bits%.lua:%d+$", pretty.text(samebits.ulp))
    assert.equal("function: built in", pretty.text(print))
  end)

  it("several values on a line, or on lines", function()
    assert.equal('nil, "no such file", 3', pretty.all(3, { nil, "no such file", 3 }))
    assert.equal("1\na\nb", pretty.all(2, { 1, "a\nb" }))
    -- Words of an object are no data, and get no colours.
    local report = setmetatable({}, { __tostring = function() return "it's me" end })
    local function paint(text) return "<" .. text .. ">" end
    assert.equal("<1>, it's me, <nil>", pretty.all(3, { 1, report, nil }, paint))
  end)
end)
