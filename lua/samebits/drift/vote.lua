--- Finds the value that several tokens agree on, for a number that each of them knows only as
-- intervals.

local ffi = require "ffi"

local M = {}

local pun = ffi.new "float[1]"

--- Returns x rounded to fp32.
function M.single(x)
  pun[0] = x
  return pun[0]
end

--- Returns the number above 0 with the fewest decimals in an interval; its middle as fp32 if nine
-- decimals are not enough.
function M.shortest(low, high)
  for digits = 0, 9 do
    local scale = 10 ^ digits
    local x = math.floor((low + high) / 2 * scale + 0.5) / scale
    if x >= low and x <= high and x > 0 then return x end
  end
  return M.single((low + high) / 2)
end

--- Returns the roundest whole number in an interval that holds one: a multiple of the largest power
-- of ten.
function M.roundest(low, high)
  for digits = math.floor(math.log10(math.max(high, 1))), 0, -1 do
    local scale = 10 ^ digits
    local x = math.floor((low + high) / 2 / scale + 0.5) * scale
    if x >= low and x <= high and x > 0 then return x end
  end
end

--- Returns the interval with the most voters: `low` and `high`, the intersection of their
-- intervals, and `voters`, indices of votes. votes: a list of lists of { low, high }. A voter
-- counts once. Returns nil if there are no votes.
function M.winner(votes)
  local best
  for _, vote in ipairs(votes) do
    for _, candidate in ipairs(vote) do
      -- Where most intervals overlap, one of them ends.
      local point = candidate.high
      local low, high, voters = 0, math.huge, {}
      for i, other in ipairs(votes) do
        for _, interval in ipairs(other) do
          if interval.low <= point and point <= interval.high then
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

return M
