-- Which bytes are UTF-8, and where the first that are not stand.

local utf8 = require "samebits.text.utf8"

-- The encoding of a code point, as RFC 3629 has it, without its exceptions.
local function encoded(c)
  local function tail(shift) return 0x80 + math.floor(c / 2 ^ shift) % 64 end
  if c < 0x80 then return string.char(c) end
  if c < 0x800 then return string.char(0xc0 + math.floor(c / 64), tail(0)) end
  if c < 0x10000 then
    return string.char(0xe0 + math.floor(c / 4096), tail(6), tail(0))
  end
  return string.char(0xf0 + math.floor(c / 2 ^ 18), tail(12), tail(6), tail(0))
end

describe("UTF-8", function()
  it("has no invalid byte", function()
    assert.is_nil(utf8.invalid "")
    assert.is_nil(utf8.invalid "plain\0\127")
    assert.is_nil(utf8.invalid "\195\164\226\130\172\240\159\152\128")
  end)

  it("is every code point up to U+10FFFF but the surrogates", function()
    for c = 0, 0x110fff, 17 do
      local valid = (c < 0xd800 or c > 0xdfff) and c <= 0x10ffff
      local at = utf8.invalid("a" .. encoded(c))
      if at ~= (not valid and 2 or nil) then error(("U+%04X: %s"):format(c, tostring(at))) end
    end
    for _, c in ipairs { 0x7f, 0x80, 0x7ff, 0x800, 0xd7ff, 0xe000, 0xffff, 0x10000, 0x10ffff } do
      assert.is_nil(utf8.invalid(encoded(c)), ("U+%04X"):format(c))
    end
    for _, c in ipairs { 0xd800, 0xdfff, 0x110000 } do
      assert.equal(1, utf8.invalid(encoded(c)), ("U+%04X"):format(c))
    end
  end)

  it("is neither overlong nor led by a byte that leads nothing", function()
    for _, bytes in ipairs { "\192\128", "\193\191", "\224\159\191", "\240\143\191\191", "\128",
                             "\191", "\245\128\128\128", "\248\136\128\128\128", "\254", "\255" } do
      assert.equal(3, utf8.invalid("ok" .. bytes), bytes:byte())
    end
  end)

  it("breaks off where a character is cut short, at its first byte", function()
    local text = "\195\164\226\130\172\240\159\152\128"
    local starts = { 1, 3, 6 }
    for size = 1, #text do
      local want
      for i, first in ipairs(starts) do
        local past = starts[i + 1] or #text + 1
        if size >= first and size < past - 1 then want = first end
      end
      assert.equal(want, utf8.invalid(text:sub(1, size)), size)
    end
    assert.equal(1, utf8.invalid "\240\159\152(")
    assert.equal(2, utf8.invalid "a\226(\172")
  end)

  it("is looked at from a place on, and positions stay those of the text", function()
    assert.is_nil(utf8.invalid("\255ab", 2))
    assert.equal(5, utf8.invalid("\255abc\255", 2))
    assert.is_nil(utf8.invalid("\255", 2))
  end)
end)
