--- Compiles typed text to a function: an expression whose values are shown, or statements.
--
-- Locals of the outermost block outlive their chunk: a call that is compiled after the statements
-- takes their values. A script can thus be pasted line by line.

local M = {}

-- The name of the keeping call inside a chunk. A user will not choose this name by accident.
local KEEP = "__samebits_keep"

-- Text only, because LuaJIT does not check bytecode.
local function compiled(text, name) return load(text, name, "t") end

-- A quoted string that its line leaves open is an error; anything else may continue on later lines.
local function is_unfinished(message)
  return message:find "near '?<eof>'?$" ~= nil and not message:find("unfinished string", 1, true)
end

-- Whether Lua stopped at the very first word, so that the text is not a statement at all.
local function at_first_word(text, message)
  local near = message:match "unexpected symbol near '([^']*)'$"
  return near ~= nil and text:match "^%s*(.*)":sub(1, #near) == near
end

--- Compiles statements. Returns their function, and whether it keeps its locals (see `keep`), which
-- statements that end in a return do not. Or returns nil and the error.
function M.compile_statements(text, name)
  local plain, message = compiled(text, name)
  if not plain then return nil, message end
  local keeping = compiled(("%s\n;%s()"):format(text, KEEP), name)
  return keeping or plain, keeping ~= nil
end

--- Compiles typed text: an expression, whose values the function returns, or statements.
-- @tparam string text
-- @tparam string name the chunk's name in messages, as load takes it
-- @return its function, and whether it keeps its locals. Or nil, the error, and true if more lines
-- may complete the text.
function M.compile(text, name)
  local blank, asked = text:match "^(%s*)=(.*)$"
  -- Text in front must not change the line numbers in messages.
  local before, expression = asked and blank or "", asked or text
  local values, why = compiled(("%sreturn %s"):format(before, expression), name)
  if values then
    -- Without the function around it, a call would be a tail call, which tracebacks do not show.
    local placed = compiled(("%sreturn (function(...) return ... end)(%s)"):format(before,
                              expression), name)
    return placed or values, false
  end
  if asked then return nil, why, is_unfinished(why) end

  local f, result = M.compile_statements(text, name)
  if f then return f, result end
  local unfinished = is_unfinished(result) or is_unfinished(why)
  return nil, at_first_word(text, result) and why or result, unfinished
end

--- Calls `take(name, value)` for each local of a frame, the inner ones last. `level` is the frame's
-- level as debug.getlocal counts it for the caller.
function M.locals(level, take)
  for slot = 1, math.huge do
    local name, value = debug.getlocal(level + 1, slot)
    if not name then return end
    if name:find "^[%a_]" then take(name, value) end
  end
end

--- Prepares a chunk that keeps its locals: when the chunk has reached its end, `take(name, value)`
-- gets each of them. Returns a function to call after the chunk, whether it reached its end or not.
function M.keep(f, take)
  local environment = getfenv(f)
  rawset(environment, KEEP, function() M.locals(2, take) end)
  return function() rawset(environment, KEEP, nil) end
end

return M
