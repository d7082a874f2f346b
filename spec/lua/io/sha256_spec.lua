-- samebits.io.sha256: the digests of FIPS 180-4, and of every length around a block.

local ffi = require "ffi"
local sha256 = require "samebits.io.sha256"
local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

describe("SHA-256", function()
  it("has the published digests", function()
    assert.equal("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
                 sha256.hex "abc")
    assert.equal("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                 sha256.hex "")
    assert.equal("248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
                 sha256.hex "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")
    assert.equal("\186\120\22\191", sha256.bytes("abc"):sub(1, 4))
    assert.equal(32, #sha256.bytes "abc")
  end)

  it("agrees with sha256sum around blocks of 64 bytes", function()
    local files, names = temporary.folder(), {}
    for _, n in ipairs { 1, 54, 55, 56, 57, 63, 64, 65, 119, 120, 127, 128, 1000 } do
      local text = {}
      for i = 1, n do text[i] = string.char((i * i + n) % 256) end
      names[#names + 1] = { files:write(n .. ".bin", table.concat(text)), table.concat(text) }
    end
    local words = {}
    for i, name in ipairs(names) do words[i] = shell.quote(name[1]) end
    local said = shell.run("sha256sum " .. table.concat(words, " "))
    local i = 0
    for line in said:gmatch "[^\n]+" do
      i = i + 1
      assert.equal(line:match "^%x+", sha256.hex(names[i][2]))
    end
    assert.equal(#names, i)
    files:remove()
  end)

  it("gives the bytes back as it goes", function()
    local size, seen = 5 * 2 ^ 20 + 5, 0
    local p = ffi.new("uint8_t[?]", size)
    sha256.hex(p, size, function(at, n)
      assert.equal(seen, tonumber(at - ffi.cast("uint8_t *", p)))
      seen = seen + n
    end)
    assert.equal(size - size % 64, seen)
  end)
end)
