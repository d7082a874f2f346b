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

describe("a plot", function()
  it("of a terminal is its text without the margins", function()
    picture = "\n\n  |  *   \n  +---  \n\n  "
    assert.equal("  |  *\n  +---\n", (guarded(LINES)))
    refusal.says(script, "set terminal dumb nofeed noenhanced mono size 78,24\n",
                 "\n$s1 << END\n0 1\n1 2\nEND\n",
                 "\nplot $s1 using 1:2 with linespoints linewidth 2 title 'one'\n")
  end)

  it("goes to a file of the kind that its name ends in", function()
    picture = "<svg/>"
    local out = files:path "a.SVG"
    assert.equal(out, (guarded(with(LINES, { out = out, width = 100, height = 50 }))))
    assert.equal("<svg/>", files:read "a.SVG")
    refusal.says(script, "set terminal svg noenhanced size 100,50 background 'white'\n")
  end)

  it("leaves gaps for what cannot be drawn, and counts it", function()
    guarded { kind = "scatter", logx = true, title = "a'b", series = {
      { x = samebits.tensor { 0, 1, 2 }, y = { 1, 0 / 0, 0.1 } }, { name = "none", y = { 1 } } } }
    refusal.says(script, "set title 'a''b'\n", "set logscale x\n",
                 "\nNaN NaN\nNaN NaN\n2 0.10000000000000001\nEND\n",
                 "plot $s1 using 1:2 with points title ' (2 not drawable)', " ..
                 "NaN with lines title 'none (1 not drawable)'\n")
    assert.equal("plot: none of the values can be drawn (a logarithmic axis shows what is above 0)",
                 refusal.message(guarded(with(LINES, { logy = true, series = { { y = { 0 } } } }))))
  end)

  it("is nil and gnuplot's message where gnuplot fails", function()
    picture, complaint = nil, "gnuplot failed: no display"
    assert.equal(complaint, refusal.message(guarded(LINES)))
  end)

  it("of bars has one list of labels", function()
    guarded { kind = "histogram", series = { { x = { "5%", 2 }, y = { 3, 4 } } } }
    refusal.says(script, "set xtics ('5%%' 0, '2' 1)\n", "set yrange [0:*]\n",
                 "plot $s1 using 2 with histograms title '* '\n")
    assert.equal("draw: series[1].x[1] is 3, in series[0] it is 2: bars stand at the same places",
      refusal.misuse(guarded, { kind = "histogram", series = {
        { x = { 1, 2 }, y = { 3, 4 } }, { x = { 1, 3 }, y = { 3, 4 } } } }))
  end)

  it("is refused with fields that it cannot have", function()
    local function refused(change, message)
      assert.equal("draw: " .. message, refusal.misuse(guarded, with(LINES, change)))
    end
    refused({ kind = "pie" }, 'kind: expected "lines", "histogram" or "scatter", got pie')
    refused({ colour = 1 }, "unknown field 'colour'")
    refused({ series = { { x = { 1 }, y = { 1, 2 } } } }, "series[0]: 1 values of x, but 2 of y")
    refused({ series = { { y = { 1, "2" } } } }, "series[0].y[1] is string, not a number")
    refused({ width = 7 }, "width: 7 is no integer from 8 to 16384")
    refused({ out = "a.pdf" }, "out: a.pdf ends in neither .png nor .svg")
  end)
end)
