--- Plots: in the terminal, or by gnuplot as PNG or as SVG.
--
--     local plot = require "samebits.plot"
--     print(plot.draw { kind = "lines", title = "reward",
--                       series = { { name = "seed 1", y = rewards } } })
--     assert(plot.ratio_scatter { reference = sampled, out = "ratios.svg",
--                                 series = { { name = "trainer", logprobs = out.token } } })
--
-- `require "samebits"` does not load it. Nothing else in the library needs gnuplot, not even plots
-- in the terminal.
-- @module samebits.plot

local bits = require "samebits.bits"
local drawing = require "samebits.plot.draw"
local misuse = require "samebits.misuse"
local tokens_of = require "samebits.plot.tokens"

local raise, check_fields = misuse.raise, drawing.check_fields

local M = {}

--- Draws a plot.
-- @tparam table spec
--
-- * `kind`: "lines", "scatter", "histogram" or "heatmap";
-- * `series`: a list of { name = , x = , y = }, lists of numbers or tensors [n]; x is 0, 1, ... by
--   default. A histogram's x are the labels of its bars (strings, too), the same for all series;
--   its y are their heights. A series may also have mask (as long as y: where it is 0 or false, it
--   leaves a gap), smooth (the number of points of a running mean around each, drawn over the pale
--   curve itself), and low and high (as long as y: a band);
-- * `z`: a heatmap's values, a tensor or lists [rows, columns];
-- * `mask`: of the shape of z, 0 or false where nothing is drawn;
-- * `title`, `xlabel`, `ylabel`; `logx`, `logy`, `logz`: true for logarithmic axes;
-- * `out`: a path that ends in .png or .svg; without it the plot is drawn in characters;
-- * `width`, `height`: pixels (960 x 600 by default), or columns and lines (78 x 24);
-- * `color`, `unicode`: of a plot in characters; without colour by default, and in Unicode if the
--   locale is UTF-8.
--
-- The axes show the range of the data. NaN and infinities, and on a logarithmic axis values that
-- are not above 0, leave a gap; the legend gives the number of such values, and says if a curve
-- equals an earlier one.
-- @treturn string `out`, or the plot as text; nil and a message if nothing can be drawn, if gnuplot
-- is missing (the message says how to install it), or if gnuplot or the file fails
M.draw = misuse.guard(drawing.draw)

-- The fields that the functions below pass on to draw.
local LOOKS = { "title", "xlabel", "ylabel", "logx", "logy", "out", "width", "height",
                "color", "unicode" }

local function drawn_as(kind, spec, defaults, series)
  local made = { kind = kind, series = series }
  for _, name in ipairs(LOOKS) do
    made[name] = spec[name]
    if made[name] == nil then made[name] = defaults[name] end
  end
  return drawing.draw(made)
end

local function with_looks(fields)
  for _, name in ipairs(LOOKS) do fields[name] = true end
  return fields
end

local TOKEN_FIELDS = with_looks { reference = true, series = true, mask = true, cu_seqlens = true }
local REPORT_FIELDS = with_looks { report = true }

-- Checks and returns the drift report to draw from; nil if the plot is of logprobs.
local function report_of(what, spec)
  if type(spec) ~= "table" or spec.report == nil then return nil end
  check_fields(what, spec, REPORT_FIELDS)
  local report = spec.report
  if type(report) ~= "table" or not report.positions or not report.ulps or not report.sample then
    raise("%s: report: expected what samebits.drift gives, got %s", what, misuse.kind(report))
  end
  return report, ("%s against %s"):format(report.b.name or "B", report.a.name or "A")
end

local function tokens(what, spec)
  check_fields(what, spec, TOKEN_FIELDS)
  return tokens_of(what, spec)
end

-- How far a ratio is from 1; 0 for equal values, including infinite ones.
local function off_ratio(reference, value)
  return value == reference and 0 or math.exp(value - reference) - 1
end

