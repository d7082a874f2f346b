--- The tokens one by one: both encodings, whether they count, and what explains them. The heatmap
-- and the exports are made from it. It takes 11 bytes per token.

local ffi = require "ffi"

local M = {}

--- What a row is.
M.INACTIVE, M.EQUAL, M.ONLY_A, M.ONLY_B, M.DIFFERENT = 0, 1, 2, 3, 4

--- The names of these in exports.
M.NAMES = { [0] = "inactive", "equal", "only_a", "only_b", "different" }

local Store = {}
Store.__index = Store

--- Makes a store of `rows` tokens.
function M.new(rows)
  local room = math.max(rows, 1)
  return setmetatable({
    rows = rows, a = ffi.new("int32_t[?]", room), b = ffi.new("int32_t[?]", room),
    state = ffi.new("uint8_t[?]", room),
    -- An index of `kinds`, of a row that differs.
    kind = ffi.new("uint16_t[?]", room), kinds = {},
  }, Store)
end

--- Puts rows first .. first + n - 1: encodings a and b, and which rows count on each side.
function Store:put(first, n, a, b, active_a, active_b)
  ffi.copy(self.a + first, a, 4 * n)
  ffi.copy(self.b + first, b, 4 * n)
  for i = 0, n - 1 do
    local left, right = active_a[i] ~= 0, active_b[i] ~= 0
    local state
    if left and right then
      state = a[i] == b[i] and M.EQUAL or M.DIFFERENT
    else
      state = left and M.ONLY_A or right and M.ONLY_B or M.INACTIVE
    end
    self.state[first + i] = state
  end
end

--- Notes what explains a row that differs: an index of `kinds`. A row whose index does not fit is
-- shown as unexplained.
function Store:explain(row, kind) self.kind[row] = kind < 2 ^ 16 and kind or 0 end

local UNEXPLAINED = { cause = "unexplained", cause_exact = false }

--- Returns what explains a row that differs: `cause`, `cause_exact`, and `by`, the cause's place in
-- the report's list, nil if there is none.
function Store:explained(row) return self.kinds[self.kind[row]] or UNEXPLAINED end

return M
