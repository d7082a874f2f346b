-- A seeded generator whose state can be saved: xorshift32 (Marsaglia).

local bit = require "bit"

local Random = {}
Random.__index = Random

-- state is any int32 except 0.
local function from_state(state) return setmetatable({ state = state }, Random) end

local function new(seed)
  -- Spreads the seeds, so that small ones do not start with similar numbers.
  local state = bit.bxor(bit.tobit(seed * 0x9e3779b1 % 2 ^ 32), 0x5bd1e995)
  local random = from_state(state == 0 and 1 or state)
  for _ = 1, 8 do random:uniform() end
  return random
end

-- A uniform number in [0, 1).
function Random:uniform()
  local x = self.state
  x = bit.bxor(x, bit.lshift(x, 13))
  x = bit.bxor(x, bit.rshift(x, 17))
  x = bit.bxor(x, bit.lshift(x, 5))
  self.state = x
  return x % 2 ^ 32 / 2 ^ 32
end

-- An approximately normal number: the sum of twelve uniform ones.
function Random:normal()
  local sum = -6
  for _ = 1, 12 do sum = sum + self:uniform() end
  return sum
end

return { new = new, from_state = from_state }
