-- docs/determinism.md names a proof for each promise, and each file that it names is there.

local tree = require "spec.support.files"

local read, exists = tree.read, tree.exists

-- The paths in code spans and links, those of this tree.
local function paths_in(text)
  local list = {}
  for path in text:gmatch "%f[%w]([%w_]+/[%w_/.-]*%.%w+)" do
    if path:find "^spec/" or path:find "^tools/" or path:find "^lua/" or path:find "^src/" then
      list[#list + 1] = path
    end
  end
  for path in text:gmatch "%]%(([^)#]+)[^)]*%)" do list[#list + 1] = "docs/" .. path end
  return list
end

local function matrix(text)
  local part = assert(text:match "\n## The scope matrix\n(.-)\n## ", "no matrix")
  local rows = {}
  for line in part:gmatch "[^\n]+" do
    if line:find "^|" then rows[#rows + 1] = line end
  end
  return { unpack(rows, 3) }
end

describe("docs/determinism.md", function()
  local text
  setup(function() text = read "docs/determinism.md" end)

  it("names only files that are there", function()
    local missing, paths = {}, paths_in(text)
    for _, path in ipairs(paths) do
      if not exists(path) then missing[#missing + 1] = path end
    end
    assert.same({}, missing)
    assert.is_true(#paths > 30)
  end)

  it("names a proof for each promise", function()
    local rows = matrix(text)
    assert.is_true(#rows > 15)
    for _, row in ipairs(rows) do
      local columns = {}
      for column in row:gmatch "([^|]+)|" do columns[#columns + 1] = column end
      assert.equal(4, #columns, row)
      assert.truthy(columns[2]:find "same", row)
      assert(columns[4]:find "`spec/[^`]+`", "no spec shows: " .. columns[1])
    end
  end)
end)
