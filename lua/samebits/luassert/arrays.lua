--- Makes tensors from tensors, tables of numbers or of hex digits, FFI arrays and single numbers.

local ffi = require "ffi"
local misuse = require "samebits.misuse"
local tensor = require "samebits.tensor"

local element = tensor.element

local raise = misuse.raise

local M = {}

-- LuaJIT's names for C's element types.
local DTYPES = {
  float = "float32", double = "float64", bool = "bool", char = "int8", ["signed char"] = "int8",
  ["unsigned char"] = "uint8", short = "int16", int = "int32", int64_t = "int64", long = "int64",
  ["long long"] = "int64",
}

-- An FFI array's dtype and shape: "ctype<float [2][3]>"; the length of a float[?] is in its size.
local function of_array(what, array)
  local name, extents = tostring(ffi.typeof(array)):match "^ctype<(.-) (%[.*%])>$"
  if not name then
    raise("%s: %s has no length: make a tensor of it, with its shape", what,
          tostring(ffi.typeof(array)))
  end
  name = name:gsub("^const ", "")
  local dtype = DTYPES[name]
  if not dtype then
    raise("%s: an array of %s: make a tensor of it, with its dtype", what, name)
  end
  local shape, rest = {}, 1
  for extent in extents:gmatch "%[([%d?]*)%]" do
    shape[#shape + 1] = tonumber(extent) or false
    rest = rest * (tonumber(extent) or 1)
  end
  if not shape[1] then
    local one = dtype == "bool" and 1 or tensor.zeros({ 1 }, dtype).itemsize
    shape[1] = ffi.sizeof(array) / one / rest
  end
  return dtype, shape
end

-- The first value in nested tables that is not a table.
local function leaf(value)
  while type(value) == "table" and not tensor.is_tensor(value) do value = value[1] end
  return value
end

local BY_DIGITS = { [2] = "uint8", [4] = "bfloat16", [8] = "float32", [16] = "float64" }

--- Returns the dtype that a value has by itself, or nil: numbers and digits take the dtype of the
-- value that they are compared with.
local function own_dtype(what, value)
  if tensor.is_tensor(value) then return value.dtype end
  if type(value) == "cdata" and not element.is_integer_cdata(value) then
    return (of_array(what, value))
  end
end

local function made(what, value, dtype)
  if tensor.is_tensor(value) then return value end
  if type(value) == "cdata" and not element.is_integer_cdata(value) then
    local name, shape = of_array(what, value)
    return tensor.tensor(value, { dtype = name, shape = shape, owner = value })
  end
  local first = leaf(value)
  local kind = type(first)
  if kind == "string" then
    return tensor.from_bits(value, dtype or BY_DIGITS[#first] or "float32")
  end
  if kind == "number" or kind == "boolean" or element.is_integer_cdata(first) or
     type(value) == "table" and first == nil then
    dtype = dtype or kind == "cdata" and "int64" or kind == "boolean" and "bool" or "float64"
    return tensor.tensor(value, { dtype = dtype })
  end
  raise("%s is %s: expected a tensor, a table of numbers or an FFI array", what,
        element.text(value))
end

--- Returns two values as tensors that can be compared. Numbers and digits on one side are rounded
-- to the dtype of the other side if that has one: a tensor or an FFI array. Otherwise numbers
-- become float64, and digits the float of their length.
function M.pair(a, b, name_a, name_b)
  local values, names, out = { a, b }, { name_a, name_b }, {}
  for i = 1, 2 do
    local other = values[3 - i]
    local dtype = own_dtype(names[3 - i], other)
    if not dtype and type(leaf(values[i])) == "number" and type(leaf(other)) == "string" then
      dtype = BY_DIGITS[#leaf(other)]
    end
    local ok, t = pcall(made, names[i], values[i], dtype)
    if not ok then
      local message = tostring(t)
      raise("%s", message:find(names[i], 1, true) == 1 and message or names[i] .. ": " .. message)
    end
    out[i] = t
  end
  return out[1], out[2]
end

return M
