--- Misuse of the API: errors raised from any depth and reported at the line of the user's call.
--
-- Code behind a public function calls `misuse.raise(format, ...)` at any depth. The public function
-- is wrapped with `misuse.guard`, which turns the raised value into an ordinary `error(message, 2)`
-- at the caller of the public function. If it is called through pcall there is no such line, and
-- the message has no position: the command line prints it unchanged.
--
-- A refusal by the environment is not misuse. Code may return nil, a message and a code up to the
-- public function, or end the public function from any depth with `misuse.fail` and `misuse.try`.
--
-- All messages are made printable here, because they may quote names that contain any bytes.

local printable = require "samebits.text.printable"

local M = {}

local Misuse = { __tostring = function(self) return self.message end }

--- Ends the current public call with an error.
function M.raise(format, ...)
  error(setmetatable({ message = select("#", ...) > 0 and format:format(...) or format }, Misuse),
        0)
end

--- What a message calls a value of the wrong kind: "tensor", or the value's type.
function M.kind(value)
  local metatable = type(value) == "userdata" and getmetatable(value)
  return type(metatable) == "table" and metatable.kind or type(value)
end

--- Checks the options of a public function, or of another thing called `name`. Returns the table,
-- or an empty one if none is given. Raises misuse for keys other than the known ones.
function M.options(name, opts, known)
  if opts == nil then return {} end
  if type(opts) ~= "table" then M.raise("%s: expected a table, got %s", name, M.kind(opts)) end
  for key in pairs(opts) do
    if not known[key] then M.raise("%s: unknown option '%s'", name, tostring(key)) end
  end
  return opts
end

-- A refusal by the environment.
local Refusal = { __tostring = function(self) return self.message end }

--- Ends the current public call, which returns nil, the message and, if there is one, the code.
function M.fail(message, code)
  error(setmetatable({ message = message, codes = { code } }, Refusal), 0)
end

--- Returns the value if there is one. Otherwise ends the current public call with the message and
-- the code. For the results of functions that return nil, a message and a code.
function M.try(value, message, code)
  if type(value) == "nil" then M.fail(message, code) end
  return value
end

-- Called by a tail call, so that level 2 is the caller of the guarded function.
local function finish(ok, ...)
  if ok then
    local first, message = ...
    -- Tested by type, because == takes a NULL pointer for nil.
    if type(first) == "nil" and type(message) == "string" then
      return nil, printable.lines(message), select(3, ...)
    end
    return ...
  end
  local err = ...
  local kind = getmetatable(err)
  if kind == Refusal then return nil, printable.lines(err.message), unpack(err.codes) end
  if kind == Misuse then error(printable.lines(err.message), 2) end
  error(err, 0)
end

local guarded = setmetatable({}, { __mode = "k" })

--- Wraps a public function, so that misuse is reported at its caller.
function M.guard(f)
  local function guard(...) return finish(pcall(f, ...)) end
  guarded[guard] = f
  return guard
end

--- Returns the function inside a wrapped one; any other function itself.
function M.unguarded(f) return guarded[f] or f end

return M
