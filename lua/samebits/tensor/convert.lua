--- Converts arrays of one dtype to another, value by value.
--
-- A block of elements is loaded as doubles, then stored. This takes ten loops of each kind instead
-- of a hundred for all pairs. Each loop is written out, because LuaJIT compiles a loop for the
-- types that it first saw there.
--
-- Floats are rounded once, to nearest even. Every source value except a large int64 is exactly a
-- double; a large int64 is rounded to odd first (see element.int64_to_odd). NaN stays NaN (the
-- encodings are in dtype.lua), and values that are too large become infinity. To an integer dtype,
-- only integers in range convert; to bool, everything that is not zero (NaN, too) becomes 1.

local ffi = require "ffi"
local bit = require "bit"
local dtype = require "samebits.tensor.dtype"
local element = require "samebits.tensor.element"
local half = require "samebits.tensor.half"
local band, cast = bit.band, ffi.cast

local M = {}

local BLOCK = 1024
M.BLOCK = BLOCK
local NAN = 0 / 0

local pointer = element.pointer
local int32_p, uint32_p = ffi.typeof("int32_t *"), ffi.typeof("uint32_t *")
local block = ffi.new("double[?]", BLOCK)

-- load[dtype](source, first, n): loads elements first .. first + n - 1 into the block.
local load = {
  float32 = function(source, first, n)
    local p, bits = cast(pointer.float32, source) + first, cast(int32_p, source) + first
    for i = 0, n - 1 do
      if band(bits[i], 0x7fffffff) > 0x7f800000 then block[i] = NAN else block[i] = p[i] end
    end
  end,
  float16 = function(source, first, n)
    local p, from = cast(pointer.float16, source) + first, half.from_float16
    for i = 0, n - 1 do block[i] = from(p[i]) end
  end,
  bfloat16 = function(source, first, n)
    local p, from = cast(pointer.bfloat16, source) + first, half.from_bfloat16
    for i = 0, n - 1 do block[i] = from(p[i]) end
  end,
  float64 = function(source, first, n)
    local p, words = cast(pointer.float64, source) + first, cast(uint32_p, source) + 2 * first
    for i = 0, n - 1 do
      local high = band(words[2 * i + 1], 0x7fffffff)
      if high > 0x7ff00000 or high == 0x7ff00000 and words[2 * i] ~= 0 then
        block[i] = NAN
      else
        block[i] = p[i]
      end
    end
  end,
  int8 = function(source, first, n)
    local p = cast(pointer.int8, source) + first
    for i = 0, n - 1 do block[i] = p[i] end
  end,
  uint8 = function(source, first, n)
    local p = cast(pointer.uint8, source) + first
    for i = 0, n - 1 do block[i] = p[i] end
  end,
  int16 = function(source, first, n)
    local p = cast(pointer.int16, source) + first
    for i = 0, n - 1 do block[i] = p[i] end
  end,
  int32 = function(source, first, n)
    local p = cast(pointer.int32, source) + first
    for i = 0, n - 1 do block[i] = p[i] end
  end,
  int64 = function(source, first, n)
    local p, odd = cast(pointer.int64, source) + first, element.int64_to_odd
    for i = 0, n - 1 do block[i] = odd(p[i]) end
  end,
  bool = function(source, first, n)
    local p = cast(pointer.bool, source) + first
    for i = 0, n - 1 do block[i] = p[i] ~= 0 and 1 or 0 end
  end,
}

-- To float64, an int64 is rounded to nearest directly.
local function load_int64_nearest(source, first, n)
  local p = cast(pointer.int64, source) + first
  for i = 0, n - 1 do block[i] = tonumber(p[i]) end
end

