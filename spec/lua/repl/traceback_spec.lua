-- The frames of an error as lines: down to a base, without those that only pass calls on.

local traceback = require "samebits.repl.traceback"

-- The lines of an error that a chunk raises, with `base` below it.
local function lines_of(text, ...)
  local chunk = assert(load(text, "=typed"))
  local arguments, lines = { ... }, nil
  local function base()
    local result = chunk(unpack(arguments))
    return result
  end
  assert.is_false(xpcall(base, function() lines = traceback.lines(base) end))
  return lines
end

describe("a traceback", function()
  it("names the frames above the base, the innermost first", function()
    assert.same({ "  typed:1 in function 'inner'", "  typed:2 in function 'outer'",
                  "  typed:3 in the main chunk" }, lines_of [[
local function inner() local x = nil; x() end
local function outer() inner() end
outer()]])
  end)

  it("leaves out error itself, but no other function that is built in", function()
    assert.same({ "  typed:1 in the main chunk" }, lines_of "error 'oops'")
    local lines = lines_of "local list = { 2, 1 } table.sort(list, function() error 'oops' end)"
    assert.equal(3, #lines)
    assert.equal("  typed:1 in the function of line 1", lines[1])
    assert.equal("  [C] in function 'sort'", lines[2])
    assert.equal("  typed:1 in the main chunk", lines[3])
  end)

  it("leaves out the frames that only pass calls on", function()
    local text = "local f = ... ; local result = f() return result"
    for file, shown in pairs { ["misuse"] = 0, ["repl/interrupt"] = 0, ["repl/helpers"] = 0,
                               ["repl/other"] = 1 } do
      local pass = assert(load(text, ("@/somewhere/samebits/%s.lua"):format(file)))
      local lines = lines_of("local pass = ...\npass(function() error 'oops' end)", pass)
      assert.equal(2 + shown, #lines, file)
      assert.equal("  typed:2 in the main chunk", lines[#lines])
    end
  end)

  it("is cut to 20 frames at most, and says how many are left out", function()
    local lines = lines_of [[
local function deeper(n)
  if n == 0 then error "oops" end
  deeper(n - 1)
end
deeper(29)]]
    local shown, left = #lines - 1, tonumber(lines[#lines]:match "^  %.%.%. %((%d+) more%)$")
    assert.is_true(shown >= 19 and shown <= 20)
    assert.equal(31, shown + left)
    for i = 2, shown do assert.equal("  typed:3 in function 'deeper'", lines[i]) end
  end)
end)
