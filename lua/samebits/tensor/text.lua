--- A tensor as text, for tostring: a head line and the values. If there are many values, the middle
-- ones are left out.

local element = require "samebits.tensor.element"
local layout = require "samebits.tensor.layout"

local M = {}

local MANY = 120     -- dimensions are shortened from this many elements on
local EDGE = 3       -- values shown at either end
local WIDTH = 96     -- columns

local function format_value(v)
  if type(v) == "number" then
    return v ~= v and "nan" or ("%.6g"):format(v)
  end
  return element.text(v)
end

-- The indices of a dimension that are shown; false marks the gap.
local function shown(size, shorten)
  local out = {}
  if not shorten or size <= 2 * EDGE then
    for i = 0, size - 1 do out[#out + 1] = i end
  else
    for i = 0, EDGE - 1 do out[#out + 1] = i end
    out[#out + 1] = false
    for i = size - EDGE, size - 1 do out[#out + 1] = i end
  end
  return out
end

-- A row of right-aligned cells, on several lines if necessary.
local function row(cells, width, indent, columns)
  local lines, line = {}, ""
  for i, cell in ipairs(cells) do
    local pad = cell == "..." and 0 or width - #cell
    local piece = (" "):rep(pad) .. cell .. (i < #cells and "," or "")
    if line ~= "" and indent + 1 + #line + 1 + #piece > columns then
      lines[#lines + 1] = line
      line = ""
    end
    line = line == "" and piece or line .. " " .. piece
  end
  lines[#lines + 1] = line
  return "[" .. table.concat(lines, "\n" .. (" "):rep(indent + 1)) .. "]"
end

local function values(t, read, columns)
  local numel = layout.numel(t.shape)
  if numel == 0 then return "[]" end
  local shorten = numel > MANY
  if t.ndim == 0 then return format_value(read(t, 0)) end

  local width = 1
  local function leaves(depth, offset)
    local out = {}
    for _, i in ipairs(shown(t.shape[depth], shorten)) do
      if not i then
        out[#out + 1] = "..."
      elseif depth == t.ndim then
        out[#out + 1] = format_value(read(t, offset + i * t.strides[depth]))
        width = math.max(width, #out[#out])
      else
        out[#out + 1] = leaves(depth + 1, offset + i * t.strides[depth])
      end
    end
    return out
  end

  local function join(level, depth)
    if depth == t.ndim then return row(level, width, depth - 1, columns) end
    local out = {}
    for i, part in ipairs(level) do out[i] = part == "..." and part or join(part, depth + 1) end
    -- One more blank line for every dimension except the last two, as printed matrices have.
    return "[" .. table.concat(out, "," .. ("\n"):rep(t.ndim - depth) .. (" "):rep(depth)) .. "]"
  end
  return join(leaves(1, 0), 1)
end

--- Returns only the head line, "tensor float32 [2, 3] cpu".
function M.head(t)
  return ("tensor %s %s %s"):format(t.dtype, layout.text(t.shape), t.device)
end

--- Returns the head line and, if they can be read, the values. read(t, offset) returns one value,
-- or nil. columns: the width of a line; 96 if nil.
function M.describe(t, read, columns)
  if layout.numel(t.shape) > 0 and read(t, 0) == nil then return M.head(t) end
  return M.head(t) .. "\n" .. values(t, read, columns or WIDTH)
end

return M
