--- Objects that can be asked for their length. LuaJIT without the metamethods of Lua 5.2 asks only
-- userdata: `#t` of a table without elements is 0, whatever its metatable says. So tensors and
-- batches are userdata, each with a table of fields. The userdata's environment keeps this table
-- alive; `fields_of` finds it, also in compiled code, and keeps nothing.

local newproxy, setfenv = newproxy, debug.setfenv

local M = {}

--- The tables of fields, by object.
M.fields_of = setmetatable({}, { __mode = "kv" })
local fields_of = M.fields_of

--- Makes a class. kind: what messages call its objects; methods: a table, for the prompt, too.
-- Returns a prototype for `new`, and the metatable, into which the caller puts metamethods.
function M.class(kind, methods)
  local prototype = newproxy(true)
  local metatable = getmetatable(prototype)
  metatable.kind, metatable.methods = kind, methods
  return prototype, metatable
end

--- Makes an object of the class of a prototype, with a table of fields.
function M.new(prototype, fields)
  local object = newproxy(prototype)
  setfenv(object, fields)
  fields_of[object] = fields
  return object
end

return M
