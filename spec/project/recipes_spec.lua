-- docs/recipes.md: its programs run, and print exactly what the page shows.

local read = require("spec.support.files").read
local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

local run, quote = shell.run, shell.quote
local LUA_PATH = "LUA_PATH=\"$PWD/lua/?.lua;;\" "

local page = read "docs/recipes.md"

-- The page's blocks in order: { language, text }.
local function blocks()
  local list = {}
  for language, text in page:gmatch "\n```(%a+)\n(.-\n)```" do
    list[#list + 1] = { language, text }
  end
  return list
end

describe("docs/recipes.md", function()
  local files
  setup(function() files = temporary.folder "plain" end)
  teardown(function() files:remove() end)

  local function succeeds(command)
    local said, status = run("export COLUMNS=80\n" .. command)
    assert.equal(0, status, said)
    return said
  end

  -- How a block of each language runs. Each returns what it printed.
  local languages = {
    lua = function(text)
      local path = quote(files:write("a_spec.lua", text))
      if not text:find("\nit(", 1, true) then return succeeds(LUA_PATH .. "luajit " .. path) end
      local said = succeeds(LUA_PATH .. "luajit \"$(command -v busted)\" " .. path)
      assert.matches("1 passed, 0 failed", said)
      return said
    end,
    sh = succeeds,
    c = function(text)
      local configuration = os.getenv "SB_BUILD" or "release"
      local flags = configuration == "asan" and "-fsanitize=address,undefined" or ""
      files:write("engine.c", text)
      local line = page:match "\n    cc engine%.c %-o engine ([^\n]*)\n    %./engine\n"
      succeeds(("cc -std=c11 -Wall -Wextra -Werror %s %s -o %s %s"):format(flags,
        quote(files:path "engine.c"), quote(files:path "engine"),
        (line:gsub("build/release", "build/" .. configuration))))
      return succeeds(quote(files:path "engine"))
    end,
  }

  it("has programs that print what it shows, in that order", function()
    local count = { lua = 0, sh = 0, c = 0, text = 0 }
    local said
    for _, block in ipairs(blocks()) do
      local language, text = block[1], block[2]
      count[language] = count[language] + 1
      if language == "text" then
        assert.equal((text:gsub("[ \t]+", " ")), (said:gsub("[ \t]+", " ")))
      elseif language ~= "c" or shell.has "cc" then
        said = languages[language]((text:gsub("/tmp/recipes", files.name)))
        said = said:gsub(files.name, "/tmp/recipes")
      end
    end
    assert.same({ lua = 5, sh = 2, c = 1, text = 7 }, count)
  end)
end)
