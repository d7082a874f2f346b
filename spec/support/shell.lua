--- Programs that a spec runs.

local M = {}

--- Runs a command line; what it prints, on both streams, and its exit status.
function M.run(command)
  local pipe = assert(io.popen('{ ' .. command .. '\n} 2>&1; echo "exit $?"'))
  local text = pipe:read '*a'
  pipe:close()
  local said, status = text:match '^(.-)exit (%d+)\n$'
  return said, tonumber(status)
end

--- Runs command lines, as many at once as there are processors. What they print, and 0 if all did
--- well, else xargs's status.
function M.run_all(commands)
  local path = os.tmpname()
  local file = assert(io.open(path, 'wb'))
  for _, command in ipairs(commands) do file:write(command, '\0') end
  file:close()
  local said, status = M.run(('xargs -0 -n 1 -P "$(nproc)" sh -c <%s'):format(M.quote(path)))
  os.remove(path)
  return said, status
end

--- Whether there is such a program.
function M.has(program)
  local _, status = M.run('command -v ' .. M.quote(program))
  return status == 0
end

--- A word of a command line.
function M.quote(word) return "'" .. word:gsub("'", "'\\''") .. "'" end

return M
