--- The words above a function in its source: what `help` says of functions that are not the
-- prompt's own.

local misuse = require "samebits.misuse"

local M = {}

local function lines_of(info)
  local path = info.source:match "^@(.*)"
  local file = path and io.open(path, "rb")
  if not file then return nil end
  local lines = {}
  for line in file:lines() do lines[#lines + 1] = line end
  file:close()
  return lines
end

-- The comment that ends above a line, where it is a documenting one: its lines without the dashes.
local function comment_above(lines, number)
  local first = number
  while first > 1 and lines[first - 1]:find "^%s*%-%-" do first = first - 1 end
  if first == number or not lines[first]:find "^%s*%-%-%-" then return nil end
  local out = {}
  for i = first, number - 1 do out[#out + 1] = (lines[i]:gsub("^%s*%-%-%-? ?", "")) end
  return out
end

-- Some functions are local, and documented where the module gives them a name of its own.
local function comment_where_given(lines, name)
  local patterns = { "=%s*misuse%.guard%(" .. name .. "%)", "^M%.[%w_]+ = " .. name .. "$" }
  for number, line in ipairs(lines) do
    for _, pattern in ipairs(patterns) do
      local found = line:find(pattern) and comment_above(lines, number)
      if found then return found end
    end
  end
end

-- LDoc's marks, in words.
local MARKS = {
  { "^@tparam%[opt%] (%S+) (%S+)", "%2 (%1, optional):" },
  { "^@tparam (%S+) (%S+)", "%2 (%1):" },
  { "^@param (%S+)", "%1:" },
  { "^@treturn (%S+)", "gives (%1):" },
  { "^@return%f[%s]", "gives:" },
}

local function readable(line)
  for _, mark in ipairs(MARKS) do
    local text, n = line:gsub(mark[1], mark[2])
    if n > 0 then return (text:gsub(":$", "")) end
  end
  return line
end

local function parameters(f)
  local names = {}
  for i = 1, debug.getinfo(f, "u").nparams or 0 do names[i] = debug.getlocal(f, i) or "?" end
  return names
end

--- The documentation of a function of Lua's, or nil where its source has none. `name`: what it was
-- called when it was asked for.
function M.of(f, name)
  f = misuse.unguarded(f)
  local info = debug.getinfo(f, "S")
  local lines = info.what == "Lua" and lines_of(info)
  local definition = lines and lines[info.linedefined]
  if not definition then return nil end
  local comment = comment_above(lines, info.linedefined)
  local own = definition:match "function ([%a_][%w_]*)%s*%("
  if not comment and own then comment = comment_where_given(lines, own) end
  if not comment then return nil end
  local head = ("%s(%s)"):format(name or own or "function", table.concat(parameters(f), ", "))
  local out = { head, "" }
  for _, line in ipairs(comment) do out[#out + 1] = readable(line) end
  return table.concat(out, "\n")
end

return M
