-- samebits.drift.words: how numbers, ranges and sides of a report are written, on both the terminal
-- and the page.

local ffi = require "ffi"
local words = require "samebits.drift.words"

describe("drift's words", function()
  it("group the digits of counts of five digits or more", function()
    assert.equal("1234", words.count(1234))
    assert.equal("12 345", words.count(12345))
    assert.equal("123 456", words.count(123456))
    assert.equal("1 234 567", words.count(1234567))
    assert.equal("1 ULP", words.ulps(1))
    assert.equal("0 ULPs", words.ulps(0))
    assert.equal("NaN", words.ulps(nil))
  end)

  it("shorten numbers, and name what is not finite", function()
    for text, x in pairs { ["NaN"] = 0 / 0, ["inf"] = math.huge, ["-inf"] = -math.huge } do
      assert.equal(text, words.number(x))
      assert.equal(text, words.exact(x))
    end
    assert.equal("0", words.number(-0))
    assert.equal("1e-5", words.number(1e-5))
    assert.equal("1.23e12", words.number(1.2345e12))
    assert.equal("-0.693147182", words.exact(-0.693147182464599609375))
    assert.equal("1 - 0.00125", words.near_one(0.99875))
    assert.equal("1 + 1e-7", words.near_one(1 + 1e-7))
    assert.equal("1", words.near_one(1))
    assert.equal("1.02", words.near_one(1.02))
  end)

  it("round no share to 0 or 100 percent", function()
    assert.equal("0 %", words.percent(0, 7))
    assert.equal("0 %", words.percent(0, 0))
    assert.equal("100 %", words.percent(7, 7))
    assert.equal("< 0.01 %", words.percent(1, 1e6))
    assert.equal("> 99.99 %", words.percent(1e6 - 1, 1e6))
    assert.equal("33.3 %", words.percent(1, 3))
  end)

  it("name the ranges of buckets", function()
    assert.equal("1", words.ulp_range { low = 1, high = 1 })
    assert.equal("2049 .. 4096", words.ulp_range { low = 2049, high = 4096 })
    assert.equal("2^12 .. 2^13", words.ulp_range { low = 4097, high = 8192 })
    assert.equal("0", words.difference_range { low = 0, high = 0 })
    assert.equal("< 1e-8", words.difference_range { low = 0, high = 1e-8 })
    assert.equal("1e-1 .. 1", words.difference_range { low = 0.1, high = 1 })
    assert.equal(">= 10", words.difference_range { low = 10, high = math.huge })
  end)

  it("fold runs of empty rows, but not a single one", function()
    assert.same({ { "a", 1 }, { "b", 0 }, { "c", 2 }, { "..." }, { "f", 3 } },
                words.folded { { "a", 1 }, { "b", 0 }, { "c", 2 }, { "d", 0 }, { "e", 0 },
                               { "f", 3 } })
  end)

  it("say of an input where it differs first, and of a side what was given", function()
    assert.equal("The temperatures differ at 3 of 12 345 tokens, first at sequence 1, " ..
                 "position 2: 0.7 in A, 1 in B.", words.input {
      field = "temperature", different = 3, of = 12345,
      first = { sequence = 1, position = 2, a = tonumber(ffi.new("float", 0.7)), b = 1 },
    })
    assert.equal("The masks differ at 1 of 4 tokens, first at sequence 0, position 3: it counts " ..
                 "in B, not in A.", words.input {
      field = "mask", different = 1, of = 4, first = { sequence = 0, position = 3, a = false },
    })
    local side = { label = "A", logits = true, logits_dtype = "float16", vocab = 9,
                   temperature = 0.5, with = { "ids" }, unused = { "extra" } }
    assert.equal("logits float16 [2, 3, 9], temperature 0.5, ids; not used: extra",
                 (words.side(side, { 2, 3 }):gsub("['\"]", "")))
    assert.equal("side A", words.title(side))
    assert.equal("old (a.npy)", words.title { label = "A", name = "old", source = "a.npy" })
  end)
end)
