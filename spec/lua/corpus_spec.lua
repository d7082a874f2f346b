-- The inputs that fuzzing the readers found worth keeping, once more, without a fuzzer.

local reader = require "spec.fuzz.reader"

local function files_of(format)
  local list = {}
  local pipe = io.popen(("ls spec/fuzz/corpus/%s"):format(format))
  for name in pipe:lines() do list[#list + 1] = ("spec/fuzz/corpus/%s/%s"):format(format, name) end
  pipe:close()
  return list
end

local function size_of(path)
  local file = assert(io.open(path, "rb"))
  local size = file:seek "end"
  file:close()
  return size
end

describe("the corpus of", function()
  for _, format in ipairs { "npy", "safetensors" } do
    it(format .. ": each input is read or refused in words", function()
      local taken, refused = 0, 0
      for _, path in ipairs(files_of(format)) do
        local ok, result = pcall(reader.try, format, path, size_of(path))
        assert(ok, ("%s: %s"):format(path, result))
        if result then taken = taken + 1 else refused = refused + 1 end
      end
      -- Else it says little about either.
      assert.is_true(taken >= 3, taken .. " taken")
      assert.is_true(refused >= 10, refused .. " refused")
    end)
  end
end)
