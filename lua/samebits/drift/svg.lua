--- Plots as SVG, for a page whose style sheet colours them by class.

local page = require "samebits.text.page"
local words = require "samebits.drift.words"

local M = {}

-- Pixels of a plot; its text is 12 pixels high.
local WIDTH, HEIGHT = 640, 280
local LEFT, RIGHT, TOP, BOTTOM = 64, 12, 12, 44

local function new(width, height, title)
  local parts = {
    ('<svg viewBox="0 0 %d %d" role="img" aria-label="%s">'):format(width, height,
                                                                     page.escape(title)),
  }
  local self = {}
  function self.add(format, ...) parts[#parts + 1] = format:format(...) end
  function self.text(x, y, class, text)
    self.add('<text x="%.1f" y="%.1f" class="%s">%s</text>', x, y, class, page.escape(text))
  end
  function self.done()
    parts[#parts + 1] = "</svg>"
    return table.concat(parts, "\n")
  end
  return self
end

-- Round numbers from low to high, about n of them.
local function ticks(low, high, n)
  local span = high - low
  if span <= 0 then return { low } end
  local step = 10 ^ math.floor(math.log10(span / n))
  for _, factor in ipairs { 1, 2, 5, 10 } do
    if span / (step * factor) <= n then
      step = step * factor
      break
    end
  end
  local out = {}
  for i = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) do
    out[#out + 1] = i * step
  end
  return out
end

-- A tick's text, without the rounding errors that the multiplication of the step left in the last
-- digits.
local function tick_text(x)
  if math.abs(x) < 1e-12 then return "0" end
  return (("%.6g"):format(x):gsub("e([+-])0*", "e%1"))
end

--- Returns horizontal bars: rows are { label, count }, or { label } alone.
function M.bars(rows, title)
  local most, labels = 1, 0
  for _, row in ipairs(rows) do
    most, labels = math.max(most, row[2] or 0), math.max(labels, #row[1])
  end
  local step, left = 20, labels * 7 + 12
  local room = WIDTH - left - 80
  local plot = new(WIDTH, #rows * step + 4, title)
  for i, row in ipairs(rows) do
    local y = (i - 1) * step + 2
    local n = row[2] or 0
    local length = n > 0 and math.max(2, room * n / most) or 0
    plot.text(left - 8, y + 13, "end", row[1])
    if length > 0 then
      plot.add('<rect x="%d" y="%d" width="%.1f" height="%d" rx="2" class="mark"/>', left, y + 2,
               length, step - 6)
    end
    if row[2] then
      plot.text(left + length + 6, y + 13, n > 0 and "value" or "faint", words.count(n))
    end
  end
  return plot.done()
end

-- Axes with grid lines. Returns functions from values to pixels.
local function axes(plot, x_low, x_high, y_low, y_high, x_label, y_label)
  local wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
  local function x_of(x) return LEFT + (x - x_low) / (x_high - x_low) * wide end
  local function y_of(y) return TOP + high - (y - y_low) / (y_high - y_low) * high end
  for _, y in ipairs(ticks(y_low, y_high, 5)) do
    plot.add('<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" class="grid"/>', LEFT, WIDTH - RIGHT,
             y_of(y), y_of(y))
    plot.text(LEFT - 8, y_of(y) + 4, "end", tick_text(y))
  end
  for _, x in ipairs(ticks(x_low, x_high, 8)) do
    plot.text(x_of(x), HEIGHT - BOTTOM + 18, "middle", tick_text(x))
  end
  plot.add('<line x1="%d" x2="%d" y1="%d" y2="%d" class="axis"/>', LEFT, WIDTH - RIGHT,
           HEIGHT - BOTTOM, HEIGHT - BOTTOM)
  plot.text(LEFT + wide / 2, HEIGHT - 6, "middle faint", x_label)
  plot.add('<text transform="translate(12 %.1f) rotate(-90)" class="middle faint">%s</text>',
           TOP + high / 2, page.escape(y_label))
  return x_of, y_of
end

--- Returns a plot by position: bars from 0 to each bin's mean, and a line at its largest value.
function M.positions(bins, title)
  local plot = new(WIDTH, HEIGHT, title)
  local last, top = bins[#bins].last + 1, 0
  for _, bin in ipairs(bins) do top = math.max(top, bin.max) end
  if top == 0 then top = 1 end
  local x_of, y_of = axes(plot, 0, last, 0, top * 1.05, "position in the sequence",
                          "|B - A|, nats")
  for _, bin in ipairs(bins) do
    local left, right = x_of(bin.first), x_of(bin.last + 1)
    local gap = right - left > 4 and 1 or 0
    plot.add('<g><title>positions %d to %d: mean %s, largest %s; %s of %s tokens differ</title>',
             bin.first, bin.last, words.number(bin.mean), words.number(bin.max),
             words.count(bin.different), words.count(bin.compared))
    plot.add('<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" class="soft"/>', left + gap / 2,
             y_of(bin.max), math.max(right - left - gap, 1), y_of(0) - y_of(bin.max))
    plot.add('<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" class="mark"/></g>',
             left + gap / 2, y_of(bin.mean), math.max(right - left - gap, 1),
             y_of(0) - y_of(bin.mean))
  end
  return plot.done()
end

-- The value that a given share of a sorted list does not exceed.
local function quantile(sorted, share)
  return sorted[math.max(1, math.min(#sorted, math.floor(share * #sorted + 0.5)))]
end

--- Returns a plot of tokens: the logprob in A against the ratio of B to A. Tokens outside of the
-- axis are drawn hollow at its edge.
function M.ratios(sample, title)
  local plot = new(WIDTH, HEIGHT, title)
  local low, ratios = -1e-3, {}
  for i, token in ipairs(sample) do
    low = math.min(low, token[2])
    ratios[i] = math.exp(token[3] - token[2])
  end
  local sorted = {}
  for i, ratio in ipairs(ratios) do sorted[i] = math.abs(ratio - 1) end
  table.sort(sorted)
  local furthest = math.max(quantile(sorted, 0.98), 1e-7) * 1.1
  local bottom, top = 1 - furthest, 1 + furthest
  -- If all ratios are close to 1, the axis shows the distance from 1, because six digits are not
  -- enough.
  local fine = furthest < 0.01
  local function y_value(ratio) return fine and ratio - 1 or ratio end
  local margin = furthest * 0.06
  local x_of, y_of = axes(plot, low * 1.03, 0, y_value(bottom) - margin, y_value(top) + margin,
                          "logprob in A", fine and "ratio of B to A, less 1" or "ratio of B to A")
  for _, width in ipairs { 0, 0.001, 0.01, 0.1 } do
    for _, at in ipairs { 1 - width, 1 + width } do
      if at >= bottom and at <= top and (width == 0 or width > furthest / 12) then
        plot.add('<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" class="%s"/>', LEFT, WIDTH - RIGHT,
                 y_of(y_value(at)), y_of(y_value(at)), width == 0 and "axis" or "band")
      end
    end
  end
  for i, token in ipairs(sample) do
    local ratio = ratios[i]
    local shown = math.max(bottom, math.min(top, ratio))
    plot.add('<circle cx="%.1f" cy="%.1f" r="2.5" class="%s"/>', x_of(math.min(token[2], 0)),
             y_of(y_value(shown)), shown == ratio and "dot" or "dot out")
  end
  return plot.done()
end

return M
