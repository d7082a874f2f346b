-- samebits.io.tokenizer: texts of ids from the files that tokenizers have, whatever is in them.

local temporary = require "spec.support.temporary"
local tokenizer = require "samebits.io.tokenizer"

local files
setup(function() files = temporary.folder() end)
teardown(function() files:remove() end)

local function texts(text, ids)
  return assert(tokenizer.open(files:write("tokenizer.json", text))):texts(ids)
end

describe("a tokenizer's file", function()
  it("of bytes: spaces, line feeds and other bytes are themselves", function()
    local got = texts([[{"added_tokens":[{"id":5,"special":true,"content":"<|end|>"}],
      "model":{"type":"BPE","vocab":{"\u0120of":0,"\u010a":1,"\u00c3":2,"\"\\":3,"a":4},
      "merges":["x y"]},"decoder":{"type":"ByteLevel"}}]], { 0, 1, 2, 3, 5, 9 })
    assert.same({ [0] = " of", [1] = "\n", [2] = "\195", [3] = '"\\', [5] = "<|end|>" }, got)
    assert.equal(" of", texts('{"\196\160of":7}', { 7 })[7])
  end)

  it("of pieces: U+2581 is a space, <0x0A> a byte", function()
    local got = texts('{"model":{"type":"Unigram","vocab":[["<unk>",0.0],' ..
                      '["\226\150\129of",-1.5],["<0x0A>",-3]]}}', { 0, 1, 2 })
    assert.same({ [0] = "<unk>", [1] = " of", [2] = "\n" }, got)
  end)

  it("holds characters beyond U+FFFF, and escapes of all kinds", function()
    local got = texts([[{"\ud83d\ude00":1,"\t\/\b":2,"\u2581x":3}]], { 1, 2, 3 })
    assert.same({ "\240\159\152\128", "\t/\b", " x" }, got)
  end)

  it("is found in its folder", function()
    files:write("tokenizer.json", '{"a":1}')
    assert.equal("a", assert(tokenizer.open(files.name)):texts({ 1 })[1])
  end)

  it("is refused where it has no vocabulary, and cut anywhere it never fails", function()
    for _, text in ipairs { "", "[]", '{"model":{}}', '{"vocab":{}}', '{"a"' } do
      local got, why = tokenizer.open(files:write("bad.json", text))
      assert.is_nil(got)
      assert.is_truthy(why:find("bad.json: ", 1, true), why)
    end
    assert.is_nil(tokenizer.open(files:path "none.json"))
    local whole = [[{"added_tokens":[{"id":5,"content":"<|e\"|>"}],"model":{"vocab":{"\u0120of":0,
                    "\\\"":1}}}]]
    for n = 1, #whole do
      local got = tokenizer.open(files:write("cut.json", whole:sub(1, n)))
      if got then got:texts { 0, 1, 5 } end
    end
  end)
end)
