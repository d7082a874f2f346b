--- Programs that a spec runs.

local M = {}

--- Quotes a word for a command line.
function M.quote(word) return "'" .. word:gsub("'", "'\\''") .. "'" end

--- Makes a command line from a format. Each string that fills it becomes one word, whatever it
-- holds.
function M.line(format, ...)
  local words = { ... }
  for i, word in ipairs(words) do
    if type(word) == 'string' then words[i] = M.quote(word) end
  end
  return format:format(unpack(words))
end

--- Runs a command line, or the one that M.line makes from a format. Returns its output, from both
-- streams, and its exit status.
function M.run(command, ...)
  if select('#', ...) > 0 then command = M.line(command, ...) end
  local pipe = assert(io.popen('{ ' .. command .. '\n} 2>&1; echo "exit $?"'))
  local text = pipe:read '*a'
  pipe:close()
  local said, status = text:match '^(.-)exit (%d+)\n$'
  return said, tonumber(status)
end

--- Runs command lines, as many at once as there are processors. Returns their output, and 0 if all
-- succeeded, else the status of xargs.
function M.run_all(commands)
  local path = os.tmpname()
  local file = assert(io.open(path, 'wb'))
  for _, command in ipairs(commands) do file:write(command, '\0') end
  file:close()
  local said, status = M.run('xargs -0 -n 1 -P "$(nproc)" sh -c <%s', path)
  os.remove(path)
  return said, status
end

--- Whether a program exists.
function M.has(program)
  local _, status = M.run('command -v %s', program)
  return status == 0
end

return M
