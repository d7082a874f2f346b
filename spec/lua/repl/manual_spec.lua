-- What is said of the library's functions, modules and objects, made from the comments in sources.

local samebits = require "samebits"
local manual = require "samebits.repl.manual"
local refusal = require "spec.support.refusal"
local temporary = require "spec.support.temporary"

local says = refusal.says

describe("the manual", function()
  local files
  setup(function() files = temporary.folder() end)
  teardown(function() files:remove() end)

  it("makes a list of a comment's parameters and results", function()
    local path = files:write("f.lua", table.concat({
      "--- Does it.", "-- @tparam number a the first", "-- @tparam[opt] table b the second",
      "-- @param c the third,", "-- on two lines", "-- @treturn string the result",
      "return function(a, b, c) return a, b, c end" }, "\n"))
    assert.equal([[
f(a, b, c)

Does it.

* a (number): the first
* b (table, optional): the second
* c: the third,
  on two lines
* gives (string): the result]], manual.of(dofile(path), "f"))
  end)

  it("heads a method with a colon, and knows a public function's name", function()
    says(manual.of(samebits.open), "samebits.open(backend, opts)\n\nOpens a backend.")
    local t = samebits.zeros { 1 }
    assert.matches("^x:slice%(dim, from, to%)\n\n", manual.of(t.slice, "x.slice"))
  end)

  it("has nothing on functions without a comment", function()
    assert.is_nil(manual.of(print))
    assert.is_nil(manual.of(loadstring "return 1"))
    assert.is_nil(manual.of(dofile(files:write("g.lua", "-- A remark.\nreturn function() end"))))
  end)

  it("describes a module and what it returns, within a width", function()
    assert.equal("samebits.bits", manual.module_of(require "samebits.bits"))
    assert.is_nil(manual.module_of {})
    assert.is_nil(manual.module_of "samebits.bits")
    local text = manual.of_module("samebits.bits", 60)
    says(text, "Compares bits: whether they are the same", "\nsamebits.bits.hex(",
         "\n\nMore of each: help \"samebits.bits.")
    assert.is_nil(text:find("@module", 1, true))
    for line in text:match("\n(samebits%.bits%..*)\n\nMore"):gmatch "[^\n]+" do
      assert.is_true(#line <= 60, line)
    end
  end)

  it("lists an object's methods under the name given", function()
    local t = samebits.zeros { 1 }
    local text = manual.of_object(t, "x", 80)
    says(text, "x:slice(dim, from, to)", "\n\nMore of each: help(x.")
    says(manual.of_object(t, nil, 80), "t:slice(dim, from, to)")
    assert.is_nil(manual.of_object({}, "x", 80))
  end)

  it("finds all public functions of a name, and names that hold it", function()
    local text = manual.search "to"
    says(text, "batch:to(device, opts)\n\n", "t:to(target, opts)\n\n")
    says(manual.search "mask_from", "\nsamebits.mask_from_lengths ", "\nsamebits.mask_from_splits ")
    assert.is_nil(manual.search "nothing_like_it")
    -- What only refers to a name is no option of it.
    assert.is_nil(manual.search "topk":find "the option")
  end)
end)
