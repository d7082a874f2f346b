-- The programs of the README and of docs/ci.md run, and print the output shown there.

local read = require("spec.support.files").read
local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

local run, quote = shell.run, shell.quote

local readme, ci = read "README.md", read "docs/ci.md"

-- The blocks of a page in a language, in order.
local function blocks(page, language)
  local list = {}
  for text in page:gmatch("\n```" .. language .. "\n(.-)\n```\n") do list[#list + 1] = text end
  return list
end

local lua, c, own = blocks(readme, "lua"), blocks(readme, "c"), blocks(ci, "lua")
local files

setup(function() files = temporary.folder() end)
teardown(function() files:remove() end)

local function succeeds(command)
  local said, status = run(command)
  assert.equal(0, status, said)
  return said
end

-- A text's lines, however wide the blanks in them are: a tab is some spaces in the README.
local function lines_of(text)
  local list = {}
  for line in text:gmatch "[^\n]+" do
    list[#list + 1] = line:gsub("%s+", " "):match "^ ?(.-) ?$"
  end
  return list
end

local function run_lua(text)
  return succeeds("LUA_PATH=\"$PWD/lua/?.lua;;\" luajit " .. quote(files:write("a.lua", text)))
end

describe("README:", function()
  it("has the programs that are run here", function()
    assert.equal(3, #lua)
    assert.equal(1, #c)
    assert.equal(1, #own)
  end)

  it("can be read in one go", function()
    assert.is_true(select(2, readme:gsub("\n", "")) <= 200)
  end)

  it("the defect is there, and removed", function()
    local said = run_lua(lua[1])
    local drift = tonumber(said:match "^conventional\t(%d+) of 48 tokens differ\n")
    assert.is_true(drift > 0, said)
    -- Line by line, except for the number that differs between machines.
    local shown = readme:match "\nprints, on one machine[^\n]*:\n\n(.-)\n\n"
    local function without_count(text) return lines_of((text:gsub("%d+ of", "N of", 1))) end
    assert.same(without_count(shown), without_count(said))
  end)

  it("the Lua programs print what stands beside their lines", function()
    for i, count in pairs { [2] = 3, [3] = 1 } do
      local wanted = {}
      for text in lua[i]:gmatch "%-%-> ([^\n]+)" do wanted[#wanted + 1] = text end
      assert.equal(count, #wanted)
      assert.same(lines_of(table.concat(wanted, "\n")), lines_of(run_lua(lua[i])))
    end
  end)

  it("the C program is compiled and prints what it says", function()
    if not shell.has "cc" then return pending "cc is not installed" end
    local configuration = os.getenv "SB_BUILD" or "release"
    local flags = configuration == "asan" and "-fsanitize=address,undefined" or ""
    files:write("first.c", c[1] .. "\n")
    local line = readme:match "\n    cc first%.c %-o first ([^\n]* %-Wl,[^\n]*) && %./first\n"
    succeeds(("cc -Wall -Wextra -Werror %s %s -o %s %s"):format(flags, quote(files:path "first.c"),
      quote(files:path "first"), (line:gsub("build/release", "build/" .. configuration))))
    local said = succeeds(quote(files:path "first"))
    assert.truthy(readme:find("prints `" .. said:gsub("\n$", "") .. "`", 1, true), said)
  end)

  it("the spec for users' own logits passes, and fails where bits differ", function()
    local root = (run "pwd"):gsub("\n", "")
    succeeds(("mkdir -p %s/user/spec && cp spec/vectors/smollm2.safetensors " ..
              "%s/user/dump.safetensors"):format(quote(files.name), quote(files.name)))
    files:write("user/.busted", ci:match "`(return { _all = .- })`%s+in%s+`.busted`"
      :gsub("/path/to/samebits", root) .. "\n")
    files:write("user/spec/logprobs_spec.lua", own[1])
    local busted = ("cd %s/user && luajit \"$(command -v busted)\""):format(quote(files.name))
    assert.matches("1 success", succeeds(busted))
    local drifting = own[1]:gsub("ctx:logprob%(batch:to%(ctx.device%)%)",
      "require('samebits.conventional').logprob(ctx, batch:to(ctx.device), " ..
      "{ split = batch.sequences })")
    assert.not_equal(own[1], drifting)
    files:write("user/spec/logprobs_spec.lua", drifting)
    local said, status = run(busted)
    assert.equal(1, status, said)
    assert.matches("differ", said)
  end)

  it("the commands of samebits exist", function()
    local count = 0
    for command in readme:gmatch "\n    samebits (%l+)" do
      succeeds("bin/samebits help " .. command:gsub("^help$", ""))
      count = count + 1
    end
    assert.is_true(count >= 4)
  end)
end)
