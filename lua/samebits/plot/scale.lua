--- Axes: the range that data needs, the marks on it, and their labels.

local M = {}

local PAD = 0.04  -- of the data's extent, free at either end

local function log10(v) return math.log(v) / math.log(10) end

--- Returns the range of an axis for data from `low` to `high`.
function M.range(low, high, logarithmic)
  if logarithmic then
    low, high = log10(low), log10(high)
    local pad = high > low and PAD * (high - low) or 0.3
    return 10 ^ (low - pad), 10 ^ (high + pad)
  end
  local pad = high > low and PAD * (high - low) or low ~= 0 and math.abs(low) / 20 or 0.5
  return low - pad, high + pad
end

--- Returns where a value lies on an axis, from 0 to 1.
function M.place(v, low, high, logarithmic)
  if logarithmic then return (log10(v) - log10(low)) / (log10(high) - log10(low)) end
  return (v - low) / (high - low)
end

--- Returns a number as a label: 0.25, 1200, 1e-7, 2.5e9.
function M.label(v, digits)
  local text = ("%%.%dg"):format(digits or 4):format(v):gsub("^%-0$", "0")
  local size = math.abs(v)
  if text:find "e" and size >= 1e-3 and size < 1e6 then text = ("%.0f"):format(v) end
  -- Small numbers are easier to compare with an exponent than with zeros.
  if size > 0 and size < 1e-3 and not text:find "e" then
    text = ("%%.%de"):format((digits or 4) - 1):format(v):gsub("%.?0+e", "e")
  end
  return (text:gsub("e([+-])0*(%d)", function(sign, digit)
    return "e" .. (sign == "-" and "-" or "") .. digit
  end))
end

-- Powers of ten, or, if there are less than two, their multiples by 1, 2 and 5.
local function log_marks(low, high, most)
  local first, last = math.ceil(log10(low) - 1e-9), math.floor(log10(high) + 1e-9)
  local marks = {}
  if last - first >= 1 then
    local step = math.ceil((last - first + 1) / most)
    for e = first, last, step do marks[#marks + 1] = tonumber("1e" .. e) end
    return marks
  end
  for e = first - 1, last + 1 do
    for _, m in ipairs { 1, 2, 5 } do
      local v = tonumber(m .. "e" .. e)
      if v >= low and v <= high then marks[#marks + 1] = v end
    end
  end
  return marks
end

local function linear_marks(low, high, most)
  local rough = (high - low) / most
  local power, marks, step = 10 ^ math.floor(log10(rough)), nil, nil
  local function set(m)
    step, marks = power * m, {}
    for k = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) do
      marks[#marks + 1] = k * step + 0 -- not -0
    end
  end
  local steps = { 0.5, 1, 2, 5, 10 }
  local i = 2
  while power * steps[i] < rough and i < #steps do i = i + 1 end
  set(steps[i])
  -- One mark is no scale.
  while #marks < 2 and i > 1 do
    i = i - 1
    set(steps[i])
  end
  return marks, step
end

--- Returns the marks of an axis, at most about `most`: a list of { value, label }. Neighbours have
-- different labels.
function M.marks(low, high, logarithmic, most)
  local values, step
  if logarithmic then values = log_marks(low, high, most) end
  if not values or #values < 2 then values, step = linear_marks(low, high, most) end
  local digits = 4
  if step then
    local size = math.max(math.abs(low), math.abs(high))
    digits = math.max(1, math.floor(log10(size)) - math.floor(log10(step) + 1e-9) + 1)
  end
  local marks = {}
  for _, v in ipairs(values) do
    if not logarithmic or v > 0 then
      marks[#marks + 1] = { v, M.label(v, math.min(digits, 17)) }
    end
  end
  return marks
end

return M
