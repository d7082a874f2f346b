-- Plots in characters: where curves, bars and cells are, in Unicode and ASCII, with colours.

local drawing = require "samebits.plot.draw"
local terminal = require "samebits.plot.terminal"
local with = require "spec.support.with"

local function drawn(spec) return assert(drawing.draw(with(spec, { unicode = false }))) end

local function columns(text)
  return select(2, text:gsub("\27%[[%d;]*m", ""):gsub("[^\128-\191]", ""))
end

describe("in characters", function()
  it("curves are lines between their points, in the frame", function()
    assert.equal([[
       t
 a
1 +           **
  |       ****
  |   ****
0 +***
  ++-----------+
   0           1
         x
]], drawn { kind = "lines", title = "t", xlabel = "x", width = 16, height = 9,
            series = { { name = "a", y = { 0, 1 } } } })
  end)

  it("lines fit the width, in every form", function()
    local y, x = {}, {}
    for i = 1, 50 do y[i], x[i] = math.sin(i) * 1e-5, "bar " .. i end
    local rows = { y, y, y }
    for _, look in ipairs { {}, { unicode = true }, { unicode = true, color = true },
                            { color = true } } do
      for _, width in ipairs { 20, 50, 78, 160 } do
        for _, kind in ipairs { "lines", "scatter", "histogram", "heatmap" } do
          local spec = with(look, { kind = kind, width = width, height = 20 })
          spec.unicode = look.unicode or false
          if kind == "heatmap" then
            spec.z = rows
          else
            spec.series = { { y = y, x = kind == "histogram" and x or nil }, { name = "b", y = y,
                              x = kind == "histogram" and x or nil } }
          end
          for line in assert(drawing.draw(spec)):gmatch "[^\n]*" do
            -- The scale below a heatmap is as long as it must be.
            assert.is_true(columns(line) <= math.max(width, 60), kind .. width .. line)
          end
        end
      end
    end
  end)

  it("bars have their length and number", function()
    assert.equal([[
0 | ######## 8
1 | #### 4
2 |  0
]], (drawn { kind = "histogram", width = 14,
             series = { { x = { "0", "1", "2" }, y = { 8, 4, 0 } } } }
      :gsub("%*", "#")))
  end)

  it("a heatmap has a row for each row, and blanks where nothing is", function()
    local text = drawn { kind = "heatmap", z = { { 1, 2 }, { 3, 4 } }, width = 20, height = 12,
                         mask = { { 1, 1 }, { 0, 1 } } }
    assert.equal("0 +....---", text:match "^[^\n]*":sub(1, 10))
    assert.equal("1 +    @@@@", text:match "\n([^\n]*)")
    assert.truthy(text:find("1 .:-=+*#%@ 4", 1, true))
  end)

  it("a large heatmap shows means, and says so", function()
    local z = {}
    for r = 1, 40 do
      z[r] = {}
      for c = 1, 200 do z[r][c] = r end
    end
    local text = drawn { kind = "heatmap", z = z, width = 60, height = 20 }
    assert.matches("means of 3 x 4", text)
  end)

  it("text of others does nothing to the terminal", function()
    local text = drawn { kind = "lines", title = "a\27[31m",
                         series = { { name = "\7", y = { 1 } } } }
    assert.is_nil(text:find "[%z\1-\9\11-\31]")
    assert.equal("function", type(terminal.draw))
  end)
end)
