--- Makes one plot from the table that `draw` of plot.lua documents: checks it, writes gnuplot's
-- script, and draws it.

local file = require "samebits.io.file"
local gnuplot = require "samebits.plot.gnuplot"
local misuse = require "samebits.misuse"
local tensor = require "samebits.tensor"

local raise = misuse.raise
local quote = gnuplot.quote

local M = {}

local FIELDS = {
  kind = true, title = true, xlabel = true, ylabel = true, logx = true, logy = true,
  series = true, out = true, width = true, height = true,
}
local SERIES_FIELDS = { name = true, x = true, y = true }
local KINDS = { lines = true, histogram = true, scatter = true }

-- Curves with up to this many points show the points, too.
local MARKED = 60

local COMMON = [[
set encoding utf8
set key outside below
set grid]]
-- Default width and height: columns and lines of a terminal, pixels of a picture.
local TERMINALS = {
  text = { 78, 24, line = "set terminal dumb nofeed noenhanced mono size %d,%d\nunset grid" },
  -- Not every gnuplot is built with cairo.
  png = { 960, 600, line = [[
w = %d; h = %d
if (strstrt(GPVAL_TERMINALS, 'pngcairo')) { set terminal pngcairo noenhanced size w,h }
else { set terminal png noenhanced size w,h }]] },
  svg = { 960, 600, line = "set terminal svg noenhanced size %d,%d background 'white'" },
}
-- The characters with which gnuplot draws the bars of the first, second, ... series in a terminal.
-- gnuplot does not show them in the legend.
local BARS = "*#$%@&="

local function check_fields(what, value, known)
  if type(value) ~= "table" or tensor.is_tensor(value) then
    raise("%s: expected a table, got %s", what, type(value))
  end
  for key in pairs(value) do
    if not known[key] then raise("%s: unknown field '%s'", what, tostring(key)) end
  end
end

local function check_text(what, value)
  if value ~= nil and type(value) ~= "string" then
    raise("%s: expected a string, got %s", what, type(value))
  end
end

local function check_size(name, value, default)
  if value == nil then return default end
  if type(value) ~= "number" or value % 1 ~= 0 or value < 8 or value > 16384 then
    raise("draw: %s: %s is no integer from 8 to 16384", name, tostring(value))
  end
  return value
end

-- Returns a list of numbers from a list or a tensor [n].
local function numbers(what, value)
  if tensor.is_tensor(value) then
    if value.ndim ~= 1 then raise("%s: a tensor of %d dimensions, not 1", what, value.ndim) end
    value = value:totable()
  end
  if type(value) ~= "table" then
    raise("%s: expected a list of numbers or a tensor, got %s", what, type(value))
  end
  for i, v in ipairs(value) do
    if type(v) ~= "number" then raise("%s[%d] is %s, not a number", what, i - 1, type(v)) end
  end
  return value
end

local function is_finite(v) return v - v == 0 end

