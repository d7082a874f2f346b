--- float16 and bfloat16 as 16-bit encodings, to and from Lua numbers.
--
-- From a number: one rounding, to nearest even; subnormals are kept, values that are too large
-- become infinity, and every NaN becomes 7e00 or 7fc0. To a number: exact.

local ffi = require "ffi"
local bit = require "bit"
local band, bor, lshift, rshift = bit.band, bit.bor, bit.lshift, bit.rshift
local abs = math.abs

local M = {}

local NAN = 0 / 0
local pun = ffi.new("union { float f; int32_t i; }")

-- The encoding of v as fp32, rounded to odd: towards zero, with the last bit set if that was not
-- exact. Rounding this again to at most 22 bits gives the same result as rounding v once.
local function odd(v)
  pun.f = v
  local bits, nearest = pun.i, pun.f
  if nearest == v then return bits end
  if abs(nearest) > abs(v) then bits = bits - 1 end
  return bor(bits, 1)
end

--- Returns the float16 encoding (0 .. 65535) of a number.
function M.to_float16(v)
  if v ~= v then return 0x7e00 end
  local bits = odd(v)
  local sign, a = band(rshift(bits, 16), 0x8000), band(bits, 0x7fffffff)
  if a >= 0x477ff000 then return bor(sign, 0x7c00) end        -- from 65520 on: infinity
  if a >= 0x38800000 then                                     -- from 2^-14 on: normal
    local h = a - 0x38000000
    return bor(sign, rshift(h + 0xfff + band(rshift(h, 13), 1), 13))
  end
  if a < 0x33000000 then return sign end                      -- below 2^-25: zero
  local m, shift = bor(band(a, 0x7fffff), 0x800000), 126 - rshift(a, 23)
  return bor(sign, rshift(m + lshift(1, shift - 1) - 1 + band(rshift(m, shift), 1), shift))
end

--- Returns the bfloat16 encoding (0 .. 65535) of a number.
function M.to_bfloat16(v)
  if v ~= v then return 0x7fc0 end
  local bits = odd(v)
  return rshift(bits + 0x7fff + band(rshift(bits, 16), 1), 16)
end

-- The value of one unit in the last place of a float16, by its exponent field.
local unit = ffi.new("double[32]")
for e = 0, 31 do unit[e] = 2 ^ (math.max(e, 1) - 25) end

--- Returns the number that a float16 encoding stands for.
function M.from_float16(h)
  local e, m = band(rshift(h, 10), 31), band(h, 0x3ff)
  local v
  if e == 31 then
    v = m == 0 and math.huge or NAN
  else
    v = (e == 0 and m or m + 0x400) * unit[e]
  end
  return h >= 0x8000 and -v or v
end

--- Returns the number that a bfloat16 encoding stands for.
function M.from_bfloat16(h)
  if band(h, 0x7fff) > 0x7f80 then return NAN end
  pun.i = lshift(h, 16)
  return pun.f
end

return M
