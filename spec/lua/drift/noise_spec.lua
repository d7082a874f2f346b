-- samebits.drift.noise: half an ulp of each dtype, and which differences are within it.

local noise = require "samebits.drift.noise"
local tally = require "samebits.drift.tally"

local word = tally.word
local NO, BF16 = { bfloat16 = false, float16 = false }, { bfloat16 = true, float16 = false }

local function of(pairs_)
  local n = noise.new()
  for _, pair in ipairs(pairs_) do
    n:add(word(pair[1]), word(pair[2]), math.abs(pair[2] - pair[1]))
  end
  return n
end

describe("the noise floor", function()
  it("is half an ulp of each side's dtype", function()
    local n = of { { -1, -1 }, { -3, -3 } }
    local got = n:report({ a = "float32", b = "bfloat16" }, { a = NO, b = BF16 })
    assert.same({ dtype = "float32", mean = 1.5 * 2 ^ -24, max = 2 ^ -23 }, got.a)
    assert.same({ dtype = "bfloat16", mean = 1.5 * 2 ^ -8, max = 2 ^ -7 }, got.b)
    assert.equal(got.a.max + got.b.max, got.max)
    got = n:report({ a = "float16" }, { a = NO, b = NO })
    assert.equal(2 ^ -10, got.a.max)
    assert.equal("float32", got.b.dtype)
  end)

  it("of fp16 does not fall below its subnormals, and 0 has none", function()
    local got = of({ { -2 ^ -20, 0 } }):report({ a = "float16", b = "float16" },
                                                { a = NO, b = NO })
    assert.equal(2 ^ -25, got.a.max)
    assert.equal(0, got.b.max)
  end)

  it("is that of the values, where a wider dtype holds them; not of a few of them", function()
    local list = {}
    for i = 1, 7 do list[i] = { -i, -i } end
    local holds = { a = BF16, b = NO }
    assert.equal("float32", of(list):report({ a = "float32" }, holds).a.dtype)
    list[8] = { -8, -8 }
    assert.equal("bfloat16", of(list):report({ a = "float32" }, holds).a.dtype)
    assert.equal("float32", of(list):report({}, holds).a.dtype) -- the contract's values
  end)

  it("counts the tokens that differ by no more", function()
    local n = of { { -1, -1 }, { -1, -1 - 2 ^ -8 }, { -1, -1.5 } }
    assert.equal(1, n:report({ a = "bfloat16", b = "float32" }, { a = NO, b = NO }).within)
    assert.equal(0, n:report({ a = "float32", b = "float32" }, { a = NO, b = NO }).within)
  end)
end)
