--- The lines of a program's output.

local M = {}

--- The lines that occur more than once, except empty ones.
function M.repeated(text)
  local seen, list = {}, {}
  for line in text:gmatch "[^\n]+" do
    seen[line] = (seen[line] or 0) + 1
    if seen[line] == 2 then list[#list + 1] = line end
  end
  return list
end

return M
