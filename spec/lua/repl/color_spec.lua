-- Colours: what gets which, nothing but escapes added, and when there are none.

local color = require "samebits.repl.color"

local function bare(text) return (text:gsub("\27%[[%d;]*m", "")) end

describe("colours", function()
  it("add nothing but escapes", function()
    for _, text in ipairs { "1e-7, nan, \"a\\\"b nil\", true", "",
                            "{ a = 1, t = tensor float32 [2] cpu }", "it's\n'open",
                            "tensor int8 [2] cpu\n[1, 2]", "0x1p-3 x2 1.5e+10" } do
      assert.equal(text, bare(color.values(text)))
      assert.equal(text, color.paint(false, "error", text))
      assert.equal(text, bare(color.help(true, text)))
      assert.equal(text, bare(color.paint(true, "error", text)))
    end
  end)

  it("mark strings, words, names and heads of tensors", function()
    assert.equal('\27[36mb\27[0m = \27[32m"x nil"\27[0m, \27[33mnil\27[0m, 2e5',
                 color.values('b = "x nil", nil, 2e5'))
    assert.equal("\27[2mtensor int8 [2] cpu\27[0m\n[1, 2]",
                 color.values("tensor int8 [2] cpu\n[1, 2]"))
  end)

  it("of a prompt are bracketed, with a character after the last", function()
    assert.equal("> ", (color.prompt(true, "> "):gsub("\1.-\2", "")))
    assert.matches(" $", color.prompt(true, "> "))
    assert.equal("> ", color.prompt(false, "> "))
  end)

  it("are off without a terminal", function() assert.is_false(color.enabled()) end)
end)
