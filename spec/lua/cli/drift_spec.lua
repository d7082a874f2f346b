-- bin/samebits drift: its output and files, its exit status, and its use of memory.

local json = require "dkjson"
local samebits = require "samebits"
local shell = require "spec.support.shell"
local plant = require "spec.support.plant"
local temporary = require "spec.support.temporary"

local files, logits, ids, truth, other

setup(function()
  files = temporary.folder()
  logits, ids = plant.logits({ 2, 6, 100 }, 3), plant.ids({ 2, 6 }, 100, 4)
  truth = plant.logprobs { logits = logits, ids = ids }
  other = plant.each(truth, function(i, x) return i == 7 and x - 0.125 or x end)
  assert(samebits.save(files:path "a.npy", truth))
  assert(samebits.save(files:path "b.npy", other))
  assert(samebits.save(files:path "ids.npy", ids))
  assert(samebits.save(files:path "logits.npy", logits))
  assert(samebits.save(files:path "rollout.safetensors", { logprobs = truth, ids = ids }))
  assert(samebits.save(files:path "trainer.safetensors", {
    old_log_probs = other, logits = logits, responses = ids,
    response_mask = samebits.tensor({ { 1, 1, 1, 1, 1, 0 }, { 1, 1, 1, 1, 0, 0 } },
                                    { dtype = "int64" }),
  }))
  assert(samebits.save(files:path "two.safetensors", { old = truth, new = other, ids = ids }))
end)

teardown(function() files:remove() end)

