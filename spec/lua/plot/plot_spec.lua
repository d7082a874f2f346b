-- samebits.plot: the scripts for gnuplot, the results, and the message if gnuplot is missing.

local plot = require "samebits.plot"
local gnuplot = require "samebits.plot.gnuplot"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local refusal = require "spec.support.refusal"
local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

local misuse, says, quote = refusal.misuse, refusal.says, shell.quote

local files, luajit
setup(function()
  files = temporary.folder()
  luajit = shell.run("command -v luajit"):match "[^\n]+"
end)
teardown(function() files:remove() end)

-- Runs Lua in a process of its own, whose programs are those of one folder.
local function with_programs(folder, code)
  local path = files:write("script.lua", 'package.path = "./lua/?.lua;" .. package.path\n' ..
    'local samebits, plot = require "samebits", require "samebits.plot"\n' .. code)
  return shell.run(("PATH=%s %s %s"):format(quote(folder), quote(luajit), quote(path)))
end

-- A folder with a gnuplot that is a shell script.
local function fake(body)
  local folder = files:path "fake"
  os.execute("mkdir -p " .. quote(folder))
  local path = files:write("fake/gnuplot", "#!/bin/sh\n" .. body .. "\n")
  os.execute("chmod +x " .. quote(path))
  return folder
end

local TOKENS = [[
local reference = samebits.tensor { { -1, -2, -3 }, { -0.5, -2, -3 } }
local logprobs = samebits.tensor { { -1, -2, -2.5 }, { -0.5, -1.5, -3 } }
logprobs:set(samebits.bits.from_hex "c0000001", 0, 1)
local spec = { reference = reference, series = { { name = "b", logprobs = logprobs } } }
]]

describe("plots without gnuplot", function()
  it("are nil, and how to install it", function()
    local said = with_programs(files.name, [[
      print(plot.draw { kind = "lines", series = { { y = { 1, 2 } } }, out = "/tmp/none.svg" })
    ]])
    local line = "nil\t" .. gnuplot.MISSING .. "\n"
    assert.equal(line, said)
    assert.matches("apt%-get install gnuplot%-nox", line)
  end)

  it("are drawn in characters", function()
    local said = with_programs(files.name, [[
      io.write(plot.draw { kind = "lines", series = { { y = { 1, 2 } } }, unicode = false })]])
    assert.matches("^ *2 %+ +%*%*\n", said)
  end)

  it("are checked all the same", function()
    local said = with_programs(files.name, [[print(pcall(plot.draw, { kind = "pie" }))]])
    assert.matches('expected "lines", "histogram", "scatter" or "heatmap", got pie', said)
  end)
end)

