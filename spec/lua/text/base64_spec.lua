-- samebits.text.base64: the vectors of RFC 4648, and all bytes.

local base64 = require "samebits.text.base64"

describe("base64", function()
  it("has the vectors of RFC 4648", function()
    for text, want in pairs { [""] = "", f = "Zg==", fo = "Zm8=", foo = "Zm9v", foob = "Zm9vYg==",
                              fooba = "Zm9vYmE=", foobar = "Zm9vYmFy" } do
      assert.equal(want, base64.encode(text))
    end
  end)

  it("encodes any bytes", function()
    assert.equal("//79APv/", base64.encode "\255\254\253\0\251\255")
    assert.equal("AAAA", base64.encode "\0\0\0")
  end)
end)
