-- float16 and bfloat16 encodings: all of them to numbers and back, and the rounding of what lies
-- between them.

local half = require "samebits.tensor.half"

local formats = {
  { name = "float16", to = half.to_float16, from = half.from_float16, nan = 0x7e00,
    infinity = 0x7c00, one = 0x3c00, spacing = 2 ^ -10, tiny = 2 ^ -24, largest = 65504,
    beyond = 65520 },
  { name = "bfloat16", to = half.to_bfloat16, from = half.from_bfloat16, nan = 0x7fc0,
    infinity = 0x7f80, one = 0x3f80, spacing = 2 ^ -7, tiny = 2 ^ -133,
    largest = 255 * 2 ^ 120, beyond = 511 * 2 ^ 119 },
}

for _, format in ipairs(formats) do
  local to, from = format.to, format.from

  describe(format.name, function()
    it("comes back from the number of every encoding, NaNs as one", function()
      for h = 0, 0xffff do
        local v = from(h)
        local want = h % 0x8000 > format.infinity and format.nan or h
        if to(v) ~= want then assert.equal(want, to(v), ("%04x"):format(h)) end
      end
    end)

    it("stands for known numbers", function()
      assert.equal(1, from(format.one))
      assert.equal(1 + format.spacing, from(format.one + 1))
      assert.equal(-format.tiny, from(0x8001))
      assert.equal(format.largest, from(format.infinity - 1))
      assert.equal(-math.huge, from(0x8000 + format.infinity))
      assert.equal(-math.huge, 1 / from(0x8000))
      local v = from(format.infinity + 1)
      assert.is_true(v ~= v)
    end)

    it("rounds once, to nearest even", function()
      local step = format.spacing
      assert.equal(format.one, to(1 + step / 2))
      assert.equal(format.one + 2, to(1 + 1.5 * step))
      -- A double so close to a midpoint that fp32 would show the midpoint itself.
      assert.equal(format.one + 1, to(1 + step / 2 + 2 ^ -50))
      assert.equal(format.one + 1, to(1 + 1.5 * step - 2 ^ -50))
    end)

    it("keeps subnormals, and ends in zero and infinity", function()
      assert.equal(0x8000, to(-format.tiny / 2))
      assert.equal(1, to(format.tiny * 0.75))
      assert.equal(2, to(format.tiny * 1.5))
      assert.equal(format.infinity - 1, to(format.beyond * (1 - 2 ^ -50)))
      assert.equal(format.infinity, to(format.beyond))
      assert.equal(0x8000 + format.infinity, to(-1e300))
    end)
  end)
end
