-- Reports as pages of HTML: text is escaped, the title says whether the news is good, the parts
-- stand in order, and nothing is loaded from elsewhere or run.

local page = require "samebits.text.page"

local MADE = { version = "1.2.3", numerics = 4 }

describe("text for HTML", function()
  it("has markup escaped, and what a terminal would not show", function()
    assert.equal("&lt;a href=&quot;x&quot;&gt; &amp;amp; it&#39;s",
                 page.escape [[<a href="x"> &amp; it's]])
    assert.equal([[\x1b[31m\xff]], page.escape "\27[31m\255")
    assert.equal("12.5", page.escape(12.5))
    assert.equal("a %d \195\164", page.escape "a %d \195\164")
  end)

  it("is one value, to stand last among arguments", function()
    assert.equal(1, select("#", page.escape "<>"))
  end)
end)

describe("a page", function()
  it("has its title escaped, in the head and in the colour of the news", function()
    local good = page.format("<b> & 100%", true, {}, MADE)
    assert.truthy(good:find("<title>&lt;b&gt; &amp; 100%</title>", 1, true))
    assert.truthy(good:find('<h1 class="good">&lt;b&gt; &amp; 100%</h1>', 1, true))
    local bad = page.format("drift", false, {}, MADE)
    assert.truthy(bad:find('<h1 class="bad">drift</h1>', 1, true))
  end)

  it("holds its parts as they are, in order, then what made it", function()
    local html = page.format("t", true, { "<p>%s first</p>", "<p>second</p>" }, MADE)
    assert.truthy(html:find("</h1>\n<p>%s first</p>\n<p>second</p>\n" ..
      "<p><small>samebits 1.2.3, numerics 4</small></p>\n</body>\n</html>\n", 1, true))
    assert.equal("<!doctype html>\n", html:sub(1, 16))
  end)

  it("closes what it opens, needs no other file and runs nothing", function()
    local html = page.format("t", true, {}, MADE)
    for _, name in ipairs { "html", "head", "title", "style", "body", "h1" } do
      local _, opened = html:gsub("<" .. name .. "[ >]", "")
      local _, closed = html:gsub("</" .. name .. ">", "")
      assert.same({ 1, 1 }, { opened, closed }, name)
    end
    for _, words in ipairs { "<script", "<link", "<img", "src=", "url(", "@import", "http:",
                             "https:" } do
      assert.is_nil(html:find(words, 1, true), words)
    end
    assert.truthy(html:find('<meta charset="utf-8">', 1, true))
    assert.truthy(html:find("content=\"default-src 'none'; style-src 'unsafe-inline'; " ..
                            "base-uri 'none'; form-action 'none'\">", 1, true))
  end)

  it("with a script names its digest, and keeps data from ending its element", function()
    local html = page.format("t", true, {}, MADE, {
      script = "run()", data = '["</script>"]', style = "b {}",
      head = function(title) return "<header>" .. title .. "</header>" end,
    })
    assert.truthy(html:find("; script-src 'sha256-AvyuiL0SD1mVY3NNxR+V2uo+lhk6RMFrytWmRt6CrJQ='",
                            1, true))
    assert.truthy(html:find('id="data">["\\u003c/script>"]</script>', 1, true))
    assert.truthy(html:find('<header><h1 class="good">t</h1></header>', 1, true))
    assert.truthy(html:find("b {}</style>", 1, true))
  end)
end)
