--- Drift by round. In a dump of several turns the mask leaves out what the user or a tool said, so
-- a round is a run of tokens that count on both sides, and ends where one does not. Rounds are
-- numbered from 0 in each sequence.

local M = {}

--- Rounds beyond the last one are counted with it.
M.MOST = 64

local Segments = {}
Segments.__index = Segments

function M.new() return setmetatable({ list = {}, at = -1, inside = false }, Segments) end

--- Call where a sequence begins.
function Segments:begin() self.at, self.inside = -1, false end

--- Call for a token that does not count on both sides.
function Segments:gap() self.inside = false end

local function entry(self)
  local k = math.min(self.at, M.MOST - 1) + 1
  local found = self.list[k]
  if not found then
    found = { round = k - 1, sequences = 0, compared = 0, different = 0, finite = 0, sum = 0,
              sum_abs = 0, max = 0, outside = 0 }
    self.list[k] = found
  end
  return found
end

--- Adds a token that counts: whether it differs; B - A, or nil if that is no finite number; and
-- whether the ratio is outside 1 +- 0.1.
function Segments:add(differs, difference, outside)
  if not self.inside then
    self.at, self.inside = self.at + 1, true
    local found = entry(self)
    if self.at < M.MOST then found.sequences = found.sequences + 1 end
  end
  local found = entry(self)
  found.compared = found.compared + 1
  if differs then found.different = found.different + 1 end
  if difference then
    local size = math.abs(difference)
    found.finite = found.finite + 1
    found.sum, found.sum_abs = found.sum + difference, found.sum_abs + size
    if size > found.max then found.max = size end
    if outside then found.outside = found.outside + 1 end
  end
end

--- Returns a list of rounds: `round`, `sequences` that have it, `compared` and `different` tokens;
-- `finite` ones with their `mean`, `mean_abs` and `max` of B - A, and how many have a ratio
-- `outside` 1 +- 0.1. Empty if no sequence has more than one.
function Segments:report()
  if #self.list < 2 then return {} end
  local out = {}
  for i, found in ipairs(self.list) do
    local n = math.max(found.finite, 1)
    out[i] = { round = found.round, sequences = found.sequences, compared = found.compared,
               different = found.different, finite = found.finite, mean = found.sum / n,
               mean_abs = found.sum_abs / n, max = found.max, outside = found.outside }
  end
  return out
end

return M
