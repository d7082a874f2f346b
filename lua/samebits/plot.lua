--- Plots, by gnuplot: in the terminal, as PNG or as SVG.
--
--     local plot = require "samebits.plot"
--     print(plot.draw { kind = "lines", title = "reward",
--                       series = { { name = "seed 1", y = rewards } } })
--     assert(plot.ratio_scatter { reference = sampled, out = "ratios.svg",
--                                 series = { { name = "trainer", logprobs = out.token } } })
--
-- `require "samebits"` does not load it, and nothing else of the library needs gnuplot.
-- @module samebits.plot

local bits = require "samebits.bits"
local file = require "samebits.file"
local gnuplot = require "samebits.plot.gnuplot"
local misuse = require "samebits.misuse"
local tensor = require "samebits.tensor"
local tokens_of = require "samebits.plot.tokens"

local raise = misuse.raise
local quote = gnuplot.quote

local M = {}

local FIELDS = {
  kind = true, title = true, xlabel = true, ylabel = true, logx = true, logy = true,
  series = true, out = true, width = true, height = true,
}
local SERIES_FIELDS = { name = true, x = true, y = true }
local KINDS = { lines = true, histogram = true, scatter = true }

-- Curves of up to this many points show the points, too.
local MARKED = 60

local COMMON = [[
set encoding utf8
set key outside below
set grid]]
-- Width and height by default: columns and lines of a terminal, pixels of a picture.
local TERMINALS = {
  text = { 78, 24, line = "set terminal dumb nofeed noenhanced mono size %d,%d\nunset grid" },
  -- Not every gnuplot is built with cairo.
  png = { 960, 600, line = [[
w = %d; h = %d
if (strstrt(GPVAL_TERMINALS, 'pngcairo')) { set terminal pngcairo noenhanced size w,h }
else { set terminal png noenhanced size w,h }]] },
  svg = { 960, 600, line = "set terminal svg noenhanced size %d,%d background 'white'" },
}
-- What gnuplot draws the bars of the first, second, ... series with in a terminal; it forgets to
-- show it in the legend.
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

-- A list of numbers from a list or a tensor [n].
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

