-- The look of plots: the pages' colours, and enough of them.

local theme = require "samebits.plot.theme"
local read = require("spec.support.files").read

describe("the theme", function()
  it("is that of the reports' pages", function()
    local page = read "lua/samebits/text/page.lua"
    for name, color in pairs { ink = theme.INK, faint = theme.FAINT, line = theme.LINE,
                               mark = theme.SERIES[1] } do
      assert.truthy(page:find(("--%s: %s;"):format(name, color), 1, true), name)
    end
  end)

  it("has a colour for every series, in pictures and in terminals", function()
    assert.equal(#theme.SERIES, #theme.TERMINAL)
    local seen = {}
    for _, color in ipairs(theme.SERIES) do
      assert.matches("^#%x%x%x%x%x%x$", color)
      assert.is_nil(seen[color])
      seen[color] = true
    end
    assert.equal(theme.SERIES[1], theme.of(theme.SERIES, #theme.SERIES + 1))
  end)
end)
