--- The place of an error, for the user who typed: without the frames below the prompt, and without
-- the frames that only pass calls on.

local M = {}

local HIDDEN = { "samebits/misuse%.lua$", "samebits/repl/interrupt%.lua$",
                 "samebits/repl/helpers%.lua$" }

local function hidden(info)
  for _, pattern in ipairs(HIDDEN) do
    if info.source:find(pattern) then return true end
  end
  return false
end

local function described(info)
  if info.what == "main" then return "in the main chunk" end
  if info.name then return ("in function '%s'"):format(info.name) end
  if info.what == "C" then return "in a function that is built in" end
  return ("in the function of line %d"):format(info.linedefined)
end

local MANY = 20   -- frames

--- Returns the frames from the caller's caller down to `base`, a function, without `base`, as
-- lines.
function M.lines(base)
  local lines, left = {}, 0
  for level = 3, math.huge do
    local info = debug.getinfo(level, "Slnf")
    if not info or info.func == base then break end
    if not hidden(info) then
      local where = info.currentline > 0 and ("%s:%d"):format(info.short_src, info.currentline) or
                    info.short_src
      if #lines < MANY then
        lines[#lines + 1] = ("  %s %s"):format(where, described(info))
      else
        left = left + 1
      end
    end
  end
  if left > 0 then lines[#lines + 1] = ("  ... (%d more)"):format(left) end
  -- The messages of raised errors begin with their place.
  if lines[1] and lines[1]:find "^  %[C%]" then table.remove(lines, 1) end
  return lines
end

return M
