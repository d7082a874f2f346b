-- The file of lines typed in earlier sessions: made, added to, cut and refused.

local history = require "samebits.repl.history"
local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

local files
setup(function() files = temporary.folder() end)
teardown(function() files:remove() end)

describe("history:", function()
  it("is kept in a file that is its owner's alone, made with its folders", function()
    local path = files:path "a/b/history"
    assert.same({}, history.load(path))
    assert.is_true(history.append(path, { "x = 1", "y" }))
    assert.is_true(history.append(path, {}))
    assert.is_true(history.append(path, { "z" }))
    assert.same({ "x = 1", "y", "z" }, history.load(path))
    assert.equal("-rw------- drwx------ ", (shell.run(
      "cd %s && stat -c %s a/b/history a/b | tr '\\n' ' '", files.name, "%A")))
  end)

  it("keeps entries of several lines as they were typed", function()
    local path = files:path "several"
    local entries = { "function f()\n  return 1 -- one\nend", "f()" }
    assert.is_true(history.append(path, entries))
    assert.same(entries, history.load(path))
  end)

  it("keeps the last lines of many, and cuts the file at times", function()
    local lines = {}
    for i = 1, 4500 do lines[i] = "line " .. i end
    local path = files:write("long", table.concat(lines, "\n") .. "\n")
    local got = history.load(path)
    assert.equal(2000, #got)
    assert.equal("line 4500", got[2000])
    assert.equal(got[1], io.lines(path)())
  end)

  it("says why it cannot be kept", function()
    local path = files:write("file", "")
    local ok, why = history.append(path .. "/below/history", { "x" })
    assert.is_nil(ok)
    assert.matches("^" .. path .. "/below/history: ", why)
    ok, why = history.load(files.name)
    assert.is_nil(ok)
    assert.matches("not a regular file", why)
  end)
end)
