--- Which temperature turns one side's logits into the other side's logprobs, if one does.
--
-- At beta = 1 / tau a row's logprob is x * beta - ln sum exp(x_i * beta): concave in beta, so that
-- no more than two temperatures give a value, one on either side of the largest. Each probed token
-- votes with these; the winner is rounded to the shortest decimal that its voters allow. It stays a
-- supposition until all tokens have been computed again with it.

local ffi = require "ffi"

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

-- The intervals of temperature in which f is within tolerance of a value.
local function intervals(f, value, tolerance)
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

local pun = ffi.new "float[1]"
local function single(x)
  pun[0] = x
  return pun[0]
end

-- The number of fewest decimals in an interval.
local function shortest(low, high)
  for digits = 0, 9 do
    local scale = 10 ^ digits
    local x = math.floor((low + high) / 2 * scale + 0.5) / scale
    if x >= low and x <= high and x > 0 then return x end
  end
  return single((low + high) / 2)
end

-- The interval with the most voters: theirs, cut with each other.
local function winner(votes)
  local best
  for _, vote in ipairs(votes) do
    for _, candidate in ipairs(vote) do
      local middle = math.sqrt(candidate.low * candidate.high)
      local low, high, voters = 0, math.huge, {}
      for i, other in ipairs(votes) do
        for _, interval in ipairs(other) do
          if interval.low <= middle and middle <= interval.high then
            low, high = math.max(low, interval.low), math.min(high, interval.high)
            voters[#voters + 1] = i
            break
          end
        end
      end
      if not best or #voters > #best.voters then
        best = { low = low, high = high, voters = voters }
      end
    end
  end
  return best
end

--- The temperatures, most votes first, that tokens speak for: probes are { row, value } each.
-- lp(row, tau) is a row's logprob; own(row) the temperature that it was given with.
function M.fit(probes, lp, own, tolerance)
  local votes = {}
  for i = 1, math.min(#probes, VOTERS) do
    local probe = probes[i]
    votes[#votes + 1] = intervals(function(t) return lp(probe.row, math.exp(t)) end, probe.value,
                                  tolerance)
    votes[#votes].row = probe.row
  end
  local found = {}
  while #found < MANY do
    local best = winner(votes)
    if not best or #best.voters < 2 then break end
    local tau = shortest(best.low, best.high)
    local news = false
    for k = #best.voters, 1, -1 do
      local vote = votes[best.voters[k]]
      if single(own(vote.row)) ~= single(tau) then news = true end
      table.remove(votes, best.voters[k])
    end
    if news then found[#found + 1] = tau end
  end
  return found
end

return M
