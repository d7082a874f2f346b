--- The public names and what the sources say of them: from doc comments in Lua (as `help` at the
-- prompt reads them) and the comment before a declaration in a header. tools/docs makes pages of
-- it, spec/project/documented_spec.lua compares it with what is there. It runs in the root folder.

local sources = require "samebits.repl.sources"

local M = {}

--- Of the Lua modules: see samebits.repl.sources.
M.CLASSES, M.head, M.members, M.methods = sources.CLASSES, sources.head, sources.members,
                                          sources.methods
M.told_parameters = sources.told_parameters

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read "*a"
  file:close()
  return text
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
