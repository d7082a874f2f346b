--- Lets file readers refuse a file from any call depth, with a one-line message that names the
-- byte.

local printable = require "samebits.text.printable"

local M = {}

local Refusal = {}

--- Ends the current reading.
function M.raise(format, ...)
  error(setmetatable({ message = format:format(...) }, Refusal), 0)
end

--- Runs a reader. Returns its results, or nil and the message of a refusal, prefixed with `name`.
function M.catch(name, f, ...)
  local function finish(ok, ...)
    if ok then return ... end
    local err = ...
    if getmetatable(err) == Refusal then return nil, ("%s: %s"):format(name, err.message) end
    error(err, 0)
  end
  return finish(pcall(f, ...))
end

--- Makes text from a file fit for a message: printable and not too long.
function M.quote(text)
  if #text > 64 then text = text:sub(1, 64):gsub("[\192-\255][\128-\191]*$", "") .. "..." end
  return "'" .. printable.text(text) .. "'"
end

-- At most this many names of a list are shown.
local TOLD = 20

--- Formats names from a file as a list for a message: sorted and not too many.
function M.list(names)
  if #names == 0 then return "none" end
  local sorted = {}
  for i, name in ipairs(names) do sorted[i] = name end
  table.sort(sorted)
  local quoted = {}
  for i = 1, math.min(#sorted, TOLD) do quoted[i] = M.quote(sorted[i]) end
  local text = table.concat(quoted, ", ")
  return #sorted > TOLD and ("%s and %d more"):format(text, #sorted - TOLD) or text
end

return M