describe("what gnuplot is told", function()
  -- The script, by a gnuplot that draws what it is given, into a file.
  local function script(code)
    local out = files:path "script.svg"
    local said, status = with_programs(fake '/bin/cat "$2"', ([[
      for name, f in pairs(plot) do
        plot[name] = function(spec)
          spec.out = %q
          return f(spec)
        end
      end
      assert(]]):format(out) .. code .. ")")
    assert.equal(0, status, said)
    return files:read "script.svg"
  end

  it("holds the data, to the last bit, with gaps where nothing can be drawn", function()
    local said = script [[plot.draw { kind = "lines", logy = true, series = {
      { name = "one", x = { 0, 0.1, 3, 4, 5 }, y = { 1, 1/3, 0, 0/0, 1/0 } },
      { name = "none", y = { 0, -1 } } } }]]
    assert.truthy(said:find("\n0 1\n0.10000000000000001 0.33333333333333331\n" ..
                            ("NaN NaN\n"):rep(3) .. "END", 1, true), said)
    assert.truthy(said:find("'one (3 not drawable)'", 1, true), said)
    says(said, "NaN with lines linecolor rgb '#d9692a' title 'none (2 not drawable)'")
    assert.truthy(said:find("set logscale y\n", 1, true), said)
    assert.falsy(said:find("set logscale x", 1, true), said)
  end)

  it("quotes text", function()
    local said = script [[plot.draw { kind = "lines", title = "it's `touch x`\n$y",
                                      series = { { y = { 1, 2 } } } }]]
    assert.truthy(said:find("set title 'it''s `touch x` $y' ", 1, true), said)
  end)

  it("escapes what is no text", function()
    local said = script [[plot.draw { kind = "lines", title = "a\27[31m\255", ylabel = "\194\155",
                                      series = { { name = "\0", y = { 1, 2 } } } }]]
    assert.truthy(said:find([[set title 'a\x1b[31m\xff' ]], 1, true), said)
    assert.truthy(said:find([[set ylabel '\u{9b}']], 1, true), said)
    assert.truthy(said:find([[title '\x00']], 1, true), said)
  end)

  it("names the bars of a histogram", function()
    local said = script [[plot.draw { kind = "histogram", series = {
      { x = { "it's 5%", 2 }, y = { 3, 4 } } } }]]
    -- A label with a percent sign is a format to gnuplot.
    assert.truthy(said:find("set xtics ('it''s 5%%' 0, '2' 1)", 1, true), said)
  end)

  it("is the largest difference by position", function()
    local said = script("(function() " .. TOKENS .. [[
      spec.mask = { { 1, 1, 0 }, { 1, 1, 1 } }
      return plot.drift_by_position(spec)
    end)()]])
    assert.truthy(said:find("\n0 0\n1 0.5\n2 0\nEND", 1, true), said)
  end)

  it("is the largest difference by position of packed sequences", function()
    local said = script [[plot.drift_by_position {
      reference = samebits.tensor { -1, -1, -1, -1 }, cu_seqlens = { 0, 0, 1, 1, 4 },
      series = { { logprobs = samebits.tensor { -2, -1.5, -1.25, -1 } } } }]]
    assert.truthy(said:find("\n0 1\n1 0.25\n2 0\nEND", 1, true), said)
  end)

  it("is a token's distance in ULPs", function()
    local said = script("(function() " .. TOKENS .. "return plot.ulp_histogram(spec) end)()")
    -- 4 with equal bits, one 1 away; -3 to -2.5 is 2^21 steps, -2 to -1.5 is 2^22.
    assert.truthy(said:find("\n0 3\n1 1\n2 0\n", 1, true), said)
    assert.truthy(said:find("\n22 1\n23 1\nEND", 1, true), said)
    assert.truthy(said:find("('0' 0, '1' 1, '2' 2, '4' 3, '8' 4, ", 1, true), said)
    assert.truthy(said:find(", '512' 10, '2^10' 11, ", 1, true), said)
    assert.truthy(said:find(", '2^21' 22, '2^22' 23)", 1, true), said)
  end)

  it("counts NaN apart", function()
    local said = script [[plot.ulp_histogram { reference = samebits.tensor { -1, 0/0 },
      series = { { logprobs = samebits.tensor { -1, -1 } } } }]]
    assert.truthy(said:find("('0' 0, 'NaN' 1)", 1, true), said)
    assert.truthy(said:find("\n0 1\n1 1\nEND", 1, true), said)
  end)

  it("is the ratio less 1, exactly 0 where bits are equal", function()
    local said = script("(function() " .. TOKENS .. "return plot.ratio_scatter(spec) end)()")
    assert.truthy(said:find("\n-1 0\n-2 -2.3841855067985", 1, true), said)
    assert.truthy(said:find(("\n-2 %.17g\n-3 0\nEND"):format(math.exp(0.5) - 1), 1, true), said)
  end)

  it("is the mean and the band of runs, smoothed", function()
    local said = script [[plot.training { smooth = 2, curves = {
      { name = "reward", runs = { { 0, 1, 4 }, { 2, 3, 0 } } } } }]]
    says(said, "$s1 << END\n0 1.5\n1 2\n2 2\nEND",
         "$band1 << END\n0 0.5 2.5\n1 0.5 3.5\n2 0 4\nEND", "title 'reward (2 runs)'")
    assert.is_nil(said:find("$raw", 1, true))
    said = script [[plot.training { smooth = 3, curves = { { y = { 0, 3, 0, 0/0, 8 } } } }]]
    says(said, "$raw1 << END\n0 0\n1 3\n2 0\nNaN NaN\n4 8\nEND",
         "$s1 << END\n0 1.5\n1 1\n2 1.5\nNaN NaN\n4 8\nEND")
  end)

  it("is curves over steps", function()
    local said = script [[plot.training { steps = { 10, 20 }, curves = {
      { name = "reward", y = { 0.5, 1 } } } }]]
    assert.truthy(said:find("\n10 0.5\n20 1\nEND", 1, true), said)
    assert.truthy(said:find("set xlabel 'step'", 1, true), said)
  end)
end)

