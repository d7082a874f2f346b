--- Plots as SVG, for a page whose style sheet colours them by class. Ratios stand on a log axis
-- that is mirrored at 1, so that both tails can be read.

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
  local step, left = 20, labels * 8 + 12
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

-- The axis of log ratios: mirrored decades of |log ratio|, from 10^low to 10^high nats, and between
-- them a gap for what is smaller. place(d) returns where a log ratio stands, from -1 to 1.
local function mirrored(low, high, gap)
  return function(d)
    if d == 0 then return 0 end
    local size = math.log10(math.abs(d))
    local t = math.max(0, math.min(1, (size - low) / (high - low)))
    return (d < 0 and -1 or 1) * (gap + (1 - gap) * t)
  end
end

-- The text of a power of ten.
local function decade(e) return e >= 0 and e <= 2 and ("%d"):format(10 ^ e) or "1e" .. e end

-- The decades that a mirrored axis names: all, or every other one where there are many.
local function decades(low, high)
  local step, out = high - low > 7 and 2 or 1, {}
  for e = high, low + 1, -step do out[#out + 1] = e end
  return out
end

-- Where the clips lie, as log ratios: { d, text }.
local function clip_lines(clips)
  local out = {}
  for _, clip in ipairs(clips) do
    out[#out + 1] = { math.log(1 - clip.eps), words.number(clip.eps) }
    out[#out + 1] = { math.log(1 + clip.eps), words.number(clip.eps) }
  end
  return out
end

local GAP = 0.06

-- The decades that hold all buckets with tokens; nil if there are none.
local function span(tails)
  local low, high
  for _, list in ipairs { tails.below, tails.above } do
    for i, bucket in ipairs(list) do
      if bucket.count > 0 then
        local from = i == 1 and bucket.high or bucket.low
        local to = bucket.high == math.huge and 10 * bucket.low or bucket.high
        low, high = math.min(low or from, from), math.max(high or to, to)
      end
    end
  end
  if not low then return nil end
  local first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
  return first, math.max(last, first + 2)
end

--- Returns both tails of the log ratio: bars of tokens on a log axis, ratios below 1 to the left,
-- above 1 to the right, equal ones between them; lines where clips lie, and the noise floor shaded.
-- Returns nil if all ratios are 1.
-- @tparam table tails histograms (tails.lua)
-- @tparam table clips
-- @tparam number floor nats
-- @tparam string title
function M.tails(tails, clips, floor, title)
  local low, high = span(tails)
  if not low then return nil end
  local plot = new(WIDTH, HEIGHT, title)
  local above = 32 -- for the clips' texts
  local wide, tall = WIDTH - LEFT - RIGHT, HEIGHT - above - BOTTOM
  local middle, place = LEFT + wide / 2, mirrored(low, high, GAP)
  local function x_of(d) return middle + place(d) * wide / 2 end
  local most = tails.same
  for _, list in ipairs { tails.below, tails.above } do
    for _, bucket in ipairs(list) do most = math.max(most, bucket.count) end
  end
  local top = math.max(1, math.ceil(math.log10(most + 1)))
  local function y_of(n)
    return above + tall * (1 - math.log10(n + 1) / math.log10(10 ^ top + 1))
  end
  if floor > 10 ^ low then
    plot.add('<rect x="%.1f" y="%d" width="%.1f" height="%d" class="floor"/>', x_of(-floor), above,
             x_of(floor) - x_of(-floor), tall)
  end
  for e = 0, top do
    plot.add('<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" class="grid"/>', LEFT, WIDTH - RIGHT,
             y_of(10 ^ e), y_of(10 ^ e))
    plot.text(LEFT - 8, y_of(10 ^ e) + 4, "end", words.count(10 ^ e))
  end
  local function bar(from, to, n, what)
    if n == 0 then return end
    plot.add('<g><title>%s: %s tokens</title><rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" ' ..
             'class="mark"/></g>', page.escape(what), words.count(n), from + 0.5, y_of(n),
             math.max(to - from - 1, 1), y_of(0) - y_of(n))
  end
  for sign, list in pairs { [-1] = tails.below, [1] = tails.above } do
    for i, bucket in ipairs(list) do
      local from = i == 1 and 10 ^ low or bucket.low
      local to = bucket.high == math.huge and 10 ^ high or bucket.high
      local x, y = x_of(sign * from), x_of(sign * to)
      if i == 1 then x = middle + sign * wide / 2 * GAP end
      bar(math.min(x, y), math.max(x, y), bucket.count,
          ("log ratio %s %s to %s nats"):format(sign < 0 and "-" or "+", words.number(bucket.low),
                                               words.number(bucket.high)))
    end
  end
  local half = wide / 2 * GAP
  bar(middle - half * 0.7, middle + half * 0.7, tails.same, "ratio 1")
  for i, line in ipairs(clip_lines(clips)) do
    local size = math.abs(line[1])
    if size > 10 ^ low and size < 10 ^ high then
      plot.add('<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" class="band"/>', x_of(line[1]),
               x_of(line[1]), above - 4 - 14 * (math.ceil(i / 2) % 2), above + tall)
      plot.text(x_of(line[1]), above - 7 - 14 * (math.ceil(i / 2) % 2), "middle faint", line[2])
    end
  end
  for _, e in ipairs(decades(low, high)) do
    for _, sign in ipairs { -1, 1 } do
      plot.text(x_of(sign * 10 ^ e), HEIGHT - BOTTOM + 18, "middle",
                (sign < 0 and "-" or "") .. decade(e))
    end
  end
  plot.text(middle, HEIGHT - BOTTOM + 18, "middle", "0")
  plot.add('<line x1="%d" x2="%d" y1="%d" y2="%d" class="axis"/>', LEFT, WIDTH - RIGHT,
           HEIGHT - BOTTOM, HEIGHT - BOTTOM)
  plot.text(middle, HEIGHT - 6, "middle faint", "log of the ratio of B to A, nats")
  plot.add('<text transform="translate(12 %.1f) rotate(-90)" class="middle faint">tokens</text>',
           above + tall / 2)
  return plot.done()
end

--- Returns a plot of tokens: the logprob in A against the ratio of B to A, on a log axis with both
-- tails; equal ones stand in the middle.
function M.ratios(sample, title)
  local plot = new(WIDTH, HEIGHT, title)
  local left, low, high = -1e-3, math.huge, -math.huge
  for _, token in ipairs(sample) do
    left = math.min(left, token[2])
    local size = math.abs(token[3] - token[2])
    if size > 0 then low, high = math.min(low, size), math.max(high, size) end
  end
  if high < 0 then low, high = 1e-7, 1e-5 end
  low = math.max(math.floor(math.log10(low)), -10)
  high = math.max(math.ceil(math.log10(high)), low + 2)
  local wide, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
  local place = mirrored(low, high, GAP)
  local function y_of(d) return TOP + tall / 2 * (1 - place(d)) end
  left = left * 1.03
  local function x_of(x) return LEFT + (x - left) / -left * wide end
  for _, e in ipairs(decades(low, high)) do
    for _, sign in ipairs { -1, 1 } do
      local y = y_of(sign * 10 ^ e)
      plot.add('<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" class="grid"/>', LEFT, WIDTH - RIGHT, y,
               y)
      plot.text(LEFT - 8, y + 4, "end", (sign < 0 and "-" or "+") .. decade(e))
    end
  end
  plot.add('<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" class="axis"/>', LEFT, WIDTH - RIGHT, y_of(0),
           y_of(0))
  plot.text(LEFT - 8, y_of(0) + 4, "end", "0")
  for _, x in ipairs(ticks(left, 0, 8)) do
    plot.text(x_of(x), HEIGHT - BOTTOM + 18, "middle", tick_text(x))
  end
  plot.text(LEFT + wide / 2, HEIGHT - 6, "middle faint", "logprob in A")
  plot.add('<text transform="translate(12 %.1f) rotate(-90)" class="middle faint">log ratio, ' ..
           'nats</text>', TOP + tall / 2)
  -- One path, because it takes a fifth of the bytes of circles.
  local dots = {}
  for i, token in ipairs(sample) do
    dots[i] = ("M%.0f %.0fh0"):format(x_of(math.min(token[2], 0)), y_of(token[3] - token[2]))
  end
  plot.add('<path d="%s" class="dots"/>', table.concat(dots))
  return plot.done()
end

return M
