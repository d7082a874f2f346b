-- docs/tensors.md: its programs run, and its table names methods that exist.

local read = require("spec.support.files").read
local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

describe("docs/tensors.md", function()
  local page = read "docs/tensors.md"

  it("holds programs that run", function()
    local parts = {}
    for code in page:gmatch "```lua\n(.-)```" do parts[#parts + 1] = code end
    assert.is_true(#parts >= 2)
    local files = temporary.folder()
    finally(function() files:remove() end)
    local path = files:write("page.lua", table.concat(parts, "\n"))
    local said, status = shell.run("LUA_PATH=\"$PWD/lua/?.lua;;\" luajit %s", path)
    assert.equal(0, status, said)
    assert.matches("^%-39%.7087249755", said)
  end)

  it("names methods that exist", function()
    local methods, count = getmetatable(require("samebits").zeros { 1 }).methods, 0
    for name in page:gmatch "`t:([%l_]+)" do
      count = count + 1
      assert.is_function(methods[name], name)
    end
    assert.is_true(count > 15)
  end)
end)
