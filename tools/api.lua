--- Collects the public names and their documentation from the sources: the doc comments of the Lua
-- modules (as `help` at the prompt reads them), and the comments before the declarations in a
-- header. tools/docs turns them into pages, and spec/project/documented_spec.lua compares them with
-- the actual names. Must run in the root folder.

local sources = require "samebits.repl.sources"

local M = {}

--- The same for the Lua modules: see samebits.repl.sources.
M.CLASSES, M.head, M.members, M.methods = sources.CLASSES, sources.head, sources.members,
                                          sources.methods
M.told_parameters, M.fields_of = sources.told_parameters, sources.fields_of

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

--- The declarations of a header: { head, items }. An item has these fields: text, the declarations
-- as written; doc, the comment before them, or nil if there is none; names, the names of its
-- functions, types, enumerators and macros. A comment without declarations is an item that has no
-- names.
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
