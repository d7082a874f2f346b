-- docs/find-your-drift.md: its commands run, and print the output that the page shows.

local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

local PAGE = "docs/find-your-drift.md"

-- The page's blocks in order: { "sh" or "text", text }.
local function blocks()
  local file = assert(io.open(PAGE))
  local page = file:read "*a"
  file:close()
  local out = {}
  for kind, text in page:gmatch "```(%a+)\n(.-)```" do
    if kind == "sh" or kind == "text" then out[#out + 1] = { kind, text } end
  end
  return out
end

describe("the tutorial:", function()
  it("its commands print what it shows, in that order", function()
    local files = temporary.folder "plain"
    local said, shown = "", 0
    for _, block in ipairs(blocks()) do
      if block[1] == "sh" then
        -- The library that is tested is there already.
        local command = block[2]:gsub("make %-C build\n", ""):gsub("/tmp/drift", files.name)
        said = shell.run("export COLUMNS=80\n" .. command):gsub(files.name, "/tmp/drift")
      else
        local at = 1
        for line in block[2]:gmatch "[^\n]+" do
          local _, last = said:find(line, at, true)
          assert.is_truthy(last, ("'%s' is not in what it printed:\n%s"):format(line, said))
          at, shown = last + 1, shown + 1
        end
      end
    end
    files:remove()
    assert.is_true(shown > 15)
  end)
end)
