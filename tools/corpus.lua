-- corpus.lua - manages the inputs of the fuzzers, which are kept as text. Each line of
-- spec/fuzz/corpus/TARGET.txt holds one input: its name (ten hex digits) and its bytes in hex. The
-- lines are sorted by name.
--
--   luajit tools/corpus.lua unpack TARGET FOLDER    writes each input to a file of its own
--   luajit tools/corpus.lua add TARGET FILE ...     adds the bytes of each file, named by a hash
--
-- It can also be used as a module: `require "tools.corpus"`.

local M = {}

--- The path of the file that holds the inputs of a target.
function M.path(target) return ("spec/fuzz/corpus/%s.txt"):format(target) end

--- The inputs of a target in order, each { name =, bytes = }.
function M.read(target)
  local list = {}
  for line in assert(io.lines(M.path(target))) do
    local name, hex = line:match "^(%x+) (%x*)$"
    assert(name and #hex % 2 == 0, M.path(target) .. ": not a name and bytes in hex: " .. line)
    local bytes = hex:gsub("%x%x", function(pair) return string.char(tonumber(pair, 16)) end)
    list[#list + 1] = { name = name, bytes = bytes }
  end
  return list
end

local function write(target, list)
  table.sort(list, function(a, b) return a.name < b.name end)
  local file = assert(io.open(M.path(target), "wb"))
  for i, input in ipairs(list) do
    if i == 1 or input.name ~= list[i - 1].name then
      local hex = input.bytes:gsub(".", function(c) return ("%02x"):format(c:byte()) end)
      assert(file:write(input.name, " ", hex, "\n"))
    end
  end
  assert(file:close())
end

-- 40 bits of two FNV-1a hashes, which are good enough for names.
local function name_of(bytes)
  local bit = require "bit"
  local a, b = 0x811c9dc5, 0x01000193
  for i = 1, #bytes do
    a = bit.tobit(bit.bxor(a, bytes:byte(i)) * 0x193 + bit.lshift(a, 24))
    b = bit.tobit(bit.bxor(b, bytes:byte(i), i) * 0x193 + bit.lshift(b, 24))
  end
  return ("%s%s"):format(bit.tohex(a), bit.tohex(b, 2))
end

local function read_file(path)
  local file = assert(io.open(path, "rb"))
  local bytes = file:read "*a"
  file:close()
  return bytes
end

local commands = {}

function commands.unpack(target, folder)
  for _, input in ipairs(M.read(target)) do
    local file = assert(io.open(folder .. "/" .. input.name, "wb"))
    assert(file:write(input.bytes))
    assert(file:close())
  end
end

function commands.add(target, ...)
  local list = M.read(target)
  for _, path in ipairs { ... } do
    local bytes = read_file(path)
    list[#list + 1] = { name = name_of(bytes), bytes = bytes }
  end
  write(target, list)
end

if ... == "tools.corpus" then return M end

local command = commands[arg[1]]
if not command or not arg[3] then
  io.stderr:write "usage: luajit tools/corpus.lua unpack TARGET FOLDER | add TARGET FILE ...\n"
  os.exit(2)
end
command(unpack(arg, 2))
