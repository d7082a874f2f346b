--- SHA-256 (FIPS 180-4) of bytes in memory, so that a report can name the files that it is about.
-- `sha256sum` prints the same digits. It takes about a second for 100 MB.

local bit = require "bit"
local ffi = require "ffi"

local band, bnot, bswap, bxor, ror, rshift, tohex, tobit =
  bit.band, bit.bnot, bit.bswap, bit.bxor, bit.ror, bit.rshift, bit.tohex, bit.tobit

local M = {}

-- The first 32 bits of the fractions of a root of the first n primes.
local function fractions(n, root)
  local out, found, candidate = ffi.new("int32_t[?]", n), 0, 2
  while found < n do
    local is_prime = true
    for d = 2, math.floor(math.sqrt(candidate)) do
      if candidate % d == 0 then is_prime = false break end
    end
    if is_prime then
      local x = candidate ^ (1 / root)
      -- A double has 53 bits; the integer part takes at most 5.
      out[found] = tobit(math.floor((x - math.floor(x)) * 2 ^ 32))
      found = found + 1
    end
    candidate = candidate + 1
  end
  return out
end

local K, START = fractions(64, 3), fractions(8, 2)

-- Mixes n blocks of 64 bytes at p into the state h.
local function mix(h, w, p, n)
  local words = ffi.cast("const int32_t *", p)
  for block = 0, n - 1 do
    for i = 0, 15 do w[i] = bswap(words[16 * block + i]) end
    for i = 16, 63 do
      local x, y = w[i - 15], w[i - 2]
      w[i] = tobit(w[i - 16] + bxor(ror(x, 7), ror(x, 18), rshift(x, 3)) + w[i - 7] +
                   bxor(ror(y, 17), ror(y, 19), rshift(y, 10)))
    end
    local a, b, c, d, e, f, g, k = h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7]
    for i = 0, 63 do
      local s = k + bxor(ror(e, 6), ror(e, 11), ror(e, 25)) + bxor(band(e, f), band(bnot(e), g)) +
                K[i] + w[i]
      local t = bxor(ror(a, 2), ror(a, 13), ror(a, 22)) +
                bxor(band(a, b), band(a, c), band(b, c))
      k, g, f, e, d, c, b, a = g, f, e, tobit(d + s), c, b, a, tobit(s + t)
    end
    h[0], h[1], h[2], h[3] = tobit(h[0] + a), tobit(h[1] + b), tobit(h[2] + c), tobit(h[3] + d)
    h[4], h[5], h[6], h[7] = tobit(h[4] + e), tobit(h[5] + f), tobit(h[6] + g), tobit(h[7] + k)
  end
end

local PIECE = 2 ^ 22

--- Returns the digest of `size` bytes at `p`, as 64 hexadecimal digits; of a string, if that is
-- all that is given. forget(p, n), if given, is called for bytes that are not needed any more.
function M.hex(p, size, forget)
  if type(p) == "string" then p, size = ffi.cast("const uint8_t *", p), #p end
  p = ffi.cast("const uint8_t *", p)
  local h, w = ffi.new "int32_t[8]", ffi.new "int32_t[64]"
  ffi.copy(h, START, 32)
  local whole = size - size % 64
  for first = 0, whole - 1, PIECE do
    local n = math.min(PIECE, whole - first)
    mix(h, w, p + first, n / 64)
    if forget then forget(p + first, n) end
  end
  -- The rest, a bit 1, zeros, and the number of bits in 8 bytes.
  local left = size - whole
  local room = left < 56 and 64 or 128
  local tail = ffi.new("uint8_t[128]")
  ffi.copy(tail, p + whole, left)
  ffi.fill(tail + left, 1, 0x80) -- a call, so that the words below are read after it
  local ends = ffi.cast("int32_t *", tail + room - 8)
  ends[0], ends[1] = bswap(tobit(math.floor(size / 2 ^ 29))), bswap(tobit(8 * size % 2 ^ 32))
  mix(h, w, tail, room / 64)
  local out = {}
  for i = 0, 7 do out[i + 1] = tohex(h[i]) end
  return table.concat(out)
end

--- Returns the digest of a string as 32 bytes.
function M.bytes(text)
  return (M.hex(text):gsub("%x%x", function(pair) return string.char(tonumber(pair, 16)) end))
end

return M
