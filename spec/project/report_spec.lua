-- The parts of a spec run that other programs read: the last line, a JUnit file, TAP.

local junit = require "spec.support.junit"
local lines = require "spec.support.lines"
local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

-- What a run prints, and ends with: the specs of a file of this text.
local function run_of(files, text, options)
  return shell.run("env -u SB_JUNIT luajit \"$(command -v busted)\" " .. (options or "") .. " %s",
                   files:write("some_spec.lua", text))
end

-- One of each, with words that need escaping in every format.
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

describe("what a run prints", function()
  local SKIPS = [==[
describe("some", function()
  pending "there is no GPU"
  pending "there is no GPU"
  for i = 1, 3 do
    it("waits " .. i, function() return pending "there is no compiler\nfor this" end)
  end
  it("waits for something else", function() pending "there is no printer" end)
  it("waits for nothing named", function() pending() end)
  it("passes", function() end)
end)
]==]

  it("has one line for each reason of a skip, with its count", function()
    local text, code = run_of(files, SKIPS)
    assert.equal(0, code)
    assert.same({}, lines.repeated(text))
    assert.truthy(text:find("\nskipped  3 tests: there is no compiler for this\n" ..
                            "skipped  2 tests: there is no GPU\n" ..
                            "skipped  1 test: no reason given\n" ..
                            "skipped  1 test: there is no printer\n", 1, true), text)
    assert.matches("\n1 passed, 0 failed, 7 skipped\n$", text)
    assert.is_nil(text:find("%.lua:%d"), text)
    assert.is_true(count(text, "\n") < 10, text)
  end)

  it("names the tests that were skipped where more is asked for", function()
    local text = run_of(files, SKIPS, "--verbose")
    assert.truthy(text:find("\nskipped  3 tests: there is no compiler for this\n" ..
                            "    some waits 1\n    some waits 2\n    some waits 3\n", 1, true),
                  text)
    text = run_of(files, SKIPS, "--suppress-pending")
    assert.is_nil(text:find("no GPU", 1, true), text)
  end)

  it("says what failed, and a failure's words once", function()
    local text, code = run_of(files, [==[
for i = 1, 3 do
  it("has its failure " .. i, function() error("the library is not there\nat all", 0) end)
end
it("differs", function() assert.equal(1, 2) end)
it("throws", function() error { code = 7 } end)
describe("outside", function() error "it does not load" end)
]==])
    assert.equal(1, code)
    assert.matches("\n0 passed, 6 failed, 0 skipped\n$", text)
    assert.equal(1, count(text, "the library is not there\nat all\n"), text)
    for i = 1, 3 do
      assert.matches("\nError %-> [^\n]*some_spec%.lua @ 2: has its failure " .. i .. "\n", text)
    end
    assert.matches("\nFailure %-> [^\n]*some_spec%.lua @ 4: differs\n[^\n]*some_spec%.lua:4: " ..
                   "Expected objects to be equal", text)
    assert.matches("code = 7", text)
    assert.matches(": outside\n[^\n]*some_spec.lua:6: it does not load\n", text)
    assert.is_nil(text:find("stack traceback", 1, true))
    text = run_of(files, "it('fails', function() error 'here' end)", "-v")
    assert.matches("stack traceback", text)
  end)

  it("says where there are no tests", function()
    local text, code = shell.run "luajit \"$(command -v busted)\" spec/nowhere"
    assert.equal(1, code)
    assert.matches("spec/nowhere", text)
  end)
end)

describe("the demo", function()
  it("prints no line twice", function()
    local text, code = shell.run "luajit examples/01_quickstart.lua"
    assert.equal(0, code)
    assert.same({}, lines.repeated(text))
  end)
end)
