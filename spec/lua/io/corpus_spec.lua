-- The inputs that fuzzing the readers found worth keeping, once more, without a fuzzer.

local corpus = require "tools.corpus"
local reader = require "spec.fuzz.reader"
local temporary = require "spec.support.temporary"

describe("the corpus of", function()
  local files
  setup(function() files = temporary.folder() end)
  teardown(function() files:remove() end)

  for _, format in ipairs { "npy", "safetensors" } do
    it(format .. ": each input is read or refused in words", function()
      local taken, refused = 0, 0
      for _, input in ipairs(corpus.read(format)) do
        local path = files:write(input.name, input.bytes)
        local ok, result = pcall(reader.try, format, path, #input.bytes)
        assert(ok, ("%s of %s: %s"):format(input.name, corpus.path(format), result))
        if result then taken = taken + 1 else refused = refused + 1 end
      end
      -- Else it says little about either.
      assert.is_true(taken >= 3, taken .. " taken")
      assert.is_true(refused >= 10, refused .. " refused")
    end)
  end

  it("any target comes back from its text, byte for byte", function()
    local folder = temporary.folder()
    local inputs = corpus.read "shards"
    assert.equal(0, os.execute(("luajit tools/corpus.lua unpack shards '%s'"):format(folder.name)))
    for _, input in ipairs(inputs) do assert.equal(input.bytes, folder:read(input.name)) end
    assert.is_true(#inputs > 20)
    folder:remove()
  end)
end)
