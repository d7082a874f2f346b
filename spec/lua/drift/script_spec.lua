-- samebits.drift.script: that it is plain, and, where Chromium is installed, that a page
-- shows what its data holds. Chromium takes seconds, so it runs only with SB_CASES.

local samebits = require "samebits"
local script = require "samebits.drift.script"
local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

describe("the page's script", function()
  it("cannot end its element, loads nothing, and makes no markup of text", function()
    for _, foreign in ipairs { "</script", "<!--", "innerHTML", "outerHTML", "insertAdjacent",
                               "eval", "document.write", "fetch(", "XMLHttpRequest", "import",
                               "http" } do
      assert.is_nil(script:find(foreign, 1, true), foreign)
    end
  end)

  it("names only elements that the page has", function()
    local page = samebits.drift({ -1, -2 }, { -1, -3 }):html()
    local count = 0
    for id in script:gmatch '%$%("([%w-]+)"%)' do
      count = count + 1
      assert.is_truthy(page:find(('id="%s"'):format(id), 1, true), id)
    end
    assert.is_true(count > 8)
  end)

  it("shows the worst token and the table, in Chromium", function()
    local _, missing = shell.run "command -v chromium"
    if missing ~= 0 then return pending "chromium is not installed" end
    if not os.getenv "SB_CASES" then return pending "SB_CASES is not set" end
    local files = temporary.folder "plain"
    local vocab = files:write("vocab.json", '{"<b>":1,"c":2,"d":3}')
    local report = samebits.drift({ logprobs = { { -1, -2 }, { -3, -4 } },
                                    ids = { { 1, 2 }, { 3, 1 } } },
                                  { { -1, -2 }, { -3, -4.5 } }, { tokenizer = vocab })
    assert(report:html(files:path "page.html"))
    local dom = shell.run("chromium --headless --no-sandbox --disable-gpu --dump-dom %s " ..
                          "2>/dev/null", files:path "page.html")
    files:remove()
    dom = dom:gsub("<script.-</script>", "")
    assert.is_truthy(dom:find("sequence 1, position 1", 1, true), dom)
    assert.is_truthy(dom:find("\226\128\156&lt;b&gt;\226\128\157", 1, true))
    assert.is_truthy(dom:find('<b>-4.5</b><code class="hex">c0900000</code>', 1, true))
    assert.is_truthy(dom:find('<small id="found">4 tokens</small>', 1, true))
    local list = dom:match '<table id="tokens">.-</table>'
    assert.equal(4, select(2, list:gsub('<tr tabindex="0"', "")))
  end)
end)
