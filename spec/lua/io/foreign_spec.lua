-- Files of other programs: what their first bytes and their paths are taken for.

local foreign = require "samebits.io.foreign"
local refusal = require "spec.support.refusal"

-- The start of a zip archive whose first file has this name.
local function zip(name)
  return "PK\3\4" .. ("\0"):rep(22) .. string.char(#name % 256, math.floor(#name / 256)) ..
         "\0\0" .. name .. "the bytes of that file"
end

local function says(bytes, path, ...) refusal.says(foreign.advice(bytes, path), ...) end

describe("a file of another program", function()
  it("is a zip archive's kind by the first file inside", function()
    says(zip "logits.npy", "a.bin", ".npz archive", "numpy.save")
    says(zip "model/data.pkl", "a.bin", "PyTorch file", "safetensors.torch.save_file")
    assert.equal("a zip archive", foreign.advice(zip "readme.txt", "a.bin"))
    -- The bytes behind the name are not part of it.
    assert.equal("a zip archive", foreign.advice(zip "a" .. ".npy", "a.bin"))
  end)

  it("is a zip archive's kind by the path, too", function()
    says(zip "x", "a.npz", ".npz archive")
    says(zip "x", "a.pt", "PyTorch file")
    says("PK\5\6", "a.pth", "PyTorch file")
    assert.equal("a zip archive", foreign.advice("PK\3\4cut", "a.npz.zip"))
  end)

  it("is a pickle by its protocol, from 2 to 5", function()
    for version = 2, 5 do
      says("\128" .. string.char(version) .. "}q", "a.pkl", "a pickle, which is never run")
    end
    says("\128\2}q", "a.pt", "PyTorch file")
    assert.is_nil(foreign.advice("\128\1}q", "a.pkl"))
    assert.is_nil(foreign.advice("\128\6}q", "a.pkl"))
  end)

  it("is a GGUF file by its first word", function()
    says("GGUF\3\0\0\0", "model", "GGUF", ".safetensors")
  end)

  it("is unknown otherwise, whatever its path", function()
    for _, bytes in ipairs { "", "P", "GGU", "\147NUMPY\1\0", " PK\3\4" } do
      assert.is_nil(foreign.advice(bytes, "a.npz"))
    end
  end)
end)
