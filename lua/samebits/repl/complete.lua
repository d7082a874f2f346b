--- Completes a word at the prompt: to names, and to the fields and methods of the value before a
-- dot or a colon.
--
-- Completion calls no code of the user's. It follows fields only through tables, the fields of
-- tensors and batches, views of tensors, and the structs of the library.

local declared = require "samebits.repl.declared"
local lib = require "samebits.lib"
local objects = require "samebits.object"
local pretty = require "samebits.repl.pretty"
local tensor = require "samebits.tensor"

local M = {}

-- Metatables and their __index tables can form a cycle.
local CHAIN = 20

-- Calls visit(key, value) for each name of a value.
local function each(value, visit)
  for _ = 1, CHAIN do
    if type(value) == "string" then
      value = string
    elseif value == lib.C then
      for _, name in ipairs(declared.functions()) do visit(name, print) end
      return
    elseif type(value) == "cdata" then
      for _, name in ipairs(declared.members(value) or {}) do visit(name, false) end
      return
    end
    local fields = type(value) == "table" and value or objects.fields_of[value]
    if not fields then return end
    for key, inside in next, fields do
      if type(key) == "string" then visit(key, inside) end
    end
    local metatable = debug.getmetatable(value)
    if type(metatable) ~= "table" then return end
    local index = rawget(metatable, "__index")
    value = type(index) == "table" and index or rawget(metatable, "methods")
  end
end

-- value.key, without a call of any code of the user's.
local function field(value, key)
  if type(key) == "number" then
    if tensor.is_tensor(value) then
      local ok, row = pcall(function() return value[key] end)
      return ok and row or nil
    end
    return type(value) == "table" and rawget(value, key) or nil
  end
  if type(value) == "cdata" then
    for _, name in ipairs(declared.members(value) or {}) do
      if name == key then
        local ok, member = pcall(function() return value[key] end)
        return ok and member or nil
      end
    end
    return nil
  end
  local found
  each(value, function(name, inside) if found == nil and name == key then found = inside end end)
  return found
end

--- Returns true and the value of a chain such as "a.b[0].c"; nil if the text is not such a chain.
-- @tparam string text
-- @tparam function get returns a name's value
local function follow(text, get)
  local name, at = text:match "^([%a_][%w_]*)()"
  if not name or pretty.KEYWORDS[name] then return nil end
  local value = get(name)
  while at <= #text do
    local key, past = text:match("^[.:]([%a_][%w_]*)()", at)
    if not key then
      key, past = text:match("^%[(%d+)%]()", at)
      key = tonumber(key)
    end
    if not key then return nil end
    value, at = field(value, key), past
  end
  return true, value
end

-- The value of the longest chain at the end of a text.
local function chain_at_end(text, get)
  for first = 1, #text do
    if first == 1 or not text:sub(first - 1, first - 1):find "[%w_.:%]]" then
      local ok, value = follow(text:sub(first), get)
      if ok then return value end
    end
  end
end

local function callable(v)
  if type(v) == "function" then return true end
  local metatable = debug.getmetatable(v)
  return type(metatable) == "table" and rawget(metatable, "__call") ~= nil
end

local function add(found, seen, name, start)
  if seen[name] or name:sub(1, #start) ~= start or not name:find "^[%a_][%w_]*$" then return end
  -- Names that begin with two underscores are offered only if the word begins with one.
  if name:find "^__" and not start:find "^_" then return end
  seen[name] = true
  found[#found + 1] = name
end

local function prefixed(names, prefix)
  table.sort(names)
  for i, name in ipairs(names) do names[i] = prefix .. name end
  return names
end

-- Whether the end of a line is inside a quoted string, and the text before its quote.
local function in_string(line)
  local quote, from, at = nil, nil, 1
  while at <= #line do
    local c = line:sub(at, at)
    if quote then
      if c == "\\" then at = at + 1 elseif c == quote then quote = nil end
    elseif c == '"' or c == "'" then
      quote, from = c, at
    elseif line:find("^%-%-", at) then
      return false
    end
    at = at + 1
  end
  if quote then return true, line:sub(1, from - 1), line:sub(from + 1) end
  return false
end

M.follow = follow

--- Returns the candidates for a word.
-- @tparam string before the line up to the word
-- @tparam string word
-- @tparam table scope `names(visit)` calls visit(name) for each name that can be used; `get(name)`
-- returns its value
-- @treturn table a sorted list of whole words; nil inside a string, which may be the name of a file
function M.candidates(before, word, scope)
  local found, seen = {}, {}
  local quoted, ahead, start = in_string(before .. word)
  if quoted then
    local table_text = ahead:match "(.-)%s*%[%s*$"
    local value = table_text and chain_at_end(table_text, scope.get)
    if type(value) ~= "table" then return nil end
    each(value, function(name) add(found, seen, name, start) end)
    return prefixed(found, word:sub(1, #word - #start))
  end
  local head, separator, partial = word:match "^(.*)([.:])([%w_]*)$"
  if not head then
    head, partial = word:match "^(.-)([%w_]*)$"
    scope.names(function(name) add(found, seen, name, partial) end)
    for keyword in pairs(pretty.KEYWORDS) do add(found, seen, keyword, partial) end
    return partial ~= "" and prefixed(found, head) or {}
  end
  local value = chain_at_end(head, scope.get)
  each(value, function(name, inside)
    if separator == "." or callable(inside) then add(found, seen, name, partial) end
  end)
  return prefixed(found, head .. separator)
end

return M
