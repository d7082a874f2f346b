-- samebits.text.bytes: what is put comes out in order, in decimal, hexadecimal and LEB128.

local bytes = require "samebits.text.bytes"

describe("bytes", function()
  it("hold text and numbers in order, however many", function()
    local b, want = bytes.new(), {}
    for i = 1, 3000 do
      b:text "x="
      b:integer(i * i)
      b:byte(10)
      want[i] = ("x=%d\n"):format(i * i)
    end
    assert.equal(table.concat(want), b:string())
  end)

  it("hold integers of any size", function()
    for _, x in ipairs { 0, 1, -1, 9, 10, 99, 100, -2 ^ 31, 2 ^ 32, 2 ^ 53, -2 ^ 53 + 1 } do
      local b = bytes.new()
      b:integer(x)
      assert.equal(("%.0f"):format(x), b:string())
    end
  end)

  it("hold words as digits and as bytes", function()
    local b = bytes.new()
    b:hex(0)
    b:hex(-1)
    b:hex(0x1234abcd)
    b:word(0x04030201)
    b:word(-2)
    assert.equal("00000000ffffffff1234abcd\1\2\3\4\254\255\255\255", b:string())
  end)

  it("hold LEB128", function()
    for x, want in pairs { [0] = "\0", [127] = "\127", [128] = "\128\1", [300] = "\172\2",
                           [4047209092] = "\132\133\238\137\15" } do
      local b = bytes.new()
      b:varint(x)
      assert.equal(want, b:string())
    end
  end)
end)
