--- The number of cases that specs draw (SB_CASES), and their first seed (SB_SEED).

local M = {}

-- SB_CASES=all: the cases that tools/test --all tries; they take some minutes. (The Triton kernels
-- have an "all" of their own: spec/parity.)
local ALL = 40

local function number_from(name)
  local text = os.getenv(name)
  if not text or text == "" then return nil end
  if name == "SB_CASES" and text == "all" then return ALL end
  local value = tonumber(text)
  if not value or value % 1 ~= 0 or value < 1 or value > 2 ^ 31 then
    error(("%s is '%s', expected an integer of at least 1"):format(name, text), 0)
  end
  return value
end

M.SEED = number_from "SB_SEED" or 1

--- SB_CASES, or nil where it is not set.
M.GIVEN = number_from "SB_CASES"

--- The number of cases of a property; 6 take some seconds.
M.CASES = M.GIVEN or 6

--- Whether this is tools/test --all. Other runs do less of the slow work and show nearly as much.
M.ALL = M.CASES >= ALL

return M
