--- How commands end and write.
--
-- Exit status of every command: 0 is success; 1 is the answer "no" of a command that checks
-- something (bits differ, a vector does not hold, a script failed); 2 means that an argument or
-- file cannot be used or that the system refused something, and one line on stderr gives the
-- reason.

local M = {}

M.WELL, M.NO, M.UNUSABLE = 0, 1, 2

local Failure = {}

--- Ends the command with status 2 and a one-line message.
function M.fail(format, ...)
  local message = select("#", ...) > 0 and format:format(...) or format
  error(setmetatable({ message = message }, Failure), 0)
end

--- The same for wrong usage; also shows the usage.
function M.misuse(format, ...)
  error(setmetatable({ message = format:format(...), usage = true }, Failure), 0)
end

--- Returns an error's message, and whether it is about wrong usage.
function M.message(err)
  if getmetatable(err) == Failure then return err.message, err.usage end
  return tostring(err)
end

--- Returns f's result. Any failure of f, an error or nil and a message, ends the command.
function M.try(f, ...)
  local ok, result, message = pcall(f, ...)
  if not ok then
    if getmetatable(result) == Failure then error(result, 0) end
    M.fail("%s", tostring(result))
  end
  if result == nil then M.fail("%s", tostring(message)) end
  return result
end

--- Writes to stdout.
function M.write(text)
  local ok, why = io.stdout:write(text)
  if ok then ok, why = io.stdout:flush() end
  if not ok then M.fail("cannot write the output: %s", tostring(why)) end
end

return M