-- store[dtype](target, first, n): stores the block as elements first .. first + n - 1. Returns
-- nothing, or the first index in the block whose value the dtype cannot hold.
local store = {
  float32 = function(target, first, n)
    local p, bits = cast(pointer.float32, target) + first, cast(uint32_p, target) + first
    for i = 0, n - 1 do
      local v = block[i]
      if v ~= v then bits[i] = 0x7fc00000 else p[i] = v end
    end
  end,
  float16 = function(target, first, n)
    local p, to = cast(pointer.float16, target) + first, half.to_float16
    for i = 0, n - 1 do p[i] = to(block[i]) end
  end,
  bfloat16 = function(target, first, n)
    local p, to = cast(pointer.bfloat16, target) + first, half.to_bfloat16
    for i = 0, n - 1 do p[i] = to(block[i]) end
  end,
  float64 = function(target, first, n)
    local p, words = cast(pointer.float64, target) + first, cast(uint32_p, target) + 2 * first
    for i = 0, n - 1 do
      local v = block[i]
      if v ~= v then words[2 * i], words[2 * i + 1] = 0, 0x7ff80000 else p[i] = v end
    end
  end,
  int8 = function(target, first, n)
    local p = cast(pointer.int8, target) + first
    for i = 0, n - 1 do
      local v = block[i]
      if not (v >= -128 and v <= 127 and v % 1 == 0) then return i end
      p[i] = v
    end
  end,
  uint8 = function(target, first, n)
    local p = cast(pointer.uint8, target) + first
    for i = 0, n - 1 do
      local v = block[i]
      if not (v >= 0 and v <= 255 and v % 1 == 0) then return i end
      p[i] = v
    end
  end,
  int16 = function(target, first, n)
    local p = cast(pointer.int16, target) + first
    for i = 0, n - 1 do
      local v = block[i]
      if not (v >= -32768 and v <= 32767 and v % 1 == 0) then return i end
      p[i] = v
    end
  end,
  int32 = function(target, first, n)
    local p = cast(pointer.int32, target) + first
    for i = 0, n - 1 do
      local v = block[i]
      if not (v >= -0x80000000 and v <= 0x7fffffff and v % 1 == 0) then return i end
      p[i] = v
    end
  end,
  int64 = function(target, first, n)
    local p = cast(pointer.int64, target) + first
    for i = 0, n - 1 do
      local v = block[i]
      if not (v >= -0x1p63 and v < 0x1p63 and v % 1 == 0) then return i end
      p[i] = v
    end
  end,
  bool = function(target, first, n)
    local p = cast(pointer.bool, target) + first
    for i = 0, n - 1 do p[i] = block[i] ~= 0 and 1 or 0 end
  end,
}

--- Converts n contiguous elements. Returns nothing, or the number of the first element that the
-- target dtype cannot hold (the ones before it are written).
function M.array(target_dtype, target, source_dtype, source, n)
  if target_dtype == source_dtype then
    ffi.copy(target, source, n * dtype.of[source_dtype].size)
    return
  end
  local from, to = load[source_dtype], store[target_dtype]
  if source_dtype == "int64" and target_dtype == "float64" then from = load_int64_nearest end
  for first = 0, n - 1, BLOCK do
    local count = math.min(BLOCK, n - first)
    from(source, first, count)
    local bad = to(target, first, count)
    if bad then return first + bad end
  end
end

--- Stores list[1] .. list[n], Lua numbers, as elements first .. first + n - 1. Returns nothing, or
-- the index in the list of the first value that is not a number or that the dtype cannot hold; the
-- values before it are stored.
function M.list(target_dtype, target, first, list, n)
  local to = store[target_dtype]
  for start = 0, n - 1, BLOCK do
    local count, numbers = math.min(BLOCK, n - start), 0
    while numbers < count and type(list[start + numbers + 1]) == "number" do
      block[numbers] = list[start + numbers + 1]
      numbers = numbers + 1
    end
    local bad = to(target, first + start, numbers)
    if bad then return start + bad + 1 end
    if numbers < count then return start + numbers + 1 end
  end
end

--- Loads elements first .. first + n - 1, at most BLOCK, as doubles. int64 values must be exactly
-- doubles.
function M.load(into, source_dtype, source, first, n)
  load[source_dtype](source, first, n)
  ffi.copy(into, block, n * 8)
end

--- Stores n doubles, at most BLOCK, as elements first .. first + n - 1 of a float dtype or bool.
function M.store(target_dtype, target, first, n, from)
  ffi.copy(block, from, n * 8)
  store[target_dtype](target, first, n)
end

return M
