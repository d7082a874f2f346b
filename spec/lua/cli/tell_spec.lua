-- How commands end: what ends one, what is said of it, and what becomes of output that cannot be
-- written.

local tell = require "samebits.cli.tell"

-- What f ends the command with: the message, and whether the usage is shown.
local function ending(f, ...)
  local ok, err = pcall(f, ...)
  assert.is_false(ok, "expected the command to end")
  return tell.message(err)
end

describe("a command", function()
  it("ends with a message", function()
    assert.same({ "'a' is not 3" }, { ending(tell.fail, "'%s' is not %d", "a", 3) })
    assert.same({ "100% as it is" }, { ending(tell.fail, "100% as it is") })
    assert.same({ "no file 'a'", true }, { ending(tell.misuse, "no file '%s'", "a") })
  end)

  it("tells of other errors what they say", function()
    assert.same({ "torn" }, { tell.message "torn" })
    local err = setmetatable({}, { __tostring = function() return "an object" end })
    assert.same({ "an object" }, { tell.message(err) })
  end)

  it("goes on with the result of what it tries", function()
    local function sum(a, b) return a + b, "not given on" end
    assert.same({ 3 }, { tell.try(sum, 1, 2) })
    assert.is_false(tell.try(function() return false end))
  end)

  it("ends where what it tries fails", function()
    assert.equal("none: 5%", (ending(tell.try, function() return nil, "none: 5%" end)))
    assert.equal("raised", (ending(tell.try, error, "raised", 0)))
    assert.same({ "inside", true }, { ending(tell.try, tell.misuse, "inside") })
  end)

  it("ends where its output cannot be written", function()
    local stdout, full = io.stdout, assert(io.open("/dev/full", "w"))
    io.stdout = full  -- luacheck: ignore
    local ok, err = pcall(tell.write, "text\n")
    io.stdout = stdout  -- luacheck: ignore
    full:close()
    assert.is_false(ok)
    assert.equal("cannot write the output: No space left on device", (tell.message(err)))
  end)
end)
