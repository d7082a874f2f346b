-- samebits.verify.html: the page of a report, its cells, its note on rounds and seed, and that
-- foreign text is escaped.

local html = require "samebits.verify.html"

local function has(page, part) assert.is_truthy(page:find(part, 1, true), part .. "\n" .. page) end

local WORDS = {
  title = "verify: <2> tokens differ", head = { "logits [2, 3]", "mask & ids" },
  verdicts = { { "samebits, cpu: kept", "   in 3 transforms" }, { "the function: a < b" } },
  rows = { { "transform", "tokens", "about" }, { "order", "1 (2)", "rows > turned" } },
}

local REPORT = { ok = false, paths = { {}, {} }, rounds = 4, seed = 17, version = "1.2",
                 numerics = 3 }

describe("verify's page", function()
  local page = html.format(REPORT, WORDS)

  it("has the batch, the verdict of each path, and the table", function()
    has(page, "<section><h2>Batch</h2>\n<p>logits [2, 3]</p>\n<p>mask &amp; ids</p>\n</section>")
    has(page, "<p><b>samebits, cpu: kept</b></p>\n<p><small>in 3 transforms</small></p>\n" ..
              "<p><b>the function: a &lt; b</b></p>\n</section>")
    has(page, '<tr><th class="left">transform</th><th>tokens</th><th class="left">about</th></tr>')
    has(page, '<tr><td class="left">order</td><td>1 (2)</td>' ..
              '<td class="left">rows &gt; turned</td></tr>')
  end)

  it("names rounds, seed and version", function()
    has(page, "Rounds of each: 4. Seed: 17.")
    has(page, "samebits 1.2, numerics 3")
  end)

  it("has a title in the colour of the news", function()
    has(page, '<h1 class="bad">verify: &lt;2&gt; tokens differ</h1>')
    local good = { ok = true, paths = {}, rounds = 1, seed = 1, version = "1.2", numerics = 3 }
    has(html.format(good, WORDS), '<h1 class="good">verify: ')
  end)

  it("takes percent signs in lines as they are", function()
    has(html.format(REPORT, { title = "t", head = { "50 %d" }, rows = {},
                              verdicts = { { "100 %s" }, { "x", "%%" } } }), "<p>50 %d</p>")
  end)
end)
