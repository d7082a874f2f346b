--- Stands for a tensor of a file whose dtype is not supported: using it is an error, while the rest
-- of the file stays usable.

local misuse = require "samebits.misuse"

local M = {}

local Unsupported = {}

function Unsupported.__index(self) error(rawget(self, "why"), 2) end
function Unsupported.__tostring(self) return rawget(self, "why") end

--- why: the reason, with the tensor's name.
function M.new(why) return setmetatable({ why = why }, Unsupported) end

--- The reason why a value cannot be used; nil for any other value.
function M.why(value)
  return getmetatable(value) == Unsupported and rawget(value, "why") or nil
end

--- Raises misuse where a value is such a tensor; `name` says what it was given as.
function M.check(value, name)
  local why = M.why(value)
  if why then misuse.raise("%s%s", name and name .. ": " or "", why) end
end

return M
