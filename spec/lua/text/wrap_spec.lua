-- Text in lines of a width: words, single lines, and pages of paragraphs, lists, columns and code.

local wrap = require "samebits.text.wrap"

describe("words", function()
  it("fill lines up to the width, whatever stood between them", function()
    assert.equal("aa bb\ncc dd", wrap.words("aa  bb\ncc\tdd ", 5))
    assert.equal("aa\nbb\ncc\ndd", wrap.words("aa bb cc dd", 4))
    assert.equal("aa bb cc dd", wrap.words("aa bb cc dd", 11))
  end)

  it("stand behind what begins the first line and the later ones", function()
    assert.equal("- one two\n  three\n  four", wrap.words("one two three four", 9, "- ", "  "))
    assert.equal("- ", wrap.words("", 9, "- ", "  "))
  end)

  it("are not broken where one is too long", function()
    assert.equal("a\nbbbbbbbb\nc", wrap.words("a bbbbbbbb c", 4))
    assert.equal("bbbbbbbb\nc", wrap.words("bbbbbbbb c", 4))
  end)
end)

describe("a line", function()
  it("stays as it is where it fits, and else goes on two columns further in", function()
    assert.equal("  a  b", wrap.line("  a  b", 6))
    assert.equal("  a\n    b", wrap.line("  a b", 4))
    assert.equal("one two\n  three", wrap.line("one two three", 8))
  end)
end)

describe("a page", function()
  it("stays as it is where all of its lines fit", function()
    local text = "short lines\nof a paragraph\n\n* and  an item\n"
    assert.equal(text, wrap.page(text, 14))
    assert.are_not.equal(text, wrap.page(text, 13))
  end)

  it("has its paragraphs and items flow, its columns hang, and its code left alone", function()
    local text = table.concat({
      "A paragraph of words that is",
      "too long for its lines by far.",
      "",
      "  name      what it is, in words that are longer",
      "  other     short",
      "            goes on here, and on and on and on",
      "",
      "    code stays as it is, however long it may be",
      "* an item of a list that",
      "  goes on here",
      "* next",
      "",
    }, "\n")
    assert.same(table.concat({
      "A paragraph of words that is too long",
      "for its lines by far.",
      "",
      "  name      what it is, in words that",
      "            are longer",
      "  other     short",
      "            goes on here, and on and on",
      "            and on",
      "",
      "    code stays as it is, however long it may be",
      "* an item of a list that goes on here",
      "* next",
      "",
    }, "\n"), wrap.page(text, 40))
  end)
end)