--- Draws the largest difference from the reference at each position of a sequence, in nats.
-- @tparam table spec `reference`: logprobs, float32 [B, T], or [N] with `cu_seqlens` (one sequence
-- without); `series`: a list of { name = , logprobs = }, tensors of the same shape; `mask`: the
-- same shape, non-zero where active; or `report`: the result of `samebits.drift`, alone; and the
-- fields of `draw` except kind and series
-- @treturn string as `draw`
M.drift_by_position = misuse.guard(function(spec)
  local looks = { title = "drift by position", xlabel = "position",
                 ylabel = "largest |difference|, nats" }
  local report, name = report_of("drift_by_position", spec)
  if report then
    local one = { name = name, x = {}, y = {} }
    for i, bin in ipairs(report.positions) do one.x[i], one.y[i] = bin.first, bin.max end
    return drawn_as("lines", spec, looks, { one })
  end
  local series = {}
  for s, given in ipairs(tokens("drift_by_position", spec)) do
    local largest = {}
    for _, token in ipairs(given.tokens) do
      local d = token.value == token.reference and 0 or math.abs(token.value - token.reference)
      local before = largest[token.position]
      -- A NaN is kept, which means that the position cannot be drawn.
      if before == nil or d > before or d ~= d then largest[token.position] = d end
    end
    local x, y = {}, {}
    for position in pairs(largest) do x[#x + 1] = position end
    table.sort(x)
    for i, position in ipairs(x) do y[i] = largest[position] end
    series[s] = { name = given.name, x = x, y = y }
  end
  return drawn_as("lines", spec, looks, series)
end)

-- Bins of ULPs: 0, 1, 2, 3 to 4, 5 to 8, ...; returns bin b and its label, the largest distance in
-- it.
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

--- Draws how many tokens are how many ULPs away from the reference: 0, 1, 2, 3 to 4, 5 to 8, and so
-- on. A bar's label is the largest distance that it stands for.
-- @tparam table spec as for `drift_by_position`
-- @treturn string as `draw`
M.ulp_histogram = misuse.guard(function(spec)
  local looks = { title = "distance from the reference", ylabel = "tokens",
                 xlabel = "ULPs, at most" }
  local report, name = report_of("ulp_histogram", spec)
  if report then
    local one = { name = name, x = {}, y = {} }
    for i, bucket in ipairs(report.ulps.histogram) do
      one.x[i], one.y[i] = bin_label(bin_of(bucket.high)), bucket.count
    end
    return drawn_as("histogram", spec, looks, { one })
  end
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
  return drawn_as("histogram", spec, looks, series)
end)

--- Draws how far importance ratios, e^(logprob - reference), are from 1, against the reference's
-- logprobs.
-- @tparam table spec as for `drift_by_position`; the reference is the policy that sampled
-- @treturn string as `draw`
M.ratio_scatter = misuse.guard(function(spec)
  local looks = { title = "importance ratios", ylabel = "ratio - 1",
                 xlabel = "logprob of the sampling policy" }
  local report, name = report_of("ratio_scatter", spec)
  if report then
    local one = { name = name, x = {}, y = {} }
    for i, token in ipairs(report.sample) do
      one.x[i], one.y[i] = token[2], off_ratio(token[2], token[3])
    end
    return drawn_as("scatter", spec, looks, { one })
  end
  local series = {}
  for s, given in ipairs(tokens("ratio_scatter", spec)) do
    local x, y = {}, {}
    for i, token in ipairs(given.tokens) do
      x[i], y[i] = token.reference, off_ratio(token.reference, token.value)
    end
    series[s] = { name = given.name, x = x, y = y }
  end
  return drawn_as("scatter", spec, looks, series)
end)

local CURVE_FIELDS = with_looks { steps = true, curves = true, smooth = true }

-- The mean of runs at each step, and the least and greatest value there.
local function mean_of_runs(where, runs)
  if type(runs) ~= "table" or #runs == 0 then raise("%s.runs: expected a list of runs", where) end
  local mean, low, high = {}, {}, {}
  for r, run in ipairs(runs) do
    local y = drawing.numbers(("%s.runs[%d]"):format(where, r - 1), run)
    if r > 1 and #y ~= #mean then
      raise("%s.runs[%d]: %d steps, but run 0 has %d", where, r - 1, #y, #mean)
    end
    for i, v in ipairs(y) do
      mean[i] = (mean[i] or 0) + v / #runs
      low[i], high[i] = math.min(low[i] or v, v), math.max(high[i] or v, v)
    end
  end
  return mean, low, high
end

--- Draws curves over the steps of a training run.
-- @tparam table spec `curves`: a list of { name = , y = }, one number per step; or, in place of y,
-- runs = { y, y, ... }: their mean is drawn over the band from the least to the greatest, and the
-- legend gives their number; `steps`: their numbers, 0, 1, ... by default; `smooth`: the number of
-- steps of a running mean; and the fields of `draw` except kind and series
-- @treturn string as `draw`
M.training = misuse.guard(function(spec)
  check_fields("training", spec, CURVE_FIELDS)
  if type(spec.curves) ~= "table" or #spec.curves == 0 then
    raise "training: curves: expected a list of { name =, y = }"
  end
  local series = {}
  for s, curve in ipairs(spec.curves) do
    local where = ("training: curves[%d]"):format(s - 1)
    check_fields(where, curve, { name = true, y = true, runs = true })
    series[s] = { name = curve.name, x = spec.steps, y = curve.y, smooth = spec.smooth }
    if curve.runs ~= nil then
      if curve.y ~= nil then raise("%s: y: given beside runs", where) end
      local one = series[s]
      one.y, one.low, one.high = mean_of_runs(where, curve.runs)
      one.name = ("%s (%d runs)"):format(curve.name or "mean", #curve.runs)
    end
  end
  return drawn_as("lines", spec, { xlabel = "step" }, series)
end)

return M
