--- How much specs that draw cases do: SB_CASES, and where they start: SB_SEED.

local M = {}

local function number_from(name, default)
  local text = os.getenv(name)
  if not text or text == "" then return default end
  local value = tonumber(text)
  if not value or value % 1 ~= 0 or value < 1 or value > 2 ^ 31 then
    error(("%s is '%s', expected an integer of at least 1"):format(name, text), 0)
  end
  return value
end

M.SEED = number_from("SB_SEED", 1)
--- Cases of a property; 6 take some seconds.
M.CASES = number_from("SB_CASES", 6)

return M