-- The points of a series that can be drawn, and the number of those that cannot: values that are
-- not finite and, on a logarithmic axis, values that are not above 0. They leave a gap, and the
-- legend gives their number.
local function points(where, series, spec)
  check_fields(where, series, SERIES_FIELDS)
  check_text(where .. ".name", series.name)
  local y, x = numbers(where .. ".y", series.y), nil
  if series.x ~= nil and spec.kind ~= "histogram" then
    x = numbers(where .. ".x", series.x)
    if #x ~= #y then raise("%s: %d values of x, but %d of y", where, #x, #y) end
  end
  local lines, drawn = {}, 0
  for i, v in ipairs(y) do
    local u = x and x[i] or i - 1
    if is_finite(u) and is_finite(v) and not (spec.logx and u <= 0) and
       not (spec.logy and v <= 0) then
      lines[i] = ("%.17g %.17g"):format(u, v)
      drawn = drawn + 1
    else
      lines[i] = "NaN NaN"
    end
  end
  return { name = series.name, lines = lines, drawn = drawn, missing = #y - drawn }
end

local function legend(series, mark)
  local name = series.name or ""
  if mark then name = ("%s %s"):format(mark, name) end
  if series.missing == 0 then return name ~= "" and "title " .. quote(name) or "notitle" end
  return "title " .. quote(("%s (%d not drawable)"):format(name, series.missing))
end

-- The labels below a histogram's bars, which all its series share.
local function bar_labels(spec)
  local first = spec.series[1].x
  for s, series in ipairs(spec.series) do
    local x, where = series.x, ("draw: series[%d]"):format(s - 1)
    if type(x) ~= "table" then raise("%s.x: a histogram needs a list, got %s", where, type(x)) end
    if #x ~= #series.y then
      raise("%s: %d values of x, but %d of y", where, #x, #series.y)
    end
    for i = 1, math.max(#x, #first) do
      if x[i] ~= first[i] then
        raise("%s.x[%d] is %s, in series[0] it is %s: bars stand at the same places", where, i - 1,
              tostring(x[i]), tostring(first[i]))
      end
    end
  end
  local tics = {}
  for i, label in ipairs(first) do
    if type(label) == "number" then label = ("%.6g"):format(label) end
    tics[i] = ("%s %d"):format(gnuplot.label(label), i - 1)
  end
  return "set xtics (" .. table.concat(tics, ", ") .. ")"
end

local STYLES = {
  lines = function(series, dots)
    return #series.lines <= MARKED and "linespoints linewidth 2" .. dots or "lines linewidth 2"
  end,
  scatter = function(_, dots) return "points" .. dots end,
  histogram = function() return "histograms" end,
}

-- gnuplot's script.
local function script(spec, drawn, terminal)
  local lines = { COMMON, terminal }
  local function add(format, ...) lines[#lines + 1] = format:format(...) end
  if spec.title then add("set title %s", quote(spec.title)) end
  if spec.xlabel then add("set xlabel %s", quote(spec.xlabel)) end
  if spec.ylabel then add("set ylabel %s", quote(spec.ylabel)) end
  if spec.logx then add "set logscale x" end
  if spec.logy then add "set logscale y" end
  if spec.kind == "histogram" then
    add "set style histogram clustered gap 1\nset style fill solid 0.6 border -1"
    if not spec.logy then add "set yrange [0:*]" end
    lines[#lines + 1] = bar_labels(spec)
  end
  local plots, in_text = {}, not spec.out
  -- In a terminal points are letters, one per series.
  local dots = in_text and "" or " pointtype 7 pointsize 0.6"
  for s, series in ipairs(drawn) do
    local mark = spec.kind == "histogram" and in_text and BARS:sub(s, s) or nil
    local style = STYLES[spec.kind](series, dots)
    if series.drawn > 0 then
      lines[#lines + 1] = ("$s%d << END\n%s\nEND"):format(s, table.concat(series.lines, "\n"))
      local columns = spec.kind == "histogram" and "2" or "1:2"
      plots[s] = ("$s%d using %s with %s %s"):format(s, columns, style, legend(series, mark))
    else
      -- draws nothing, but adds the series to the legend
      plots[s] = ("NaN with lines %s"):format(legend(series, mark))
    end
  end
  lines[#lines + 1] = "plot " .. table.concat(plots, ", ")
  return table.concat(lines, "\n") .. "\n"
end

local function check(spec)
  check_fields("draw", spec, FIELDS)
  if not KINDS[spec.kind] then
    raise("draw: kind: expected \"lines\", \"histogram\" or \"scatter\", got %s",
          tostring(spec.kind))
  end
  for _, name in ipairs { "title", "xlabel", "ylabel" } do
    check_text("draw: " .. name, spec[name])
  end
  if spec.kind == "histogram" and spec.logx then raise "draw: logx: a histogram's x are labels" end
  if type(spec.series) ~= "table" or #spec.series == 0 then
    raise "draw: series: expected a list of { name =, x =, y = }"
  end
end

-- The kind of terminal for the name of a file.
local function terminal_of(out)
  if out == nil then return TERMINALS.text end
  file.check_path("draw", out)
  local found = TERMINALS[(out:match "%.(%w+)$" or ""):lower()]
  if not found or found == TERMINALS.text then
    raise("draw: out: %s ends in neither .png nor .svg", out)
  end
  return found
end

local function draw(spec)
  check(spec)
  local terminal = terminal_of(spec.out)
  local drawn, any = {}, 0
  for s, series in ipairs(spec.series) do
    drawn[s] = points(("draw: series[%d]"):format(s - 1), series, spec)
    any = any + drawn[s].drawn
  end
  local text = script(spec, drawn, terminal.line:format(
    check_size("width", spec.width, terminal[1]), check_size("height", spec.height, terminal[2])))
  if any == 0 then
    return nil, ("plot: none of the values can be drawn%s"):format(
      (spec.logx or spec.logy) and " (a logarithmic axis shows what is above 0)" or "")
  end
  local picture, message = gnuplot.run(text)
  if not picture then return nil, message end
  if not spec.out then
    return picture:gsub(" +\n", "\n"):gsub("^\n+", ""):match "^(.-)%s*$" .. "\n"
  end
  local ok, why = file.write(spec.out, { picture })
  if not ok then return nil, why end
  return spec.out
end

M.draw, M.check_fields = draw, check_fields

return M
