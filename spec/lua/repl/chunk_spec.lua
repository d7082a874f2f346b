-- How typed text becomes a function: expressions, statements, what goes on in the next line, and
-- the locals that outlive their chunk.

local chunk = require "samebits.repl.chunk"

describe("chunks:", function()
  local function values(text)
    local f, keeps = assert(chunk.compile(text, "=prompt"))
    setfenv(f, setmetatable({}, { __index = _G }))
    if keeps then chunk.keep(f, function() end) end
    return f()
  end

  it("expressions give their values, with = or without", function()
    for text, want in pairs { ["1 + 1"] = 2, ["=1 + 1"] = 2, [" = 1 + 1"] = 2, ["#'abc'"] = 3,
                              ["return 2"] = 2, ["1 + 1 -- two"] = 2, ["(\n1 + 1)"] = 2 } do
      assert.equal(want, values(text), text)
    end
    assert.same({ 1, 2, 3 }, { values "1, 2, 3" })
    assert.equal(0, select("#", values ""))
    assert.equal(0, select("#", values "-- nothing"))
    assert.equal(0, select("#", values "x = 1"))
  end)

  for _, text in ipairs { "for i = 1, 3 do", "x =", "f(", "{ 1,", "function f()", "[[abc", "= 1 +",
                          "if x then\n  y = 1", "1 +", "repeat", "--[[ a", "local x <nope" } do
    it(("%q goes on in the next line, or is wrong"):format(text), function()
      local f, why, unfinished = chunk.compile(text, "=prompt")
      assert.is_nil(f)
      assert.equal(text ~= "local x <nope", unfinished, why)
    end)
  end

  it("what no further line can mend is wrong at once", function()
    for text, words in pairs { ["x x"] = "near 'x'", ["1 + * 2"] = "near '%*'", ["'abc"] = "string",
                               ["end"] = "near 'end'", ["= x ="] = "near '='" } do
      local f, why, unfinished = chunk.compile(text, "=prompt")
      assert.is_nil(f)
      assert.is_falsy(unfinished, text)
      assert.matches(words, why)
      assert.matches("^prompt:1: ", why)
    end
  end)

  it("bytecode is no text", function()
    local f, why = chunk.compile(string.dump(function() end), "=prompt")
    assert.is_nil(f)
    assert.is_string(why)
  end)

  it("locals of the outermost block are kept, with nil and with inner blocks left out", function()
    local kept = {}
    local function run(text)
      local f, keeps = chunk.compile(text, "=prompt")
      setfenv(f, {})
      local forget = keeps and chunk.keep(f, function(name, value) kept[name] = value end)
      f()
      if forget then forget() end
      return f
    end
    local f = run "local a, b = 5, 6 do local c = 7 end local function g() end"
    assert.same({ 5, 6 }, { kept.a, kept.b })
    assert.is_nil(kept.c)
    assert.is_function(kept.g)
    assert.is_nil(next(getfenv(f)))
    run "local d = 1 return d"
    assert.is_nil(kept.d)
  end)

  it("an error in an expression has its place", function()
    local ok, why = pcall(chunk.compile("error 'oops'", "=prompt"))
    assert.is_false(ok)
    assert.equal("prompt:1: oops", why)
    ok, why = pcall(chunk.compile("\n\nnowhere.near", "=stdin"))
    assert.is_false(ok)
    assert.matches("^stdin:3: ", why)
  end)
end)
