-- Options that commands share: how their words are read, and the batch that they make with files.

local argparse = require "argparse"
local options = require "samebits.cli.options"
local samebits = require "samebits"
local tell = require "samebits.cli.tell"
local temporary = require "spec.support.temporary"

local logits = samebits.tensor { { 1, 2 }, { 3, 4 } }
local ids = samebits.tensor({ 1, 0 }, { dtype = "int64" })

local files
setup(function() files = temporary.folder() end)
teardown(function() files:remove() end)

-- What f ends the command with.
local function ending(f, ...)
  local ok, err = pcall(f, ...)
  assert.is_false(ok, "expected the command to end")
  return (tell.message(err))
end

describe("an option's number", function()
  it("is taken within its limits alone", function()
    local integer, number = options.integer(-2, 10), options.number(0.5, 2)
    assert.same({ -2, 10, 3 }, { integer "-2", integer "10", integer "0x3" })
    for _, text in ipairs { "-3", "11", "1.5", "x", "", "nan" } do
      assert.same({ nil, ("'%s' is not an integer from -2 to 10"):format(text) },
                  { integer(text) })
    end
    assert.same({ 0.5, 2 }, { number "0.5", number "2" })
    for _, text in ipairs { "0.4", "2.1", "x", "nan" } do
      assert.same({ nil, ("'%s' is not a number from 0.5 to 2"):format(text) }, { number(text) })
    end
  end)
end)

describe("the options of a batch", function()
  local parser = argparse("spec")
  options.add_batch(parser)
  options.add_cpu(parser)

  it("are read from a command line", function()
    local ok, args = parser:pparse { "--ids", "a.npy", "--cu-seqlens", "c.npy", "--threads", "3",
                                     "--shift", "--ignore-index", "7" }
    assert.is_true(ok, args)
    assert.same({ ids = "a.npy", cu_seqlens = "c.npy", threads = 3, shift = true,
                  ignore_index = 7, format = "h24w16" }, args)
    local _, none = parser:pparse {}
    assert.same({ ignore_index = -100, format = "h24w16" }, none)
    local bad, why = parser:pparse { "--threads", "0" }
    assert.is_false(bad)
    assert.matches("'0' is not an integer from 1 to 1024", why)
  end)

  it("make a batch with a file's tensors, its settings and what was gathered", function()
    local both = files:path "both.safetensors"
    assert(samebits.save(both, { logits = logits, ids = ids }))
    local spec, gathered = options.batch({ ignore_index = 1, shift = true, temperature = "0.5" },
                                         { both })
    assert.is_true(samebits.same_bits(logits, spec.logits))
    assert.is_true(samebits.same_bits(ids, spec.ids))
    assert.same({ { "temperature", "0.5" }, { "ignore_index", "1" },
                  { "shift", "logits of row t score id t + 1" } }, options.settings(spec))
    options.check_files(gathered)
    assert.same({}, options.settings(options.batch({ ignore_index = -100 }, { both })))
    os.remove(both)
    assert.matches("both.safetensors: changed while it was in use",
                   ending(options.check_files, gathered))
  end)

  it("are refused without logits, and with a temperature that is no number and no file", function()
    local path = files:path "ids.safetensors"
    assert(samebits.save(path, { ids = ids }))
    assert.matches("^no logits, .* in .*ids.safetensors$", ending(options.batch, {}, { path }))
    assert.equal("--temperature: 'warm' is no number, and no file has that name",
                 ending(options.temperature, "--temperature", "warm"))
    assert.equal(0.25, options.temperature("--temperature", "0.25"))
    assert.is_nil(options.temperature("--temperature", nil))
    assert.equal(path, options.temperature("--temperature", path))
  end)
end)
