-- One plot: the script that is made of it, where the picture goes, and what is refused.

local drawing = require "samebits.plot.draw"
local gnuplot = require "samebits.plot.gnuplot"
local misuse = require "samebits.misuse"
local samebits = require "samebits"
local refusal = require "spec.support.refusal"
local temporary = require "spec.support.temporary"
local with = require "spec.support.with"

local guarded = misuse.guard(drawing.draw)
local run, script, picture, complaint = gnuplot.run, nil, nil, nil

local files
setup(function()
  files = temporary.folder()
  function gnuplot.run(text)  -- nothing is drawn
    script = text
    return picture, complaint
  end
end)
teardown(function()
  gnuplot.run = run
  files:remove()
end)
before_each(function() script, picture, complaint = nil, "", nil end)

local LINES = { kind = "lines", series = { { name = "one", y = { 1, 2 } } } }

-- The script of a plot.
local function scripted(spec)
  guarded(with(spec, { out = files:path "any.svg" }))
  return script
end

describe("a plot", function()
  it("without a file is drawn in characters, without gnuplot", function()
    local text = guarded(with(LINES, { unicode = false, width = 20, height = 8 }))
    assert.is_nil(script)
    refusal.says(text, " one\n", "2 +", "*\n")
    local colored = guarded(with(LINES, { unicode = true, color = true }))
    refusal.says(colored, "\27[38;5;33m")
    for line in (colored:gsub("\27%[[%d;]*m", "") .. "\n"):gmatch "(.-)\n" do
      assert.is_true(select(2, line:gsub("[^\128-\191]", "")) <= 78)
    end
  end)

  it("has marks such as 1e-7, and the range of its data", function()
    local text = scripted { kind = "lines", logy = true, series = { { y = { 1e-7, 1e-4 } } } }
    refusal.says(text, "set logscale y\n", "'1e-7' ", "'1e-6' ", "'1e-5' ", "'1e-4' ")
    local low, high = text:match "set yrange %[([%d.e+-]+):([%d.e+-]+)%]"
    assert.is_true(tonumber(low) > 5e-8 and tonumber(low) < 1e-7)
    assert.is_true(tonumber(high) > 1e-4 and tonumber(high) < 2e-4)
  end)

  it("shows curves that coincide, and says so", function()
    local y = { 1, 2, 3, 4 }
    local text = scripted { kind = "lines", series = {
      { name = "a", y = y }, { name = "b", y = y }, { name = "c", y = { 1, 2, 0, 0 } },
      { name = "d", y = { 5, 6, 7, 8 } } } }
    refusal.says(text, "linecolor rgb '#702a78d6' linewidth 7 title 'a'",
                 "linewidth 2 dashtype (12,10) title 'b (= a)'",
                 "linewidth 2 dashtype (12,10) title 'c'", "linewidth 2 title 'd'")
  end)

  it("leaves out what is masked, and does not count it", function()
    local text = scripted { kind = "lines", series = {
      { name = "a", y = { 1, 0 / 0, 3 }, mask = { 1, 0, 1 } },
      { name = "b", y = { 1, 2, 9 }, mask = samebits.tensor({ true, true, false },
                                                            { dtype = "bool" }) } } }
    refusal.says(text, "\n0 1\nNaN NaN\n2 3\nEND", "title 'a'", "\n0 1\n1 2\nNaN NaN\nEND")
    assert.equal("draw: series[0].mask: expected 1 values, as many as of y",
      refusal.misuse(guarded, { kind = "lines", series = { { y = { 1 }, mask = { 1, 1 } } } }))
  end)

  it("of two dimensions is a heatmap", function()
    local z = samebits.tensor { { 1, 2 }, { 0 / 0, 4 } }
    local text = scripted { kind = "heatmap", z = z, mask = { { 1, 1 }, { 1, 0 } } }
    refusal.says(text, "$z << END\n1 2\nNaN NaN\nEND\nplot $z matrix with image\n",
                 "set cbrange [1:2]", "set yrange [1.5:-0.5]")
    assert.equal("draw: z: a tensor of 1 dimensions, not 2",
                 refusal.misuse(guarded, { kind = "heatmap", z = z[0] }))
    assert.equal("draw: mask: shape [2], z has [2, 2]",
                 refusal.misuse(guarded, { kind = "heatmap", z = z, mask = { 1, 1 } }))
    assert.is_nil((guarded { kind = "heatmap", z = { { 0 / 0 } } }))
  end)

  it("goes to a file of the kind that its name ends in", function()
    picture = "<svg/>"
    local out = files:path "a.SVG"
    assert.equal(out, (guarded(with(LINES, { out = out, width = 100, height = 50 }))))
    assert.equal("<svg/>", files:read "a.SVG")
    refusal.says(script, "set terminal svg noenhanced size 100,50 font 'sans-serif,14' ",
                 "\n$s1 << END\n0 1\n1 2\nEND\n", "\nplot $s1 using 1:2 with linespoints")
  end)

  it("leaves gaps for what cannot be drawn, and counts it", function()
    scripted { kind = "scatter", logx = true, title = "a'b", series = {
      { x = samebits.tensor { 0, 1, 2 }, y = { 1, 0 / 0, 0.1 } }, { name = "none", y = { 1 } } } }
    refusal.says(script, "set title 'a''b' ", "set logscale x\n",
                 "\nNaN NaN\nNaN NaN\n2 0.10000000000000001\nEND\n",
                 "plot $s1 using 1:2 with points ", " title ' (2 not drawable)', ",
                 "NaN with lines linecolor rgb '#d9692a' title 'none (1 not drawable)'\n")
    assert.equal("plot: none of the values can be drawn (a logarithmic axis shows what is above 0)",
                 refusal.message(guarded(with(LINES, { logy = true, series = { { y = { 0 } } } }))))
  end)

  it("is nil and gnuplot's message where gnuplot fails", function()
    picture, complaint = nil, "gnuplot failed: no display"
    assert.equal(complaint, refusal.message(guarded(with(LINES, { out = files:path "b.svg" }))))
  end)

  it("of bars has one list of labels", function()
    scripted { kind = "histogram", series = { { x = { "5%", 2 }, y = { 3, 4 } } } }
    refusal.says(script, "set xtics ('5%%' 0, '2' 1)\n", "set yrange [0:*]\n",
                 "plot $s1 using 2 with histograms linecolor rgb '#2a78d6' notitle\n")
    assert.equal("draw: series[1].x[1] is 3, in series[0] it is 2: bars stand at the same places",
      refusal.misuse(guarded, { kind = "histogram", series = {
        { x = { 1, 2 }, y = { 3, 4 } }, { x = { 1, 3 }, y = { 3, 4 } } } }))
  end)

  it("is refused with fields that it cannot have", function()
    local function refused(change, message)
      assert.equal("draw: " .. message, refusal.misuse(guarded, with(LINES, change)))
    end
    refused({ kind = "pie" },
            'kind: expected "lines", "histogram", "scatter" or "heatmap", got pie')
    refused({ colour = 1 }, "unknown field 'colour'")
    refused({ series = { { x = { 1 }, y = { 1, 2 } } } }, "series[0]: 1 values of x, but 2 of y")
    refused({ series = { { y = { 1, "2" } } } }, "series[0].y[1] is string, not a number")
    refused({ width = 7 }, "width: 7 is no integer from 8 to 16384")
    refused({ out = "a.pdf" }, "out: a.pdf ends in neither .png nor .svg")
  end)
end)
