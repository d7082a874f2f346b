-- What the prompt reads besides Lua.

local magic = require "samebits.repl.magic"

describe("the prompt", function()
  it("takes ?name and name? for questions", function()
    for text, name in pairs { ["?topk"] = "topk", ["topk?"] = "topk", [" ? ctx:topk "] = "ctx.topk",
                              ["ctx:topk??"] = "ctx.topk", ["?"] = "", ["?samebits.plot"] =
                              "samebits.plot" } do
      assert.equal(name, magic.question(text))
    end
    for _, text in ipairs { "topk", "x = '?'", "f(x)?", "a\nb?", "print '?topk'" } do
      assert.is_nil(magic.question(text))
    end
  end)

  it("takes %time before a statement", function()
    assert.equal("f(x)", magic.timed "%time f(x)")
    assert.equal("x = 1\ny", magic.timed "  %time  x = 1\ny")
    assert.equal("", magic.timed "%time")
    assert.is_nil(magic.timed "%timeit f()")
    assert.is_nil(magic.timed "a %time b")
    assert.same({ "1.5 s", "2 ms", "12.3 us" },
                { magic.seconds(1.5), magic.seconds(0.002), magic.seconds(1.23e-5) })
  end)

  it("finds the length of a tensor, outside of strings and comments", function()
    local function wrong(text)
      return magic.wrong_length(text, function(chain) return chain == "t" or chain == "o.t[0]" end)
    end
    assert.equal("#t", wrong "for i = 1, #t do end")
    assert.equal("#o.t[0]", wrong "print(# o.t[0])")
    assert.equal("#t", wrong "--[[ a comment ]] print(#t)")
    for _, text in ipairs { "#list", "'#t'", '"#t"', "-- #t", "[[ #t ]]", "--[[\n#t\n]] x", "#t2",
                            '"\\"#t"', "x - #list" } do
      assert.is_nil(wrong(text))
    end
  end)
end)
