--- Turns a batch's per-row values (ids, masks, kept sets and temperatures, given as tensors or
-- nested tables) into tensors that the library can read: they have the library's dtypes, are
-- contiguous and aligned to their elements, and are on the batch's device.

local bit = require "bit"
local ffi = require "ffi"
local mask_values = require "samebits.batch.mask_values"
local misuse = require "samebits.misuse"
local tensor = require "samebits.tensor"

local raise, describe = misuse.raise, tensor.describe
local layout = tensor.layout
local shape_text, same_shape, appended = layout.text, layout.same, layout.appended

local M = {}

local INTEGERS = { int8 = true, uint8 = true, int16 = true, int32 = true, int64 = true }
local FLOATS = { float64 = true, float32 = true, float16 = true, bfloat16 = true }

--- The library's encodings of the dtypes that ids and offsets may have.
M.INDEX_DTYPES = { int32 = 4, int64 = 5 }

local POINTERS = {
  bool = "const uint8_t *", uint8 = "const uint8_t *", int8 = "const int8_t *",
  int16 = "const int16_t *", int32 = "const int32_t *", int64 = "const int64_t *",
  float32 = "const float *",
}

--- Returns a tensor copied to a device; raises the device's failure as an error.
function M.brought(name, t, device)
  local out, message = t:to(device)
  if not out then raise("%s: %s", name, message) end
  return out
end

--- The pointer to a tensor's elements, by its dtype.
function M.typed(t) return ffi.cast(POINTERS[t.dtype], t.ptr) end

--- Whether a value is an integer that an int64_t holds.
function M.is_integer(x)
  return tensor.element.is_integer_cdata(x) or
         type(x) == "number" and x % 1 == 0 and math.abs(x) < 2 ^ 63
end

-- The values that a table's elements may have, and the form in which they are stored.
local function to_index(x) return M.is_integer(x) and x or nil end
local function to_flag(x)
  if type(x) == "boolean" then return x and 1 or 0 end
  return M.is_integer(x) and x or nil
end
local function to_float(x) return type(x) == "number" and x or nil end

-- Converts nested tables to a tensor of a known shape. Every level must have exactly the expected
-- length.
local function from_table(name, value, shape, dtype, convert)
  local out = tensor.zeros(shape, dtype)
  local kind = dtype == "float32" and "float *" or dtype == "uint8" and "uint8_t *" or "int64_t *"
  local data, at = ffi.cast(kind, out.ptr), 0
  local function copy(level, depth, where)
    if type(level) ~= "table" or tensor.is_tensor(level) then
      raise("%s%s: expected a table, got %s", name, where, describe(level))
    end
    if #level ~= shape[depth] then
      raise("%s%s has %d entries, expected %d (shape %s)", name, where, #level,
            shape[depth], shape_text(shape))
    end
    for i = 1, #level do
      local here = ("%s[%d]"):format(where, i - 1)
      if depth < #shape then
        copy(level[i], depth + 1, here)
      else
        local x = convert(level[i])
        if x == nil then
          raise("%s%s is %s, expected %s", name, here, tostring(level[i]),
                convert == to_index and "an integer" or convert == to_flag and
                "an integer or a boolean" or "a number")
        end
        data[at] = x
        at = at + 1
      end
    end
  end
  copy(value, 1, "")
  return out
end

-- Checks a per-row tensor, which must be on the batch's device or in memory.
local function check_tensor(name, value, wanted, device)
  if not tensor.is_tensor(value) then
    raise("%s: expected %s, got %s", name, wanted, describe(value))
  end
  if value.device ~= "cpu" and value.device ~= device then
    raise("%s: the tensor is on %s, the logits are on %s", name, value.device, device)
  end
end

local function check_shape(name, value, shape)
  if not same_shape(value.shape, shape) then
    raise("%s: shape %s, expected %s", name, shape_text(value.shape), shape_text(shape))
  end
end

-- Whether a tensor is contiguous and aligned to its elements, as the library requires of every
-- per-row tensor. Tensors from files may be at odd offsets.
local function is_in_place(t)
  return t:is_contiguous() and tonumber(ffi.cast("uintptr_t", t.ptr) % t.itemsize) == 0
end

local function in_place(t)
  t = t:contiguous()
  return is_in_place(t) and t or t:clone()
end

-- Makes a per-row tensor readable for the library: unchanged if `ready` accepts it, otherwise
-- converted in memory; then copied to the batch's device.
local function prepared(name, value, device, ready, convert)
  if not (ready and is_in_place(value)) then
    value = in_place(convert(M.brought(name, value, "cpu")))
  end
  return M.brought(name, value, device)
end

--- Integers [shape] as a contiguous int32 or int64 tensor.
function M.indices(name, value, shape, device)
  device = device or "cpu"
  if type(value) == "table" and not tensor.is_tensor(value) then
    return M.brought(name, from_table(name, value, shape, "int64", to_index), device)
  end
  check_tensor(name, value, "a tensor of integers or a table", device)
  if not INTEGERS[value.dtype] then
    raise("%s: dtype %s, expected int32 or int64", name, value.dtype)
  end
  check_shape(name, value, shape)
  local ready = M.INDEX_DTYPES[value.dtype]
  return prepared(name, value, device, ready, function(t) return ready and t or t:to "int32" end)
end

