--- The documentation of the public names: doc comments (`---`), read from the loaded Lua files.
-- `help` at the prompt shows them, and tools/docs makes pages of them.
--
-- The public names are the modules whose head comment has an @module, the values that they return,
-- and the classes below. The comment directly before a definition documents it. If a module or a
-- class passes on a function of another module, the comment before the original definition is used.

local M = {}

--- Classes: the module, the table of methods in it, and the name of objects in texts; `also`:
-- further modules that define methods.
M.CLASSES = {
  { name = "Context", module = "samebits.context", called = "ctx" },
  { name = "Batch", module = "samebits.batch", called = "batch" },
  { name = "Tensor", module = "samebits.tensor", called = "t",
    also = { "samebits.tensor.arithmetic", "samebits.tensor.reduce" } },
  { name = "Head", module = "samebits.op.head", called = "head" },
  { name = "Stream", module = "samebits.device", called = "stream" },
  { name = "DriftReport", module = "samebits.drift.report", called = "r", owner = "Report" },
  { name = "VerifyReport", module = "samebits.verify.report", called = "r", owner = "Report" },
}

--- Returns the lines of a file; nil if it cannot be read.
function M.lines_of_file(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local lines = {}
  for line in file:lines() do lines[#lines + 1] = line end
  file:close()
  return lines
end

local modules = {} -- lines by name; cached because every member needs them

local function lines_of(module)
  local path = not modules[module] and package.searchpath(module, package.path)
  modules[module] = modules[module] or path and M.lines_of_file(path) or {}
  return modules[module]
end

--- Returns the doc comment directly before a line: its lines, without dashes; nil if there is none.
function M.comment_before(lines, at)
  local first = at
  while first > 1 and lines[first - 1]:match "^%s*%-%-" do first = first - 1 end
  while first < at and not lines[first]:match "^%s*%-%-%-" do first = first + 1 end
  if first == at then return nil end
  local doc = {}
  for i = first, at - 1 do doc[#doc + 1] = lines[i]:match "^%s*%-%-%-?%s?(.*)$" end
  return doc
end

-- The parameters of a definition, without self: from its own function, or from the local function
-- that it names. Nil if the definition is not a function.
local function parameters(lines, at, method)
  local line = lines[at]
  local list = line:match "function[^(]*(%b())"
  local named = line:match "guard%((%l[%w_]*)%)%s*$" or line:match "=%s*(%l[%w_]*)%s*$"
  if not list and named then
    for _, other in ipairs(lines) do
      list = list or other:match("^local function " .. named .. "(%b())") or
             other:match("^function " .. named .. "(%b())")
    end
  end
  if not list then return line:find("=", 1, true) and not line:find("%(") and nil or "(...)" end
  list = list:sub(2, -2)
  if method then list = list:gsub("^self,?%s*", ""):gsub("^t,%s*", "") end
  return "(" .. list .. ")"
end

--- Returns the parameters that a comment describes, as "(a, b)"; nil if it describes none.
function M.told_parameters(doc)
  local told = {}
  for _, line in ipairs(doc or {}) do
    told[#told + 1] = line:match "^@param%S* ([%w_.]+)" or
                        line:match "^@tparam%S* %S+ ([%w_.]+)"
  end
  return told[1] and "(" .. table.concat(told, ", ") .. ")" or nil
end

--- Returns the fields that a description names in backquotes: a list of { name, text }. Several
-- names may share a text, as in "`sequence` and `count`: ...".
function M.fields_of(text)
  local list, known = {}, {}
  text = " " .. text:gsub("%s*\n%s*", " ")
  local function add(name, what)
    -- A single letter is often a variable of the text.
    if not known[name] and (#name > 1 or what ~= "") then
      known[name] = true
      list[#list + 1] = { name = name, text = what }
    end
  end
  for part in (text .. ";"):gmatch "(.-);" do
    local at = 1
    while true do
      local from, past, name = part:find("`([%l_]+)`", at)
      if not from then break end
      local names, said = { name }, part:sub(at, from - 1)
      at = past + 1
      while true do
        local next_name, after = part:match("^,? ?a?n?d? `([%l_]+)`()", at)
        if not next_name then break end
        names[#names + 1], at = next_name, after
      end
      local what = part:match("^:%s*(.*)$", at) or ""
      -- What is in brackets tells of the last name alone.
      local aside = part:match("^ (%b())", at)
      -- Names that a text only refers to.
      if not said:find "as for $" and not said:find "as $" and not said:find "With $" then
        for i, one in ipairs(names) do
          add(one, i == #names and aside or (what:gsub("%. %u.*$", "")))
        end
      end
      if part:find("^:", at) then break end
    end
  end
  return list
end

local function escaped(name) return (name:gsub("%p", "%%%0")) end

-- The definition of a name in a module: { doc, parameters }, or nil. owner: "M", or a class.
local function definition(module, owner, name)
  local lines = lines_of(module)
  local patterns = {
    "^ *function " .. owner .. "[.:]" .. escaped(name) .. "%f[^%w_]",
    "^ *" .. owner .. "%." .. escaped(name) .. "%s*=",
  }
  if owner == "M" then patterns[3] = "^  " .. escaped(name) .. " = " end
  for at, line in ipairs(lines) do
    for _, pattern in ipairs(patterns) do
      if line:find(pattern) then
        local found = { doc = M.comment_before(lines, at),
                        parameters = parameters(lines, at, owner ~= "M") }
        if line:find "= call%.%l+%(" then -- a method made from an op's table
          found.parameters = M.told_parameters(found.doc) or "()"
        end
        return found
      end
    end
  end
end

--- Returns the head comment of a module: a list of lines.
function M.head(module)
  local lines = lines_of(module)
  local past = 1
  while lines[past] and lines[past]:match "^%-%-" do past = past + 1 end
  return M.comment_before(lines, past) or {}
end

--- Whether there is a public module of this name.
function M.is_public(module)
  if not module:find "^samebits[%w_.]*$" then return false end
  for _, line in ipairs(M.head(module)) do
    if line == "@module " .. module then return true end
  end
  return false
end

-- The definition of a function that a module or a class only passes on. It is the definition with a
-- comment before it; nil if there is none.
local function origin(value, but)
  local first
  for module, exports in pairs(package.loaded) do
    if type(exports) == "table" and module ~= but and module:find "^samebits%." then
      for name, other in pairs(exports) do
        local found = other == value and (not first or module < first.module) and
                      definition(module, "M", name)
        if found and found.doc then
          found.module = module
          first = found
        end
      end
    end
  end
  return first
end

--- Returns the values that a public module returns: a sorted list of { name, doc, parameters, value
-- }. doc is a list of lines, nil if it is missing.
function M.members(module)
  local members = {}
  for name, value in pairs(require(module)) do
    local found = definition(module, "M", name)
    if type(value) == "function" and not (found and found.doc) then
      found = origin(value, module) or found
    end
    found = found or {}
    local own = type(value) == "function"
    members[#members + 1] = { name = name, doc = found.doc, value = value,
                              parameters = own and (found.parameters or "(...)") or nil }
  end
  table.sort(members, function(a, b) return a.name < b.name end)
  return members
end

-- The methods of a class by name.
local function methods_of(class) return require(class.module).classes[class.owner or class.name] end

--- Returns the methods of a class: a sorted list like that of members, without metamethods.
function M.methods(class)
  local list = {}
  for name, value in pairs(methods_of(class)) do
    if not name:find "^__" then
      local found = definition(class.module, class.owner or class.name, name)
      for _, module in ipairs(class.also or {}) do
        found = found or definition(module, class.owner or class.name, name)
      end
      found = found and found.doc and found or origin(value) or found or {}
      local shown = found.parameters
      if shown == nil or shown == "(...)" then
        -- The function is made elsewhere. A comment that tells of results tells of all parameters.
        local told = M.told_parameters(found.doc)
        local whole = table.concat(found.doc or {}, "\n"):find "@t?return" ~= nil
        shown = told or whole and "()" or "(...)"
      end
      list[#list + 1] = { name = name, doc = found.doc, value = value, parameters = shown }
    end
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

--- Returns the class of an object, or nil.
function M.class_of(object)
  local metatable = debug.getmetatable(object)
  if type(metatable) ~= "table" then return nil end
  local methods = rawget(metatable, "methods") or rawget(metatable, "__index")
  for _, class in ipairs(M.CLASSES) do
    if methods ~= nil and package.loaded[class.module] and methods == methods_of(class) then
      return class
    end
  end
end

return M
