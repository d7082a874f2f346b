-- gnuplot's script: gnuplot itself draws one of every kind. What the scripts hold is for draw_spec.

local plot = require "samebits.plot"
local samebits = require "samebits"
local script = require "samebits.plot.script"
local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

describe("the script", function()
  it("is of a known kind of picture", function()
    assert.same({ 960, 600 }, { script.TERMINALS.png[1], script.TERMINALS.svg[2] })
  end)

  it("is drawn by gnuplot, with the theme's colours", function()
    if not shell.has "gnuplot" then return pending "gnuplot is not installed" end
    local files = temporary.folder()
    finally(function() files:remove() end)
    local y = { 1, 2, 4 }
    local out = files:path "a.svg"
    assert(plot.draw { kind = "lines", logy = true, out = out, series = {
      { name = "a", y = y, low = { 0.5, 1, 2 }, high = { 2, 3, 5 }, smooth = 2 },
      { name = "b", y = y } } })
    local svg = files:read "a.svg"
    assert.truthy(svg:find("rgb( 42, 120, 214)", 1, true))
    assert(plot.draw { kind = "heatmap", out = out, z = samebits.tensor { { 1, 2 }, { 3, 0 / 0 } },
                       logz = true, xlabel = "position" })
    assert.truthy(files:read("a.svg"):find("position", 1, true))
    assert(plot.draw { kind = "scatter", out = out, series = { { y = y }, { y = y } } })
    assert(plot.draw { kind = "histogram", logy = true, out = out,
                       series = { { x = y, y = y }, { x = y, y = y } } })
  end)
end)
