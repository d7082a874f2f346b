--- Scoring with a planted fault: what the suite has to find.

local ffi = require "ffi"
local check = require "spec.support.invariance.check"

local M = {}

local WORDS = { token = "uint32_t *", lse = "uint32_t *", sequence = "uint32_t *",
                count = "int64_t *" }

-- The first row, or sequence, that has an active token.
local function first_active(call, per_row)
  if per_row then
    for row, slot in ipairs(call.rows) do
      if slot then return row - 1 end
    end
  else
    for b, sum in ipairs(call.sums) do
      if sum.whole then return b - 1 end
    end
  end
end

--- Moves one result by one encoding, in calls for which when(call, case) is true: an output's (by
-- default the first there is) at its first active place.
function M.when(when, output)
  return function(at, call, case, transform)
    local out = check.score(at, call, case, transform)
    local name = output
    for _, candidate in ipairs { "token", "lse", "sequence", "count" } do
      name = name or out[candidate] and candidate
    end
    if out[name] and when(call, case) then
      local i = first_active(call, name == "token" or name == "lse")
      local p = ffi.cast(WORDS[name], out[name].ptr)
      if i then p[i] = p[i] + 1 end
    end
    return out
  end
end

return M
