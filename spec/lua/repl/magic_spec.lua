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
end)