describe("plots of tensors", function()
  local run = gnuplot.run
  before_each(function() gnuplot.run = function(text) return text end end)
  after_each(function() gnuplot.run = run end)

  backends.each_device(function(device)
    it("on " .. device .. " are those of tensors in memory", function()
      local spec = { reference = samebits.tensor { -1, -2, -3, -4 },
                     mask = samebits.tensor({ 1, 1, 0, 1 }, { dtype = "uint8" }),
                     cu_seqlens = samebits.tensor({ 0, 1, 4 }, { dtype = "int64" }),
                     series = { { logprobs = samebits.tensor { -1.5, -2, -2, -4.25 } } } }
      local there = {}
      for key, t in pairs(spec) do there[key] = samebits.is_tensor(t) and t:to(device) or t end
      there.series = { { logprobs = spec.series[1].logprobs:to(device) } }
      for _, name in ipairs { "drift_by_position", "ulp_histogram", "ratio_scatter" } do
        assert.equal(plot[name](spec), (assert(plot[name](there))))
      end
      there.mask = spec.mask
      assert.equal(plot.ratio_scatter(spec), (assert(plot.ratio_scatter(there))))
      assert.equal(plot.training { curves = { { y = { -1, -2, -3, -4 } } } },
                   (assert(plot.training { curves = { { y = there.reference } } })))
    end)
  end)
end)

describe("plots of a drift report", function()
  local run = gnuplot.run
  before_each(function() gnuplot.run = function(text) return text end end)
  after_each(function() gnuplot.run = run end)

  it("are those of its logprobs", function()
    local a = samebits.tensor { { -1, -2, -3 }, { -0.5, -2, -3 } }
    local b = samebits.tensor { { -1, -2, -2.5 }, { -0.5, -1.5, -3.75 } }
    local report = assert(samebits.drift(a, b))
    local spec = { reference = a, series = { { name = "B against A", logprobs = b } } }
    for _, name in ipairs { "drift_by_position", "ulp_histogram", "ratio_scatter" } do
      assert.equal(plot[name](spec), (assert(plot[name] { report = report })))
    end
    report = assert(samebits.drift(a, b, { names = { "rollout", "trainer" } }))
    says(plot.ratio_scatter { report = report }, "trainer against rollout")
    says(misuse(function() plot.ratio_scatter { report = report, series = {} } end),
         "unknown field 'series'")
    says(misuse(function() plot.ratio_scatter { report = a } end),
         "report: expected what samebits.drift gives, got tensor")
  end)
end)

