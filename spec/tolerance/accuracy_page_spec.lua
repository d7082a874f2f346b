-- Checks docs/accuracy.md and the tool that measures it: the page has a row for every cell, and
-- every row is within the bounds.

local bounds = require "spec.support.bounds"
local read = require("spec.support.files").read
local temporary = require "spec.support.temporary"
local tolerance = require "spec.support.tolerance"
local worst = require "spec.support.worst"

-- The rows of the tables of single cells: maps dtype, vocabulary and distribution to our largest
-- absolute error.
local function rows_of(text)
  local rows, dtype = {}, nil
  for line in text:gmatch "[^\n]*" do
    dtype = line:match "^## (%w+) logits: error" or not line:find "^#" and dtype or nil
    local V, name, largest = line:match "^| (%d+) | ([^|]-) | %d+ | [^|]- / [^|]- / (%S+) |"
    if dtype and V then rows[("V = %s, %s, %s"):format(V, dtype, name)] = tonumber(largest) end
  end
  return rows
end

local function run(arguments)
  local pipe = io.popen(("luajit tools/accuracy.lua %s 2>&1; echo status $?"):format(arguments))
  local text = pipe:read "*a"
  pipe:close()
  return tonumber(text:match "status (%d+)\n$"), text
end

describe("docs/accuracy.md", function()
  it("has a row for every cell, within the bound", function()
    local rows, missing = rows_of(read "docs/accuracy.md"), {}
    for _, cell in ipairs(tolerance.cells()) do
      local largest = rows[cell.name]
      if not largest then
        missing[#missing + 1] = cell.name
      else
        -- No logprob of these cells exceeds 1024 in magnitude, and none of the others exceeds 64.
        local half_ulp = cell.distribution.tau == 0.02 and 6.2e-5 or 1.95e-6
        assert(largest <= bounds.LOGPROB + bounds.SLOPE * math.log(cell.vocab) + half_ulp,
               ("%s: %g"):format(cell.name, largest))
      end
    end
    assert.same({}, missing)
  end)
end)

describe("tools/accuracy.lua", function()
  local files
  setup(function() files = temporary.folder() end)
  teardown(function() files:remove() end)

  it("writes between the marks, and nothing else", function()
    local page = files:write("page.md", "before\n<!-- measured: begin -->\nold\n" ..
                                        "<!-- measured: end -->\nafter\n")
    local status, said = run(("--vocab 300 --times 1 --out '%s'"):format(page))
    assert.equal(0, status, said)
    local text = read(page)
    assert.equal("before\n<!-- measured: begin -->\n", text:sub(1, 32))
    assert.equal("\n<!-- measured: end -->\nafter\n", text:sub(-30))
    assert.falsy(text:find("old", 1, true))
    local rows, count = rows_of(text), 0
    for _ in pairs(rows) do count = count + 1 end
    assert.equal(30, count)
    assert.is_true(rows["V = 300, float32, flat"] < 8e-7)
  end)

  it("writes the worst rows' table, which docs/accuracy.md has", function()
    local table_of = "<!%-%- worst: begin %-%->\n(.-)<!%-%- worst: end %-%->\n"
    local page = files:write("page.md", "<!-- worst: begin -->\n<!-- worst: end -->\nafter\n")
    local status, said = run(("--worst --out '%s'"):format(page))
    assert.equal(0, status, said)
    local text = read(page)
    assert.equal(read "docs/accuracy.md":match(table_of), text:match(table_of))
    assert.equal("after\n", text:sub(-6))
    local _, lines = text:match(table_of):gsub("\n", "")
    assert.equal(#worst.CASES + 2, lines)
  end)

  it("refuses what it does not know", function()
    local page = files:write("bare.md", "no marks\n")
    for arguments, words in pairs {
      ["--vocabulary 300"] = "unknown argument '--vocabulary'",
      ["--times"] = "--times needs a value",
      ["--times 0.5"] = "--times 0.5: not a positive integer",
      [("--out '%s'"):format(page)] = "bare.md: the marks are missing",
      ["--out /nowhere/page.md"] = "/nowhere/page.md: No such file",
    } do
      local status, said = run(arguments)
      assert.equal(1, status)
      assert.truthy(said:find(words, 1, true), said)
    end
    assert.equal("no marks\n", read(page))
  end)
end)
