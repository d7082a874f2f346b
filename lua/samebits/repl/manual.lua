--- The text of `help` about functions, modules and objects of the library, from the comments in its
-- sources.

local call = require "samebits.op.call"
local misuse = require "samebits.misuse"
local sources = require "samebits.repl.sources"
local wrap = require "samebits.text.wrap"

local M = {}

-- Functions ---------------------------------------------------------------------------------------

-- LDoc's marks, in words.
local MARKS = {
  { "^@tparam%[opt%] (%S+) (%S+)", "%2 (%1, optional):" },
  { "^@param%[opt%] (%S+)", "%1 (optional):" },
  { "^@tparam (%S+) (%S+)", "%2 (%1):" },
  { "^@param (%S+)", "%1:" },
  { "^@treturn (%S+)", "gives (%1):" },
  { "^@return%f[%s]", "gives:" },
}

local function readable(line)
  for _, mark in ipairs(MARKS) do
    local text, n = line:gsub(mark[1], mark[2])
    if n > 0 then return (text:gsub(":$", "")) end
  end
  return line
end

-- A comment as text: parameters and results as a list, without LDoc's marks.
local function text_of(doc)
  local out, inside = {}, false
  for _, line in ipairs(doc) do
    if line:find "^@" then
      if not inside and #out > 0 and out[#out] ~= "" then out[#out + 1] = "" end
      inside = true
      if not line:find "^@module" then out[#out + 1] = "* " .. readable(line) end
    else
      inside = inside and line ~= ""
      out[#out + 1] = inside and not line:find "^[* ]" and "  " .. line or line
    end
  end
  return (table.concat(out, "\n"):gsub("\n+$", ""))
end

-- Some functions are local, and documented where the module assigns them to its own name.
local function comment_where_given(lines, name)
  local patterns = { "=%s*misuse%.guard%(" .. name .. "%)", "^M%.[%w_]+ = " .. name .. "$" }
  for number, line in ipairs(lines) do
    for _, pattern in ipairs(patterns) do
      local found = line:find(pattern) and sources.comment_before(lines, number)
      if found then return found end
    end
  end
end

-- The function that a wrapper calls, if the wrapper only loads a module and calls a function of it.
local function behind(definition)
  local module, name = definition:match(
    'function%(%.%.%.%) return require%("([%w_.]+)"%)%.([%w_]+)%(')
  local ok, loaded = pcall(require, module or "")
  return ok and type(loaded) == "table" and loaded[name] or nil
end

local function parameters(f)
  local names = {}
  local info = debug.getinfo(f, "u")
  for i = 1, info.nparams or 0 do names[i] = debug.getlocal(f, i) or "?" end
  if info.isvararg then names[#names + 1] = "..." end
  return names
end

-- The name in the form of a method call, such as "ctx:topk" for "ctx.topk".
local function as_method(name) return (name:gsub("%.([%w_]+)$", ":%1")) end

-- "ctx:topk(batch, k, opts)".
local function head_of(f, name)
  local names = parameters(f)
  if names[1] == "self" then
    table.remove(names, 1)
    name = as_method(name)
  end
  return ("%s(%s)"):format(name, table.concat(names, ", "))
end

local all -- all public names, as { full name, member }; reading the sources takes time

-- Calls visit(full name, member) for all public names.
local function each(visit)
  if not all then
    all = {}
    for _, module in ipairs { "samebits", "samebits.bits" } do
      for _, member in ipairs(sources.members(module)) do
        all[#all + 1] = { module .. "." .. member.name, member }
      end
    end
    for _, class in ipairs(sources.CLASSES) do
      for _, method in ipairs(sources.methods(class)) do
        all[#all + 1] = { class.called .. ":" .. method.name, method }
      end
    end
  end
  for _, one in ipairs(all) do visit(one[1], one[2]) end
end

-- The public name of a function, and its description in the sources; nil if it has no public name.
local function public(f)
  local name, found
  each(function(full, member)
    if member.value == f and not found then name, found = full, member end
  end)
  return name, found
end

-- The documentation in the comment above the function itself.
local function of_definition(f, name)
  local info = debug.getinfo(f, "S")
  local path = info.what == "Lua" and info.source:match "^@(.*)"
  local lines = path and sources.lines_of_file(path)
  local definition = lines and lines[info.linedefined]
  if not definition then return nil end
  local inner = behind(definition)
  if inner then return of_definition(misuse.unguarded(inner), name) end
  local comment = sources.comment_before(lines, info.linedefined)
  local own = definition:match "function ([%a_][%w_]*)%s*%("
  if not comment and own then comment = comment_where_given(lines, own) end
  if not comment then return nil end
  return head_of(f, name or own or "function") .. "\n\n" .. text_of(comment)
end

--- Returns the documentation of a Lua function, or nil if its source has none. name: the name that
-- the user entered; the function's public name by default.
function M.of(f, name)
  local called, member
  if not name then called, member = public(f) end
  local text = of_definition(misuse.unguarded(f), name or called)
  if text then return text end
  if name then called, member = public(f) end
  if not member or not member.doc then return nil end
  if name and called:find ":" then called = as_method(name) end
  return called .. member.parameters .. "\n\n" .. text_of(member.doc)
end

--- Returns the documentation of a member of a module, or of a method of a class.
function M.of_member(name, member)
  return name .. (member.parameters or "") .. "\n\n" .. text_of(member.doc or {})
end

-- Lists -------------------------------------------------------------------------------------------

local WIDE = 40 -- the largest number of columns of a name that has its text on the same line

-- The first sentence of a comment.
local function first_sentence(doc)
  local words = {}
  for _, line in ipairs(doc or {}) do
    if line == "" or line:find "^[@*]" then break end
    words[#words + 1] = line
  end
  local text = table.concat(words, " ")
  return (text:match "^(.-[^.])%.%s" or text:gsub("[.:]$", ""))
end

-- Names, each with its text: a list of { name, text }.
local function listed(list, width)
  local column = 0
  for _, entry in ipairs(list) do
    if #entry[1] <= WIDE then column = math.max(column, #entry[1] + 2) end
  end
  local out, indent = {}, (" "):rep(column)
  for _, entry in ipairs(list) do
    local first = ("%-" .. column .. "s"):format(entry[1])
    if #entry[1] + 2 > column then
      out[#out + 1] = entry[1]
      first = indent
    end
    out[#out + 1] = wrap.words(entry[2], width, first, indent):gsub("%s+$", "")
  end
  return table.concat(out, "\n")
end

local function lines_of(entries, prefix)
  local list = {}
  for _, member in ipairs(entries) do
    list[#list + 1] = { prefix .. member.name .. (member.parameters or ""),
                        first_sentence(member.doc) }
  end
  return list
end

--- Returns the name of a loaded, public module; nil for any other value.
function M.module_of(value)
  if type(value) ~= "table" then return nil end
  for name, loaded in pairs(package.loaded) do
    if loaded == value and sources.is_public(name) then return name end
  end
end

--- Returns the description of a public module and of the values that it returns.
function M.of_module(name, width)
  local members, example = sources.members(name), nil
  for _, member in ipairs(members) do example = example or member.parameters and member.name end
  return ("%s\n\n%s\n\nMore of each: help \"%s.%s\""):format(text_of(sources.head(name)),
    listed(lines_of(members, name .. "."), width), name, example)
end

--- Returns the methods of an object if its class is one of the library's; otherwise nil. called:
-- the object's name in the text.
function M.of_object(value, called, width)
  local class = sources.class_of(value)
  if not class then return nil end
  local methods = sources.methods(class)
  local prefix = (called or class.called) .. ":"
  return ("%s\n\nMore of each: help(%s.%s)"):format(listed(lines_of(methods, prefix), width),
    called or class.called, methods[1].name)
end

-- Searching ---------------------------------------------------------------------------------------

-- The texts of the parameters and results that are tables, each a list of lines.
local function tables_of(doc)
  local tags, current = {}, nil
  for _, line in ipairs(doc or {}) do
    if line:find "^@" then
      local rest = line:match "^@t%l+%S*%s+table%s+(.*)$"
      current = rest and { rest }
      tags[#tags + 1] = current
    elseif current then
      current[#current + 1] = line
    end
  end
  return tags
end

-- Returns the functions that have a field or an option of a name: a list of { function, text }. A
-- text is given once, with the first function that has it.
local function options(word)
  local list = {}
  each(function(full, member)
    local text
    for _, tag in ipairs(tables_of(member.doc)) do
      for _, field in ipairs(sources.fields_of(table.concat(tag, "\n"))) do
        if field.name == word and (not text or #field.text > #text) then text = field.text end
      end
    end
    local op = call.op_of(member.value)
    if text or op and op.known[word] then list[#list + 1] = { full, text or "" } end
  end)
  return list
end

-- The functions whose documentation holds a word, in whatever case.
local function mentions(word)
  local list, pattern = {}, word:lower()
  each(function(full, member)
    local doc = table.concat(member.doc or {}, "\n"):lower()
    if doc:find(pattern, 1, true) then
      list[#list + 1] = { full, first_sentence(member.doc) }
    end
  end)
  return list
end

--- Returns what is known of a word: the documentation of the public functions of this name, the
-- functions that have such an option, and if there are neither, the functions whose name or
-- documentation holds the word. Returns nil if nothing does.
function M.search(word, width)
  width = width or 100
  local found, near, seen = {}, {}, {}
  each(function(full, member)
    local value, name = member.value, member.name
    if type(value) ~= "function" or seen[value] then return end
    seen[value] = true
    if name == word then
      found[#found + 1] = M.of(value, full)
    elseif #word > 1 and name:find(word, 1, true) then
      near[#near + 1] = { full, first_sentence(member.doc) }
    end
  end)
  local others = options(word)
  if #others > 0 then
    found[#found + 1] = ("the option or field '%s' of\n\n%s"):format(word, listed(others, width))
  end
  if #found > 0 then return table.concat(found, "\n\n") end
  if #word < 2 then return nil end
  local list, known = near, {}
  for _, entry in ipairs(near) do known[entry[1]] = true end
  for _, entry in ipairs(mentions(word)) do
    if not known[entry[1]] then list[#list + 1] = entry end
  end
  if #list == 0 then return nil end
  return ("what mentions '%s'\n\n%s\n\nMore of each: help \"%s\""):format(word,
    listed(list, width), list[1][1])
end

return M
