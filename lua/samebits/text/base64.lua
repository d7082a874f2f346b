--- Base64 (RFC 4648) of bytes in memory, for data inside of pages.

local bit = require "bit"
local ffi = require "ffi"

local band, bor, lshift, rshift = bit.band, bit.bor, bit.lshift, bit.rshift

local M = {}

local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
local digit = ffi.new("uint8_t[64]")
ffi.copy(digit, ALPHABET, 64)

local EQUALS = 61

--- Returns the digits of a string, or of n bytes at p.
function M.encode(p, n)
  if type(p) == "string" then p, n = ffi.cast("const uint8_t *", p), #p end
  local size = math.ceil(n / 3) * 4
  local out, at = ffi.new("uint8_t[?]", size), 0
  for i = 0, n - 1, 3 do
    local left = n - i
    local x = bor(lshift(p[i], 16), left > 1 and lshift(p[i + 1], 8) or 0,
                  left > 2 and p[i + 2] or 0)
    out[at], out[at + 1] = digit[rshift(x, 18)], digit[band(rshift(x, 12), 63)]
    out[at + 2] = left > 1 and digit[band(rshift(x, 6), 63)] or EQUALS
    out[at + 3] = left > 2 and digit[band(x, 63)] or EQUALS
    at = at + 4
  end
  return ffi.string(out, size)
end

return M
