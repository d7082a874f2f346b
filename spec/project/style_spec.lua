-- Rules that an editor does not enforce: the tree's text is ASCII, of at most 100 columns, without
-- tabs and trailing blanks.

local COLUMNS = 100

-- Generated, or data.
local EXEMPT = { "^build/", "^spec/vectors/.*%.txt$", "%.safetensors$", "%.png$", "^bench/results/",
                 "^types/", "^spec/fuzz/corpus/" }

local function tracked()
  local pipe = io.popen "git ls-files 2>/dev/null"
  local list = {}
  for name in pipe:lines() do
    local exempt = false
    for _, pattern in ipairs(EXEMPT) do exempt = exempt or name:find(pattern) ~= nil end
    local file = not exempt and io.open(name, "rb")
    if file then
      list[#list + 1] = { name = name, text = file:read "*a" }
      file:close()
    end
  end
  pipe:close()
  return list
end

local function wrong_with(name, line)
  if line:find "[\128-\255]" then return "not ASCII" end
  if line:find "[%z\1-\31\127]" then return "a control character" end
  if line:find " $" then return "trailing blanks" end
  -- A row of a table cannot be broken.
  if #line > COLUMNS and not (name:find "%.md$" and line:find "^|") then
    return ("%d columns"):format(#line)
  end
end

describe("style:", function()
  it("the tree's text is ASCII, of at most 100 columns", function()
    local files, wrong = tracked(), {}
    if #files == 0 then return pending "not a git checkout" end
    assert.is_true(#files > 50)
    for _, file in ipairs(files) do
      local number = 0
      if file.text ~= "" and file.text:sub(-1) ~= "\n" then
        wrong[#wrong + 1] = file.name .. ": no newline at the end"
      end
      for line in file.text:gmatch "([^\n]*)\n" do
        number = number + 1
        local why = wrong_with(file.name, line)
        if why then wrong[#wrong + 1] = ("%s:%d: %s"):format(file.name, number, why) end
      end
    end
    assert.same({}, wrong)
  end)
end)
