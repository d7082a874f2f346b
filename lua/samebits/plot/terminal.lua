--- Draws plots in characters: curves and points in braille (eight dots per character), bars, and
-- heatmaps in shades; without Unicode in ASCII. Takes what draw.lua has prepared.

local scale = require "samebits.plot.scale"
local theme = require "samebits.plot.theme"
local printable = require "samebits.text.printable"

local M = {}

local floor, max, min = math.floor, math.max, math.min

-- One line, whatever the text holds.
local function plain(text) return printable.text((tostring(text):gsub("[\r\n\t]", " "))) end

-- The columns of UTF-8 text, all of whose characters are as wide as a letter.
local function columns(text) return select(2, text:gsub("[^\128-\191]", "")) end

local function centred(text, width)
  return (" "):rep(floor((width - columns(text)) / 2)) .. text
end

-- Characters of curves and points that share no colour and no braille, one for each series.
local MARKS = { "*", "o", "+", "x", "#", "@", "%", "&" }

-- The bit of a dot of a braille character: 2 columns, 4 rows.
local DOTS = { [0] = { [0] = 0x01, 0x02, 0x04, 0x40 }, { [0] = 0x08, 0x10, 0x20, 0x80 } }

local function braille(bits)
  local code = 0x2800 + bits
  return string.char(0xe0 + floor(code / 4096), 0x80 + floor(code / 64) % 64, 0x80 + code % 64)
end

local function paint(text, color)
  return color and ("\27[38;5;%dm%s\27[0m"):format(color, text) or text
end

-- A grid of characters, and the dots inside them.
local Canvas = {}
Canvas.__index = Canvas

local function new_canvas(width, height, look, several)
  -- Dots of several series can be told apart by colours only.
  local fine = look.unicode and (look.color or not several)
  return setmetatable({ width = width, height = height, look = look, fine = fine, cells = {},
                        across = fine and 2 or 1, down = fine and 4 or 1 }, Canvas)
end

-- Sets the dot at (x, y), each from 0 to 1 from the lower left corner.
function Canvas:dot(column, row, series)
  local c, r = floor(column / self.across), floor(row / self.down)
  if c < 0 or c >= self.width or r < 0 or r >= self.height then return end
  local key = r * self.width + c
  local cell = self.cells[key]
  if not cell or not self.fine then
    cell = { bits = 0 }
    self.cells[key] = cell
  end
  cell.series = series
  if self.fine then
    cell.bits = bit.bor(cell.bits, DOTS[column % 2][row % 4])
  end
end

function Canvas:at(x, y)
  local wide, high = self.width * self.across, self.height * self.down
  return min(wide - 1, floor(x * wide)), min(high - 1, floor((1 - y) * high))
end

-- A line of dots between two places, without its first dot.
function Canvas:line(x0, y0, x1, y1, series)
  local c0, r0 = self:at(x0, y0)
  local c1, r1 = self:at(x1, y1)
  local steps = max(math.abs(c1 - c0), math.abs(r1 - r0), 1)
  for i = 1, steps do
    self:dot(floor(c0 + (c1 - c0) * i / steps + 0.5), floor(r0 + (r1 - r0) * i / steps + 0.5),
             series)
  end
end

