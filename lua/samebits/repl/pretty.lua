--- The form in which the prompt shows values: tables with their contents, limited in depth and
-- length; objects by their own descriptions; C structs of the library by member; numbers with all
-- the digits that distinguish them.

local ffi = require "ffi"
local declared = require "samebits.repl.declared"
local lib = require "samebits.lib"
local misuse = require "samebits.misuse"
local posix = require "samebits.io.posix"
local printable = require "samebits.text.printable"
local tensor = require "samebits.tensor"

local tensor_text = tensor.text

local M = {}

local WIDTH = 80          -- columns, where there is no terminal
local DEPTH = 4           -- levels of nested tables
local MANY = 40           -- entries of a table
local LONG = 400          -- bytes of a string inside a table
local SHORT = 20          -- bytes of an entry that shares its line with others
local SMALL = 6           -- elements of a tensor inside a table whose values are shown

--- Returns the available columns.
function M.width() return posix.columns(1) or WIDTH end

local function number(v)
  if v ~= v then return "nan" end
  if v == math.huge then return "inf" elseif v == -math.huge then return "-inf" end
  for digits = 14, 17 do
    local text = ("%%.%dg"):format(digits):format(v)
    if tonumber(text) == v then return text end
  end
end

local function quoted(text)
  local rest = ""
  if #text > LONG then
    rest = (" .. (%d bytes more)"):format(#text - LONG)
    text = text:sub(1, LONG)
  end
  local mark = text:find('"', 1, true) and not text:find("'", 1, true) and "'" or '"'
  -- LuaJIT reads these escapes back.
  return mark .. printable.text((text:gsub("[\\" .. mark .. "]", "\\%0"))) .. mark .. rest
end

local function status(v)
  return ("%s (%d): %s"):format(ffi.string(lib.C.sb_status_name(v)), tonumber(v),
                                ffi.string(lib.C.sb_status_text(v)))
end

-- A function, and where it is defined.
local function described(f)
  local info = debug.getinfo(misuse.unguarded(f), "S")
  if info.what == "C" then return "function: built in" end
  return ("function: %s:%d"):format(info.short_src, info.linedefined)
end

local function in_line(t)
  local head = tensor_text.head(t)
  if t.ndim > 1 or t:numel() > SMALL then return head end
  local text = tostring(t):match "\n([^\n]*)$"
  return text and head .. " " .. text:gsub(" +", " "):gsub("%[ ", "[") or head
end

local KEYWORDS = {}
for word in ([[and break do else elseif end false for function goto if in local nil not or repeat
  return then true until while]]):gmatch "%a+" do
  KEYWORDS[word] = true
end
M.KEYWORDS = KEYWORDS

local function is_name(key)
  return type(key) == "string" and key:find "^[%a_][%w_]*$" ~= nil and not KEYWORDS[key]
end

-- Numbers in order, then names, then all other keys by type.
local RANKS = { number = 1, string = 2 }
local function before(a, b)
  local rank_a, rank_b = RANKS[type(a)] or 3, RANKS[type(b)] or 3
  if rank_a ~= rank_b then return rank_a < rank_b end
  if rank_a < 3 then return a < b end
  return tostring(a) < tostring(b)
end

local inner

-- The entries of a table as texts. `path` holds the enclosing tables.
local function entries(t, path, depth)
  local out, listed, left = {}, 0, 0
  local function add(text)
    if #out < MANY then out[#out + 1] = text else left = left + 1 end
  end
  while rawget(t, listed + 1) ~= nil do
    listed = listed + 1
    if listed <= MANY then add(inner(rawget(t, listed), path, depth)) else left = left + 1 end
  end
  local keys = {}
  for key in next, t do
    if not (type(key) == "number" and key >= 1 and key <= listed and key % 1 == 0) then
      keys[#keys + 1] = key
    end
  end
  table.sort(keys, before)
  for _, key in ipairs(keys) do
    if #out < MANY then
      add((is_name(key) and key or "[" .. inner(key, path, depth) .. "]") .. " = " ..
          inner(rawget(t, key), path, depth))
    else
      left = left + 1
    end
  end
  if left > 0 then out[#out + 1] = ("... (%d more)"):format(left) end
  return out
end

-- Puts as many parts on a line as fit.
local function filled(parts, width)
  local lines, line = {}, nil
  for _, part in ipairs(parts) do
    if line and #line + 2 + #part < width then
      line = line .. ", " .. part
    else
      lines[#lines + 1] = line
      line = part
    end
  end
  lines[#lines + 1] = line
  return lines
end

local function braces(parts, depth)
  if #parts == 0 then return "{}" end
  local line = "{ " .. table.concat(parts, ", ") .. " }"
  if not line:find "\n" and #line + 2 * depth <= M.width() then return line end
  local short = true
  for _, part in ipairs(parts) do short = short and #part <= SHORT end
  if short then parts = filled(parts, M.width() - 2 * (depth + 1)) end
  local indent = ("  "):rep(depth + 1)
  return "{\n" .. indent .. table.concat(parts, ",\n" .. indent) .. ",\n" .. ("  "):rep(depth) ..
         "}"
end

local function of_table(t, path, depth)
  if path[t] then return "{ itself, from further out }" end
  if depth >= DEPTH then return next(t) == nil and "{}" or "{ ... }" end
  path[t] = true
  local text = braces(entries(t, path, depth + 1), depth)
  path[t] = nil
  return text
end

local function of_struct(v, members, path, depth)
  local parts = {}
  for i, name in ipairs(members) do parts[i] = name .. " = " .. inner(v[name], path, depth + 1) end
  return tostring(ffi.typeof(v)):match "ctype<(.*)>" .. " " .. braces(parts, depth)
end

local function of_cdata(v, path, depth)
  if ffi.istype("sb_status", v) then return status(v) end
  if ffi.istype("int64_t", v) or ffi.istype("uint64_t", v) then return tostring(v) end
  local members = not tostring(ffi.typeof(v)):find "%*>?$" and declared.members(v)
  if members then return of_struct(v, members, path, depth) end
  return tostring(v)
end

local LARGE = 2 ^ 20   -- elements; the extremes of larger tensors are not looked for

-- A tensor's values in a table of results: all of them, or the extremes.
local function values_of(t)
  if t:numel() <= SMALL then
    return (tostring(t):match "\n(.*)$":gsub("%s+", " "):gsub("%[ ", "["))
  end
  if t.device ~= "cpu" or t:numel() > LARGE or t.dtype == "uint8" then return "" end
  local low, high = t:min(), t:max()
  if type(low) ~= "number" then return ("%s .. %s"):format(tostring(low), tostring(high)) end
  return ("%.6g .. %.6g"):format(low, high)
end

-- The results of a call, a table of nothing but tensors: a row for each.
local function of_tensors(t)
  local names, rows, wide = {}, {}, { 0, 0, 0 }
  for name, value in next, t do
    if not (is_name(name) and tensor.is_tensor(value)) then return nil end
    names[#names + 1] = name
  end
  if #names < 2 then return nil end
  table.sort(names)
  for i, name in ipairs(names) do
    local value = t[name]
    local ok, text = pcall(values_of, value)
    rows[i] = { name, value.dtype .. (value.device ~= "cpu" and " " .. value.device or ""),
                tensor.layout.text(value.shape), ok and text or "" }
    for c = 1, 3 do wide[c] = math.max(wide[c], #rows[i][c]) end
  end
  local format = ("%%-%ds  %%-%ds  %%-%ds  %%s"):format(unpack(wide))
  for i, row in ipairs(rows) do
    rows[i] = format:format(unpack(row)):sub(1, math.max(M.width(), 20)):gsub("%s+$", "")
  end
  return table.concat(rows, "\n")
end

-- An object's own text, or false if it has none. `whole` requests the complete text of reports.
local function own_words(v, whole)
  local metatable = debug.getmetatable(v)
  if type(metatable) ~= "table" then return false end
  local index = rawget(metatable, "__index")
  local method = whole and type(index) == "table" and rawget(index, "text")
  if type(method) ~= "function" then method = nil end
  if not method and not rawget(metatable, "__tostring") then return false end
  local function words()
    if method then return method(v, { width = M.width() }) end
    return tostring(v)
  end
  local ok, text = pcall(words)
  if ok then return (tostring(text):gsub("\n$", "")) end
  return ("%s that cannot tell of itself: %s"):format(type(v), tostring(text))
end

-- A value inside another one, on one line if possible.
function inner(v, path, depth)
  local kind = type(v)
  if kind == "number" then return number(v) end
  if kind == "string" then return quoted(v) end
  if kind == "function" then return described(v) end
  if kind == "cdata" then return of_cdata(v, path, depth) end
  if tensor.is_tensor(v) then return in_line(v) end
  if kind == "table" or kind == "userdata" then
    local words = own_words(v, false)
    if words then return (words:gsub("\n", "\n" .. ("  "):rep(depth + 1))) end
    if kind == "table" then return of_table(v, path, depth) end
  end
  return tostring(v)
end

--- Returns a value as text. A string of several lines is shown as it is, except for characters that
-- are not printable.
function M.text(v)
  if type(v) == "string" and v:find "\n" then return printable.lines((v:gsub("\n$", ""))) end
  local kind = type(v)
  if tensor.is_tensor(v) then return (v:text(posix.columns(1)):gsub("\n$", "")) end
  local results = kind == "table" and debug.getmetatable(v) == nil and of_tensors(v)
  if results then return results end
  return printable.lines((kind == "table" or kind == "userdata") and own_words(v, true) or
                         inner(v, {}, 0))
end

-- Whether a value is shown in this module's form, and not in words of its own.
local function is_data(v)
  if type(v) == "string" then return not v:find "\n" end
  local metatable = (type(v) == "table" or type(v) == "userdata") and debug.getmetatable(v)
  return type(metatable) ~= "table" or tensor.is_tensor(v)
end

--- Returns several values as text, on one line if all are short. paint: nil, or a function that
-- colours the text of data.
function M.all(n, values, paint)
  local parts, length, lines = {}, 0, false
  for i = 1, n do
    parts[i] = M.text(values[i])
    length, lines = length + #parts[i] + 2, lines or parts[i]:find "\n" ~= nil
    if paint and is_data(values[i]) then parts[i] = paint(parts[i]) end
  end
  return table.concat(parts, (lines or length > M.width() + 2) and "\n" or ", ")
end

return M
