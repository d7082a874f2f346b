--- Finds the temperature that turns one side's logits into the other side's logprobs, if there is
-- one.
--
-- At beta = 1 / tau a row's logprob is x * beta - ln sum exp(x_i * beta). This is concave in beta,
-- so at most two temperatures give a value, one on either side of the maximum. Each probed token
-- votes with these temperatures; the winner is rounded to the shortest decimal that its voters
-- allow. It stays a hypothesis until all tokens have been computed again with it.

local vote = require "samebits.drift.vote"

local M = {}

local LOWEST, HIGHEST = math.log(1 / 64), math.log(64)
local GOLDEN = (math.sqrt(5) - 1) / 2
local STEPS = 36 -- steps of bisection: (ln 64 * 2) / 2^36 is below fp32's 2^-24

-- The largest number of probed tokens, and of temperatures.
local VOTERS, MANY = 12, 4

-- The point where f, concave in exp(-t), is largest.
local function peak(f)
  local low, high = LOWEST, HIGHEST
  local left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
  local f_left, f_right = f(left), f(right)
  for _ = 1, STEPS do
    if f_left >= f_right then
      high, right, f_right = right, left, f_left
      left = high - GOLDEN * (high - low)
      f_left = f(left)
    else
      low, left, f_left = left, right, f_right
      right = low + GOLDEN * (high - low)
      f_right = f(right)
    end
  end
  return (low + high) / 2
end

-- The point where f crosses a level, between `inside`, where f is at least the level, and
-- `outside`.
local function crossing(f, inside, outside, level)
  if f(outside) >= level then return outside end
  for _ = 1, STEPS do
    local middle = (inside + outside) / 2
    if f(middle) >= level then inside = middle else outside = middle end
  end
  return (inside + outside) / 2
end

--- Returns the intervals of temperature in which f is within tolerance of a value: a list of { low,
-- high }. f is a row's logprob as a function of the logarithm of the temperature.
function M.intervals(f, value, tolerance)
  local top = peak(f)
  local highest, out = f(top), {}
  if highest < value - tolerance then return out end
  for _, limit in ipairs { LOWEST, HIGHEST } do
    if f(limit) <= value + tolerance then
      local outer = crossing(f, top, limit, value - tolerance)
      local inner = highest < value + tolerance and top or
                    crossing(f, top, limit, value + tolerance)
      out[#out + 1] = { low = math.exp(math.min(inner, outer)),
                        high = math.exp(math.max(inner, outer)) }
    end
  end
  return out
end

--- Returns the temperatures that tokens vote for, most votes first. probes are { row, value } each.
-- lp(row, tau) is a row's logprob; own(row) is the temperature that it was given with. A value of 0
-- has no vote, because the largest logit gives it at any temperature that is low enough.
function M.fit(probes, lp, own, tolerance)
  local votes = {}
  for _, probe in ipairs(probes) do
    if probe.value ~= 0 and #votes < VOTERS then
      local intervals = M.intervals(function(t) return lp(probe.row, math.exp(t)) end,
                                    probe.value, tolerance)
      intervals.row = probe.row
      votes[#votes + 1] = intervals
    end
  end
  local found = {}
  while #found < MANY do
    local best = vote.winner(votes)
    if not best or #best.voters < 2 then break end
    local tau = vote.shortest(best.low, best.high)
    local news = false
    for k = #best.voters, 1, -1 do
      local row = votes[best.voters[k]].row
      if vote.single(own(row)) ~= vote.single(tau) then news = true end
      table.remove(votes, best.voters[k])
    end
    if news then found[#found + 1] = tau end
  end
  return found
end

return M
