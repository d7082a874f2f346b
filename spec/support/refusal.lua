--- The error with which a call is refused.

local M = {}

--- The message of the error that f raises, less the position, which must be where f is called (with
-- arguments: here; without: in the function f of a spec file). Misuse is reported at its caller.
function M.misuse(f, ...)
  local here = debug.getinfo(2, "S").short_src:match("[^/]*$")
  local ok, message
  local n, arguments = select("#", ...), { ... }
  if n == 0 then
    ok, message = pcall(f)
  else
    here = "refusal.lua"
    ok, message = pcall(function() local _ = f(unpack(arguments, 1, n)) end)
  end
  assert(not ok, "expected an error")
  local file, rest = tostring(message):match("([^/]*%.lua):%d+: (.*)$")
  assert(file == here, "the error is not at its caller's line: " .. tostring(message))
  return rest
end

--- The message that follows nil.
function M.message(result, message)
  assert(result == nil, "expected nil and a message")
  assert(type(message) == "string" and not message:find("\n"), "expected a message of one line")
  return message
end

--- Fails unless a text holds all of the words, each a plain string.
function M.says(text, ...)
  for _, words in ipairs { ... } do
    assert(text:find(words, 1, true), ("'%s' does not say '%s'"):format(text, words))
  end
end

return M
