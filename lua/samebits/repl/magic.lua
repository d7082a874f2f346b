--- What the prompt reads besides Lua: `?name` and `name?` for help, `%time` before a statement; and
-- a check of `#t`, which Lua would answer wrongly.

local M = {}

--- Returns the name that a line asks about, "" for a lone question mark; nil for any other text.
function M.question(text)
  local name = text:match "^%s*%?+%s*([^\n]-)%s*$" or text:match "^%s*([^\n]-)%s*%?+%s*$"
  if not name or not name:find "^[%w_.:/]*$" then return nil end
  return (name:gsub(":", "."))
end

--- Returns the text behind %time; nil if there is none.
function M.timed(text)
  local rest = text:match "^%s*%%time%f[%s%z](.*)$"
  return rest and rest:match "^%s*(.*)$"
end

-- The text with strings and comments blanked out.
local function code_of(text)
  text = text:gsub("%-%-%[(=*)%[.-%]%1%]", ""):gsub("%[(=*)%[.-%]%1%]", "''")
  local out, at = {}, 1
  while at <= #text do
    local quote = text:match("^[\"']", at)
    if quote then
      local past = at + 1
      while past <= #text and text:sub(past, past) ~= quote do
        past = past + (text:sub(past, past) == "\\" and 2 or 1)
      end
      out[#out + 1] = "''"
      at = past + 1
    elseif text:find("^%-%-", at) then
      at = text:find("\n", at, true) or #text + 1
    else
      local past = text:match("^[^\"'-]+()", at) or at + 1
      out[#out + 1] = text:sub(at, past - 1)
      at = past
    end
  end
  return table.concat(out)
end

--- Returns a text like "#t" in a statement whose t is a tensor, which `is_tensor` tells of a chain
-- such as "out.token[0]"; nil if there is none.
function M.wrong_length(text, is_tensor)
  local code = code_of(text)
  for mark in code:gmatch "#%s*([%a_][%w_.%[%]]*)" do
    if is_tensor(mark) then return "#" .. mark end
  end
end

--- Formats a time: "12.3 ms".
function M.seconds(s)
  if s >= 1 then return ("%.3g s"):format(s) end
  if s >= 1e-3 then return ("%.3g ms"):format(s * 1e3) end
  return ("%.3g us"):format(s * 1e6)
end

return M
