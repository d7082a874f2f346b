-- samebits.drift.html: the sections of a report's page, its marks on bits, what it lets a browser
-- do, and that foreign text is escaped.

local base64 = require "samebits.text.base64"
local dkjson = require "dkjson"
local samebits = require "samebits"
local sha256 = require "samebits.io.sha256"
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
    assert.same({ "Compared", "Why", "Where", "Clipped by drift alone", "How far", "Both tails",
                  "Ratio by token", "By position", "|B - A|", "ULPs apart", "First mismatch",
                  "Worst tokens", "Tokens", "Sequences", "Made" }, headings(page))
    assert.equal(5, select(2, page:gsub("<svg ", "")))
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

  it("has the verdict and one number at the top", function()
    has(page, '<header><div><span class="verdict inconclusive">inconclusive</span><h1 ')
    has(page, "<p>Nothing that was tried explains the token that differs. Neither side&#39;s ")
    has(page, '<div class="headline"><b>25 %</b><small>of 4 tokens differ</small></div>')
  end)

  it("says what drift alone would clip, and the noise floor", function()
    has(page, '<td class="left">1 &plusmn; 0.2</td><td>1 of 4</td><td>25 %</td><td>1</td>' ..
              "<td>0</td>")
    has(page, "Noise floor: Both sides&#39; logprobs are float32: rounding to that alone moves")
    local odd = samebits.drift({ -1, 0 / 0, -2, -3 }, { -1, -1, -math.huge, -3 }):html()
    has(odd, "2 of 4 tokens (50 %) are not finite on a side: A has 1 NaN; B has 1 -inf.")
  end)

  it("lets a browser run its own script and nothing else", function()
    local policy = page:match '<meta http%-equiv="Content%-Security%-Policy" content="([^"]*)">'
    local script = require "samebits.drift.script"
    local digest = base64.encode(sha256.bytes(script))
    assert.equal("default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; " ..
                 "form-action 'none'; script-src 'sha256-" .. digest .. "'", policy)
    has(page, "<script>" .. script .. "</script>")
    assert.equal(2, select(2, page:gsub("<script", "")))
  end)

  it("escapes what is in the data for the script", function()
    local text = samebits.drift({ logprobs = { -1, -2 }, ids = { 1, 2 } }, { -1, -3 }, {
      names = { "</script><b>", "b" },
    })
    text.texts = { texts = function() return { "</script>", "\27\"" } end }
    local data = text:html():match '<script type="application/json" id="data">(.-)</script>'
    assert.is_nil(data:find("<", 1, true))
    assert.same({ "</script>", "\\x1b\"" }, dkjson.decode(data).texts)
  end)

  it("tells its script the causes, in order, and then what is unexplained", function()
    local values = {}
    for i = 1, 20 do values[i] = -i / 7 end
    local half = samebits.tensor(values):to("float16"):to("float32")
    local data = samebits.drift(values, half, { names = { "</script><b>", "b" } }):html()
                 :match '<script type="application/json" id="data">(.-)</script>'
    assert.is_nil(data:find("<", 1, true))
    local causes = dkjson.decode(data).causes
    assert.same({ name = "container dtype", text = "b is </script><b>, rounded to float16",
                  color = "--c0", fact = false }, causes[1])
    assert.same({ 2, "unexplained", true }, { #causes, causes[2].name, causes[2].open })
  end)

  it("gives a share of the tokens to what is unexplained", function()
    has(page, '<b>unexplained</b>')
    has(page, '<td>1 of 1</td><td></td><td><div class="meter"><span class="open" ' ..
              'style="width:100.0%"></span></div></td>')
  end)

  it("says what was compared, and no more, where nothing differs", function()
    local same = html.format(samebits.drift({ -1, -2 }, { -1, -2 }))
    assert.same({ "Compared", "Made" }, headings(same))
    has(same, '<span class="verdict equal">equal</span>')
    has(same, '<div class="headline"><b>0 %</b><small>of 2 tokens differ</small></div>')
    assert.is_nil(same:find("<script", 1, true))
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
