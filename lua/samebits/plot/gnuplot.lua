--- Runs gnuplot on the text of a script and returns the drawing. Used by plot.lua.

local printable = require "samebits.text.printable"

local M = {}

M.MISSING = "gnuplot is not installed, or not in PATH: install it (Debian, Ubuntu: apt-get " ..
            "install gnuplot-nox; Fedora: dnf install gnuplot; macOS: brew install gnuplot)"

-- LuaJIT returns the result of system(3) or, if built for compatibility with Lua 5.2, true.
local function succeeds(command)
  local status = os.execute(command)
  return status == 0 or status == true
end

function M.is_installed() return succeeds "command -v gnuplot >/dev/null 2>&1" end

local function write_file(path, text)
  local file = io.open(path, "wb")
  local ok = file and file:write(text)
  return file and file:close() and ok
end

local function read_file(path)
  local file = io.open(path, "rb")
  local text = file and file:read "*a" or ""
  if file then file:close() end
  return text
end

-- gnuplot's complaint in one line. gnuplot shows the wrong line with a mark below it, then "FILE"
-- line N: and the error.
local function complaint(text)
  local what = text:match '"[^\n]*" line %d+: ([^\n]+)' or text:match "([^\n]+)%s*$"
  return what or "it does not say why"
end

-- script, drawing, errors: names of files that exist.
local function run(text, script, drawing, errors)
  if not write_file(script, text) then return nil, "gnuplot: cannot write " .. script end
  -- -d ignores the user's ~/.gnuplot, which is meant for the user's own plots.
  if succeeds(("gnuplot -d '%s' >'%s' 2>'%s' </dev/null"):format(script, drawing, errors)) then
    return read_file(drawing)
  end
  if not M.is_installed() then return nil, M.MISSING end
  return nil, "gnuplot failed: " .. complaint(read_file(errors))
end

--- Returns the standard output of a script; nil and a message if gnuplot is missing or fails.
function M.run(text)
  local files = {}
  local ok, out, message = pcall(function()
    for i = 1, 3 do files[i] = os.tmpname() end
    return run(text, files[1], files[2], files[3])
  end)
  for _, name in ipairs(files) do os.remove(name) end
  if not ok then return nil, "gnuplot: " .. tostring(out) end
  return out, message
end

--- Returns a gnuplot string. gnuplot expands nothing within single quotes. The string is one line:
-- line ends become blanks.
function M.quote(text)
  return "'" .. printable.text((tostring(text):gsub("[\r\n\t]", " "))):gsub("'", "''") .. "'"
end

--- Returns a label of an axis's marks. gnuplot would take a percent sign in it for a format.
function M.label(text) return M.quote((tostring(text):gsub("%%", "%%%%"))) end

return M
