--- Element types: their sizes, ranges and the bits of their NaN.
--
-- `dtype.of[name]` describes a type: `name`, `size` in bytes, `kind` ("float", "int" or "bool");
-- for integers `min` and `max`; for floats `nan`, the encoding (hex) that every NaN gets when a
-- value is converted to the type. float16 is IEEE binary16; bool is a byte (0: false). All types
-- are little-endian.

local M = { of = {} }

local function add(name, size, kind, fields)
  fields = fields or {}
  fields.name, fields.size, fields.kind = name, size, kind
  M.of[name] = fields
end

add("float32", 4, "float", { nan = "7fc00000" })
add("float16", 2, "float", { nan = "7e00" })
add("bfloat16", 2, "float", { nan = "7fc0" })
add("float64", 8, "float", { nan = "7ff8000000000000" })
add("int8", 1, "int", { min = -2 ^ 7, max = 2 ^ 7 - 1 })
add("uint8", 1, "int", { min = 0, max = 2 ^ 8 - 1 })
add("int16", 2, "int", { min = -2 ^ 15, max = 2 ^ 15 - 1 })
add("int32", 4, "int", { min = -2 ^ 31, max = 2 ^ 31 - 1 })
-- 2^63 - 1 is not a double, so the largest double below 2^63 is the bound for numbers.
add("int64", 8, "int", { min = -2 ^ 63, max = 2 ^ 63 - 1024 })
add("bool", 1, "bool")

--- The names, for messages.
M.names = "float32, float16, bfloat16, float64, int8, uint8, int16, int32, int64, bool"

--- Returns the description of a type by its name, or nil and a message.
function M.find(name)
  if name == nil then return nil, "dtype is missing" end
  local found = M.of[name]
  if found then return found end
  return nil, ("unknown dtype %s (known: %s)"):format(
    type(name) == "string" and "'" .. name .. "'" or tostring(name), M.names)
end

return M
