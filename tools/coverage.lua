-- coverage.lua - reports how many lines of the library ran.
--
--   luajit tools/coverage.lua c              from the counts that runs of build/coverage left
--   luajit tools/coverage.lua lua FOLDER     from the files that coverage_hook.lua left in FOLDER
--
-- A source that is compiled into several programs counts once: a line ran if it did in any of them.

-- ran[file][line] is how often the line ran, for each line that has code.
local ran = {}

local function add(file, line, count)
  ran[file] = ran[file] or {}
  ran[file][line] = (ran[file][line] or 0) + count
end

-- Reads the text output of gcov. Its lines look like "   12*:   34:source", with "#####" or "====="
-- for a line that never ran and "-" for one without code; line 0 holds the name of the file.
local function read_gcov()
  local pipe = assert(io.popen("cd build && find obj/*coverage -name '*.gcda' | " ..
                               "xargs gcov --stdout 2>/dev/null"))
  local file
  for text in pipe:lines() do
    local count, line, rest = text:match "^%s*([^:]+):%s*(%d+):(.*)$"
    if line == "0" and rest:find "^Source:" then
      file = rest:match "^Source:(.*)$":gsub("^%.%./", "")
    elseif line and line ~= "0" and count ~= "-" and file:find "^src/" then
      add(file, tonumber(line), tonumber((count:match "^%d+")) or 0)
    end
  end
  pipe:close()
end

-- The lines of a Lua file that have code: those of the instructions of all its functions.
local function add_code_lines(file)
  local util = require "jit.util"
  local function visit(f)
    local info = util.funcinfo(f)
    for pc = 1, info.bytecodes - 1 do add(file, util.funcinfo(f, pc).currentline, 0) end
    if not info.children then return end
    for i = -1, -2 ^ 16, -1 do
      local constant = util.funck(f, i)
      if constant == nil then break end
      if type(constant) == "proto" then visit(constant) end
    end
  end
  visit(assert(loadfile(file)))
end

local function read_lua(folder)
  local pipe = io.popen "find lua -name '*.lua' | sort"
  for file in pipe:lines() do add_code_lines(file) end
  pipe:close()
  pipe = io.popen(("cat '%s'/*"):format(folder))
  for text in pipe:lines() do
    local file, line = text:match "^(.*):(%d+)$"
    line = tonumber(line)
    if ran[file] and ran[file][line] then add(file, line, 1) end
  end
  pipe:close()
end

local kind = arg[1]
if kind == "c" then read_gcov()
elseif kind == "lua" and arg[2] then read_lua(arg[2])
else error "usage: coverage.lua c | lua FOLDER" end

local files = {}
for file in pairs(ran) do files[#files + 1] = file end
table.sort(files)
local all_lines, all_hit = 0, 0
local function report(file, hit, lines)
  print(("%5.1f %%  %5d of %5d  %s"):format(100 * hit / lines, hit, lines, file))
end
for _, file in ipairs(files) do
  local lines, hit = 0, 0
  for _, count in pairs(ran[file]) do
    lines = lines + 1
    if count > 0 then hit = hit + 1 end
  end
  if lines > 0 then report(file, hit, lines) end
  all_lines, all_hit = all_lines + lines, all_hit + hit
end
if all_lines == 0 then
  print "coverage: no line was counted"
  os.exit(1)
end
print(("note     %s: %.1f %% of %d lines ran"):format(
  kind == "c" and "C" or "Lua", 100 * all_hit / all_lines, all_lines))
