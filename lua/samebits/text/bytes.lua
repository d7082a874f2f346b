--- Bytes that grow: text and numbers are put behind each other without a string for each line. (Of
-- millions of long strings, LuaJIT's hash makes one chain.)

local bit = require "bit"
local ffi = require "ffi"

local band, bor, rshift = bit.band, bit.bor, bit.rshift

local M = {}

local Bytes = {}
Bytes.__index = Bytes

local LEAST = 4096

--- Makes an empty one: `p`, its bytes, and `n`, their number.
function M.new()
  return setmetatable({ p = ffi.new("uint8_t[?]", LEAST), n = 0, room = LEAST }, Bytes)
end

-- Makes room for so many more bytes.
local function reserve(self, more)
  if self.n + more <= self.room then return end
  local room = math.max(2 * self.room, self.n + more)
  local p = ffi.new("uint8_t[?]", room)
  ffi.copy(p, self.p, self.n)
  self.p, self.room = p, room
end

--- Puts one byte.
function Bytes:byte(x)
  reserve(self, 1)
  self.p[self.n] = x
  self.n = self.n + 1
end

--- Puts an integer from 0 to 2^53 in LEB128. With x % 128 + 128, compiled code of LuaJIT
-- 2.1.0-beta3 lost the 128 of one byte in 600 000, where x was beyond 2^31; so the byte is made of
-- ints.
function Bytes:varint(x)
  while x >= 128 do
    local rest = math.floor(x / 128)
    self:byte(bor(x - 128 * rest, 128))
    x = rest
  end
  self:byte(x)
end

--- Puts an int32 as four bytes, the lowest first.
function Bytes:word(w)
  for k = 0, 24, 8 do self:byte(band(rshift(w, k), 0xff)) end
end

--- Puts a string.
function Bytes:text(s)
  reserve(self, #s)
  ffi.copy(self.p + self.n, s, #s)
  self.n = self.n + #s
end

local digits = ffi.new "uint8_t[24]"

--- Puts an integer from -2^53 to 2^53 in decimal digits.
function Bytes:integer(x)
  if x < 0 then
    self:byte(45)
    x = -x
  end
  local at = 24
  repeat
    local rest = math.floor(x / 10)
    at = at - 1
    digits[at] = 48 + (x - 10 * rest)
    x = rest
  until x == 0
  reserve(self, 24 - at)
  for k = at, 23 do self.p[self.n + k - at] = digits[k] end
  self.n = self.n + 24 - at
end

--- Puts an int32 as eight hexadecimal digits.
function Bytes:hex(w)
  reserve(self, 8)
  for k = 0, 7 do
    local digit = band(rshift(w, 28 - 4 * k), 15)
    self.p[self.n + k] = digit < 10 and 48 + digit or 87 + digit
  end
  self.n = self.n + 8
end

--- Returns the bytes as a string.
function Bytes:string() return ffi.string(self.p, self.n) end

return M
