--- Text in lines of a width.

local M = {}

--- Words in lines of at most `width` columns, where no word is longer.
-- @tparam string text the words
-- @tparam number width
-- @tparam[opt] string first what stands before the first line
-- @tparam[opt] string indent what stands before the later ones
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

--- A line, broken where it is too long; later ones are two columns further in.
function M.line(line, width)
  if #line <= width then return line end
  local blank = line:match "^%s*"
  return M.words(line, width, blank, blank .. "  ")
end

-- Where the last column of a line begins, behind a gap of two blanks or more; nil without one.
local function last_column(line)
  local column, at = nil, 1
  while true do
    local _, past = line:find("%S  +%f[%S]", at)
    if not past then return column end
    column, at = past, past + 1
  end
end

--- A text as people write them, in lines of at most `width` columns: paragraphs and the items of
-- lists ("* item") flow; of what stands in columns the last one does; other indented lines, which
-- are code, stay. Where all lines fit it stays as it is.
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
      -- A row of columns, or what goes on in the last one.
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
