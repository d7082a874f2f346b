--- Sorts a row's logits in falling order: a radix sort of fp32 encodings, which takes about as long
-- as reading the row six times.

local ffi = require "ffi"
local bit = require "bit"
local band, bxor, rshift = bit.band, bit.bxor, bit.rshift

local M = {}

local NONE = -0x800000 -- -inf, as an int32
local MAGNITUDE, INFINITE = 0x7fffffff, 0x7f800000

-- Three digits of a key, the lowest first: 11, 11 and 10 bits.
local DIGITS = 2048
local counts = ffi.new("int32_t[3][2048]")
local room, keys, other = 0, nil, nil

-- One pass by the digit that starts at bit `low`. Stable.
local function pass(from, to, n, low, count)
  local at = 0
  for d = 0, DIGITS - 1 do count[d], at = at, at + count[d] end
  for i = 0, n - 1 do
    local d = band(rshift(from[i], low), DIGITS - 1)
    to[count[d]] = from[i]
    count[d] = count[d] + 1
  end
end

--- Writes the n logits at `row` (words: const int32_t *) to `to` (float [n]) in falling order,
-- without the absent ones (-inf), and with -0 as +0. Returns their number; nil if one is NaN or
-- +inf.
function M.falling(row, n, to)
  if room < n then
    room, keys, other = n, ffi.new("int32_t[?]", n), ffi.new("int32_t[?]", n)
  end
  ffi.fill(counts, ffi.sizeof(counts))
  local first, second, third = counts[0], counts[1], counts[2]
  local m = 0
  for i = 0, n - 1 do
    local w = row[i]
    if w ~= NONE then
      local magnitude = band(w, MAGNITUDE)
      if magnitude >= INFINITE then return nil end
      if magnitude == 0 then w = 0 end
      -- As unsigned numbers, keys rise where values fall.
      local key = w >= 0 and bxor(w, MAGNITUDE) or w
      keys[m] = key
      m = m + 1
      local d, e, f = band(key, 2047), band(rshift(key, 11), 2047), rshift(key, 22)
      first[d], second[e], third[f] = first[d] + 1, second[e] + 1, third[f] + 1
    end
  end
  pass(keys, other, m, 0, first)
  pass(other, keys, m, 11, second)
  pass(keys, other, m, 22, third)
  for i = 0, m - 1 do
    local key = other[i]
    keys[i] = key >= 0 and bxor(key, MAGNITUDE) or key
  end
  -- Copied, because LuaJIT assumes that words and floats do not share memory (tensor/element.lua).
  ffi.copy(to, keys, 4 * m)
  return m
end

return M
