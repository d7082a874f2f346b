--- Makes one plot from the table that `draw` of plot.lua documents: checks it, finds what can be
-- drawn, and draws it in characters, or by gnuplot to a file.

local file = require "samebits.io.file"
local gnuplot = require "samebits.plot.gnuplot"
local misuse = require "samebits.misuse"
local scale = require "samebits.plot.scale"
local script = require "samebits.plot.script"
local tensor = require "samebits.tensor"
local terminal = require "samebits.plot.terminal"

local raise = misuse.raise

local M = {}

local FIELDS = {
  kind = true, title = true, xlabel = true, ylabel = true, logx = true, logy = true, logz = true,
  series = true, z = true, mask = true, out = true, width = true, height = true, color = true,
  unicode = true,
}
local SERIES_FIELDS = { name = true, x = true, y = true, mask = true, low = true, high = true,
                        smooth = true }
local KINDS = { lines = true, histogram = true, scatter = true, heatmap = true }

local COLUMNS, LINES = 78, 24   -- of a plot in characters

local function check_fields(what, value, known)
  if type(value) ~= "table" or tensor.is_tensor(value) then
    raise("%s: expected a table, got %s", what, misuse.kind(value))
  end
  for key in pairs(value) do
    if not known[key] then raise("%s: unknown field '%s'", what, tostring(key)) end
  end
end

local function check_text(what, value)
  if value ~= nil and type(value) ~= "string" then
    raise("%s: expected a string, got %s", what, misuse.kind(value))
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
    raise("%s: expected a list of numbers or a tensor, got %s", what, misuse.kind(value))
  end
  for i, v in ipairs(value) do
    if type(v) ~= "number" then raise("%s[%d] is %s, not a number", what, i - 1, misuse.kind(v)) end
  end
  return value
end

local function is_finite(v) return v - v == 0 end

-- A list of n booleans or numbers, from a list or a tensor; nil for nil.
local function flags(what, value, n)
  if value == nil then return nil end
  if tensor.is_tensor(value) then value = value:reshape(-1):totable() end
  if type(value) ~= "table" or #value ~= n then
    raise("%s: expected %d values, as many as of y", what, n)
  end
  return value
end

local function is_off(mask, i) return mask and (mask[i] == 0 or mask[i] == false) end

-- Running means of the n values around each, of those that can be drawn. (A mean of earlier values
-- would lag behind.)
local function smoothed(xs, ys, n)
  local out = {}
  for i = 1, #xs do
    local sum, count = 0, 0
    for k = i - math.floor((n - 1) / 2), i + math.floor(n / 2) do
      if xs[k] then sum, count = sum + ys[k], count + 1 end
    end
    out[i] = count > 0 and sum / count or 0
  end
  return out
end

