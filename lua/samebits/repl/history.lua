--- What was typed in earlier sessions, in a file: one entry per line. A line feed inside an entry
-- is stored as the byte 30 (ASCII's record separator).
--
-- Each entry is added when it is typed, in one write, so that no line is lost by parallel sessions
-- or by sessions that crash.

local file = require "samebits.io.file"
local posix = require "samebits.io.posix"

local M = {}

local KEPT = 2000   -- entries; a file with twice as many is cut to this number
local SEPARATOR = "\30"

local function stored_as(entry) return (entry:gsub("\n", SEPARATOR)) end

--- Returns the path of the file: $XDG_STATE_HOME/samebits/history, or
-- ~/.local/state/samebits/history. Returns nil if the environment names neither folder.
function M.path()
  local state, home = os.getenv "XDG_STATE_HOME", os.getenv "HOME"
  -- The XDG specification requires relative paths to be ignored.
  if not (state and state:find "^/") then
    if not (home and home:find "^/") then return nil end
    state = home .. "/.local/state"
  end
  return state .. "/samebits/history"
end

local function make_folders(path)
  for at in path:gmatch "()/" do
    if at > 1 and not posix.kind_of_path(path:sub(1, at - 1)) then
      posix.make_folder(path:sub(1, at - 1))
    end
  end
end

--- Returns the lines, oldest first; none if there is no file. Returns nil and a message if the file
-- cannot be read.
function M.load(path)
  local kind = posix.kind_of_path(path)
  if not kind then return {} end
  if kind ~= "file" then return nil, ("%s: not a regular file"):format(path) end
  local handle, why = io.open(path, "rb")
  if not handle then return nil, why end
  local text = handle:read "*a"
  handle:close()
  local lines = {}
  for line in (text or ""):gmatch "[^\n]+" do
    -- C code would end the line at a NUL.
    if not line:find "%z" then lines[#lines + 1] = (line:gsub(SEPARATOR, "\n")) end
  end
  if #lines <= KEPT then return lines end
  local recent = {}
  for i = #lines - KEPT + 1, #lines do recent[#recent + 1] = lines[i] end
  if #lines > 2 * KEPT then
    local stored = {}
    for i, entry in ipairs(recent) do stored[i] = stored_as(entry) end
    file.write(path, { table.concat(stored, "\n") .. "\n" })
  end
  return recent
end

--- Adds lines. Returns true, or nil and a message.
function M.append(path, lines)
  if #lines == 0 then return true end
  make_folders(path)
  local fd = posix.append(path)
  if not fd then return nil, ("%s: %s"):format(path, posix.words()) end
  local stored = {}
  for i, entry in ipairs(lines) do stored[i] = stored_as(entry) end
  local text = table.concat(stored, "\n") .. "\n"
  local ok = posix.write(fd, text, #text)
  local why = not ok and posix.words() or nil
  posix.close(fd)
  if ok then return true end
  return nil, ("%s: %s"):format(path, why)
end

return M
