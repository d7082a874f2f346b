-- The seeded generator of verify: the same numbers everywhere.

local prng = require "samebits.verify.prng"

local function list_of(n, f)
  local list = {}
  for i = 1, n do list[i] = f() end
  return list
end

describe("a generator", function()
  it("gives the same bits for the same seed", function()
    for seed, want in pairs { [0] = { 2897671709, 1020824519, 2578440183, 678483263 },
                              [7] = { 2126301847, 438662496, 632081316, 668642504 } } do
      local random = prng.new(seed)
      assert.same(want, list_of(4, function() return random:bits() end))
    end
  end)

  it("scales them to integers, both ends included", function()
    local random = prng.new(7)
    assert.same({ 4, 1, 1, 1, 2, 9, 0, 3, 2, 8, 4, 7 },
                list_of(12, function() return random:integer(0, 9) end))
    local seen = {}
    for _ = 1, 200 do seen[random:integer(-1, 1)] = true end
    assert.same({ [-1] = true, [0] = true, [1] = true }, seen)
    assert.equal(5, random:integer(5, 5))
  end)

  it("picks every element of a list", function()
    local random, seen = prng.new(1), {}
    for _ = 1, 100 do seen[random:pick { "a", "b", "c" }] = true end
    assert.same({ a = true, b = true, c = true }, seen)
  end)

  it("gives uniform numbers below 1 and normal ones about 0", function()
    local random, sum, squares = prng.new(3), 0, 0
    assert.equal(prng.new(7):bits() / 2 ^ 32, prng.new(7):uniform())
    for _ = 1, 4000 do
      local u, x = random:uniform(), random:normal()
      assert.is_true(u >= 0 and u < 1)
      sum, squares = sum + x, squares + x * x
    end
    assert.is_true(math.abs(sum / 4000) < 0.1)
    assert.is_true(math.abs(squares / 4000 - 1) < 0.1)
  end)
end)
