--- Checks whether bytes are UTF-8.

local ffi = require "ffi"

local M = {}

local bytes_p = ffi.typeof("const uint8_t *")

-- The length of the character at p[0], of which n >= 1 bytes are available; 0 if there is no valid
-- one. Overlong forms, surrogates and characters past U+10FFFF are not valid.
local function length(p, n)
  local lead = p[0]
  if lead < 0x80 then return 1 end
  if lead < 0xc2 or lead > 0xf4 then return 0 end
  local size = lead < 0xe0 and 2 or lead < 0xf0 and 3 or 4
  if n < size then return 0 end
  local low, high = 0x80, 0xbf  -- the range of the second byte
  if lead == 0xe0 then low = 0xa0
  elseif lead == 0xed then high = 0x9f
  elseif lead == 0xf0 then low = 0x90
  elseif lead == 0xf4 then high = 0x8f end
  if p[1] < low or p[1] > high then return 0 end
  for i = 2, size - 1 do
    if p[i] < 0x80 or p[i] > 0xbf then return 0 end
  end
  return size
end

--- Returns the position (from 1) of the first byte that is not valid UTF-8; nil if there is none.
-- from: the position to begin at, between characters; 1 by default. Text is read through a pointer,
-- because LuaJIT compiles such a loop but not string.find.
function M.invalid(text, from)
  local p, n, i = ffi.cast(bytes_p, text), #text, (from or 1) - 1
  while i < n do
    local size = length(p + i, n - i)
    if size == 0 then return i + 1 end
    i = i + size
  end
  return nil
end

return M
