--- Writes gnuplot's script for a picture. Takes what draw.lua has prepared.

local gnuplot = require "samebits.plot.gnuplot"
local scale = require "samebits.plot.scale"
local theme = require "samebits.plot.theme"

local quote = gnuplot.quote

local M = {}

-- Curves with up to this many points show the points, too.
local MARKED = 60

--- Kinds of pictures by ending: default width and height in pixels, and the line that selects it.
M.TERMINALS = {
  -- Not every gnuplot is built with cairo.
  png = { 960, 600, line = [[
w = %d; h = %d
cairo = strstrt(GPVAL_TERMINALS, 'pngcairo')
if (cairo) { set terminal pngcairo noenhanced size w,h font 'sans,11' }
else { set terminal png noenhanced size w,h }]] },
  svg = { 960, 600, line = "set terminal svg noenhanced size %d,%d font 'sans-serif,14' " ..
                           "background '" .. theme.PAGE .. "'" },
}

local LOOK = ([[
set encoding utf8
set border 3 linecolor rgb 'FAINT' linewidth 1
set tics nomirror out scale 0.6 textcolor rgb 'FAINT'
set grid linetype 1 linecolor rgb 'LINE' linewidth 1
set key outside top left horizontal Left reverse samplen 2 textcolor rgb 'INK']]):gsub("'(%u+)'",
  { FAINT = quote(theme.FAINT), LINE = quote(theme.LINE), INK = quote(theme.INK) })

local function color(s) return ("linecolor rgb '%s'"):format(theme.of(theme.SERIES, s)) end

-- A curve that lies on an earlier one is dashed; the one below it is wide and pale. Both are seen.
local function stroke(series, s)
  if series.over then return color(s) .. " linewidth 2 dashtype (12,10)" end
  if series.under then
    return ("linecolor rgb '#70%s' linewidth 7"):format(theme.of(theme.SERIES, s):sub(2))
  end
  return color(s) .. " linewidth 2"
end

local STYLES = {
  lines = function(series, s)
    local marked = #series.lines <= MARKED and not series.smooth
    return (marked and "linespoints pointtype 7 pointsize 0.6 " or "lines ") .. stroke(series, s)
  end,
  scatter = function(series, s)
    return ("points pointtype %d pointsize %s %s"):format(series.over and 6 or 7,
      series.under and "0.9" or "0.6", color(s))
  end,
  histogram = function(_, s) return "histograms " .. color(s) end,
}

-- The marks of an axis, and its range.
local function axis(add, name, range, logarithmic, most)
  local marks = {}
  for i, mark in ipairs(scale.marks(range[1], range[2], logarithmic, most)) do
    marks[i] = ("%s %.17g"):format(gnuplot.label(mark[2]), mark[1])
  end
  if logarithmic then add("set logscale %s", name) end
  add("set %srange [%.17g:%.17g]", name, range[1], range[2])
  add("set %stics (%s)", name, table.concat(marks, ", "))
end

local function curves(add, spec, prepared)
  local plots, labels = {}, prepared.labels
  if spec.kind == "histogram" then
    add "set style histogram clustered gap 1\nset style fill solid 0.85 noborder"
    if spec.logy then add "set logscale y" else add "set yrange [0:*]" end
    add "set format y '%g'"
    local tics = {}
    for i, label in ipairs(labels) do tics[i] = ("%s %d"):format(gnuplot.label(label), i - 1) end
    add("set xtics (%s)", table.concat(tics, ", "))
  else
    axis(add, "x", prepared.axes.x, spec.logx, 10)
    axis(add, "y", prepared.axes.y, spec.logy, 8)
  end
  for s, series in ipairs(prepared.drawn) do
    local title = series.label ~= "" and "title " .. quote(series.label) or "notitle"
    if series.drawn == 0 then
      -- draws nothing, but adds the series to the legend
      plots[#plots + 1] = ("NaN with lines %s %s"):format(color(s), title)
    else
      if series.band then
        add("$band%d << END\n%s\nEND", s, table.concat(series.band, "\n"))
        plots[#plots + 1] = ("$band%d using 1:2:3 with filledcurves fillcolor rgb '%s' " ..
          "fillstyle transparent solid 0.18 noborder notitle"):format(s, theme.of(theme.SERIES, s))
      end
      if series.raw then
        add("$raw%d << END\n%s\nEND", s, table.concat(series.raw, "\n"))
        plots[#plots + 1] = ("$raw%d using 1:2 with lines linecolor rgb '#b0%s' linewidth 1 " ..
          "notitle"):format(s, theme.of(theme.SERIES, s):sub(2))
      end
      add("$s%d << END\n%s\nEND", s, table.concat(series.lines, "\n"))
      plots[#plots + 1] = ("$s%d using %s with %s %s"):format(s,
        spec.kind == "histogram" and "2" or "1:2", STYLES[spec.kind](series, s), title)
    end
  end
  add("plot %s", table.concat(plots, ", "))
end

local function heatmap(add, spec, grid)
  local rows, colors = {}, {}
  for r = 0, grid.rows - 1 do
    local row = {}
    for c = 0, grid.columns - 1 do
      local v = grid.at(r, c)
      row[c + 1] = v and ("%.17g"):format(v) or "NaN"
    end
    rows[r + 1] = table.concat(row, " ")
  end
  for i, value in ipairs(theme.HEAT) do colors[i] = ("%d '%s'"):format(i, value) end
  add("set palette defined (%s)", table.concat(colors, ", "))
  add "unset grid\nunset key\nset border 0\nset format cb '%g'"
  if spec.logz then add "set logscale cb" end
  if grid.low < grid.high then add("set cbrange [%.17g:%.17g]", grid.low, grid.high) end
  for _, axis_of in ipairs { { "x", grid.columns }, { "y", grid.rows } } do
    local name, size = unpack(axis_of)
    local marks = {}
    for _, mark in ipairs(scale.marks(0, math.max(size - 1, 1), false, 10)) do
      if mark[1] % 1 == 0 then marks[#marks + 1] = ("%d"):format(mark[1]) end
    end
    add("set %stics (%s)", name, table.concat(marks, ", "))
  end
  add("set xrange [-0.5:%g]\nset yrange [%g:-0.5]", grid.columns - 0.5, grid.rows - 0.5)
  add("$z << END\n%s\nEND\nplot $z matrix with image", table.concat(rows, "\n"))
end

--- Returns the script. terminal: one of TERMINALS.
function M.write(spec, prepared, terminal, width, height)
  local lines = { LOOK, terminal.line:format(width, height) }
  local function add(format, ...)
    lines[#lines + 1] = select("#", ...) > 0 and format:format(...) or format
  end
  for _, name in ipairs { "title", "xlabel", "ylabel" } do
    if spec[name] then
      add("set %s %s textcolor rgb '%s'", name, quote(spec[name]), theme.INK)
    end
  end
  if spec.kind == "heatmap" then
    heatmap(add, spec, prepared.grid)
  else
    curves(add, spec, prepared)
  end
  return table.concat(lines, "\n") .. "\n"
end

return M
