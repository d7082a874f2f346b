--- Converts 8-bit floats to float16, which holds all their values exactly.
--
--     F8_E4M3  sign, 4 bits of exponent (bias 7), 3 bits of mantissa: 0, +-2^-9 to +-448; no
--              infinity; NaN where all 7 bits are set (the format that others call e4m3fn)
--     F8_E5M2  sign, 5 bits of exponent (bias 15), 2 bits of mantissa: a float16's upper byte

local ffi = require "ffi"
local tensor = require "samebits.tensor"

local half = tensor.half

local M = {}

local NAN = half.to_float16(0 / 0)

local function e4m3(magnitude)
  if magnitude == 0x7f then return NAN end
  local exponent, mantissa = math.floor(magnitude / 8), magnitude % 8
  if exponent == 0 then return half.to_float16(mantissa * 2 ^ -9) end
  return half.to_float16((8 + mantissa) * 2 ^ (exponent - 10))
end

local function e5m2(magnitude)
  return magnitude > 0x7c and NAN or magnitude * 256
end

-- float16 encodings by 8-bit encoding. NaN has no sign, as in every conversion here.
local function table_of(encode)
  local out = ffi.new "uint16_t[256]"
  for magnitude = 0, 127 do
    local bits = encode(magnitude)
    out[magnitude] = bits
    out[128 + magnitude] = bits == NAN and NAN or 0x8000 + bits
  end
  return out
end

local TABLES = { F8_E4M3 = table_of(e4m3), F8_E5M2 = table_of(e5m2) }

--- Whether a safetensors dtype is one of these formats.
function M.is(code) return TABLES[code] ~= nil end

--- Writes n elements at `from` (uint8_t *) as float16 to `target`.
function M.to_float16(code, target, from, n)
  local to, encodings = ffi.cast("uint16_t *", target), TABLES[code]
  for i = 0, n - 1 do to[i] = encodings[from[i]] end
end

return M
