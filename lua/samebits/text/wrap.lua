--- Breaks text into lines of a width.

local M = {}

--- Puts words in lines of at most `width` columns, unless a word is longer.
-- @tparam string text the words
-- @tparam number width
-- @tparam[opt] string first the text before the first line
-- @tparam[opt] string indent the text before the later ones
function M.words(text, width, first, indent)
  local lines, line, empty = {}, first or "", true
  for word in text:gmatch "%S+" do
    if not empty and #line + 1 + #word > width then
      lines[#lines + 1] = line
      line, empty = indent or "", true
    end
    line = line .. (empty and "" or " ") .. word
    empty = false
  end
  lines[#lines + 1] = line
  return table.concat(lines, "\n")
end

--- Breaks a line that is too long. The later lines are indented by two more columns.
function M.line(line, width)
  if #line <= width then return line end
  local blank = line:match "^%s*"
  return M.words(line, width, blank, blank .. "  ")
end

-- The place where the last column of a line begins, after a gap of two blanks or more; nil if there
-- is none.
local function last_column(line)
  local column, at = nil, 1
  while true do
    local _, past = line:find("%S  +%f[%S]", at)
    if not past then return column end
    column, at = past, past + 1
  end
end

--- Formats a text in lines of at most `width` columns. Paragraphs and the items of lists ("* item")
-- are refilled; in text with columns only the last column is; other indented lines are code and
-- stay unchanged. If all lines fit, the text stays unchanged.
function M.page(text, width)
  local lines, wide = {}, false
  for line in (text .. "\n"):gmatch "([^\n]*)\n" do
    lines[#lines + 1] = line
    wide = wide or #line > width
  end
  if not wide then return text end

  local out, flowing, indent, column = {}, nil, "", nil
  local function finish()
    if flowing then out[#out + 1] = M.words(flowing, width, "", indent) end
    flowing = nil
  end
  for _, line in ipairs(lines) do
    local blanks = #line:match "^ *"
    local own_column = last_column(line)
    if line:find "^%* " then
      finish()
      flowing, indent = line, "  "
    elseif flowing and indent == "  " and blanks == 2 or
           flowing and indent == "" and blanks == 0 and line ~= "" and not own_column then
      flowing = flowing .. " " .. line
    elseif blanks == 0 and line ~= "" and not own_column then
      finish()
      flowing, indent = line, ""
    else
      finish()
      -- A row of columns, or a continuation of the last column.
      if own_column and blanks < 4 then column = own_column end
      local at = blanks > 0 and blanks == column and column or blanks < 4 and own_column
      if at and #line > width and at < width - 16 then
        line = M.words(line:sub(at + 1), width, line:sub(1, at), (" "):rep(at))
      end
      out[#out + 1] = line
      if line == "" then column = nil end
    end
  end
  finish()
  return table.concat(out, "\n")
end

return M