-- The points of a series: x[i] is false for values that cannot be drawn, because they are not
-- finite or, on a logarithmic axis, not above 0. They leave a gap, and the legend gives their
-- number. Values outside the mask only leave a gap.
local function points(where, series, spec)
  check_fields(where, series, SERIES_FIELDS)
  check_text(where .. ".name", series.name)
  local y, x = numbers(where .. ".y", series.y), nil
  if series.x ~= nil and spec.kind ~= "histogram" then
    x = numbers(where .. ".x", series.x)
    if #x ~= #y then raise("%s: %d values of x, but %d of y", where, #x, #y) end
  end
  local mask = flags(where .. ".mask", series.mask, #y)
  local made = { x = {}, y = {}, lines = {}, drawn = 0, missing = 0, smooth = series.smooth }
  for i, v in ipairs(y) do
    local u = x and x[i] or i - 1
    made.y[i] = v
    if is_off(mask, i) then
      made.x[i] = false
    elseif is_finite(u) and is_finite(v) and not (spec.logx and u <= 0) and
           not (spec.logy and v <= 0) then
      made.x[i] = u
      made.drawn = made.drawn + 1
    else
      made.x[i] = false
      made.missing = made.missing + 1
    end
  end
  if series.smooth ~= nil then
    if type(series.smooth) ~= "number" or series.smooth < 1 or series.smooth % 1 ~= 0 then
      raise("%s.smooth: expected a number of points, got %s", where, tostring(series.smooth))
    end
    -- A band shows by itself how the values vary.
    if series.low == nil then
      made.raw, made.raw_y = {}, made.y
      for i, u in ipairs(made.x) do
        made.raw[i] = u and ("%.17g %.17g"):format(u, made.y[i]) or "NaN NaN"
      end
    end
    made.y = smoothed(made.x, made.y, series.smooth)
  end
  for i, u in ipairs(made.x) do
    made.lines[i] = u and ("%.17g %.17g"):format(u, made.y[i]) or "NaN NaN"
  end
  if series.low ~= nil or series.high ~= nil then
    local low, high = numbers(where .. ".low", series.low), numbers(where .. ".high", series.high)
    if #low ~= #y or #high ~= #y then
      raise("%s: %d values of low and %d of high, but %d of y", where, #low, #high, #y)
    end
    if series.smooth then
      low, high = smoothed(made.x, low, series.smooth), smoothed(made.x, high, series.smooth)
    end
    made.low, made.high, made.band = low, high, {}
    for i, u in ipairs(made.x) do
      made.band[i] = u and is_finite(low[i]) and is_finite(high[i]) and
                     ("%.17g %.17g %.17g"):format(u, low[i], high[i]) or "NaN NaN NaN"
    end
  end
  return made
end

-- Finds curves that lie on earlier ones, at half of their points or more.
local function find_coincident(drawn, given)
  for s, series in ipairs(drawn) do
    for t = 1, s - 1 do
      local other, same = drawn[t], 0
      for i = 1, #series.x do
        if series.x[i] and series.x[i] == other.x[i] and series.y[i] == other.y[i] then
          same = same + 1
        end
      end
      if not series.over and same > 0 and 2 * same >= series.drawn then
        series.over, other.under = t, true
        series.equals = same == series.drawn and same == other.drawn and given[t].name or nil
      end
    end
  end
end

local function label_of(series, name)
  local label = name or ""
  if series.equals then label = ("%s (= %s)"):format(label, series.equals) end
  if series.missing > 0 then label = ("%s (%d not drawable)"):format(label, series.missing) end
  return label
end

-- The ranges of both axes: those of the data.
local function axes_of(drawn, spec)
  local low, high = { x = math.huge, y = math.huge }, { x = -math.huge, y = -math.huge }
  local function take(name, v)
    if is_finite(v) and not (spec["log" .. name] and v <= 0) then
      low[name], high[name] = math.min(low[name], v), math.max(high[name], v)
    end
  end
  for _, series in ipairs(drawn) do
    for i = 1, #series.x do
      if series.x[i] then
        take("x", series.x[i])
        take("y", series.y[i])
        if series.raw_y then take("y", series.raw_y[i]) end
        if series.low then
          take("y", series.low[i])
          take("y", series.high[i])
        end
      end
    end
  end
  return { x = { scale.range(low.x, high.x, spec.logx) },
           y = { scale.range(low.y, high.y, spec.logy) } }
end

-- The labels below a histogram's bars, which all its series share.
local function bar_labels(spec)
  local first, labels = spec.series[1].x, {}
  for s, series in ipairs(spec.series) do
    local x, where = series.x, ("draw: series[%d]"):format(s - 1)
    if type(x) ~= "table" then
      raise("%s.x: a histogram needs a list, got %s", where, misuse.kind(x))
    end
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
  for i, label in ipairs(first) do
    labels[i] = type(label) == "number" and ("%.6g"):format(label) or label
  end
  return labels
end

-- The values of a heatmap: `at(row, column)` is nil where nothing is drawn.
local function grid_of(spec)
  local z = spec.z
  if not tensor.is_tensor(z) then
    if type(z) ~= "table" then
      raise("draw: z: expected a tensor or lists, got %s", misuse.kind(z))
    end
    z = tensor.tensor(z, { dtype = "float64" })
  end
  if z.ndim ~= 2 then raise("draw: z: a tensor of %d dimensions, not 2", z.ndim) end
  local mask = spec.mask
  if mask ~= nil and not tensor.is_tensor(mask) then mask = tensor.tensor(mask) end
  if mask and not tensor.layout.same(mask.shape, z.shape) then
    raise("draw: mask: shape %s, z has %s", tensor.layout.text(mask.shape),
          tensor.layout.text(z.shape))
  end
  local values, flag = z:totable(), mask and mask:totable()
  local grid = { rows = z.shape[1], columns = z.shape[2], low = math.huge, high = -math.huge }
  function grid.at(r, c)
    local v = values[r + 1][c + 1]
    if type(v) == "boolean" then v = v and 1 or 0 else v = tonumber(v) end
    if is_off(flag and flag[r + 1], c + 1) or not is_finite(v) or spec.logz and v <= 0 then
      return nil
    end
    return v
  end
  for r = 0, grid.rows - 1 do
    for c = 0, grid.columns - 1 do
      local v = grid.at(r, c)
      if v then grid.low, grid.high = math.min(grid.low, v), math.max(grid.high, v) end
    end
  end
  return grid, grid.low <= grid.high
end

-- What there is to draw; and whether there is anything.
local function prepare(spec)
  if spec.kind == "heatmap" then
    local grid, any = grid_of(spec)
    return { grid = grid }, any
  end
  local drawn, any = {}, 0
  for s, series in ipairs(spec.series) do
    drawn[s] = points(("draw: series[%d]"):format(s - 1), series, spec)
    any = any + drawn[s].drawn
  end
  if spec.kind ~= "histogram" then find_coincident(drawn, spec.series) end
  for s, series in ipairs(drawn) do series.label = label_of(series, spec.series[s].name) end
  local labels = spec.kind == "histogram" and bar_labels(spec) or nil
  return { drawn = drawn, labels = labels, axes = any > 0 and axes_of(drawn, spec) }, any > 0
end

local function check(spec)
  check_fields("draw", spec, FIELDS)
  if not KINDS[spec.kind] then
    raise("draw: kind: expected \"lines\", \"histogram\", \"scatter\" or \"heatmap\", got %s",
          tostring(spec.kind))
  end
  for _, name in ipairs { "title", "xlabel", "ylabel" } do
    check_text("draw: " .. name, spec[name])
  end
  if spec.kind == "histogram" and spec.logx then raise "draw: logx: a histogram's x are labels" end
  if spec.kind == "heatmap" then
    if spec.series ~= nil then raise "draw: series: a heatmap has z" end
  elseif type(spec.series) ~= "table" or #spec.series == 0 then
    raise "draw: series: expected a list of { name =, x =, y = }"
  elseif spec.mask ~= nil then
    raise "draw: mask: is a heatmap's; each of the series has its own"
  end
end

-- The kind of terminal for the name of a file; nil without one.
local function terminal_of(out)
  if out == nil then return nil end
  file.check_path("draw", out)
  local found = script.TERMINALS[(out:match "%.(%w+)$" or ""):lower()]
  if not found then raise("draw: out: %s ends in neither .png nor .svg", out) end
  return found
end

-- Whether the environment says that text is UTF-8.
local function is_unicode()
  for _, name in ipairs { "LC_ALL", "LC_CTYPE", "LANG" } do
    local value = os.getenv(name)
    if value and value ~= "" then return value:lower():find "utf%-?8" ~= nil end
  end
  return false
end

local function draw(spec)
  check(spec)
  local picture_kind = terminal_of(spec.out)
  local default = picture_kind or { COLUMNS, LINES }
  local width = check_size("width", spec.width, default[1])
  local height = check_size("height", spec.height, default[2])
  local prepared, any = prepare(spec)
  if not any then
    return nil, ("plot: none of the values can be drawn%s"):format(
      (spec.logx or spec.logy or spec.logz) and " (a logarithmic axis shows what is above 0)" or "")
  end
  if not picture_kind then
    local unicode = spec.unicode
    if unicode == nil then unicode = is_unicode() end
    return terminal.draw(spec, prepared, { unicode = unicode, color = spec.color == true }, width,
                         height)
  end
  local picture, message = gnuplot.run(script.write(spec, prepared, picture_kind, width, height))
  if not picture then return nil, message end
  local ok, why = file.write(spec.out, { picture })
  if not ok then return nil, why end
  return spec.out
end

M.draw, M.check_fields, M.numbers = draw, check_fields, numbers

return M
