--- Stands for a tensor in a file whose dtype is not supported. Using it is an error, but the rest
-- of the file stays usable.

local misuse = require "samebits.misuse"

local M = {}

local Unsupported = {}

function Unsupported.__index(self) error(rawget(self, "why"), 2) end
function Unsupported.__tostring(self) return rawget(self, "why") end

--- Makes the stand-in. why: the reason, with the tensor's name.
function M.new(why) return setmetatable({ why = why }, Unsupported) end

--- Returns the reason why a value cannot be used; nil for any other value.
function M.why(value)
  return getmetatable(value) == Unsupported and rawget(value, "why") or nil
end

--- Raises misuse if a value is such a tensor. `name` is the name it was given under.
function M.check(value, name)
  local why = M.why(value)
  if why then misuse.raise("%s%s", name and name .. ": " or "", why) end
end

return M
