--- A seeded generator with the same numbers on every machine: xorshift32 (Marsaglia), period 2^32 -
-- 1.
--
--     local random = prng.new(7)
--     random:bits()          -- 0 .. 2^32 - 1, never 0
--     random:integer(0, 9)   -- both ends included
--     random:pick { "a", "b" }

local bit = require "bit"
local bxor, lshift, rshift = bit.bxor, bit.lshift, bit.rshift

local M = {}

local Random = {}
Random.__index = Random

function M.new(seed)
  -- Spread, so that small seeds do not begin alike. The state must not be 0, which xorshift cannot
  -- leave.
  local state = bxor(bit.tobit(seed * 0x9e3779b1 % 2 ^ 32), 0x5bd1e995)
  local self = setmetatable({ state = state == 0 and 1 or state }, Random)
  for _ = 1, 8 do self:bits() end
  return self
end

function Random:bits()
  local x = self.state
  x = bxor(x, lshift(x, 13))
  x = bxor(x, rshift(x, 17))
  x = bxor(x, lshift(x, 5))
  self.state = x
  return x % 2 ^ 32
end

function Random:integer(low, high)
  return low + math.floor(self:bits() / 2 ^ 32 * (high - low + 1))
end

--- Returns a number in [0, 1), of 32 random bits.
function Random:uniform() return self:bits() / 2 ^ 32 end

--- Returns a number from a standard normal distribution, accurate enough for test data: the sum of
-- twelve uniform ones.
function Random:normal()
  local sum = -6
  for _ = 1, 12 do sum = sum + self:uniform() end
  return sum
end

function Random:pick(list) return list[self:integer(1, #list)] end

return M
