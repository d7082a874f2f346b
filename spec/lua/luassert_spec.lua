-- samebits.luassert: which values pass, which fail, and the messages of failures.

local ffi = require "ffi"
local samebits = require "samebits"
local hex = require "spec.support.hex"
local refusal = require "spec.support.refusal"

local says = refusal.says
local tensor = samebits.tensor

-- The message of an assertion that fails, which is at the line of the assertion.
local function fails(f)
  local ok, message = pcall(f)
  assert(not ok, "expected a failure")
  message = type(message) == "table" and message.message or message
  local file, rest = tostring(message):match "([^/]*%.lua):%d+: (.*)$"
  assert(file == "luassert_spec.lua", tostring(message))
  return rest
end

describe("assert.same_bits", function()
  local a, b = tensor { { 1, 2 }, { 3, 4 } }, tensor { { 1, 2 }, { 3, 4 + 2 ^ -20 } }

  it("compares tensors", function()
    assert.same_bits(a, a:clone())
    assert.is_not.same_bits(a, b)
    says(fails(function() assert.same_bits(a, b) end), "1 of 4 elements differ (float32 [2, 2])",
         "first at [1, 1]: 40800000 and 40800002 (4 and 4.00000095), 2 ULPs",
         "Expected the same bits; of each pair the expected one stands first.")
    says(fails(function() assert.same_bits(a, b, "step 3") end), "step 3: 1 of 4 elements")
    says(fails(function() assert.is_not.same_bits(a, a) end),
         "Expected other bits than these: float32 [2, 2] 3f800000 40000000 40400000 40800000")
    says(fails(function() assert.is_not.same_bits(a, a, "step 3") end), "step 3\nExpected other")
    says(fails(function() assert.same_bits(a, a:view(4)) end), "shapes differ: [2, 2] and [4]")
    says(fails(function() assert.same_bits(a, a:to "float64") end),
         "dtypes differ: float32 and float64")
  end)

  it("compares numbers and tables of them as doubles", function()
    assert.same_bits(0.1, 0.1)
    assert.same_bits({ { 1, 2 }, { 3, 0 / 0 } }, { { 1, 2 }, { 3, 0 / 0 } })
    assert.is_not.same_bits(0.0, -0.0)
    says(fails(function() assert.same_bits({ 0.3, 1 }, { 0.1 + 0.2, 1 }) end),
         "float64 [2]", "3fd3333333333333 and 3fd3333333333334", "1 ULP")
    says(fails(function() assert.same_bits({ 0.3, 1 }, { 0.1 + 0.2, 1 }) end),
         "(0.29999999999999999 and 0.30000000000000004)")
    says(fails(function() assert.within_ulps({ 0.3, 1, 2 }, { 0.1 + 0.2, 1.5, 2 }, 0) end),
         "(0.29999999999999999 and 0.30000000000000004)", "at [1]: ", "(1 and 1.5)")
    says(fails(function() assert.same_bits({ 1, 2 }, { 1, 2, 3 }) end), "shapes differ")
    assert.same_bits({ true, false }, { true, false })
    assert.is_not.same_bits({ true, false }, { true, true })
    assert.same_bits({ 2LL ^ 60 }, tensor({ 2LL ^ 60 }, { dtype = "int64" }))
  end)

  it("compares numbers beside a tensor in its dtype", function()
    local third = tensor { 1 / 3 }
    assert.same_bits({ 0.333333343 }, third)       -- its nine digits
    assert.same_bits(third, { 1 / 3 })
    assert.is_not.same_bits({ 0.33333333 + 2 ^ -24 }, third)
    assert.same_bits({ 7 }, tensor({ 7 }, { dtype = "int32" }))
    says(fails(function() assert.same_bits({ 7.5 }, tensor({ 7 }, { dtype = "int32" })) end),
         "same_bits: expected: ", "not an integer")
  end)

  it("compares encodings in hex digits", function()
    assert.same_bits({ "3f800000", "bf317218" }, tensor { 1, -math.log(2) })
    assert.same_bits(tensor({ 1 }, { dtype = "bfloat16" }), { "3f80" })
    assert.same_bits({ "3ff0000000000000" }, { 1 })
    assert.same_bits({ "3f800000" }, { 1 })
    assert.is_not.same_bits({ "ffc00000" }, { "7fc00000" })
    says(fails(function() assert.same_bits({ "3f8" }, tensor { 1 }) end), "3f8", "8 hex digits")
  end)

  it("compares arrays of C", function()
    local n = 3
    assert.same_bits(ffi.new("float[3]", { 1, 2, 3 }), ffi.new("float[?]", n, { 1, 2, 3 }))
    assert.same_bits(ffi.new("double[2][2]", { { 1, 2 }, { 3, 4 } }), { { 1, 2 }, { 3, 4 } })
    assert.same_bits(ffi.new("const float[2]", { 1, 2 }), tensor { 1, 2 })
    assert.same_bits(ffi.new("double[?][2]", n), samebits.zeros({ 3, 2 }, "float64"))
    for name, dtype in pairs {
      ["int8_t"] = "int8", ["uint8_t"] = "uint8", ["int16_t"] = "int16", ["int32_t"] = "int32",
      ["int64_t"] = "int64", ["bool"] = "bool",
    } do
      assert.same_bits(ffi.new(name .. "[4]", { 1, 0, 1, 1 }),
                       tensor({ 1, 0, 1, 1 }, { dtype = dtype }))
    end
    says(fails(function()
      assert.same_bits(ffi.new("float[2]", { 1, 2 }), ffi.new("float[2]", { 1, 3 }))
    end), "1 of 2 elements differ (float32 [2]); first at [1]")
    says(fails(function() assert.same_bits({ 1 }, ffi.new "float[1]" + 0) end),
         "actual: ctype<float *> has no length: make a tensor of it")
    says(fails(function() assert.same_bits(ffi.new "uint16_t[1]", { 1 }) end),
         "expected: an array of unsigned short")
  end)

  it("refuses what holds no numbers", function()
    for _, value in ipairs { "x", print, {}, { 1, { 2 } }, { {}, { 1 } } } do
      local message = fails(function() assert.same_bits(value, tensor { 1 }) end)
      assert.truthy(message:find "^same_bits: expected" or message:find "shapes differ", message)
    end
    says(fails(function() assert.same_bits(nil, { 1 }) end), "same_bits: expected is nil")
    says(fails(function() assert.same_bits { 1 } end), "same_bits: expected 2 arguments, got 1")
  end)

  it("names a failure's count where there are several", function()
    local x = hex.tensor(hex.values(100, 1), { 100 })
    local y = x:clone()
    for _, i in ipairs { 7, 50, 99 } do
      ffi.cast("uint32_t *", y.ptr)[i] = ffi.cast("uint32_t *", y.ptr)[i] + i
    end
    says(fails(function() assert.same_bits(x, y) end), "3 of 100 elements differ",
         "first at [7]", "7 ULPs; at most 99 ULPs, at [99]: ")
  end)
end)

