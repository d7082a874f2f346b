-- Misuse of the API, and refusals by the environment: how both leave a public function.

local misuse = require "samebits.misuse"
local refusal = require "spec.support.refusal"

-- A function that others call, guarded, whose depths run f.
local function public(f) return misuse.guard(function(...) return f(...) end) end

describe("a guarded function", function()
  it("gives what the function inside gives", function()
    local echo = public(function(...) return ... end)
    assert.equal(4, select("#", echo(1, nil, false, nil)))
    assert.same({ 1, nil, false }, { echo(1, nil, false) })
    assert.equal(0, select("#", echo()))
    assert.same({ nil, "a message b", 7 }, { echo(nil, "a message b", 7) })
  end)

  it("reports misuse at the line of its caller, printable", function()
    local raise = public(misuse.raise)
    assert.equal("x: expected 3, got a\\x1b", refusal.misuse(function()
      local _ = raise("x: expected %d, got %s", 3, "a\27")
    end))
    assert.equal("100% as it is", refusal.misuse(function() local _ = raise "100% as it is" end))
    local ok, message = pcall(raise, "bare")
    assert.is_false(ok)
    assert.equal("bare", message)
  end)

  it("gives nil, a message and a code for a refusal", function()
    assert.same({ nil, "no\\x07 memory", "SB_ERR_MEMORY" },
                { public(misuse.fail)("no\7 memory", "SB_ERR_MEMORY") })
    assert.equal(2, select("#", public(misuse.fail) "no memory"))
    local try = public(function(...) return "got " .. tostring(misuse.try(...)) end)
    assert.equal("got false", try(false, "unused"))
    assert.same({ nil, "why", 3 }, { try(nil, "why", 3) })
  end)

  it("leaves other errors as they are", function()
    local thrown = { message = "not ours" }
    local ok, err = pcall(public(error), thrown)
    assert.is_false(ok)
    assert.equal(thrown, err)
  end)

  it("is known with what is inside", function()
    local function inside() end
    local guarded = misuse.guard(inside)
    assert.not_equal(inside, guarded)
    assert.equal(inside, misuse.unguarded(guarded))
    assert.equal(inside, misuse.unguarded(inside))
  end)
end)

describe("options", function()
  it("are a table of known keys, or none", function()
    local options, known = public(misuse.options), { split = true }
    local given = { split = 3 }
    assert.equal(given, options("topk", given, known))
    assert.same({}, options("topk", nil, known))
    local function refused(opts)
      return refusal.misuse(function() local _ = options("topk", opts, known) end)
    end
    assert.equal("topk: expected a table, got number", refused(3))
    assert.equal("topk: unknown option 'spilt'", refused { spilt = 3 })
    assert.equal("topk: unknown option '1'", refused { 3 })
  end)
end)
