-- coverage_hook.lua - loaded through LUA_INIT=@tools/coverage_hook.lua. Records which lines of lua/
-- run and, when the process ends, writes them to a file of its own in the folder COVERAGE_DIR.
-- Turns the JIT off, since compiled code calls no hooks.

local folder = os.getenv "COVERAGE_DIR"
if not folder or not jit then return end  -- plain Lua: some other tool

jit.off()
local seen = {}       -- lines by source
local lines_of = setmetatable({}, { __mode = "k" })  -- the tables of `seen`, by function
local getinfo = debug.getinfo

-- A hook on every line would make long loops too slow, so after the first lines only bursts are
-- recorded. A line that runs just once, late and between two bursts, is missed, which makes the
-- figure slightly too low.
local FIRST, BURST, PAUSE = 200000, 500, 20000  -- lines, lines, instructions
local left = FIRST

local hook
local function look() debug.sethook(hook, "l") end

function hook(event, line)
  if event == "count" then
    left = BURST
    return look()
  end
  local f = getinfo(2, "f").func
  local lines = lines_of[f]
  if not lines then
    local source = getinfo(2, "S").source
    lines = seen[source] or {}
    seen[source] = lines
    lines_of[f] = lines
  end
  lines[line] = true
  left = left - 1
  if left <= 0 then debug.sethook(hook, "", PAUSE) end
end

local function leave()
  debug.sethook()
  local stat = assert(io.open "/proc/self/stat")
  local out = assert(io.open(("%s/%d"):format(folder, stat:read "*n"), "a"))  -- its process id
  stat:close()
  for source, lines in pairs(seen) do
    local file = source:match "(lua/samebits/[%w_/]+%.lua)$" or source:match "(lua/samebits%.lua)$"
    for line in pairs(file and lines or {}) do out:write(file, ":", line, "\n") end
  end
  out:close()
  seen = {}
end

-- A process ends by os.exit or by reaching the end of its code.
local exit = os.exit
os.exit = function(...)  -- luacheck: ignore 122
  leave()
  return exit(...)
end
COVERAGE_AT_EXIT = newproxy(true)  -- luacheck: ignore 111
getmetatable(COVERAGE_AT_EXIT).__gc = leave  -- luacheck: ignore 113

look()
