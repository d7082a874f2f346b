-- samebits.drift.svg: which marks the plots hold, where they stand, and that texts are escaped.

local svg = require "samebits.drift.svg"
local tails = require "samebits.drift.tails"

local function count(text, pattern) return select(2, text:gsub(pattern, "")) end

-- An attribute of each element of a class, as numbers.
local function attribute(text, element, class, name)
  local out = {}
  for tag in text:gmatch("<" .. element .. " [^>]*>") do
    if tag:find(('class="%s"'):format(class), 1, true) then
      out[#out + 1] = tonumber(tag:match(" " .. name .. '="([^"]*)"'))
    end
  end
  return out
end

describe("a drawing", function()
  it("of bars has lengths in proportion, and none for a row without a count", function()
    local text = svg.bars({ { "<b>", 2000 }, { "..." }, { "c", 1000 }, { "d", 0 } }, "A & B")
    local lengths = attribute(text, "rect", "mark", "width")
    assert.equal(2, #lengths)
    assert.equal(lengths[1], 2 * lengths[2])
    assert.matches('aria%-label="A &amp; B"', text)
    assert.matches(">&lt;b&gt;</text>", text)
    assert.matches('class="value">2000</text>', text)
    assert.matches('class="faint">0</text>', text)
    assert.matches('viewBox="0 0 640 84"', text)
    assert.equal(7, count(text, "<text "))
  end)

  it("of a count far below the largest still shows a bar", function()
    assert.equal(2, attribute(svg.bars({ { "a", 1e9 }, { "b", 1 } }, "t"), "rect", "mark",
                              "width")[2])
  end)

  it("of positions has a bar up to the mean in one up to the maximum", function()
    local text = svg.positions({
      { first = 0, last = 3, compared = 8, different = 2, mean = 0.25, max = 1 },
      { first = 4, last = 7, compared = 8, different = 0, mean = 0, max = 0 },
    }, "t")
    local most, mean = attribute(text, "rect", "soft", "height"),
                       attribute(text, "rect", "mark", "height")
    assert.equal(2, #most)
    assert.near(most[1] / 4, mean[1], 0.1)
    assert.same({ 0, 0 }, { most[2], mean[2] })
    -- Both stand on the axis.
    local top, middle = attribute(text, "rect", "soft", "y"), attribute(text, "rect", "mark", "y")
    assert.near(236, top[1] + most[1], 0.11)
    assert.near(236, middle[1] + mean[1], 0.11)
    assert.matches("<title>positions 0 to 3: mean 0.25, largest 1; 2 of 8 tokens differ</title>",
                   text)
  end)

  it("of ratios puts tokens on a log axis with both tails", function()
    local text = svg.ratios({ { 0, -1, -1 }, { 1, -2, -2 + 1e-3 }, { 2, -3, -3 - 1e-3 },
                              { 3, -4, -4 + 1e-5 }, { 4, -5, -4 } }, "t")
    local x, y = {}, {}
    for left, top in text:match 'd="(.-)" class="dots"':gmatch "M(%d+) (%d+)h0" do
      x[#x + 1], y[#y + 1] = tonumber(left), tonumber(top)
    end
    assert.equal(5, #x)
    assert.is_true(x[1] > x[2] and x[2] > x[5])
    assert.is_true(y[5] < y[2] and y[2] < y[4] and y[4] < y[1] and y[1] < y[3])
    assert.near(y[1] - y[2], y[3] - y[1], 1) -- the tails are mirrored
    assert.matches(">%+1e%-2</text>", text)
    assert.matches(">%-1e%-2</text>", text)
  end)

  it("of ratios that are all 1 has them in the middle", function()
    assert.matches("M%d+ 124h0", svg.ratios({ { 0, -1, -1 }, { 1, -2, -2 } }, "t"))
  end)

  it("of tails has a bar on each side, what is equal between them, clips and the floor", function()
    local t = tails.new()
    for _, d in ipairs { 0, 0, 0.3, -0.3, -0.3, 1e-6 } do t:add(d, math.exp(d)) end
    local text = svg.tails(t:histogram(), t.clips, 1e-4, "t")
    local x = attribute(text, "rect", "mark", "x")
    assert.equal(4, #x)
    assert.equal(6, count(text, 'class="band"'))
    assert.equal(1, #attribute(text, "rect", "floor", "x"))
    assert.matches("<title>log ratio %- 0.1 to 0.316 nats: 2 tokens</title>", text)
    assert.matches("<title>ratio 1: 2 tokens</title>", text)
    assert.is_nil(svg.tails(tails.new():histogram(), t.clips, 1e-4, "t"))
  end)
end)