-- Not t:to "uint8", which would convert 256 to 0, although 256 is active here.
local function to_bytes(t)
  if t.itemsize == 1 then return t end
  t = in_place(t)
  local out = tensor.zeros(t.shape, "uint8")
  local from, to = M.typed(t), ffi.cast("uint8_t *", out.ptr)
  for i = 0, t:numel() - 1 do to[i] = from[i] ~= 0 and 1 or 0 end
  return out
end

--- Converts a mask to bytes that are non-zero where active. ids: the ids that it masks.
function M.mask_bytes(name, value, shape, device, ids)
  device = device or "cpu"
  if type(value) == "table" and not tensor.is_tensor(value) then
    value = from_table(name, value, shape, "int64", to_flag)
  end
  check_tensor(name, value, "a tensor of bool or integers, or a table", device)
  if value.dtype ~= "bool" and not INTEGERS[value.dtype] then
    raise("%s: dtype %s, expected bool or an integer (non-zero: active)", name, value.dtype)
  end
  check_shape(name, value, shape)
  if value.itemsize > 1 then
    mask_values.check(name, in_place(M.brought(name, value, "cpu")),
                      ids and M.brought("ids", ids, "cpu"))
  end
  return prepared(name, value, device, value.itemsize == 1, to_bytes)
end

-- Packs flags [.., V] in memory into words [.., W] of 32 bits: bit i % 32 of word i / 32 belongs to
-- id i.
local function packed_flags(flags, shape, vocab)
  local words = shape[#shape]
  local out = tensor.zeros(shape, "int32")
  local from, to = ffi.cast("const uint8_t *", flags.ptr), ffi.cast("uint32_t *", out.ptr)
  for row = 0, layout.numel(shape) / words - 1 do
    local bytes, bits = from + row * vocab, to + row * words
    for id = 0, vocab - 1 do
      if bytes[id] ~= 0 then
        local at = bit.rshift(id, 5)
        bits[at] = bit.bor(bits[at], bit.lshift(1, bit.band(id, 31)))
      end
    end
  end
  return out
end

--- Converts kept sets to the form that the library reads: words [.., W].
function M.kept_words(value, row_shape, vocab, device)
  local bits, flags = appended(row_shape, math.ceil(vocab / 32)), appended(row_shape, vocab)
  if tensor.is_tensor(value) then
    check_tensor("kept", value, "a tensor", device)
    if value.dtype == "int32" and same_shape(value.shape, bits) then
      return prepared("kept", value, device, true, function(t) return t end)
    elseif not same_shape(value.shape, flags) then
      raise("kept: %s, expected int32 %s (bits of 32 ids per word) or flags %s", describe(value),
            shape_text(bits), shape_text(flags))
    end
    value = M.brought("kept", value, "cpu") -- to be packed
  end
  return M.brought("kept", packed_flags(M.mask_bytes("kept", value, flags), bits, vocab), device)
end

-- Expands one value per sequence [B] to one per row. bounds(b) returns the sequence's first row and
-- the row after its last.
local function expand(values, row_shape, sequences, bounds)
  local out = tensor.zeros(row_shape, "float32")
  -- Copied as words, because LuaJIT may misread a NaN that passes through a Lua number.
  local from, to = ffi.cast("const uint32_t *", values.ptr), ffi.cast("uint32_t *", out.ptr)
  for b = 0, sequences - 1 do
    local first, past = bounds(b)
    for row = first, past - 1 do to[row] = from[b] end
  end
  return out
end

--- Returns temperatures as a number, or as an fp32 tensor with one per row. bounds() returns the
-- function that gives a sequence's first row and the row after its last.
function M.temperatures(value, device, row_shape, sequences, bounds)
  if type(value) == "number" then return value end
  local per_sequence = { sequences }
  if type(value) == "table" and not tensor.is_tensor(value) then
    local nested = type(value[1]) == "table"
    local shape = row_shape
    if not nested and not (#row_shape == 1 and #value == row_shape[1]) then shape = per_sequence end
    value = from_table("temperature", value, shape, "float32", to_float)
  end
  check_tensor("temperature", value, "a number, a tensor or a table", device)
  if not FLOATS[value.dtype] and not INTEGERS[value.dtype] then
    raise("temperature: dtype %s, expected float32", value.dtype)
  end
  local function single(t) return t.dtype == "float32" and t or t:to "float32" end
  -- Where both interpretations fit (N = B), the values are one per row.
  if same_shape(value.shape, row_shape) then
    return prepared("temperature", value, device, value.dtype == "float32", single)
  elseif same_shape(value.shape, per_sequence) then
    return prepared("temperature", value, device, false, function(t)
      return expand(in_place(single(t)), row_shape, sequences, bounds())
    end)
  end
  raise("temperature: shape %s, expected %s (one per row) or %s (one per sequence)",
        shape_text(value.shape), shape_text(row_shape), shape_text(per_sequence))
end

--- Converts a list of integers of any length to a tensor.
function M.index_list(name, value, wanted, device)
  local n
  if tensor.is_tensor(value) then
    n = value.ndim == 1 and value.shape[1]
  else
    n = type(value) == "table" and #value
  end
  if not n then
    raise("%s: expected a tensor %s or a table, got %s", name, wanted, describe(value))
  end
  return M.indices(name, value, { n }, device), n
end

return M
