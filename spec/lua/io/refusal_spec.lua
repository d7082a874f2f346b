-- Refusals of files: how a reader is ended from any depth, and how names from files are shown.

local refusal = require "samebits.io.refusal"

describe("a refusal", function()
  it("ends the reader that it is raised in, and is nil and a message behind the name", function()
    local function deep(n)
      if n == 0 then refusal.raise("byte %d: %s", 12, "torn") end
      deep(n - 1)
      error "goes on"
    end
    local result, message, more = refusal.catch("a 100%d.npy", deep, 3)
    assert.is_nil(result)
    assert.equal("a 100%d.npy: byte 12: torn", message)
    assert.is_nil(more)
  end)

  it("leaves results and other errors as they are", function()
    local function echo(...) return ... end
    assert.equal(3, select("#", refusal.catch("f", echo, 1, nil, false)))
    assert.same({ 1, nil, false }, { refusal.catch("f", echo, 1, nil, false) })
    local thrown = { message = "not a refusal" }
    local ok, err = pcall(refusal.catch, "f", error, thrown)
    assert.is_false(ok)
    assert.equal(thrown, err)
  end)

  it("quotes what it shows, printable and not too long", function()
    assert.equal("''", refusal.quote "")
    assert.equal([['a\x1b[31m\n']], refusal.quote "a\27[31m\n")
    assert.equal("'" .. ("x"):rep(64) .. "'", refusal.quote(("x"):rep(64)))
    assert.equal("'" .. ("x"):rep(64) .. "...'", refusal.quote(("x"):rep(65)))
    -- A character is not cut in two.
    assert.equal("'" .. ("x"):rep(63) .. "...'", refusal.quote(("x"):rep(63) .. "\195\164"))
  end)

  it("lists names sorted, 20 at most", function()
    assert.equal("none", refusal.list {})
    local names = { "b", "a\n", "B" }
    assert.equal([['B', 'a\n', 'b']], refusal.list(names))
    assert.same({ "b", "a\n", "B" }, names)
    local many = {}
    for i = 1, 20 do many[i] = ("n%02d"):format(21 - i) end
    assert.matches("^'n01', .*, 'n20'$", refusal.list(many))
    many[21], many[22] = "z1", "z2"
    assert.matches("'n20' and 2 more$", refusal.list(many))
  end)
end)
