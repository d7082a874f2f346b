--- What the prompt reads besides Lua: `?name` and `name?` for help, and `%time` before a statement.

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

--- Formats a time: "12.3 ms".
function M.seconds(s)
  if s >= 1 then return ("%.3g s"):format(s) end
  if s >= 1e-3 then return ("%.3g ms"):format(s * 1e3) end
  return ("%.3g us"):format(s * 1e6)
end

return M
