--- Misuse of the API, raised from any depth and reported at the line of the user who called.
--
-- Code behind a public function calls `misuse.raise(format, ...)`, however deep it stands. The
-- public function is wrapped with `misuse.guard`, which turns what was raised into an ordinary
-- `error(message, 2)` at the caller of the public function. Called through pcall there is no such
-- line, and the message comes bare: the command line prints it as it is.
--
-- What is raised, and the message of a public function that returns nil and one, is printable: it
-- may quote names that hold anything.

local printable = require "samebits.text.printable"

local M = {}

local Misuse = { __tostring = function(self) return self.message end }

--- Stops the public call that is under way.
function M.raise(format, ...)
  error(setmetatable({ message = select("#", ...) > 0 and format:format(...) or format }, Misuse),
        0)
end

-- Reached by a tail call, so that level 2 is the caller of the guarded function.
local function finish(ok, ...)
  if ok then
    local first, message = ...
    -- Not ==, which takes a NULL pointer for nil.
    if type(first) == "nil" and type(message) == "string" then
      return nil, printable.lines(message), select(3, ...)
    end
    return ...
  end
  local err = ...
  if getmetatable(err) == Misuse then error(printable.lines(err.message), 2) end
  error(err, 0)
end

local guarded = setmetatable({}, { __mode = "k" })

--- Wraps a public function.
function M.guard(f)
  local function guard(...) return finish(pcall(f, ...)) end
  guarded[guard] = f
  return guard
end

--- The function inside a wrapped one; any other function itself.
function M.unguarded(f) return guarded[f] or f end

return M