function Canvas:row(r)
  local out = {}
  for c = 0, self.width - 1 do
    local cell = self.cells[r * self.width + c]
    if not cell then
      out[#out + 1] = " "
    else
      local text = self.fine and braille(cell.bits) or theme.of(MARKS, cell.series)
      out[#out + 1] = paint(text, self.look.color and theme.of(theme.TERMINAL, cell.series))
    end
  end
  return (table.concat(out):gsub(" +$", ""))
end

-- The names of series, in as many lines as they need.
local function legend(drawn, look, width)
  local lines, line, used = {}, "", 0
  for s, series in ipairs(drawn) do
    local name = plain(series.label)
    if name ~= "" then
      local mark = look.color and (look.unicode and "\226\148\129\226\148\129" or "--") or
                   #drawn > 1 and theme.of(MARKS, s) or ""
      local text = mark ~= "" and paint(mark, look.color and theme.of(theme.TERMINAL, s)) .. " " ..
                   name or name
      local size = columns(mark) + 1 + columns(name)
      if used > 0 and used + 3 + size > width then
        lines[#lines + 1] = line
        line, used = "", 0
      end
      line = used > 0 and line .. "   " .. text or text
      used = used + size + (used > 0 and 3 or 0)
    end
  end
  if used > 0 then lines[#lines + 1] = line end
  return lines
end

local BOX = {
  unicode = { left = "\226\148\130", mark = "\226\148\164", corner = "\226\148\148",
              below = "\226\148\128", tick = "\226\148\172" },
  ascii = { left = "|", mark = "+", corner = "+", below = "-", tick = "+" },
}

-- The lines below a canvas: the axis, its labels, its name.
local function x_axis(lines, marks, place, inner, indent, box, label)
  local line, past = {}, -1
  for c = 1, inner do line[c] = box.below end
  local labels = ""
  for _, mark in ipairs(marks) do
    local c = min(inner - 1, floor(place(mark[1]) * inner))
    line[c + 1] = box.tick
    local from = max(0, min(c - floor(#mark[2] / 2), inner - #mark[2]))
    if from > past then
      labels = labels .. (" "):rep(from - #labels) .. mark[2]
      past = #labels
    end
  end
  lines[#lines + 1] = (" "):rep(indent) .. box.corner .. table.concat(line)
  lines[#lines + 1] = (" "):rep(indent + 1) .. labels
  if label then lines[#lines + 1] = (" "):rep(indent + 1) .. centred(plain(label), inner) end
end

local function head(lines, spec, drawn, look, width)
  if spec.title then lines[#lines + 1] = centred(plain(spec.title), width) end
  for _, line in ipairs(legend(drawn, look, width)) do lines[#lines + 1] = " " .. line end
  if spec.ylabel then lines[#lines + 1] = " " .. plain(spec.ylabel) end
end

local function curves(spec, drawn, axes, look, width, height)
  local lines, box = {}, look.unicode and BOX.unicode or BOX.ascii
  head(lines, spec, drawn, look, width)
  local rows = max(4, height - #lines - 2 - (spec.xlabel and 1 or 0))
  local y_marks = scale.marks(axes.y[1], axes.y[2], spec.logy, max(2, floor(rows / 2.5)))
  local indent, at_row = 0, {}
  for _, mark in ipairs(y_marks) do
    indent = max(indent, #mark[2] + 1)
    local y = scale.place(mark[1], axes.y[1], axes.y[2], spec.logy)
    at_row[min(rows - 1, floor((1 - y) * rows))] = mark[2]
  end
  local inner = max(8, width - indent - 1)
  local canvas = new_canvas(inner, rows, look, #drawn > 1)
  for s, series in ipairs(drawn) do
    local before
    for i = 1, #series.x do
      local u, v = series.x[i], series.y[i]
      if u then
        local x = scale.place(u, axes.x[1], axes.x[2], spec.logx)
        local y = scale.place(v, axes.y[1], axes.y[2], spec.logy)
        if spec.kind == "lines" and before then
          canvas:line(before[1], before[2], x, y, s)
        else
          local c, r = canvas:at(x, y)
          canvas:dot(c, r, s)
        end
        before = { x, y }
      else
        before = nil
      end
    end
  end
  for r = 0, rows - 1 do
    local label = at_row[r]
    lines[#lines + 1] = (" "):rep(indent - (label and #label + 1 or 0)) ..
                        (label and label .. " " or "") .. (label and box.mark or box.left) ..
                        canvas:row(r)
  end
  local x_marks = scale.marks(axes.x[1], axes.x[2], spec.logx, max(2, floor(inner / 12)))
  x_axis(lines, x_marks, function(v) return scale.place(v, axes.x[1], axes.x[2], spec.logx) end,
         inner, indent, box, spec.xlabel)
  return lines
end

-- Bars, each on its own line, with its number.
local function bars(spec, drawn, labels, look, width)
  local lines = {}
  head(lines, spec, drawn, look, width)
  local wide, most, numbers = 0, 0, 0
  for _, label in ipairs(labels) do wide = max(wide, columns(plain(label))) end
  for _, series in ipairs(drawn) do
    for i = 1, #series.x do
      if series.x[i] then
        most = max(most, series.y[i])
        numbers = max(numbers, #scale.label(series.y[i], 10))
      end
    end
  end
  local room = max(8, width - wide - numbers - 4)
  -- On a logarithmic axis a bar begins a decade below the smallest one.
  local least = most
  for _, series in ipairs(drawn) do
    for i = 1, #series.x do
      if series.x[i] and series.y[i] > 0 then least = min(least, series.y[i]) end
    end
  end
  local function length(v)
    if v <= 0 or most <= 0 then return 0 end
    if spec.logy then return scale.place(v, least / 10, most, true) * room end
    return v / most * room
  end
  local PARTS = { "\226\150\143", "\226\150\142", "\226\150\141", "\226\150\140", "\226\150\139",
                  "\226\150\138", "\226\150\137" }
  for i, label in ipairs(labels) do
    for s, series in ipairs(drawn) do
      local v = series.x[i] and series.y[i]
      local text = ""
      if v then
        local n = length(v)
        if look.unicode and (look.color or #drawn == 1) then
          local eighths = max(v > 0 and 1 or 0, floor(n * 8 + 0.5))
          text = ("\226\150\136"):rep(floor(eighths / 8)) .. (PARTS[eighths % 8] or "")
        else
          text = theme.of(MARKS, s):rep(max(v > 0 and 1 or 0, floor(n + 0.5)))
        end
        text = paint(text, look.color and theme.of(theme.TERMINAL, s)) .. " " ..
               scale.label(v, 10)
      end
      local name = s == 1 and plain(label) or ""
      lines[#lines + 1] = ("%s%s %s %s"):format((" "):rep(wide - columns(name)), name,
        look.unicode and BOX.unicode.left or "|", text)
    end
  end
  if spec.xlabel then lines[#lines + 1] = plain(spec.xlabel) end
  return lines
end

local SHADES = { ascii = { ".", ":", "-", "=", "+", "*", "#", "%", "@" },
                 unicode = { "\194\183", "\226\150\145", "\226\150\146", "\226\150\147",
                             "\226\150\136" } }

-- A heatmap: rows from above, each cell the mean of the values that it stands for, blank where
-- there are none.
local function heat(spec, grid, look, width, height)
  local lines, box = {}, look.unicode and BOX.unicode or BOX.ascii
  head(lines, spec, {}, look, width)
  local indent = #tostring(grid.rows - 1) + 1
  local inner = max(8, width - indent - 1)
  local rows = max(4, height - #lines - 3 - (spec.xlabel and 1 or 0))
  local down, right = math.ceil(grid.rows / rows), math.ceil(grid.columns / inner)
  -- Narrow maps get wider cells.
  local wide = max(1, min(4, floor(inner / math.ceil(grid.columns / right))))
  local shades = look.color and theme.TERMINAL_HEAT or
                 look.unicode and SHADES.unicode or SHADES.ascii
  local function shade(v)
    local place = grid.low == grid.high and 1 or scale.place(v, grid.low, grid.high, spec.logz)
    return shades[max(1, min(#shades, math.ceil(place * #shades)))]
  end
  local function cell(text)
    if not look.color then return text:rep(wide) end
    return ("\27[48;5;%dm%s\27[0m"):format(text, (" "):rep(wide))
  end
  local n = math.ceil(grid.columns / right)
  for r = 0, grid.rows - 1, down do
    local out = {}
    for c = 0, grid.columns - 1, right do
      local sum, count = 0, 0
      for i = r, min(r + down, grid.rows) - 1 do
        for j = c, min(c + right, grid.columns) - 1 do
          local v = grid.at(i, j)
          if v then sum, count = sum + v, count + 1 end
        end
      end
      out[#out + 1] = count == 0 and (" "):rep(wide) or cell(shade(sum / count))
    end
    lines[#lines + 1] = ("%" .. indent - 1 .. "d %s%s"):format(r, box.mark, table.concat(out))
                          :gsub(" +$", "")
  end
  local last = max(grid.columns - 1, 1)
  x_axis(lines, scale.marks(0, last, false, max(2, floor(n * wide / 12))),
         function(v) return (floor(v / right) * wide + wide / 2) / (n * wide) end, n * wide, indent,
         box, spec.xlabel)
  local ramp = {}
  for i, s in ipairs(shades) do
    ramp[i] = look.color and ("\27[48;5;%dm  \27[0m"):format(s) or s
  end
  lines[#lines + 1] = (" "):rep(indent + 1) .. scale.label(grid.low) .. " " ..
    table.concat(ramp) .. " " .. scale.label(grid.high) ..
    (down * right > 1 and ("   (means of %d x %d)"):format(down, right) or "")
  return lines
end

--- Returns the text of a plot. look: `unicode`, `color`.
function M.draw(spec, prepared, look, width, height)
  local lines
  if spec.kind == "heatmap" then
    lines = heat(spec, prepared.grid, look, width, height)
  elseif spec.kind == "histogram" then
    lines = bars(spec, prepared.drawn, prepared.labels, look, width)
  else
    lines = curves(spec, prepared.drawn, prepared.axes, look, width, height)
  end
  for i, line in ipairs(lines) do lines[i] = line:gsub(" +$", "") end
  return table.concat(lines, "\n") .. "\n"
end

return M
