-- What other programs read of a run of the specs: the last line, a JUnit file, TAP.

local junit = require "spec.support.junit"
local temporary = require "spec.support.temporary"

-- One of each, with words that no format likes.
local SPEC = [==[
describe("a <thing> & 'more' \"still\"", function()
  it("passes", function() end)
  it("passes, too \1\27[31m\195\40", function() end)
  it("fails", function() error { message = "no" } end)
  it("fails ]]> <", function() assert.equal("\0\255\239\191\191", "]]>") end)
  it("waits", function() pending "for <it> & that" end)
end)
describe("what breaks outside", function() error "here & there" end)
]==]

local files, path, said, status

setup(function()
  files = temporary.folder()
  local odd = files:write("odd_spec.lua", SPEC)
  path = files:path "report.xml"
  local pipe = io.popen(("SB_JUNIT='%s' luajit \"$(command -v busted)\" -o TAP '%s' 2>&1; " ..
                         "echo \"status $?\""):format(path, odd))
  said, status = pipe:read "*a":match "^(.*)status (%d+)\n$"
  pipe:close()
end)
teardown(function() files:remove() end)

local function count(text, pattern) return select(2, text:gsub(pattern, "")) end

describe("a run of the specs", function()
  it("ends with its counts, and fails", function()
    assert.matches("\n2 passed, 3 failed, 1 skipped\n$", said)
    assert.equal("1", status)
  end)

  it("writes TAP", function()
    assert.equal(3, count(said, "%f[^\n%z]ok %d+ "), said)  -- skipped is ok
    assert.equal(1, count(said, "%f[^\n%z]ok %d+ %- # SKIP"), said)
    assert.is_true(count(said, "%f[^\n%z]not ok %d+ ") >= 2, said)
    assert.matches("\n1%.%.%d+\n", said)
  end)

  it("writes a JUnit file with the same counts", function()
    local text = files:read "report.xml"
    local document = require("pl.xml").parse(text)
    assert.equal("testsuites", document.tag)
    local a = document.attr
    assert.same({ "5", "3", "1" },
                { a.tests, tostring(a.failures + a.errors), a.skipped })
    assert.equal(5, count(text, "<testcase%f[%s]"))
    assert.equal(1, count(text, "<skipped%f[%s/>]"))
    assert.equal(3, count(text, "<failure%f[%s/>]") + count(text, "<error%f[%s/>]"))
  end)

  it("writes a JUnit file that is XML", function()
    local text = files:read "report.xml"
    assert.equal(junit.clean(text), text)
    assert.equal(0, count(text:gsub("&%a+;", ""), "&"))
    -- A parser that forgives nothing.
    if os.execute "python3 -c 0 2>/dev/null" ~= 0 then return end
    assert.equal(0, os.execute(("python3 -c 'import sys, xml.dom.minidom as m; " ..
                                "m.parse(sys.argv[1])' '%s'"):format(path)))
  end)

  it("does not start where the JUnit file cannot be written", function()
    local pipe = io.popen "SB_JUNIT=/nowhere/a.xml luajit \"$(command -v busted)\" 2>&1"
    local text = pipe:read "*a"
    pipe:close()
    assert.matches("JUnit file cannot be written: /nowhere/a.xml", text)
    assert.is_nil(text:find("passed", 1, true))
  end)
end)
