-- Doc comments as they are read from the sources: of a line, a module, its members and a class.

local samebits = require "samebits"
local sources = require "samebits.repl.sources"
local temporary = require "spec.support.temporary"

local function by_name(list)
  local found = {}
  for i, member in ipairs(list) do
    assert.is_true(i == 1 or list[i - 1].name < member.name, "sorted: " .. member.name)
    found[member.name] = member
  end
  return found
end

describe("sources", function()
  it("find the doc comment right before a line", function()
    local lines = { "-- not of it", "--- What it does.", "--", "--   @param a a number",
                    "function M.f(a) end", "-- only a remark", "function M.g() end", "x = 1" }
    assert.same({ "What it does.", "", "  @param a a number" },
                sources.comment_before(lines, 5))
    assert.is_nil(sources.comment_before(lines, 7))
    assert.is_nil(sources.comment_before(lines, 8))
    assert.is_nil(sources.comment_before(lines, 1))
  end)

  it("read the parameters that a comment describes", function()
    assert.equal("(a, b, c)", sources.told_parameters {
      "Does it.", "@param a the first", "@tparam number b", "@tparam[opt] table c", "@return it" })
    assert.is_nil(sources.told_parameters { "Does it.", "@return it" })
    assert.is_nil(sources.told_parameters(nil))
  end)

  it("read the lines of a file, and give nil for one that is missing", function()
    local files = temporary.folder()
    finally(function() files:remove() end)
    assert.same({ "a", "", "b" }, sources.lines_of_file(files:write("f.lua", "a\n\nb\n")))
    assert.is_nil(sources.lines_of_file(files:path "missing.lua"))
  end)

  it("tell public modules by the @module in their head", function()
    assert.equal("Compares bits: whether they are the same, and how far apart two values are.",
                 sources.head("samebits.bits")[1])
    assert.is_true(sources.is_public "samebits.bits")
    assert.is_false(sources.is_public "samebits.repl.sources")
    assert.is_false(sources.is_public "string")
    assert.is_false(sources.is_public "samebits.no_such_module")
  end)

  it("list the members of a module, with parameters and comments", function()
    local members = by_name(sources.members "samebits")
    assert.equal("(backend, opts)", members.open.parameters)
    assert.equal("Opens a backend.", members.open.doc[1]:match "^[^.]*%.")
    assert.equal(samebits.open, members.open.value)
    assert.is_nil(members.version.parameters)
    for name in pairs(samebits) do assert.is_table(members[name], name) end
  end)

  it("list the methods of a class, and know the class of an object", function()
    local t = samebits.zeros { 1 }
    local class = sources.class_of(t)
    assert.equal("Tensor", class.name)
    local methods = by_name(sources.methods(class))
    assert.equal("(dim, from, to)", methods.slice.parameters)
    assert.is_table(methods.slice.doc)
    for name in pairs(methods) do assert.is_nil(name:find "^__") end
    assert.is_nil(sources.class_of {})
    assert.is_nil(sources.class_of "text")
  end)
end)
