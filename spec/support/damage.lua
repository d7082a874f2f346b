--- Random damage to the bytes of messages and records.

local ffi = require "ffi"

local M = {}

local KINDS = {
  { "a flipped bit", function(to, _, k, bits)
    to[k] = bit.bxor(to[k], bit.lshift(1, bit.band(bits, 7)))
  end },
  { "a lost tail", function(to, size, k) ffi.fill(to + k, size - k) end },
  { "a forged number", function(to, _, k, bits)
    ffi.cast("uint32_t *", to)[math.floor(k / 4)] = bits
  end },
}

--- The number of kinds of damage.
M.KINDS = #KINDS

--- Chooses damage of a kind: what to call it, and a function(to, size) that does it to a number of
-- bytes, a multiple of 4, and returns the byte.
function M.of(random, kind)
  local name, spoil = unpack(KINDS[kind])
  local place, bits = random:uniform(), random:bits()
  return name, function(to, size)
    local k = math.floor(place * size)
    spoil(to, size, k, bits)
    return k
  end
end

return M
