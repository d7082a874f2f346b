--- One element in memory: reading, writing, and its bits as hex digits.
--
-- Floats are read as integers first, because LuaJIT encodes other types in the payloads of NaNs and
-- does not canonicalise a NaN that it loads through the FFI: loading the float ffffffff gives a
-- value whose type() is "nil". A NaN must therefore never become a Lua value with the encoding that
-- it has in memory.
--
-- A float that was just written is copied before a loop reads it as words at a variable offset. The
-- JIT compiler assumes that accesses of different types do not alias, unless both are at constant
-- offsets of one object (as a union's fields are), and may read the words before it writes the
-- float.

local ffi = require "ffi"
local bit = require "bit"
local dtype = require "samebits.tensor.dtype"
local half = require "samebits.tensor.half"
local misuse = require "samebits.misuse"
local printable = require "samebits.text.printable"
local band, tohex = bit.band, bit.tohex

local M = {}

local NAN = 0 / 0

local uint8_p, int8_p = ffi.typeof("uint8_t *"), ffi.typeof("int8_t *")
local uint16_p, int16_p = ffi.typeof("uint16_t *"), ffi.typeof("int16_t *")
local uint32_p, int32_p = ffi.typeof("uint32_t *"), ffi.typeof("int32_t *")
local int64_p = ffi.typeof("int64_t *")
local float_p, double_p = ffi.typeof("float *"), ffi.typeof("double *")
local cast = ffi.cast

--- The pointer type for access to a dtype's elements.
M.pointer = {
  float32 = float_p, float16 = uint16_p, bfloat16 = uint16_p, float64 = double_p, int8 = int8_p,
  uint8 = uint8_p, int16 = int16_p, int32 = int32_p, int64 = int64_p, bool = uint8_p,
}

--- The pointer type of unsigned words, by size in bytes (8: pairs of words are int64).
M.word = { [1] = uint8_p, [2] = uint16_p, [4] = uint32_p, [8] = int64_p }

-- Integers up to this magnitude are Lua numbers, larger ones int64_t.
local EXACT = 2LL ^ 53

--- read[dtype](pointer, k): element k as a Lua value. Booleans for bool; an int64_t for int64
-- values beyond 2^53 in magnitude; numbers otherwise.
M.read = {
  float32 = function(p, k)
    if band(cast(int32_p, p)[k], 0x7fffffff) > 0x7f800000 then return NAN end
    return cast(float_p, p)[k]
  end,
  float16 = function(p, k) return half.from_float16(cast(uint16_p, p)[k]) end,
  bfloat16 = function(p, k) return half.from_bfloat16(cast(uint16_p, p)[k]) end,
  float64 = function(p, k)
    local words = cast(uint32_p, p)
    local high = band(words[2 * k + 1], 0x7fffffff)
    if high > 0x7ff00000 or high == 0x7ff00000 and words[2 * k] ~= 0 then return NAN end
    return cast(double_p, p)[k]
  end,
  int8 = function(p, k) return cast(int8_p, p)[k] end,
  uint8 = function(p, k) return cast(uint8_p, p)[k] end,
  int16 = function(p, k) return cast(int16_p, p)[k] end,
  int32 = function(p, k) return cast(int32_p, p)[k] end,
  int64 = function(p, k)
    local v = cast(int64_p, p)[k]
    if v >= -EXACT and v <= EXACT then return tonumber(v) end
    return v
  end,
  bool = function(p, k) return cast(uint8_p, p)[k] ~= 0 end,
}

--- hex[size](pointer, k): the bits of element k, 2 digits per byte.
M.hex = {
  [1] = function(p, k) return tohex(cast(uint8_p, p)[k], 2) end,
  [2] = function(p, k) return tohex(cast(uint16_p, p)[k], 4) end,
  [4] = function(p, k) return tohex(cast(int32_p, p)[k]) end,
  [8] = function(p, k)
    local words = cast(int32_p, p)
    return tohex(words[2 * k + 1]) .. tohex(words[2 * k])
  end,
}

--- Writes the bits that hex digits stand for, or returns nil and what is wrong with them.
function M.put_hex(size, p, k, digits)
  if type(digits) ~= "string" or #digits ~= 2 * size or digits:find("%X") then
    return nil, ("is %s, not %d hex digits"):format(M.text(digits), 2 * size)
  end
  if size == 8 then
    local words = cast(uint32_p, p)
    words[2 * k], words[2 * k + 1] = tonumber(digits:sub(9), 16), tonumber(digits:sub(1, 8), 16)
  else
    cast(M.word[size], p)[k] = tonumber(digits, 16)
  end
  return true
end

--- Converts an int64_t to a number that is then rounded to a shorter float. It is exact up to 2^53
-- and rounded to odd beyond (so that the two roundings together equal one).
function M.int64_to_odd(v)
  if v >= -EXACT and v <= EXACT then return tonumber(v) end
  local high = bit.arshift(v, 11)
  if band(v, 0x7ffLL) ~= 0 then high = bit.bor(high, 1LL) end
  return tonumber(high) * 2048
end

--- Formats a value for messages.
function M.text(v)
  if type(v) == "number" then
    return v ~= v and "nan" or ("%.17g"):format(v)
  elseif type(v) == "cdata" then
    return (tostring(v):gsub("U?LL$", ""))
  elseif type(v) == "string" then
    return "the string '" .. printable.text(v:sub(1, 32)) .. "'"
  elseif type(v) == "table" or type(v) == "userdata" then
    return "a " .. misuse.kind(v)
  end
  return tostring(v)
end

-- Dtypes whose values nine digits identify.
local SHORT = { float32 = true, float16 = true, bfloat16 = true }

--- Formats a value of a dtype for messages. Different values have different texts.
function M.value_text(name, v)
  return SHORT[name] and v == v and ("%.9g"):format(v) or M.text(v)
end

local int64 = ffi.typeof("int64_t")
local uint64 = ffi.typeof("uint64_t")

--- Whether v is an int64_t or uint64_t.
function M.is_integer_cdata(v)
  return type(v) == "cdata" and (ffi.istype(int64, v) or ffi.istype(uint64, v))
end

local function put_float(name, p, k, v)
  if name == "float32" then
    if v ~= v then cast(uint32_p, p)[k] = 0x7fc00000 else cast(float_p, p)[k] = v end
  elseif name == "float64" then
    cast(double_p, p)[k] = v
    if v ~= v then
      local words = cast(uint32_p, p)
      words[2 * k], words[2 * k + 1] = 0, 0x7ff80000
    end
  else
    cast(uint16_p, p)[k] = name == "float16" and half.to_float16(v) or half.to_bfloat16(v)
  end
  return true
end

--- Whether the number or 64-bit integer v is a value of an integer dtype; if not, nil and the
-- reason.
function M.check_integer(description, v)
  local ok
  if type(v) == "number" then
    if v % 1 ~= 0 then return nil, "not an integer" end     -- NaN and the infinities, too
    ok = v >= description.min and v <= description.max
  elseif description.name == "int64" then
    ok = not ffi.istype(uint64, v) or v <= 0x7fffffffffffffffULL
  elseif ffi.istype(uint64, v) then
    ok = v <= ffi.cast(uint64, description.max)
  else
    ok = v >= ffi.cast(int64, description.min) and v <= ffi.cast(int64, description.max)
  end
  if ok then return true end
  if description.name == "int64" then return nil, "outside int64" end
  return nil, ("outside %s [%d, %d]"):format(description.name, description.min, description.max)
end

--- Writes a Lua value as element k. Floats take numbers and 64-bit integers, rounded to nearest
-- even; integers take integers in range; bool takes booleans, 0 and 1. Returns true, or nil and a
-- reason that a message can put after the element's name.
function M.put(name, p, k, v)
  local description = dtype.of[name]
  local kind = description.kind
  local integer_cdata = M.is_integer_cdata(v)
  if kind == "bool" then
    if v ~= true and v ~= false and v ~= 0 and v ~= 1 then
      return nil, ("is %s, not a boolean, 0 or 1"):format(M.text(v))
    end
    cast(uint8_p, p)[k] = (v == true or v == 1) and 1 or 0
    return true
  end
  if type(v) ~= "number" and not integer_cdata then
    return nil, ("is %s, not a number%s"):format(
      M.text(v), type(v) == "boolean" and " (dtype 'bool' takes booleans)" or "")
  end
  if kind == "float" then
    if integer_cdata then
      if name == "float64" then
        v = tonumber(v)
      elseif ffi.istype(uint64, v) and v > 0x7fffffffffffffffULL then
        -- Halved, with a sticky last bit, it fits an int64_t.
        v = M.int64_to_odd(ffi.cast(int64, bit.bor(bit.rshift(v, 1), band(v, 1ULL)))) * 2
      else
        v = M.int64_to_odd(ffi.cast(int64, v))
      end
    end
    return put_float(name, p, k, v)
  end
  local ok, why = M.check_integer(description, v)
  if not ok then return nil, ("is %s, %s"):format(M.text(v), why) end
  cast(M.pointer[name], p)[k] = v
  return true
end

return M
