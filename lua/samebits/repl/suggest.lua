--- What the rest of a line may be: that of the latest entry of the history that begins in the same
-- way. GNU readline shows it faintly behind the cursor; Right or Ctrl-F at the end of the line
-- takes it. libedit has no place for it.

local M = {}

--- Returns the rest of the newest entry that begins with `line`, up to its first line feed; nil if
-- there is none. entries: oldest first.
function M.rest(entries, line)
  if not line:find "%S" or line:find "\n" then return nil end
  for i = #entries, 1, -1 do
    local entry = entries[i]
    if #entry > #line and entry:sub(1, #line) == line then
      local rest = entry:sub(#line + 1):match "^[^\n]*"
      if rest ~= "" then return rest end
    end
  end
end

--- Returns what a terminal shows of a rest in so many columns: the escapes that draw it and move
-- the cursor back. Only ASCII is shown, whose width is known.
function M.drawn(rest, room)
  local clear = "\27[K"
  if not rest or room < 1 or rest:find "[%c\127-\255]" then return clear end
  local text = rest:sub(1, room)
  return ("%s\27[2m%s\27[0m\27[%dD"):format(clear, text, #text)
end

return M
