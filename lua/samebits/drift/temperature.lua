--- Which temperature turns one side's logits into the other side's logprobs, if one does.
--
-- At beta = 1 / tau a row's logprob is x * beta - ln sum exp(x_i * beta): concave in beta, so that
-- no more than two temperatures give a value, one on either side of the largest. Each probed token
-- votes with these; the winner is rounded to the shortest decimal that its voters allow. It stays a
-- supposition until all tokens have been computed again with it.

local vote = require "samebits.drift.vote"

local M = {}

local LOWEST, HIGHEST = math.log(1 / 64), math.log(64)
local GOLDEN = (math.sqrt(5) - 1) / 2
local STEPS = 36 -- of bisection: (ln 64 * 2) / 2^36 is below fp32's 2^-24

-- At most so many probed tokens, and so many temperatures.
local VOTERS, MANY = 12, 4

-- Where f, concave in exp(-t), is largest.
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

-- Where f crosses a level between `inside`, where it is at least that, and `outside`.
local function crossing(f, inside, outside, level)
  if f(outside) >= level then return outside end
  for _ = 1, STEPS do
    local middle = (inside + outside) / 2
    if f(middle) >= level then inside = middle else outside = middle end
  end
  return (inside + outside) / 2
end

--- The intervals of temperature in which f, a row's logprob by the logarithm of the temperature, is
-- within tolerance of a value: a list of { low, high }.
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

--- The temperatures, most votes first, that tokens speak for: probes are { row, value } each.
-- lp(row, tau) is a row's logprob; own(row) the temperature that it was given with. A value of 0
-- has no vote: the largest logit gives it at any temperature that is low enough.
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
