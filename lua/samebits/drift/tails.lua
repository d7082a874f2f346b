--- How far the ratios of B to A lie from 1, on each side: a histogram of log ratios by half
-- decades, and the tokens that a clip would take although nothing but drift moved them.

local ffi = require "ffi"

local M = {}

--- Edges of |log ratio|, in nats: half decades from 1e-9 to 100.
M.EDGES = {}
for k = -18, 4 do M.EDGES[#M.EDGES + 1] = 10 ^ (k / 2) end

--- A clip keeps ratios of 1 - eps to 1 + eps. 0.1 and 0.2 are those of PPO and GRPO; 1e-5 is of
-- the size that sequence ratios are clipped with.
M.CLIPS = { 0.1, 0.2, 1e-5 }

local LAST = #M.EDGES
local edges = ffi.new("double[?]", LAST, M.EDGES)

local Tails = {}
Tails.__index = Tails

function M.new()
  local self = { same = 0, low = ffi.new("double[?]", LAST + 1),
                 high = ffi.new("double[?]", LAST + 1), clips = {} }
  for i, eps in ipairs(M.CLIPS) do
    self.clips[i] = { eps = eps, below = 0, above = 0 }
  end
  return setmetatable(self, Tails)
end

-- The number of edges at or below a size.
local function bucket(size)
  local k = 0
  while k < LAST and size >= edges[k] do k = k + 1 end
  return k
end

--- Adds a token that is finite on both sides: B - A, and the ratio that it makes.
function Tails:add(difference, ratio)
  if difference == 0 then
    self.same = self.same + 1
    return
  end
  local side = difference < 0 and self.low or self.high
  local k = bucket(math.abs(difference))
  side[k] = side[k] + 1
  for i = 1, #M.CLIPS do
    local clip = self.clips[i]
    if ratio < 1 - clip.eps then
      clip.below = clip.below + 1
    elseif ratio > 1 + clip.eps then
      clip.above = clip.above + 1
    end
  end
end

-- Buckets { low, high, count }, the smallest first; the first begins at 0, the last has no end.
local function buckets(counts)
  local out = {}
  for k = 0, LAST do
    out[k + 1] = { low = k == 0 and 0 or M.EDGES[k], high = M.EDGES[k + 1] or math.huge,
                   count = counts[k] }
  end
  return out
end

--- Returns `same`, the tokens whose log ratio is 0; `below` and `above` 1: a list of buckets of
-- |log ratio| { low, high, count } each.
function Tails:histogram()
  return { same = self.same, below = buckets(self.low), above = buckets(self.high) }
end

return M