describe("assert.within_ulps", function()
  it("takes what is as near", function()
    local a = tensor { 1, -2 }
    local b = tensor { 1 + 2 ^ -22, -2 }
    assert.within_ulps(a, b, 2)
    assert.is_not.within_ulps(a, b, 1)
    assert.within_ulps({ 0.3 }, { 0.1 + 0.2 }, 1)
    assert.within_ulps(0.0, -0.0, 0)
    assert.is_not.within_ulps(0 / 0, 1, 1e9)
    says(fails(function() assert.within_ulps(a, b, 1) end), "1 of 2 elements differ by more than 1",
         "first at [0]: 3f800000 and 3f800002", "Expected them to be nearer")
    says(fails(function() assert.within_ulps(a, b, 1, "lse") end), "lse: 1 of 2 elements")
    says(fails(function() assert.is_not.within_ulps(a, b, 2) end),
         "Expected a larger distance than 2 ULPs from these: float32 [2] 3f800000 c0000000")
    says(fails(function() assert.within_ulps(a, b) end), "expected 3 arguments, got 2")
    says(fails(function() assert.within_ulps(a, b, 0.5) end), "within_ulps: expected a number of")
  end)
end)

describe("assert.batch_invariant", function()
  local batch = { logits = hex.tensor(hex.values(2 * 3 * 20, 2), { 2, 3, 20 }),
                  ids = { { 1, 2, 3 }, { 4, 5, 6 } } }
  local function steady(b) return samebits.logprob(b) end
  local function unsteady(b)
    local out = samebits.logprob(b).token
    local words = ffi.cast("uint32_t *", out.ptr)
    for row = 0, out:numel() - 1 do words[row] = words[row] + b.sequences end
    return out
  end

  it("takes a function that looks at rows alone", function()
    assert.batch_invariant(steady, batch)
    assert.batch_invariant(steady, samebits.batch(batch))
    assert.batch_invariant(steady, batch, { rounds = 1, transforms = { "alone" } })
    assert.is_not.batch_invariant(unsteady, batch)
  end)

  it("shows what the others do", function()
    says(fails(function() assert.batch_invariant(unsteady, batch, { seed = 2 }) end),
         " tokens changed, by at most ", "first in 'alone', sequence 0, position 0, id 1:",
         " in one batch, ", " here (", "ULP", "each sequence by itself",
         "\nExpected the same bits in whatever batch.")
    says(fails(function() assert.batch_invariant(unsteady, batch, "my scorer") end),
         "my scorer: ")
    says(fails(function() assert.is_not.batch_invariant(steady, batch) end),
         "Expected bits that depend on the batch, but ", " kept them")
  end)

  it("says where the worst token is, and shows float64 with all its digits", function()
    local worst
    local function drifting(b)
      local out = samebits.logprob(b).token:to "float64"
      local numbers = ffi.cast("double *", out.ptr)
      for row = 0, out:numel() - 1 do
        -- Only batches of one sequence: the further back a token, the more.
        if b.sequences == 1 then numbers[row] = numbers[row] * (1 + (row + 1) * 2 ^ -50) end
      end
      return out
    end
    local message = fails(function()
      assert.batch_invariant(drifting, batch, { transforms = { "alone" }, rounds = 1 })
    end)
    worst = message:match "\nworst in 'alone', sequence %d, position 2, id %d:\n  [^\n]+\n"
    assert.truthy(worst, message)
    local first, last = worst:match "%((%S+) and (%S+), "
    assert.not_equal(first, last)
    assert.is_true(#first >= 17, first)
  end)

  it("refuses what is no function or no batch", function()
    says(fails(function() assert.batch_invariant(3, batch) end), "fn: expected a function")
    says(fails(function() assert.batch_invariant(steady, { ids = { 1 } }) end),
         "batch_invariant: batch: logits is missing")
    says(fails(function() assert.batch_invariant(steady, batch, { rows = 0 }) end), "rows")
    says(fails(function() assert.batch_invariant(steady) end), "expected 2 arguments, got 1")
    says(fails(function() assert.batch_invariant(function() error "oops" end, batch) end), "oops")
  end)
end)
