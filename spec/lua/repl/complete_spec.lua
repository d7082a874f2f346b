-- The candidates of Tab at the prompt: names, fields and methods, found without calling any code of
-- the user's.

local samebits = require "samebits"
local complete = require "samebits.repl.complete"
local lib = require "samebits.lib"

describe("completion:", function()
  local names, scope
  setup(function()
    local t = samebits.zeros { 2, 3 }
    local circle = { first = 1 }
    setmetatable(circle, { __index = circle })
    names = {
      samebits = samebits, t = t, C = lib.C, batch = samebits.batch { logits = t, ids = { 0, 1 } },
      ctx = assert(samebits.open "cpu"), word = "text", circle = circle, empty = {},
      data = { logits = t, ["a b"] = 1, nested = { deep = t } },
      list = { { name = 1 } },
      loud = setmetatable({}, { __index = function() error "was called" end }),
    }
    scope = {
      names = function(visit) for name in pairs(names) do visit(name) end end,
      get = function(name) return names[name] end,
    }
  end)
  teardown(function() names.ctx:close() end)

  local function words(word, before)
    local list = complete.candidates(before or "", word, scope)
    return list and table.concat(list, " ")
  end

  it("of names and keywords", function()
    assert.equal("samebits", words "sam")
    assert.equal("while word", words "w")
    assert.equal("print(word", words "print(wo")
    assert.equal("-t.shape", words "-t.sha")
    assert.equal("", words "")
    assert.equal("", words "nothing_like_it")
  end)

  it("of fields and methods, through __index tables", function()
    assert.equal("samebits.backends samebits.batch samebits.batch_from samebits.bits",
                 words "samebits.b")
    assert.equal("samebits.bits.hex", words "samebits.bits.h")
    assert.equal("ctx:logits ctx:logprob ctx:logprob_ids", words "ctx:log")
    assert.equal("ctx.isa", words "ctx.is")
    assert.equal("", words "ctx:is")
    assert.equal("batch:active", words "batch:a")
    assert.equal("word:format", words "word:fo")
    assert.equal("circle.first", words "circle.f")
    assert.equal("data.logits data.nested", words "data.")
    assert.equal("list[1].name", words "list[1].n")
    assert.equal("x*data.nested.deep", words "x*data.nested.d")
  end)

  it("of tensors and their rows", function()
    assert.equal("t:select t:set t:slice t:sum", words "t:s")
    assert.equal("t.shape", words "t.sh")
    assert.equal("t[0]:bits", words "t[0]:b")
    assert.equal("data.nested.deep[1]:is_contiguous", words "data.nested.deep[1]:is")
    assert.equal("", words "t[9]:b")
  end)

  it("of structs and functions of the library", function()
    assert.equal("batch.c.vocab", words "batch.c.vo")
    assert.equal("batch.c.row_count batch.c.row_list batch.c.row_stride batch.c.rows",
                 words "batch.c.row")
    assert.equal("C.sb_logprob C.sb_logprob_backward C.sb_logprob_ids", words "C.sb_logp")
    assert.equal("", words "batch.c:vo")
  end)

  it("inside quotes of keys, and of files by those who know them", function()
    assert.equal("logits", words("l", 'data["'))
    assert.equal("logits", words("l", "print(data [ '"))
    assert.equal("", words("x", 'data["'))
    assert.is_nil(words("dump", 'load "'))
    assert.is_nil(words("dump", "x = 'it\\'s "))
    assert.equal("word", words("wo", "x = 'it' .. "))
    assert.equal("word", words("wo", [[x = "it's" .. ]]))
  end)

  it("calls nothing of the user's", function()
    assert.equal("", words "loud.x")
    assert.equal("", words "loud.x.y")
    assert.equal("", words "empty.x.y")
    assert.equal("", words "nobody.x")
    assert.equal("", words "f().x")
  end)
end)