describe("gnuplot's failures", function()
  it("are nil and its words, and leave nothing behind", function()
    local out = files:path "kept.svg"
    files:write("kept.svg", "as it was")
    local said = with_programs(fake [[
      echo half a picture
      echo '
plot x
     ^
"/tmp/lua_x" line 7: undefined variable: x
' >&2
      exit 1]], ([[
      local names, tmpname = {}, os.tmpname
      function os.tmpname() names[#names + 1] = tmpname() return names[#names] end
      print(plot.draw { kind = "lines", out = "%s", series = { { y = { 1 } } } })
      print(#names)
      for _, name in ipairs(names) do print(io.open(name)) end
    ]]):format(out))
    local first, count, rest = said:match "^([^\n]*)\n(%d+)\n(.*)$"
    assert.equal("nil\tgnuplot failed: undefined variable: x", first)
    assert.is_true(tonumber(count) > 0)
    assert.equal(tonumber(count), select(2, rest:gsub("No such file", "")))
    assert.equal("as it was", files:read "kept.svg")
    for _, name in ipairs(files:names()) do assert.no.matches("^kept%.svg.", name) end
  end)

  it("include a folder that is not there", function()
    local said = with_programs(fake "echo picture",
      [[print(plot.draw { kind = "lines", out = "/nowhere/a.svg", series = { { y = { 1 } } } })]])
    assert.equal("nil\t/nowhere/a.svg: No such file or directory\n", said)
  end)
end)

describe("plots refuse", function()
  local function refuses(words, spec)
    says(misuse(function() plot.draw(spec) end), words)
  end
  it("what they cannot read", function()
    local y = { { y = { 1, 2 } } }
    refuses("draw: expected a table, got nil")
    refuses("draw: unknown field 'colour'", { kind = "lines", series = y, colour = 1 })
    refuses('draw: kind: expected "lines", "histogram", "scatter" or "heatmap", got nil',
            { series = y })
    refuses("draw: series: expected a list", { kind = "lines", series = {} })
    refuses("draw: title: expected a string, got table", { kind = "lines", series = y, title = {} })
    refuses("draw: series[1].y[2] is string, not a number",
            { kind = "lines", series = { y[1], { y = { 1, 2, "3" } } } })
    refuses("draw: series[0]: 1 values of x, but 2 of y",
            { kind = "lines", series = { { x = { 1 }, y = { 1, 2 } } } })
    refuses("draw: series[0].y: a tensor of 2 dimensions, not 1",
            { kind = "lines", series = { { y = samebits.zeros { 2, 2 } } } })
    refuses("draw: out: a.gif ends in neither .png nor .svg",
            { kind = "lines", series = y, out = "a.gif" })
    refuses("draw: out: a.text ends in neither", { kind = "lines", series = y, out = "a.text" })
    refuses("draw: width: 0 is no integer", { kind = "lines", series = y, width = 0 })
    refuses("draw: series[1].x[1] is c, in series[0] it is b: bars stand at the same places",
            { kind = "histogram", series = { { x = { "a", "b" }, y = { 1, 2 } },
                                             { x = { "a", "c" }, y = { 1, 2 } } } })
    refuses("draw: series[0].x: a histogram needs a list", { kind = "histogram", series = y })
  end)

  it("logprobs that do not fit", function()
    local t = samebits.zeros { 2, 3 }
    local function refuses_tokens(words, spec)
      says(misuse(function() plot.drift_by_position(spec) end), words)
    end
    refuses_tokens("drift_by_position: reference: expected a float32 tensor, got nil", {})
    refuses_tokens("drift_by_position: series: expected a list", { reference = t })
    refuses_tokens("series[0].logprobs: shape [3], expected the reference's [2, 3]",
                   { reference = t, series = { { logprobs = samebits.zeros { 3 } } } })
    refuses_tokens("drift_by_position: mask: shape [2], expected [2, 3]",
                   { reference = t, mask = samebits.zeros({ 2 }, "uint8"),
                     series = { { logprobs = t } } })
    refuses_tokens("unknown field 'kind'",
                   { reference = t, series = { { logprobs = t } }, kind = "lines" })
  end)

  it("to draw nothing, as a failure", function()
    local drawn, message = plot.draw { kind = "lines", logy = true, series = { { y = { 0, -1 } } } }
    assert.is_nil(drawn)
    assert.equal("plot: none of the values can be drawn (a logarithmic axis shows what is above 0)",
                 message)
  end)
end)

describe("plots", function()
  local function drawn(spec)
    if not shell.has "gnuplot" then return pending "gnuplot is not installed" end
    return assert(plot.draw(spec))
  end
  local series = { { name = "first_one", y = { 1, 3, 2 } }, { name = "second", y = { 2, 2, 2 } } }

  it("in the terminal", function()
    local text = assert(plot.draw { kind = "lines", title = "A title", xlabel = "steps",
                                    series = series, width = 60, height = 20, unicode = false })
    local lines = {}
    for line in text:gmatch "([^\n]*)\n" do
      assert.is_true(#line <= 60)
      lines[#lines + 1] = line
    end
    assert.is_true(#lines > 10 and #lines <= 20)
    for _, words in ipairs { "A title", "steps", "* first_one", "o second" } do
      assert.truthy(text:find(words, 1, true), text)
    end
  end)

  it("as SVG and PNG, at paths with blanks", function()
    local svg = drawn { kind = "scatter", title = "a < b", series = series,
                        out = files:path "a picture.svg" }
    if not svg then return end
    assert.equal(files:path "a picture.svg", svg)
    local text = files:read "a picture.svg"
    assert.matches("^<%?xml", text)
    assert.truthy(text:find("a &lt; b", 1, true))
    assert.truthy(text:find("first_one", 1, true))
    assert.matches("</svg>%s*$", text)
    drawn { kind = "histogram", out = files:path "a picture.png", width = 320, height = 200,
            series = { { x = { "a", "b" }, y = { 1, 2 } } } }
    local png = files:read "a picture.png"
    assert.equal("\137PNG\r\n\26\n", png:sub(1, 8))
    -- The header's width and height, big-endian.
    assert.equal("\0\0\1\64\0\0\0\200", png:sub(17, 24))
  end)

  it("of every kind, from real tensors, also where all is equal", function()
    local t = samebits.tensor { { -1, -2 }, { -3, -4 } }
    local spec = { reference = t, series = { { name = "same", logprobs = t } } }
    for _, name in ipairs { "drift_by_position", "ulp_histogram", "ratio_scatter" } do
      assert.matches("same", assert(plot[name](spec)))
    end
    assert.matches("reward", (assert(plot.training { curves = { { name = "reward", y = t[0] } } })))
  end)
end)

describe("text that means something to gnuplot, or to SVG,", function()
  it("is drawn as it stands: title, axes, legend, and labels of bars", function()
    if not shell.has "gnuplot" then return pending "gnuplot is not installed" end
    local ODD = [[50% of "it's" %g %s %% \n & <b> {x}_1^2 `id` $HOME @a #x ]] .. "\195\164 \\"
    local function drawn(spec)
      spec.out = files:path "odd.svg"
      assert(plot.draw(spec))
      local texts, tree = {}, assert(require("pl.xml").parse(files:read "odd.svg"))
      local function visit(node)
        if type(node) == "string" then
          local text = node:match "^%s*(.-)%s*$"
          texts[text] = (texts[text] or 0) + 1
        else
          for _, child in ipairs(node) do visit(child) end
        end
      end
      visit(tree)
      return texts
    end
    for _, kind in ipairs { "lines", "scatter", "histogram" } do
      local spec = { kind = kind, title = ODD, xlabel = ODD, ylabel = ODD,
                     series = { { name = ODD, y = { 1, 2, 3 } } } }
      -- gnuplot cuts the labels of marks at 50 bytes.
      local labels = kind == "histogram" and { ODD:sub(1, 38), "50%", "%g" }
      if labels then spec.series[1].x = labels end
      local texts = drawn(spec)
      assert.is_true((texts[ODD] or 0) >= 4, kind)
      for _, label in ipairs(labels or {}) do assert.equal(1, texts[label], label) end
      spec.out = nil
      assert.truthy(assert(plot.draw(spec)):find(ODD, 1, true))
    end
  end)
end)
