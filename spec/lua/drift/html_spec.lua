-- samebits.drift.html: the sections of a report's page, its marks on bits, and that foreign text is
-- escaped.

local samebits = require "samebits"
local html = require "samebits.drift.html"

local function has(page, part) assert.is_truthy(page:find(part, 1, true), part .. "\n" .. page) end

local function headings(page)
  local out = {}
  for heading in page:gmatch "<h2>(.-)</h2>" do out[#out + 1] = heading end
  return out
end

describe("drift's page", function()
  local page

  setup(function()
    page = html.format(samebits.drift({ { -1, -2 }, { -3, -4 } }, { { -1, -2.5 }, { -3, -4 } }, {
      names = { "<old>", "new & better" },
    }))
  end)

  it("has all sections where tokens differ, and a plot in each that has one", function()
    assert.same({ "Compared", "Why", "How far", "ULPs apart", "|B - A|", "By position",
                  "Ratio by token", "First mismatch", "Worst tokens", "Worst sequences" },
                headings(page))
    assert.equal(4, select(2, page:gsub("<svg ", "")))
    assert.is_nil(page:find "<script")
    has(page, '<h1 class="bad">drift: 1 of 4 tokens differ (25 %)</h1>')
  end)

  it("escapes the names of sides", function()
    has(page, "<b>&lt;old&gt;</b>")
    has(page, "<b>new &amp; better</b>")
    assert.is_nil(page:find("<old>", 1, true))
  end)

  it("marks the bits that differ in the first mismatch", function()
    has(page, "Sequence 0, position 1: 2 097 152 ULPs apart.")
    has(page, "-2 <code>c0000000</code><br><code>1 10000000 0<i>0</i>" .. ("0"):rep(21))
    has(page, "-2.5 <code>c0200000</code><br><code>1 10000000 0<i>1</i>" .. ("0"):rep(21))
  end)

  it("gives a share of the tokens to what is unexplained", function()
    has(page, '<b>unexplained</b>')
    has(page, '<td>1 of 1</td><td></td><td><div class="meter"><span class="open" ' ..
              'style="width:100.0%"></span></div></td>')
  end)

  it("says what was compared, and no more, where nothing differs", function()
    local same = html.format(samebits.drift({ -1, -2 }, { -1, -2 }))
    assert.same({ "Compared" }, headings(same))
    has(same, '<h1 class="good">drift: none: all 2 tokens have the same bits</h1>')
    assert.is_nil(same:find "<svg")
  end)

  it("lists inputs that differ before anything else", function()
    local values = { -1, -2 }
    local other = html.format(samebits.drift({ logprobs = values, ids = { 1, 2 } },
                                             { logprobs = values, ids = { 1, 3 } }))
    assert.equal("Inputs that differ", headings(other)[1])
    has(other, "<li>The ids differ at 1 of 2 tokens, first at sequence 0, position 1: 2 in A, " ..
               "3 in B.</li>")
  end)
end)
