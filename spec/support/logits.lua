--- Seeded logits of the kinds that matter to accuracy. The numbers are the same everywhere: sqrt,
-- which IEEE 754 defines, is the only function of libm that is called.

local ffi = require "ffi"
local bit = require "bit"
local samebits = require "samebits"
local prng = require "spec.support.prng"
local band, rshift = bit.band, bit.rshift

local M = {}

-- A pool of normal numbers to draw from, made once, because drawing takes most of the time here.
local POOL = 2 ^ 16
local pool
local function normals()
  if not pool then
    local random = prng.new(65537)
    pool = ffi.new("double[?]", POOL)
    for i = 0, POOL - 1 do pool[i] = random:normal() end
  end
  return pool
end

-- Converts one draw's 32 bits to a normal number: half of them choose from the pool, and the others
-- move it by less than 2^-10, so that every mantissa occurs.
local function normal(bits)
  return pool[band(bits, POOL - 1)] + (rshift(bits, 16) - 2 ^ 15) * 2 ^ -25
end

local function spread(sigma, offset)
  return function(bits) return offset + sigma * normal(bits) end
end

-- The power -1/8 of a uniform number makes tails that compete with the mass of the many: log p
-- of the largest logit is near -1 in rows of 2^18.
local function heavy(bits)
  local u = (rshift(bit.tobit(bits * 5), 8) + 1) * 2 ^ -24
  return normal(bits) / math.sqrt(math.sqrt(math.sqrt(u)))
end

--- name, temperature, draw(bits), and lift: { how many ids of a row, by how much }.
M.distributions = {
  { name = "flat", draw = spread(1 / 16, 0) },
  { name = "normal, sigma 3", draw = spread(3, 0) },
  { name = "peaked", draw = spread(2, 0), lift = { 4, 12 } },
  { name = "heavy tails", draw = heavy },
  { name = "offset +10000", draw = spread(3, 1e4) },
  { name = "offset -10000", draw = spread(3, -1e4) },
  { name = "dominated", draw = spread(1, 0), lift = { 1, 30 } },
  { name = "temperature 0.5", tau = 0.5, draw = spread(3, 0) },
  { name = "temperature 0.02", tau = 0.02, draw = spread(3, 0) },
  { name = "temperature 50", tau = 50, draw = spread(3, 0) },
}

--- Logits [rows, V] of a dtype, from a seed.
function M.make(distribution, dtype, rows, V, seed)
  normals()
  local random, draw, lift = prng.new(seed), distribution.draw, distribution.lift
  local t = samebits.zeros({ rows, V }, "float32")
  local x = ffi.cast("float *", t.ptr)
  for i = 0, rows * V - 1 do x[i] = draw(random:bits()) end
  for r = 0, lift and rows - 1 or -1 do
    for _ = 1, lift[1] do
      local i = r * V + random:integer(0, V - 1)
      x[i] = x[i] + lift[2]
    end
  end
  return assert(t:to(dtype))
end

--- A distribution's temperature, as every path sees it: an fp32 number.
function M.temperature(distribution)
  return tonumber(ffi.new("float", distribution.tau or 1))
end

return M
