--- The members of the library's structs and the names of its functions, which LuaJIT cannot list,
-- read from the text of the declarations.

local ffi = require "ffi"

local M = {}

-- Lists in the order of declaration, filled at the first use.
local structs, functions

local function read()
  structs, functions = {}, {}
  local path = package.searchpath("samebits.cdef", package.path)
  local file = path and io.open(path, "rb")
  if not file then return end
  local text = file:read "*a"
  file:close()
  for name, body in text:gmatch "typedef struct ([%w_]+) (%b{})" do
    local members = {}
    for declaration in body:gmatch "([^;{}]+);" do
      -- One declarator each, or several separated by commas; arrays have their brackets after the
      -- name.
      for part in (declaration .. ","):gmatch "([^,]*)," do
        members[#members + 1] = part:gsub("%b[]", ""):match "([%a_][%w_]*)%s*$"
      end
    end
    structs[name] = members
  end
  for name in text:gmatch "%f[%w_](sb_[%w_]+)%(" do functions[#functions + 1] = name end
end

local function struct_of(value)
  return tostring(ffi.typeof(value)):match "struct ([%w_]+)"
end

--- Returns the members of one of the library's structs, or of a pointer or reference to one; nil
-- for any other cdata.
function M.members(value)
  if not structs then read() end
  local name = struct_of(value)
  return name and structs[name]
end

--- Returns the functions of the library.
function M.functions()
  if not structs then read() end
  return functions
end

return M
