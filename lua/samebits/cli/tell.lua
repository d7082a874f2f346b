--- How commands end and what they write.
--
-- Exit status of every command: 0 is well; 1 is the answer "no" of a command that was asked
-- something (bits that differ, a vector that does not hold, a script that failed); 2 is that what
-- was given cannot be used, or that the system refused something: one line on stderr says why.

local M = {}

M.WELL, M.NO, M.UNUSABLE = 0, 1, 2

local Failure = {}

--- Ends the command with status 2 and a line.
function M.fail(format, ...)
  local message = select("#", ...) > 0 and format:format(...) or format
  error(setmetatable({ message = message }, Failure), 0)
end

--- The same for wrong usage: the usage is shown, too.
function M.misuse(format, ...)
  error(setmetatable({ message = format:format(...), usage = true }, Failure), 0)
end

--- An error's message, and whether it is for wrong usage.
function M.message(err)
  if getmetatable(err) == Failure then return err.message, err.usage end
  return tostring(err)
end

--- f's result; any failure of it, an error or nil and a message, ends the command.
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