-- Words that are files' names, as paths; the output of both streams, and the status.
local function run(...)
  local words = { "bin/samebits", "drift" }
  for _, word in ipairs { ... } do
    if word:match "^[%w_]+%.%a+" then word = files:path(word) end
    words[#words + 1] = shell.quote(word)
  end
  return shell.run(table.concat(words, " "))
end

local function says(wanted, ...)
  local text, status = run(...)
  assert.equal(wanted, status, text)
  return text
end

-- One line, with these words in it.
local function refuses(words, ...)
  local text = says(2, ...)
  assert.matches("^samebits: [^\n]+\n$", text)
  assert.is_truthy(text:find(words, 1, true), text)
  assert.is_nil(text:find("%.lua:%d+:"), text)
end

describe("exit status:", function()
  it("0 where the bits are equal", function()
    assert.matches("none: all 12 tokens have the same bits", says(0, "a.npy", "a.npy"))
    assert.equal("", says(0, "a.npy", "a.npy", "--quiet"))
    says(0, "a.npy", "logits.npy", "--ids", "ids.npy")
  end)

  it("1 where they drift", function()
    local text = says(1, "a.npy", "b.npy")
    assert.matches("1 of 12 tokens differ", text)
    assert.matches("sequence 1, position 1\n", text)
    assert.equal("", says(1, "a.npy", "b.npy", "--quiet"))
    assert.matches("sequence 1, position 1, id", says(1, "rollout.safetensors",
                                                      "trainer.safetensors"))
    says(1, "two.safetensors:old", "two.safetensors:new")
    assert.matches("temperature 0.5, B's setting", says(1, "logits.npy", "logits.npy", "--ids",
                                                        "ids.npy", "--temperature-b", "0.5"))
  end)

  it("1 where the dumps' ids differ, and the logprobs do not", function()
    local others = ids:clone()
    others:set((ids:get(1, 3) + 1) % 100, 1, 3)
    assert(samebits.save(files:path "other_ids.safetensors", { logprobs = truth, ids = others }))
    local text = says(1, "rollout.safetensors", "other_ids.safetensors")
    assert.matches("^drift: ids differ; 0 of 12 tokens differ %(0 %%%)\n" ..
                   "localized: No logprob differs, but the ids do%.\n\n  The ids differ at 1 " ..
                   "of 12 tokens, first at sequence 1, position 3: ", text)
    assert.equal("", says(1, "rollout.safetensors", "other_ids.safetensors", "--quiet"))
  end)

  it("2 where what is given cannot be used", function()
    refuses("No such file", "nonesuch.npy", "a.npy")
    refuses("empty.npy", "a.npy", files:write("empty.npy", ""))
    refuses("truncated", "a.npy", files:write("cut.npy", files:read("b.npy"):sub(1, -3)))
    refuses("is not how a .npy file starts", "a.npy", files:write("text.npy", ("text"):rep(20)))
    refuses("header", "a.npy", files:write("bad.safetensors", files:read("two.safetensors")
      :gsub('"dtype"', '"dtyp"')))
    refuses("neither logprobs nor logits in it; it holds 'ids', 'new', 'old'", "two.safetensors",
            "a.npy")
    refuses("no tensor called 'none'", "two.safetensors:none", "a.npy")
    refuses("A: logits are given, but no ids", "logits.npy", "a.npy")
    refuses("B: logprobs: shape [2, 6, 100], expected [B, T] or [N]", "a.npy", "logits.npy",
            "--logits-b", "logits.npy")
    refuses("--temperature-b: 'hot' is no number, and no file has that name", "a.npy", "logits.npy",
            "--ids", "ids.npy", "--temperature-b", "hot")
    refuses("temperature 0 is outside", "a.npy", "logits.npy", "--ids", "ids.npy",
            "--temperature-b", "0")
    assert(samebits.save(files:path "none.npy", samebits.zeros({ 2, 6 }, "bool")))
    refuses("no token is active", "a.npy", "b.npy", "--mask", "none.npy")
    assert(samebits.save(files:path "nothing.npy", samebits.zeros({ 2, 0 })))
    refuses("no token is active", "nothing.npy", "nothing.npy")
    refuses("backend", "a.npy", "a.npy", "--backend", "nonesuch")
    refuses("page.html", "a.npy", "a.npy", "--html", "/nonexistent/page.html")
  end)

  it("2 for wrong usage, with the usage", function()
    for _, words in ipairs { { "a.npy" }, { "a.npy", "b.npy", "--near", "x" },
                             { "a.npy", "b.npy", "--bogus" } } do
      assert.matches("^Usage: samebits drift", says(2, unpack(words)))
    end
  end)
end)

describe("output:", function()
  it("--json is one object, with the fields that docs/drift.md names", function()
    local report = assert(json.decode(says(1, "rollout.safetensors", "trainer.safetensors",
                                           "--json")))
    assert.equal("samebits.drift/1", report.schema)
    assert.is_false(report.equal)
    assert.equal(9, report.tokens.compared)
    assert.equal(1, report.tokens.different)
    assert.equal(1, report.first.sequence)
    assert.equal(truth:bits()[2][2], report.first.a_hex)
    local page = assert(io.open "docs/drift.md"):read "*a"
    for key in pairs(report) do
      assert.is_truthy(page:find("`" .. key .. "`", 1, true), key .. " is not in docs/drift.md")
    end
    local same = assert(json.decode(says(0, "a.npy", "a.npy", "--json")))
    assert.is_true(same.equal)
    assert.same({}, same.causes)
  end)

  it("--html is a page of its own, safe whatever the names are", function()
    for _, pair in ipairs { { "b.npy", 1 }, { "a.npy", 0 } } do
      says(pair[2], "a.npy", pair[1], "--html", "page.html", "--quiet", "--name-b", "<i>&\"%s")
      local page = files:read "page.html"
      assert.matches("^<!doctype html>", page)
      assert.matches("</html>\n$", page)
      assert.is_truthy(page:find('&lt;i&gt;&amp;&quot;%s', 1, true))
      for _, foreign in ipairs { "http:", "https:", "url(", "@import", "<i>&", " src=" } do
        assert.is_nil(page:find(foreign, 1, true), foreign)
      end
      page = page:gsub("<script.-</script>", "")
      local open = {}
      for slash, tag, closed in page:gmatch "<(/?)([%a][%w]*)[^<>]-(/?)>" do
        if slash == "/" then
          assert.equal(table.remove(open), tag)
        elseif closed ~= "/" and tag ~= "meta" and tag ~= "br" and tag ~= "input" then
          open[#open + 1] = tag
        end
      end
      assert.same({}, open)
      local _, plots = page:gsub("<svg", "")
      assert.equal(pair[2] == 1 and 5 or 0, plots)
    end
  end)

  it("--csv and --jsonl write the tokens one by one; the report names the command", function()
    files:write("vocab.json", '{"\196\160of":0}')
    local text = says(1, "a.npy", "b.npy", "--csv", "t.csv", "--jsonl", "t.jsonl", "--tokenizer",
                      "vocab.json", "--ids", "ids.npy", "--hash", "--keep", "12")
    assert.matches("samebits drift '/[^']+/a%.npy'", (text:gsub("%s+", " ")))
    assert.equal(13, select(2, files:read "t.csv":gsub("\r\n", "")))
    local lines = 0
    for line in files:read "t.jsonl":gmatch "[^\n]+" do
      lines = lines + 1
      assert.equal(lines - 1, json.decode(line).row)
    end
    assert.equal(12, lines)
    refuses("none of its 12 tokens one by one", "a.npy", "b.npy", "--csv", "t.csv", "--keep", "11")
    refuses("no.json", "a.npy", "b.npy", "--tokenizer", "/nonexistent/no.json")
  end)

  it("the text fits the width, and has colour on a terminal only", function()
    for _, columns in ipairs { 50, 80, 120 } do
      local text = shell.run("COLUMNS=%d bin/samebits drift %s %s", columns,
        files:path "rollout.safetensors", files:path "trainer.safetensors")
      assert.is_nil(text:find "\27")
      for line in text:gmatch "[^\n]+" do
        -- Paths are not broken.
        if not line:find(files.name, 1, true) then assert.is_true(#line <= columns, line) end
      end
    end
  end)
end)

describe("memory:", function()
  -- An .npy file of bf16 logits, all of them a hole.
  local function hole(name, rows, vocab)
    local header = require("samebits.io.npy_header").format("bfloat16", { rows, vocab })
    local path = files:write(name, header)
    local _, status = shell.run("truncate -s %d %s", #header + rows * vocab * 2, path)
    assert.equal(0, status)
  end

  it("logits that are larger than --memory are read in pieces", function()
    local rows, vocab = 1024, 131072
    hole("large.npy", rows, vocab)
    assert(samebits.save(files:path "large_ids.npy", samebits.zeros({ rows }, "int32")))
    local value = plant.logprobs { logits = samebits.zeros({ 1, vocab }), ids = { 0 } }:get(0)
    local values = plant.each(samebits.zeros({ rows }), function(i)
      return i % 500 == 3 and value - 1 or value
    end)
    assert(samebits.save(files:path "large_values.npy", values))
    local text, status = shell.run(([[luajit -e '
      package.path = "lua/?.lua;" .. package.path
      local samebits = require "samebits"
      local report = assert(samebits.drift("%s", "%s", { ids = "%s", memory = 16 * 2 ^ 20 }))
      print(report.tokens.compared, report.tokens.different)
      for line in io.lines "/proc/self/status" do print(line:match "VmHWM:%%s+(%%d+) kB" or "") end
    ']]):format(files:path "large.npy", files:path "large_values.npy", files:path "large_ids.npy"))
    assert.equal(0, status, text)
    assert.matches("^1024\t3\n", text)
    local peak = tonumber(text:match "\n(%d%d+)\n")
    -- 16 MiB of logits, 48 of widened rows, LuaJIT and the library; the file is 256 MiB.
    assert.is_true(peak < 96 * 1024, ("%d kB"):format(peak))
  end)
end)
