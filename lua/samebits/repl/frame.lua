--- A function that waits while the prompt is open inside it. Its locals and upvalues can be read
-- and written.

local printable = require "samebits.text.printable"

local M = {}

local Frame = {}
Frame.__index = Frame

-- The number of levels of this coroutine's stack, seen from the caller.
local function depth()
  local level = 2
  while debug.getinfo(level, "l") do level = level + 1 end
  return level - 2
end

-- The level of the frame for a function called by the methods below, two calls from here. Frames
-- are identified by their distance from the bottom of the stack, which does not change.
local function level_of(self)
  if coroutine.running() ~= self.thread then
    error("the locals of the function that waits cannot be reached from another coroutine", 0)
  end
  return depth() - self.height
end

--- Returns the frame at a level, as debug.getinfo counts it for the caller.
function M.at(level)
  local info = debug.getinfo(level + 1, "nSlf")
  local self = setmetatable({
    info = info, thread = coroutine.running(), height = depth() - level, slots = {}, upvalues = {},
  }, Frame)
  for slot = 1, math.huge do
    local name = debug.getlocal(level + 1, slot)
    if not name then break end
    if name:find "^[%a_]" then self.slots[name] = slot end
  end
  for index = 1, math.huge do
    local name = debug.getupvalue(info.func, index)
    if not name then break end
    if name ~= "" then self.upvalues[name] = index end
  end
  return self
end

--- Whether a local or upvalue of this name exists, and its value.
function Frame:get(name)
  local slot = self.slots[name]
  if slot then
    local _, value = debug.getlocal(level_of(self), slot)
    return true, value
  end
  local index = self.upvalues[name]
  if index then
    local _, value = debug.getupvalue(self.info.func, index)
    return true, value
  end
  return false
end

--- Gives a local or upvalue another value. Returns whether it exists.
function Frame:set(name, value)
  local slot = self.slots[name]
  if slot then
    debug.setlocal(level_of(self), slot, value)
    return true
  end
  local index = self.upvalues[name]
  if index then
    debug.setupvalue(self.info.func, index, value)
    return true
  end
  return false
end

--- Returns the names of the frame's locals and upvalues: two sorted lists.
function Frame:names()
  local lists = { {}, {} }
  for i, names in ipairs { self.slots, self.upvalues } do
    for name in pairs(names) do lists[i][#lists[i] + 1] = name end
    table.sort(lists[i])
  end
  return lists[1], lists[2]
end

--- Returns the environment of the frame's function.
function Frame:globals() return getfenv(self.info.func) end

local AROUND = 2   -- lines of the source before and after

local function source_lines(info)
  local path = info.source:match "^@(.*)"
  local file = path and io.open(path, "rb")
  if not file then return {} end
  local lines, number = {}, 0
  for line in file:lines() do
    number = number + 1
    if number > info.currentline + AROUND then break end
    if number >= info.currentline - AROUND then
      lines[#lines + 1] = ("%s%5d  %s"):format(number == info.currentline and ">" or " ", number,
                                              (line:gsub("\t", "  ")))
    end
  end
  file:close()
  return lines
end

--- Returns the frame's place: file, line and function, and the lines of the source around it.
function Frame:where()
  local info = self.info
  local what = info.what == "main" and "in the main chunk" or
               info.name and ("in function '%s'"):format(info.name) or
               ("in the function of line %d"):format(info.linedefined)
  local lines = source_lines(info)
  table.insert(lines, 1, ("%s:%d, %s"):format(info.short_src, info.currentline, what))
  return printable.lines(table.concat(lines, "\n"))
end

return M
