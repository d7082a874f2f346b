--- The public names and what the sources say of them: from doc comments (`---` in Lua, the comment
-- before a declaration in a header). tools/docs makes pages of it, spec/api/documented_spec.lua
-- compares it with what is there.
--
-- Public in Lua are the modules whose head comment has an @module, what they return, and the
-- classes below. A definition counts as documented by the comment right before it, or, where a
-- module passes on what another one defines, by the comment there.

local M = {}

--- Classes: their module, and an object of it.
M.CLASSES = {
  { name = "Context", module = "samebits.context",
    object = function(s) return assert(s.open "cpu") end },
  { name = "Batch", module = "samebits.batch",
    object = function(s) return s.batch { logits = s.zeros { 1, 1, 4 }, ids = { { 0 } } } end },
  { name = "Tensor", module = "samebits.tensor", object = function(s) return s.zeros { 1 } end },
  { name = "Stream", module = "samebits.device",
    object = function(s) return s.open "cpu":stream() end },
  { name = "Event", module = "samebits.device",
    object = function(s) return s.open "cpu":event() end },
}

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read "*a"
  file:close()
  return text
end

local function lines_of(path)
  local lines = {}
  for line in (read(path) .. "\n"):gmatch "([^\n]*)\n" do lines[#lines + 1] = line end
  return lines
end

local function path_of(module) return "lua/" .. module:gsub("%.", "/") .. ".lua" end

-- The doc comment right before a line: its lines, without dashes; nil where there is none.
local function comment_before(lines, at)
  local first = at
  while first > 1 and lines[first - 1]:match "^%s*%-%-" do first = first - 1 end
  while first < at and not lines[first]:match "^%s*%-%-%-" do first = first + 1 end
  if first == at then return nil end
  local doc = {}
  for i = first, at - 1 do doc[#doc + 1] = lines[i]:match "^%s*%-%-%-?%s?(.*)$" end
  return doc
end

-- The parameters of a definition, without self: from its own function, or from the local one that
-- it names. Nil for what is no function.
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

local function escaped(name) return (name:gsub("%p", "%%%0")) end

-- Where a name is defined in a module: { doc, parameters }, or nil. owner: "M", or a class.
local function definition(module, owner, name)
  local lines = lines_of(path_of(module))
  local patterns = {
    "^function " .. owner .. "[.:]" .. escaped(name) .. "%f[^%w_]",
    "^" .. owner .. "%." .. escaped(name) .. "%s*=",
  }
  if owner == "M" then patterns[3] = "^  " .. escaped(name) .. " = " end
  for at, line in ipairs(lines) do
    for _, pattern in ipairs(patterns) do
      if line:find(pattern) then
        return { doc = comment_before(lines, at),
                 parameters = parameters(lines, at, owner ~= "M") }
      end
    end
  end
end

--- The head comment of a module: a list of lines.
function M.head(module)
  local lines = lines_of(path_of(module))
  local past = 1
  while lines[past]:match "^%-%-" do past = past + 1 end
  return comment_before(lines, past) or {}
end

--- The public modules, sorted.
function M.modules()
  local names = {}
  local pipe = io.popen "grep -l '^-- @module' -r lua --include='*.lua'"
  for path in pipe:lines() do
    names[#names + 1] = path:match "^lua/(.*)%.lua$":gsub("/", ".")
  end
  pipe:close()
  table.sort(names)
  return names
end

-- Where a function is defined that a module only passes on: a module and a name; nil if nowhere.
local function origin(value, but)
  local found, key
  for module, exports in pairs(package.loaded) do
    if type(exports) == "table" and module ~= but and module:find "^samebits%." then
      for name, other in pairs(exports) do
        if other == value and (not found or module < found) then found, key = module, name end
      end
    end
  end
  return found, key
end

--- What a public module returns: a sorted list of { name, doc, parameters, value }; doc is a list
-- of lines, nil where it is missing.
function M.members(module)
  local members = {}
  for name, value in pairs(require(module)) do
    local found = definition(module, "M", name)
    if type(value) == "function" and not (found and found.doc) then
      local from, key = origin(value, module)
      found = from and definition(from, "M", key) or found
    end
    found = found or {}
    local own = type(value) == "function"
    members[#members + 1] = { name = name, doc = found.doc, value = value,
                              parameters = own and (found.parameters or "(...)") or nil }
  end
  table.sort(members, function(a, b) return a.name < b.name end)
  return members
end

-- The methods that objects answer to, by name.
local function methods_of(object)
  local index = getmetatable(object).__index
  if type(index) == "function" then -- Tensor: numbers are rows, the rest methods
    for i = 1, 20 do
      local name, value = debug.getupvalue(index, i)
      if name == "Tensor" then index = value break end
    end
  end
  assert(type(index) == "table", "the methods are not found")
  return index
end

--- The methods of a class: a sorted list like that of members, without metamethods.
function M.methods(class)
  local list = {}
  for name, value in pairs(methods_of(class.object(require "samebits"))) do
    if not name:find "^__" then
      local found = definition(class.module, class.name, name) or {}
      list[#list + 1] = { name = name, doc = found.doc, value = value,
                          parameters = found.parameters or "(...)" }
    end
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

--- What a header declares: { head, items }. An item: text, the declarations as they stand; doc, the
-- comment before them, nil where it is missing; names, of its functions, types, enumerators and
-- macros. A comment that stands alone is an item without names.
function M.header(path)
  local text = read(path)
  local head, rest = text:match "^/%*(.-)%*/\n(.*)$"
  rest = rest:gsub("#ifdef __cplusplus\n.-#endif\n", ""):gsub("/%* ffi %a+ %*/\n", "")
             :gsub("#ifndef SAMEBITS[%u_]*\n#define SAMEBITS[%u_]*\n", "")
             :gsub("#if defined%(__GNUC__%).-#endif\n", ""):gsub("#include [^\n]*\n", "")
             :gsub("#endif /%* SAMEBITS.*$", "")
  local items = {}
  for block in (rest:gsub("\n\n+", "\n\n") .. "\n\n"):gmatch "(.-)\n\n" do
    local doc, code = block:match "^%s*/%*(.-)%*/%s*(.*)$"
    code = (doc and code or block):gsub("^%s+", ""):gsub("%s+$", "")
    local names, bare = {}, code:gsub("/%*.-%*/", "")
    for name in bare:gmatch "#define (SB_[%u%d_]+)" do names[#names + 1] = name end
    for name in bare:gmatch "SB_API [^;]-%f[%w_](sb_[%w_]+)%(" do names[#names + 1] = name end
    for name in bare:gmatch "typedef %l+ (sb_[%w_]+)" do names[#names + 1] = name end
    for body in bare:gmatch "enum [%w_]+ (%b{})" do
      for name in body:gmatch "(SB_[%u%d_]+) =" do names[#names + 1] = name end
    end
    if doc or code ~= "" then
      doc = doc and doc:gsub("\n %* ?", "\n"):gsub("^ ", ""):gsub("%s+$", "")
      items[#items + 1] = { text = code, doc = doc, names = names }
    end
  end
  return { head = head:gsub("\n %* ?", "\n"):gsub("^ ", ""), items = items }
end

return M
