-- Names from files, folders and people hold what they like: control characters, bytes that are not
-- UTF-8, marks that turn the direction of text. What is shown of them is escaped, in one place.

local json = require "dkjson"
local samebits = require "samebits"
local printable = require "samebits.text.printable"
local junit = require "spec.support.junit"
local pretty = require "samebits.repl.pretty"
local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"
local utf8 = require "samebits.text.utf8"

-- A name with a bell, an escape sequence, a line feed, C1's CSI, a lone byte, a turn of direction.
local EVIL = "a\7\27[31mb\nc\194\155d\255e\226\128\174f"
local SHOWN = [[a\x07\x1b[31mb\nc\u{9b}d\xffe\u{202e}f]]

-- Fails where a text would do anything to a terminal but show itself, or is not UTF-8.
local function is_tame(text)
  assert.is_nil(utf8.invalid(text), text)
  assert.is_nil(text:find "[%z\1-\9\11-\31\127]", text)
  assert.is_nil(text:find "\194[\128-\159]", text)
  assert.is_nil(text:find "\226\128[\142\143\168-\174]", text)
end

local files
setup(function() files = temporary.folder() end)
teardown(function() files:remove() end)

describe("printable", function()
  it("escapes what does anything but show itself", function()
    assert.equal(SHOWN, printable.text(EVIL))
    assert.equal([[\x00\x1f\x7f\t\r\n]], printable.text "\0\31\127\t\r\n")
    assert.equal([[\xc3(\xe2\x82\xff]], printable.text "\195(\226\130\255")
    assert.equal([[\xed\xa0\x80\xc0\xaf]], printable.text "\237\160\128\192\175")
    assert.equal([[\u{61c}\u{200e}\u{2028}\u{2066}\u{2069}\u{fffe}]], printable.text(
      "\216\156\226\128\142\226\128\168\226\129\166\226\129\169\239\191\190"))
  end)

  it("leaves all other text as it is, and its own, too", function()
    for _, text in ipairs { "", "plain \\ \" ' % <&>", "\195\164\226\130\172\240\159\152\128",
                            "\194\160\226\129\164\239\191\189" } do
      assert.equal(text, printable.text(text))
      assert.equal(text, printable.lines(text))
    end
    assert.equal(SHOWN, printable.text(SHOWN))
  end)

  it("keeps line ends and tabs of several lines, and makes one of an error's", function()
    assert.equal("a\n\tb\\x1b", printable.lines "a\n\tb\27")
    assert.equal([[a b\x1b]], printable.message "a\n  b\27")
  end)

  it("never gives what is not UTF-8, or a control character", function()
    local seed = 1
    for _ = 1, 2000 do
      local bytes = {}
      for i = 1, 12 do
        seed = (seed * 16807) % 2147483647
        bytes[i] = string.char(seed % 256)
      end
      local text = printable.text(table.concat(bytes))
      is_tame(text)
      assert.equal(text, printable.text(text))
    end
  end)
end)

describe("odd names are escaped", function()
  local odd, other, logits, ids

  setup(function()
    odd, other = files:path(EVIL .. ".safetensors"), files:path "other.safetensors"
    local logprobs = samebits.tensor { { -1, -2, -3 } }
    assert(samebits.save(odd, { logprobs = logprobs }))
    logprobs:set(-2.5, 0, 1)
    assert(samebits.save(other, { logprobs = logprobs }))
    logits, ids = files:path "logits.npy", files:path "ids.npy"
    assert(samebits.save(logits, samebits.zeros { 1, 3 }))
    assert(samebits.save(ids, samebits.zeros({ 1 }, "int32")))
  end)

  it("in drift's text, JSON and page", function()
    local page = files:path "page.html"
    local said, status = shell.run("bin/samebits drift %s %s --html %s", odd, other, page)
    assert.equal(1, status, said)
    is_tame(said)
    assert.truthy(said:find(SHOWN, 1, true), said)
    local html = files:read "page.html"
    is_tame(html)
    assert.truthy(html:find(SHOWN, 1, true))

    said = shell.run("bin/samebits drift %s %s --json", odd, other)
    is_tame(said)
    local source = assert(json.decode(said)).a.source
    -- JSON has escapes of its own for all but the byte.
    assert.truthy(source:find((EVIL:gsub("\255", "\\xff")), 1, true), source)

    local hostile = "<b>&\"'\27%d%\255"
    said = shell.run("bin/samebits drift %s %s --name-a %s --html %s", odd, other, hostile, page)
    is_tame(said)
    assert.truthy(said:find([[<b>&"'\x1b%d%\xff (]], 1, true), said)
    html = files:read "page.html"
    is_tame(html)
    assert.truthy(html:find([[&lt;b&gt;&amp;&quot;&#39;\x1b%d%\xff (]], 1, true), html)
  end)

  it("in a tensor's names, which stay apart", function()
    local path = files:path "names.safetensors"
    assert(samebits.save(path, { ["\27[2J"] = samebits.zeros { 1 }, ["?[2J"] = samebits.zeros { 2 },
                                 ["\194\155"] = samebits.zeros { 3 } }))
    local text = tostring(assert(samebits.load(path)))
    is_tame(text)
    for _, name in ipairs { [['\x1b[2J': ]], "'?[2J': ", [['\u{9b}': ]] } do
      assert.truthy(text:find(name, 1, true), text)
    end
    local said, status = shell.run("bin/samebits logprob --logits %s --ids %s", path, path)
    assert.is_true(status ~= 0)
    is_tame(said)
    assert.truthy(said:find([['\x1b[2J']], 1, true), said)
  end)

  it("in errors of the command line", function()
    for _, words in ipairs {
      { "drift", EVIL, EVIL }, { "verify", EVIL },
      { "logprob", "--logits", EVIL, "--ids", EVIL },
      { "info", EVIL }, { EVIL }, { "help", EVIL }, { "selftest", "--vectors", EVIL },
      { "repl", "-i", EVIL }, { "drift", odd, other, "--ids", EVIL }, { "drift", "--" .. EVIL },
      { "drift", odd, other, "--html", "/nowhere/" .. EVIL },
      { "logprob", "--logits", logits, "--ids", ids, "--backend", EVIL },
      { "verify", logits, "--backend", EVIL },
    } do
      local quoted = {}
      for i, word in ipairs(words) do quoted[i] = shell.quote(word) end
      local said, status = shell.run("bin/samebits " .. table.concat(quoted, " ") .. " </dev/null")
      assert.is_true(status ~= 0, said)
      is_tame(said)
      local named = said:find([[a\x07\x1b[31mb]], 1, true) ~= nil
      assert.equal(words[1] ~= "info", named, said)
    end
  end)

  it("in errors and messages of the library", function()
    local function message(f, ...)
      local ok, first, why = pcall(f, ...)
      if ok then
        assert.is_nil(first)
        return why
      end
      return first
    end
    for _, said in ipairs {
      message(samebits.load, EVIL), message(samebits.load, odd, EVIL),
      message(samebits.save, "/nowhere/" .. EVIL, samebits.zeros { 1 }),
      message(samebits.open, EVIL), message(samebits.drift, EVIL, EVIL),
      message(samebits.batch, { [EVIL] = 1 }), message(samebits.zeros, { 1 }, EVIL),
      message(require "samebits.io.npy".load, EVIL), message(samebits.verify, {}, { [EVIL] = 1 }),
    } do
      is_tame(said)
    end
    files:write("torn.safetensors", "123")
    assert.truthy(message(samebits.load, files:path "torn.safetensors"):find "torn")
  end)

  it("at the prompt", function()
    local line = EVIL:gsub("\n", "")
    assert.equal('"' .. SHOWN:gsub("\\n", "") .. '"', pretty.text(line))
    -- A string's own text reads back.
    assert.equal(line, assert(loadstring("return " .. pretty.text(line)))())
    assert.equal("{ " .. '"' .. SHOWN .. '" }', pretty.text { EVIL })
    -- One of several lines is shown as such, and so is what an object says of itself.
    is_tame(pretty.text(EVIL))
    assert.matches("b\nc", pretty.text(EVIL))
    is_tame(pretty.text(setmetatable({}, { __tostring = function() return EVIL end })))
    files:write("input", ("error(%s)\n"):format(pretty.text(line)))
    local said, status = shell.run("bin/samebits repl <%s", files:path "input")
    assert.equal(1, status)
    is_tame(said)
    assert.truthy(said:find([[a\x07\x1b[31mb]], 1, true), said)
  end)

  it("in a JUnit file", function()
    is_tame(junit.clean(EVIL))
  end)
end)
