--- The noise floor of the containers: what rounding to a side's dtype alone may move a logprob by,
-- which is half an ulp of the value. Differences below it, and clips narrower than it, measure the
-- container, not the policy.
--
-- A tensor of float32 may hold bfloat16 values; which dtype holds all of a side's values is known
-- only at the end (tally.lua). So all three are summed.

local bit = require "bit"
local ffi = require "ffi"

local band, rshift = bit.band, bit.rshift

local M = {}

-- Bits of the significand, and the least exponent of normal numbers.
local DTYPES = { "float32", "bfloat16", "float16" }
local BITS = { float32 = 24, bfloat16 = 8, float16 = 11 }
local LEAST = { float32 = -126, bfloat16 = -126, float16 = -14 }

-- So few values may fit a narrow dtype by chance.
local FEW = 8

-- 2^e by the biased exponent e + 127.
local power = ffi.new "double[256]"
for k = 0, 255 do power[k] = 2 ^ (k - 127) end

local halves, least = ffi.new "double[3]", ffi.new "int32_t[3]"
for i, dtype in ipairs(DTYPES) do
  halves[i - 1], least[i - 1] = 2 ^ -BITS[dtype], LEAST[dtype] + 127
end

local Noise = {}
Noise.__index = Noise

function M.new()
  local function sums() return { sum = ffi.new "double[3]", max = ffi.new "double[3]" } end
  return setmetatable({ a = sums(), b = sums(), tokens = 0, within = ffi.new "double[9]",
                        now_a = ffi.new "double[3]", now_b = ffi.new "double[3]" }, Noise)
end

-- Half an ulp of an encoding's value in each dtype; 0 is exact in all.
local function half_ulps(w, now, total)
  local exponent = band(rshift(w, 23), 0xff)
  local is_zero = band(w, 0x7fffffff) == 0
  for k = 0, 2 do
    local half = is_zero and 0 or power[math.max(exponent, least[k])] * halves[k]
    now[k] = half
    total.sum[k] = total.sum[k] + half
    if half > total.max[k] then total.max[k] = half end
  end
end

--- Adds a token that is finite on both sides: encodings a and b, and their distance in nats.
function Noise:add(a, b, size)
  self.tokens = self.tokens + 1
  half_ulps(a, self.now_a, self.a)
  half_ulps(b, self.now_b, self.b)
  if a == b then return end
  for i = 0, 2 do
    for j = 0, 2 do
      if size <= self.now_a[i] + self.now_b[j] then
        self.within[3 * i + j] = self.within[3 * i + j] + 1
      end
    end
  end
end

-- The narrowest dtype that holds a side's values, as an index. The contract's values are fp32.
local function container(given, holds, tokens)
  for i, dtype in ipairs(DTYPES) do
    if dtype == given and i > 1 then return i - 1 end
  end
  if tokens < FEW or not given then return 0 end
  return holds.bfloat16 and 1 or holds.float16 and 2 or 0
end

local function side_of(sums, k, tokens)
  return { dtype = DTYPES[k + 1], mean = sums.sum[k] / math.max(tokens, 1), max = sums.max[k] }
end

--- Returns `a` and `b`: `dtype` (the narrowest that holds the side's values), `mean` and `max` of
-- half an ulp of these; `mean` and `max` of both together; and `within`, the number of tokens that
-- differ by no more than that.
-- @tparam table given dtypes of the logprobs, `a` and `b`; nil for a side without
-- @tparam table holds of each side, whether `bfloat16` and `float16` hold its values
function Noise:report(given, holds)
  local i = container(given.a, holds.a, self.tokens)
  local j = container(given.b, holds.b, self.tokens)
  local a, b = side_of(self.a, i, self.tokens), side_of(self.b, j, self.tokens)
  return { a = a, b = b, mean = a.mean + b.mean, max = a.max + b.max,
           within = self.within[3 * i + j] }
end

return M