-- The points of a series that can be drawn, and how many cannot: what is not finite, and on a
-- logarithmic axis what is not above 0. Those leave a gap, and are counted in the legend.
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
    tics[i] = ("%s %d"):format(quote(label), i - 1)
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
  -- In a terminal points are letters, one a series.
  local dots = in_text and "" or " pointtype 7 pointsize 0.6"
  for s, series in ipairs(drawn) do
    local mark = spec.kind == "histogram" and in_text and BARS:sub(s, s) or nil
    local style = STYLES[spec.kind](series, dots)
    if series.drawn > 0 then
      lines[#lines + 1] = ("$s%d << END\n%s\nEND"):format(s, table.concat(series.lines, "\n"))
      local columns = spec.kind == "histogram" and "2" or "1:2"
      plots[s] = ("$s%d using %s with %s %s"):format(s, columns, style, legend(series, mark))
    else
      -- Only its line in the legend.
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

-- The kind of terminal for a file's name.
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

--- Draws.
-- @tparam table spec
--
-- * `kind`: "lines", "scatter" or "histogram";
-- * `series`: a list of { name = , x = , y = }, lists of numbers or tensors [n]; x is 0, 1, ... by
--   default. A histogram's x are the labels of its bars (strings, too), the same for all series;
--   its y are their heights;
-- * `title`, `xlabel`, `ylabel`; `logx`, `logy`: true for logarithmic axes;
-- * `out`: a path that ends in .png or .svg; without it the plot is drawn in characters;
-- * `width`, `height`: pixels (960 x 600 by default), or columns and lines (78 x 24).
--
-- NaN and infinities, and on a logarithmic axis what is not above 0, leave a gap; the legend says
-- how many values that were.
-- @treturn string `out`, or the plot as text; nil and a message if nothing can be drawn, without
-- gnuplot (the message says how to install it), or where it or the file fails
M.draw = misuse.guard(draw)

-- What the functions below hand on to draw.
local LOOKS = { "title", "xlabel", "ylabel", "logx", "logy", "out", "width", "height" }

local function drawn_as(kind, spec, defaults, series)
  local made = { kind = kind, series = series }
  for _, name in ipairs(LOOKS) do
    made[name] = spec[name]
    if made[name] == nil then made[name] = defaults[name] end
  end
  return draw(made)
end

local function with_looks(fields)
  for _, name in ipairs(LOOKS) do fields[name] = true end
  return fields
end

local TOKEN_FIELDS = with_looks { reference = true, series = true, mask = true, cu_seqlens = true }

local function tokens(what, spec)
  check_fields(what, spec, TOKEN_FIELDS)
  return tokens_of(what, spec)
end

--- The largest difference from the reference at each position of a sequence, in nats.
-- @tparam table spec `reference`: logprobs, float32 [B, T], or [N] with `cu_seqlens` (one sequence
-- without); `series`: a list of { name = , logprobs = }, tensors of the same shape; `mask`: the
-- same shape, non-zero where active; and what `draw` takes beside kind and series
-- @treturn string as `draw`
M.drift_by_position = misuse.guard(function(spec)
  local series = {}
  for s, given in ipairs(tokens("drift_by_position", spec)) do
    local largest = {}
    for _, token in ipairs(given.tokens) do
      local d = token.value == token.reference and 0 or math.abs(token.value - token.reference)
      local before = largest[token.position]
      -- A NaN stays: the position is then not drawable.
      if before == nil or d > before or d ~= d then largest[token.position] = d end
    end
    local x, y = {}, {}
    for position in pairs(largest) do x[#x + 1] = position end
    table.sort(x)
    for i, position in ipairs(x) do y[i] = largest[position] end
    series[s] = { name = given.name, x = x, y = y }
  end
  return drawn_as("lines", spec, { title = "drift by position", xlabel = "position",
                                   ylabel = "largest |difference|, nats" }, series)
end)

-- Bins of ULPs: 0, 1, 2, 3 to 4, 5 to 8, ...; bin b and its label, the most that it holds.
local function bin_of(ulps)
  local bin, most = 0, 0
  while ulps > most do
    bin = bin + 1
    most = most == 0 and 1 or most * 2
  end
  return bin
end
local function bin_label(b)
  if b == 0 then return "0" end
  return b <= 10 and ("%d"):format(2 ^ (b - 1)) or ("2^%d"):format(b - 1)
end

--- How many tokens are how many ULPs away from the reference: 0, 1, 2, 3 to 4, 5 to 8, and so on;
-- a bar's label is the most that it stands for.
-- @tparam table spec as for `drift_by_position`
-- @treturn string as `draw`
M.ulp_histogram = misuse.guard(function(spec)
  local all, last, nans = {}, 0, false
  for s, given in ipairs(tokens("ulp_histogram", spec)) do
    local counts = { name = given.name, nan = 0 }
    for _, token in ipairs(given.tokens) do
      local ulps = bits.ulp(token.reference, token.value)
      local bin = ulps and bin_of(ulps) or "nan"
      counts[bin] = (counts[bin] or 0) + 1
      if ulps then last = math.max(last, bin) else nans = true end
    end
    all[s] = counts
  end
  local series = {}
  for s, counts in ipairs(all) do
    local x, y = {}, {}
    for b = 0, last do x[b + 1], y[b + 1] = bin_label(b), counts[b] or 0 end
    if nans then x[#x + 1], y[#y + 1] = "NaN", counts.nan end
    series[s] = { name = counts.name, x = x, y = y }
  end
  return drawn_as("histogram", spec, { title = "distance from the reference", ylabel = "tokens",
                                       xlabel = "ULPs, at most" }, series)
end)

--- How far importance ratios, e^(logprob - reference), are from 1, beside the reference's logprobs.
-- @tparam table spec as for `drift_by_position`; the reference is the policy that sampled
-- @treturn string as `draw`
M.ratio_scatter = misuse.guard(function(spec)
  local series = {}
  for s, given in ipairs(tokens("ratio_scatter", spec)) do
    local x, y = {}, {}
    for i, token in ipairs(given.tokens) do
      x[i] = token.reference
      y[i] = token.value == token.reference and 0 or math.exp(token.value - token.reference) - 1
    end
    series[s] = { name = given.name, x = x, y = y }
  end
  return drawn_as("scatter", spec, { title = "importance ratios", ylabel = "ratio - 1",
                                     xlabel = "logprob of the sampling policy" }, series)
end)

local CURVE_FIELDS = with_looks { steps = true, curves = true }

--- Curves over the steps of a training run.
-- @tparam table spec `curves`: a list of { name = , y = }, a number a step; `steps`: their numbers,
-- 0, 1, ... by default; and what `draw` takes beside kind and series
-- @treturn string as `draw`
M.training = misuse.guard(function(spec)
  check_fields("training", spec, CURVE_FIELDS)
  if type(spec.curves) ~= "table" or #spec.curves == 0 then
    raise "training: curves: expected a list of { name =, y = }"
  end
  local series = {}
  for s, curve in ipairs(spec.curves) do
    check_fields(("training: curves[%d]"):format(s - 1), curve, { name = true, y = true })
    series[s] = { name = curve.name, x = spec.steps, y = curve.y }
  end
  return drawn_as("lines", spec, { xlabel = "step" }, series)
end)

return M
