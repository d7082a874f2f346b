-- samebits.drift.tally: encodings, and the counts, sums and histograms of pairs of logprobs, the
-- same whatever the chunks.

local ffi = require "ffi"
local tally = require "samebits.drift.tally"

local word = tally.word
local NAN = 0x7fc00000

-- Two sequences of three tokens.
local layout = { longest = 3, bounds = function(b) return 3 * b, 3 * b + 3 end,
                 place = function(row) return math.floor(row / 3), row % 3 end }

-- A tally of words, rows chunks[1], chunks[2] ... at a time; and the flags.
local function counted(a, b, chunks, active_b)
  local t, first, flags = tally.new(layout, 2), 0, {}
  for _, n in ipairs(chunks) do
    local x, y = ffi.new("int32_t[?]", n), ffi.new("int32_t[?]", n)
    local on_a, on_b = ffi.new("uint8_t[?]", n), ffi.new("uint8_t[?]", n)
    local set, each = ffi.new("uint8_t[?]", n), {}
    ffi.fill(on_a, n, 1)
    for _, name in ipairs { "ratio", "k1", "k2", "k3" } do each[name] = ffi.new("float[?]", n) end
    for i = 0, n - 1 do
      x[i], y[i] = a[first + i + 1], b[first + i + 1]
      on_b[i] = active_b and active_b[first + i + 1] or 1
      each.ratio[i] = math.exp(tally.value(y[i]) - tally.value(x[i]))
    end
    local before = t.different
    local different = t:add(first, n, x, y, on_a, on_b, each, set)
    assert.equal(t.different - before, different)
    for i = 0, n - 1 do flags[#flags + 1] = set[i] end
    first = first + n
  end
  t:finish()
  return t, flags
end

local A = { word(-1), word(-2), word(-3), word(-4), word(0), word(-1) }
local B = { word(-1), word(-2) + 3, word(-3), word(-3.5), NAN, word(-1) - 1 }

describe("an encoding", function()
  it("has a value, a place among the others, and a distance from them", function()
    assert.equal("bf800000", tally.hex(word(-1)))
    assert.equal(-1, tally.value(word(-1)))
    assert.equal(tally.value(word(0.1)), tonumber(ffi.new("float", 0.1)))
    assert.is_true(tally.is_nan(NAN) and not tally.is_nan(0x7f800000))
    assert.equal(1, tally.ulps(word(1), word(1) + 1))
    assert.equal(2, tally.ulps(1, -0x80000000 + 1)) -- the smallest numbers above and below 0
    assert.equal(0, tally.ulps(0, -0x80000000))
    assert.is_nil(tally.ulps(NAN, 0))
    assert.is_true(tally.place(word(-2)) < tally.place(word(-1)))
  end)
end)

describe("a tally", function()
  it("counts tokens, the same in chunks of any size", function()
    for _, chunks in ipairs { { 6 }, { 2, 3, 1 }, { 1, 1, 1, 1, 1, 1 } } do
      local t, flags = counted(A, B, chunks)
      assert.same({ 0, 1, 0, 1, 1, 1 }, flags)
      assert.same({ 6, 2, 4 }, { t.compared, t.equal, t.different })
      assert.same({ 0, 1, 1, 5 }, { t.nan_a, t.nan_b, t.not_finite, t.finite })
      assert.same({ 1, 0 }, { t.zeros_a, t.zeros_b })
      assert.same({ 2 ^ 21, 0.5 }, { t.max_ulps, t.max_difference })
      assert.equal(0.5 - 3 * 2 ^ -22 + 2 ^ -24, t.sums.difference:total())
      -- NaNs are worst; then the largest difference.
      assert.same({ 4, 3 }, { t.worst[1].row, t.worst[2].row })
      assert.equal(1, t.first.row)
      assert.equal(1, t.sequences[1].sequence)
      assert.same({ 3, 3, 1 }, { t.sequences[1].tokens, t.sequences[1].different,
                                 t.sequences[1].not_finite })
    end
  end)

  it("makes histograms of distances", function()
    local t = counted(A, B, { 6 })
    local ulps, differences = t:ulps(), t:differences()
    assert.same({ { low = 0, high = 0, count = 2 }, { low = 1, high = 1, count = 1 },
                  { low = 2, high = 2, count = 0 }, { low = 3, high = 4, count = 1 } },
                { ulps[1], ulps[2], ulps[3], ulps[4] })
    assert.same({ low = 2 ^ 20 + 1, high = 2 ^ 21, count = 1 }, ulps[#ulps])
    assert.same({ low = 0, high = 0, count = 2 }, differences[1])
    assert.same({ low = 0.1, high = 1, count = 1 }, differences[10])
    assert.equal(math.huge, differences[#differences].high)
  end)

  it("bins tokens by their position in the sequence", function()
    local bins = counted(A, B, { 6 }):positions()
    assert.equal(3, #bins)
    assert.same({ first = 0, last = 0, compared = 2, different = 1, mean = 0.25, max = 0.5 },
                bins[1])
  end)

  it("leaves out what is not active on both sides", function()
    local t, flags = counted(A, B, { 4, 2 }, { 1, 0, 1, 1, 0, 1 })
    assert.same({ 0, 0, 0, 1, 0, 1 }, flags)
    assert.same({ 4, 2, 2, 0, 0 }, { t.compared, t.different, t.only_a, t.only_b, t.inactive })
  end)

  it("knows which narrower dtypes hold all of a side's values", function()
    local t = counted(A, B, { 6 })
    assert.same({ bfloat16 = true, float16 = true }, t.containers.a)
    assert.same({ bfloat16 = false, float16 = false }, t.containers.b)
  end)
end)
