-- samebits.load and samebits.save: which format a path means, and the rest of the module's surface.

local samebits = require "samebits"
local temporary = require "spec.support.temporary"

local files

setup(function() files = temporary.folder() end)
teardown(function() files:remove() end)

local function path(name) return files:path(name) end

local function move(from, to) assert(os.rename(path(from), path(to))) end

-- The message of the error that f raises, at the line of its caller: this file.
local function refusal(f)
  local ok, message = pcall(f)
  assert.is_false(ok, "expected an error")
  local rest = message:match "formats_spec%.lua:%d+: (.*)"
  assert.is_truthy(rest, "the error is not at its caller's line: " .. tostring(message))
  return rest
end

describe("load and save", function()
  local t = samebits.tensor { { 1, 2 }, { 3, 4 } }

  it("choose the format by the ending, and by what a file begins with", function()
    assert.is_true(samebits.save(path "t.npy", t))
    assert.is_true(samebits.save(path "t.safetensors", { t = t }, { note = "metadata" }))
    move("t.npy", "npy.bin")
    move("t.safetensors", "st.bin")
    assert(samebits.same_bits(t, samebits.load(path "npy.bin")))
    local data, metadata = samebits.load(path "st.bin")
    assert(samebits.same_bits(t, data.t))
    assert.equal("metadata", metadata.note)
    assert(samebits.same_bits(t, samebits.load(path "st.bin", "t")))
  end)

  it("give nil and a message for files that cannot be had", function()
    local function why(...)
      local loaded, message = samebits.load(...)
      assert.is_nil(loaded)
      return message
    end
    assert.matches("none.npy: No such file", why(path "none.npy"))
    assert.matches("none: No such file", why(path "none"))
    assert.is_string(why(files.name))
    assert(samebits.save(path "t.safetensors", { a = t, metadata = t }))
    assert.matches("no tensor called 'b'; it holds 'a', 'metadata'", why(path "t.safetensors", "b"))
    assert(samebits.save(path "t.safetensors", { a = t }))
    assert.matches("no tensor called 'metadata'", why(path "t.safetensors", "metadata"))
    assert(samebits.save(path "t.npy", t))
    assert.matches("holds one tensor", why(path "t.npy", "b"))
    for name, bytes in pairs { empty = "", short = "\1\2", text = "hello, world" } do
      local file = assert(io.open(path(name), "wb"))
      file:write(bytes)
      file:close()
      assert.matches("neither .npy nor .safetensors", why(path(name)))
      assert(os.rename(path(name), path(name .. ".npy")))
      assert.matches(name .. ".npy: ", why(path(name .. ".npy")))
      assert(os.rename(path(name .. ".npy"), path(name .. ".safetensors")))
      assert.matches(name .. ".safetensors: ", why(path(name .. ".safetensors")))
    end
    local zip = "PK\3\4" .. ("\0"):rep(22)
    local foreign = {
      ["a.npz"] = { zip .. "\9\0\0\0arr_0.npy", "a %.npz archive of %.npy files" },
      ["a.pt"] = { zip .. "\16\0\0\0archive/data.pkl", "a PyTorch file" },
      ["b.pt"] = { "\128\2c__torch__", "a PyTorch file" },
      ["a.pkl"] = { "\128\4\149", "a pickle" },
      ["a.gguf"] = { "GGUF\3\0\0\0", "a GGUF file" },
      ["a.zip"] = { "PK\5\6", "but a zip archive$" },
    }
    for name, case in pairs(foreign) do
      local file = assert(io.open(path(name), "wb"))
      file:write(case[1])
      file:close()
      assert.matches(name .. ": neither %.npy nor %.safetensors, but ", why(path(name)))
      assert.matches(case[2], why(path(name)))
    end
    local saved, message = samebits.save(path "none/t.npy", t)
    assert.is_nil(saved)
    assert.matches("No such file", message)
  end)

  it("refuse misuse", function()
    assert.matches("load: expected a path, got nil",
                   refusal(function() local _ = samebits.load() end))
    assert.matches("load: expected a tensor's name, got number",
                   refusal(function() local _ = samebits.load(path "x", 3) end))
    assert.matches("save: expected a path", refusal(function() samebits.save(t, path "x") end))
    assert.matches("ends neither in .npy nor in .safetensors",
                   refusal(function() samebits.save(path "x.bin", t) end))
    assert.matches("holds one tensor", refusal(function() samebits.save(path "x.npy", { t }) end))
    assert.matches("named tensors", refusal(function() samebits.save(path "x.safetensors", t) end))
  end)
end)

describe("the module", function()
  it("has this surface", function()
    local names = {}
    for name in pairs(samebits) do names[#names + 1] = name end
    table.sort(names)
    assert.same({
      "abi", "backends", "batch", "batch_from", "bits", "debug", "drift", "empty", "is_tensor",
      "load", "logprob", "mask_from_lengths", "mask_from_splits", "numerics", "open", "pack", "pad",
      "pinned", "same_bits", "save", "tensor", "ulp", "verify", "version",
      "within_ulps", "zeros",
    }, names)
  end)
end)
