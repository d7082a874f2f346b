--- Measures how far results are from the truth, in absolute terms and in ULPs.

local ffi = require "ffi"

local M = {}

--- The spacing of fp32 at a number; at 0, the spacing of the subnormals.
function M.spacing(x)
  local _, e = math.frexp(x)
  if x == 0 then e = -125 end
  return 2 ^ (math.max(e, -125) - 24)
end

--- How much further a result is from the truth than the nearest fp32 number is: the error that an
-- algorithm adds to the rounding that no fp32 result can avoid.
function M.beyond_rounding(got, exact)
  return math.abs(got - exact) - math.abs(tonumber(ffi.new("float", exact)) - exact)
end

--- A collection of errors: add(got, exact), then the figures.
local Errors = {}
Errors.__index = Errors

function M.new() return setmetatable({ absolute = {}, ulps = {}, sum = 0 }, Errors) end

--- The error in ULPs is in units of the spacing at the exact value.
function Errors:add(got, exact) self:add_amount(math.abs(got - exact), exact) end

--- The same for a known error.
function Errors:add_amount(error, exact)
  assert(error == error and error < math.huge, "errors are of finite results")
  self.absolute[#self.absolute + 1] = error
  self.ulps[#self.ulps + 1] = error / M.spacing(exact)
  self.sum = self.sum + error
  self.sorted = false
end

--- The smallest error, "absolute" or "ulps", that a share of all errors (0.5, 0.99; 1: the largest)
-- does not exceed.
function Errors:percentile(share, unit)
  if not self.sorted then
    table.sort(self.absolute)
    table.sort(self.ulps)
    self.sorted = true
  end
  local list = self[unit or "absolute"]
  return list[math.max(math.ceil(share * #list), 1)]
end

function Errors:max(unit) return self:percentile(1, unit) end

function Errors:mean() return self.sum / #self.absolute end

function Errors:count() return #self.absolute end

return M
