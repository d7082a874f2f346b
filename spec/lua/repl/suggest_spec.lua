-- What the rest of a line may be, and how it is drawn. terminal_spec shows it in a terminal.

local suggest = require "samebits.repl.suggest"

describe("a suggestion", function()
  it("is the rest of the newest entry that begins so, in its first line", function()
    local entries = { "out = 1", "out = 2", "function f()\n  return 1\nend", "x" }
    assert.equal("t = 2", suggest.rest(entries, "ou"))
    assert.equal("tion f()", suggest.rest(entries, "func"))
    for _, line in ipairs { "", "  ", "x", "nothing", "out = 2", "function f()" } do
      assert.is_nil(suggest.rest(entries, line))
    end
  end)

  it("is drawn in the room that there is, and the cursor goes back", function()
    assert.equal("\27[K\27[2mabc\27[0m\27[3D", suggest.drawn("abc", 10))
    assert.equal("\27[K\27[2mab\27[0m\27[2D", suggest.drawn("abc", 2))
    assert.equal("\27[K", suggest.drawn("abc", 0))
    assert.equal("\27[K", suggest.drawn(nil, 10))
    assert.equal("\27[K", suggest.drawn("a\27[31m", 10))
  end)
end)
