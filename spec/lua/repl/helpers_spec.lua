-- The names at hand at the prompt: they raise what the library would give as a message, and help
-- tells of each of them.

local samebits = require "samebits"
local refusal = require "spec.support.refusal"

local says = refusal.says

-- The module with a print of the spec's own.
local said = {}
local module = setfenv(
  assert(loadfile(assert(package.searchpath("samebits.repl.helpers", package.path)))),
  setmetatable({ print = function(text) said[#said + 1] = text end }, { __index = _G }))()

describe("the helpers", function()
  local names = { samebits = samebits, five = 5 }
  local helpers = module.make(function(name) return names[name] end)

  -- What a helper prints.
  local function printed(f, ...)
    said = {}
    f(...)
    return table.concat(said, "\n")
  end

  local function refused(f, ...)
    local ok, message = pcall(f, ...)
    assert.is_false(ok)
    return message
  end

  it("raise the library's message, without a position", function()
    assert.equal("nowhere.npy: No such file or directory", refused(helpers.load, "nowhere.npy"))
    assert.equal("batch: ids is missing",
                 refused(helpers.logprob, { logits = samebits.zeros { 1, 2 } }))
    assert.equal("plot: argument 1 is number, not a list or a tensor", refused(helpers.plot, 5))
  end)

  it("score as the library does, and show encodings both ways", function()
    local spec = { logits = samebits.tensor { { 1, 2, 3 } }, ids = { 2 } }
    assert.same_bits(samebits.logprob(spec).token, helpers.logprob(spec).token)
    assert.equal("bf000000", helpers.bits(-0.5))
    assert.equal("b800", helpers.bits(-0.5, "float16"))
    assert.equal(-0.5, helpers.bits "bf000000")
    assert.same({ "3f800000", "80000000" }, helpers.bits(samebits.tensor { 1, -1 / math.huge }))
  end)

  it("count the steps between numbers or tensors", function()
    assert.equal(2, helpers.ulp(1, 1 + 2 ^ -22))
    assert.equal(1, helpers.ulp(1, 1 + 2 ^ -7, "bfloat16"))
    local t = samebits.tensor { 1, 2 }
    assert.equal(0, helpers.ulp(t, t))
    local most, report = helpers.ulp(t, samebits.tensor { 1, 2 + 2 ^ -20 })
    assert.equal(4, most)
    assert.equal(1, report.count)
  end)

  it("show each value on a line of its own", function()
    assert.equal('{ 1, "a" }\nnil\n2', printed(helpers.show, { 1, "a" }, nil, 2))
    assert.equal("", printed(helpers.show))
  end)

  it("are listed by help, which tells of each by name or value", function()
    local overview = "\n" .. printed(helpers.help)
    for name, f in pairs(helpers) do
      says(overview, "\n" .. name)
      local text = printed(helpers.help, name)
      assert.matches("^" .. name .. "[({ ]", text)
      assert.equal(text, printed(helpers.help, f))
    end
  end)

  it("help with options, full names and words", function()
    says(printed(helpers.help, "one_read"), "the option or field 'one_read' of\n",
         "\nctx:logprob ", "reading the logits once")
    says(printed(helpers.help, "samebits.plot.draw"), "samebits.plot.draw(", "`logx`")
    says(printed(helpers.help, "ctx:topk"), "ctx:topk(batch, k, opts)\n\n")
    says(printed(helpers.help, "importance"), "what mentions 'importance'", "\nctx:compare ")
  end)

  it("plot curves, with options and masks, and two dimensions as a heatmap", function()
    local t = samebits.tensor { { 1, 2, 3 }, { 3, 4, 9 } }
    local look = { unicode = false, width = 40, height = 12 }
    local function plotted(options, ...)
      local arguments = { ... }
      for key, value in pairs(look) do options[key] = value end
      arguments[#arguments + 1] = options
      return printed(helpers.plot, unpack(arguments))
    end
    says(plotted({ title = "two" }, t[0], t[1]), "two\n", "* 1   o 2", "8 +")
    assert.is_nil(plotted({ mask = { 1, 1, 0 } }, t[1]):find "8 %+")
    says(plotted({}, t), "0 +", "1 +", "1 .:-=+*#%@ 9")
    says(plotted({ mask = { { 1, 1, 1 }, { 1, 1, 0 } } }, t), "1 .:-=+*#%@ 4")
  end)

  it("help with values at the prompt, and suggest names", function()
    assert.matches("^samebits%.open%(backend, opts%)\n\n", printed(helpers.help, "samebits.open"))
    assert.equal("5", printed(helpers.help, "five"))
    says(printed(helpers.help, "mask_from"),
         "what mentions 'mask_from'\n\nsamebits.mask_from_lengths", "\nsamebits.mask_from_splits")
    assert.equal("help: nothing is known of 'nowhere'; help() lists what is",
                 refused(helpers.help, "nowhere"))
    assert.equal("help: the value is nil; help() lists what is", refused(helpers.help, nil))
  end)
end)
