-- Whether bits are the same, and the report if they are not.

local ffi = require "ffi"
local bits = require "samebits.bits"
local samebits = require "samebits.tensor"
local prng = require "spec.support.prng"
local refusal = require "spec.support.refusal"

local tensor, same_bits, ulp = samebits.tensor, bits.same_bits, bits.ulp
local INF, NAN = math.huge, 0 / 0

local function report_of(a, b)
  local same, report = same_bits(a, b)
  assert.is_false(same)
  assert.equal(report.message, tostring(report))
  assert.is_nil(report.message:find("\n"))
  return report
end

describe("same_bits", function()
  it("is true for equal encodings, NaNs included", function()
    local a = samebits.from_bits { "7fc00000", "ffc12345", "80000000", "00000001" }
    assert.is_true(same_bits(a, a))
    assert.is_true(same_bits(a, a:clone()))
    assert.is_nil(select(2, same_bits(a, a:clone())))
    assert.is_true(same_bits(samebits.zeros({ 0, 3 }), samebits.zeros({ 0, 3 })))
    assert.is_true(same_bits(tensor(1), tensor(1)))
  end)

  it("reports count, first difference, hex pair and ULPs", function()
    local a = tensor { { 1, 2, 3 }, { 0, 5, 6 } }
    local b = tensor { { 1, 2, 3 + 2 ^ -22 }, { -0.0, 5, 6 + 2 ^ -19 } }
    local report = report_of(a, b)
    assert.equal(3, report.count)
    assert.equal(6, report.total)
    assert.equal(0, report.nans)
    assert.equal(4, report.max_ulps)
    assert.same({ flat = 2, index = { 0, 2 }, a = 3, b = 3 + 2 ^ -22, a_hex = "40400000",
                  b_hex = "40400001", ulps = 1 }, report.first)
    refusal.says(report.message, "3 of 6 elements", "float32 [2, 3]", "at [0, 2]",
                 "40400000 and 40400001", "1 ULP;", "at most 4 ULPs, at [1, 2]: ",
                 "40c00000 and 40c00004 (6 and 6.00000191)")
    assert.same({ flat = 5, index = { 1, 2 }, a = 6, b = 6 + 2 ^ -19, a_hex = "40c00000",
                  b_hex = "40c00004", ulps = 4 }, report.worst)
  end)

  it("names the worst difference wherever it is, and once", function()
    local a = tensor { 1, 2, 0 / 0, 4 }
    local report = report_of(a, tensor { 1, 2 + 2 ^ -20, 3, 4 + 2 ^ -21 })
    assert.same({ 1, 4 }, { report.first.flat, report.worst.ulps })
    assert.is_nil(report.message:find("at [1]:", report.message:find "at most", true))
    -- Blocks of 4096 are looked at one by one; a pair with a NaN is no distance.
    local n = 3 * 4096
    local x, y = samebits.zeros { n }, samebits.zeros { n }
    y[17] = 0 / 0
    for at, value in pairs { [5000] = 2 ^ -140, [9000] = 2 ^ -130, [12287] = 2 ^ -139 } do
      y[at] = value
    end
    report = report_of(x, y)
    assert.same({ 9000, 9000 }, { report.worst.flat, report.worst.index[1] })
    assert.is_true(report.max_ulps == report.worst.ulps)
    report = report_of(tensor { 0, 1 }, tensor { -0.0, 1 })
    assert.same({ 0, 0 }, { report.worst.flat, report.worst.ulps })
    report = report_of(tensor { 0 / 0 }, tensor { 1 })
    assert.is_nil(report.worst)
  end)

  it("shows so many digits that two values are not shown as one", function()
    local x, y = 0.1 + 0.2, 0.3
    local report = report_of(tensor({ x }, { dtype = "float64" }),
                             tensor({ y }, { dtype = "float64" }))
    refusal.says(report.message, "(0.30000000000000004 and 0.29999999999999999)")
    report = report_of(tensor { 1 }, tensor { 1 + 2 ^ -23 })
    refusal.says(report.message, "(1 and 1.00000012)")
    report = report_of(tensor({ 2LL ^ 53 }, { dtype = "int64" }),
                       tensor({ 2LL ^ 53 + 1 }, { dtype = "int64" }))
    refusal.says(report.message, "9007199254740992", "9007199254740993")
  end)

  it("tells +0 from -0, and NaNs apart", function()
    local report = report_of(tensor { 0 }, tensor { -0.0 })
    assert.equal(0, report.first.ulps)
    assert.equal("80000000", report.first.b_hex)
    report = report_of(samebits.from_bits { "7fc00000" }, samebits.from_bits { "ffffffff" })
    assert.equal(1, report.nans)
    assert.is_nil(report.first.ulps)
    assert.is_nil(report.max_ulps)
    refusal.says(report.message, "7fc00000 and ffffffff", "nan", "1 with NaN")
    for _, dtype in ipairs { "float32", "float16", "bfloat16", "float64" } do
      local a = tensor({ NAN, 1 }, { dtype = dtype })
      local b = tensor({ 1, -1 }, { dtype = dtype })
      for _, pair in ipairs { { a, b }, { b, a } } do
        report = report_of(unpack(pair))
        assert.is_nil(report.first.ulps)
        assert.equal(1, report.nans)
        assert.is_true(report.max_ulps == ulp(1, -1, dtype))
      end
    end
  end)

  it("wants the same dtype and shape", function()
    local t = tensor { { 1, 2 } }
    refusal.says(report_of(t, t:to("float16")).message, "dtypes", "float32 and float16")
    refusal.says(report_of(t:to("float16"), t:to("bfloat16")).message, "dtypes")
    refusal.says(report_of(t, t:view(2)).message, "shapes", "[1, 2] and [2]")
    refusal.says(report_of(t, t:transpose()).message, "[2, 1]")
  end)

  it("finds a difference in any place, of any dtype, whatever the strides", function()
    local random = prng.new(3)
    for _, dtype in ipairs { "float32", "float16", "bfloat16", "float64", "int8", "uint8", "int16",
                             "int32", "int64", "bool" } do
      for _, n in ipairs { 1, 4095, 4096, 4097, 10000 } do
        local a, b = samebits.zeros({ n }, dtype), samebits.zeros({ n }, dtype)
        local at = random:integer(0, n - 1)
        assert.is_true(same_bits(a, b))
        b:set(1, at)
        local report = report_of(a, b)
        assert.equal(1, report.count)
        assert.equal(at, report.first.flat)
        b:set(1, n - 1)
        assert.equal(at == n - 1 and 1 or 2, report_of(a, b).count)
        assert.equal(at, report_of(a, b).first.flat)
      end
      local a = tensor({ { 0, 1, 1 }, { 1, 0, 0 } }, { dtype = dtype })
      assert.is_true(same_bits(a:transpose(), a:transpose():clone()))
      assert.is_true(same_bits(a:slice(1, 1, 2), a:slice(1, 2, 3)))
      local changed = a:transpose():clone()
      changed:set(1, 2, 1)
      assert.same({ 2, 1 }, report_of(a:transpose(), changed).first.index)
    end
  end)

  it("counts ten million elements", function()
    local a, b = samebits.zeros({ 1e7 }), samebits.zeros({ 1e7 })
    assert.is_true(same_bits(a, b))
    ffi.fill(b.ptr, 4e7, 1)
    assert.equal(1e7, report_of(a, b).count)
  end)

  it("takes tensors only, whose elements can be had", function()
    refusal.says(refusal.misuse(same_bits, 1, tensor(1)), "argument 1 is 1")
    refusal.says(refusal.misuse(same_bits, tensor(1), nil), "argument 2 is nil")
    local far = tensor(ffi.cast("void *", 64), { shape = { 1 }, dtype = "int8", device = "moon" })
    refusal.says(refusal.misuse(same_bits, tensor({ 1 }, { dtype = "int8" }), far), "argument 2",
                 "moon:0")
  end)
end)

describe("ulp", function()
  it("counts steps on the ordered line", function()
    assert.equal(0, ulp(1, 1))
    assert.equal(1, ulp(1, 1 + 2 ^ -23))
    assert.equal(1, ulp(1 - 2 ^ -24, 1))
    assert.equal(2, ulp(2 ^ -149, -2 ^ -149))
    assert.equal(0, ulp(0, -0.0))
    assert.equal(2 * 0x7f800000, ulp(-INF, INF))
    assert.equal(1, ulp(INF, (2 - 2 ^ -23) * 2 ^ 127))
    assert.equal(1, ulp(1, 1 + 2 ^ -7, "bfloat16"))
    assert.equal(2 * 0x7c00, ulp(-INF, INF, "float16"))
    assert.equal(2, ulp(-2 ^ -24, 2 ^ -24, "float16"))
    assert.equal(1, ulp(1, 1 + 2 ^ -52, "float64"))
    assert.equal(2, ulp(-2 ^ -1074, 2 ^ -1074, "float64"))
    assert.is_true(ulp(-INF, INF, "float64") == 2 * 0x7ff0000000000000ULL)
    assert.equal(300, ulp(-100, 200, "int16"))
    assert.is_true(ulp(-2LL ^ 63, 2LL ^ 62, "int64") == 3ULL * 2ULL ^ 62)
    assert.equal(2 ^ 53, ulp(0, 2 ^ 53, "int64"))
  end)

  it("has no answer for NaN", function()
    for _, dtype in ipairs { "float32", "float16", "bfloat16", "float64" } do
      assert.is_nil(ulp(NAN, 1, dtype))
      assert.is_nil(ulp(1, NAN, dtype))
      assert.is_nil(ulp(NAN, NAN, dtype))
    end
  end)

  it("is of the values given, in compiled loops too", function()
    local a, b = { -1, -2, -3, -0.5, -2, -3 }, { -1, -2, -2.5, -0.5, -1.5, -3.75 }
    local steps = { 0, 0, 2 ^ 21, 0, 2 ^ 22, 3 * 2 ^ 20 }
    for _ = 1, 10 do
      jit.flush()
      for i = 1, 60 do
        for k = 1, 6 do
          local got = ulp(a[k], b[k])
          if got ~= steps[k] then error(("pass %d: %s, %s: %s"):format(i, a[k], b[k], got)) end
        end
      end
    end
  end)

  it("agrees with counting, over random pairs", function()
    local random = prng.new(11)
    for dtype, digits in pairs { float32 = 8, float16 = 4, bfloat16 = 4 } do
      for _ = 1, 500 do
        -- A non-negative finite encoding and one some steps above it.
        local top = dtype == "float16" and 0x7b00 or dtype == "bfloat16" and 0x7f00 or 0x7f000000
        local low = random:integer(0, top)
        local steps = random:integer(0, 200)
        local a = bits.from_hex(("%0" .. digits .. "x"):format(low), dtype)
        local b = bits.from_hex(("%0" .. digits .. "x"):format(low + steps), dtype)
        assert.equal(steps, ulp(a, b, dtype))
        assert.equal(steps, ulp(-b, -a, dtype))
        assert.equal(2 * low + steps, ulp(a, -b, dtype))
      end
    end
  end)
end)

describe("hex", function()
  it("gives encodings, of fp32 by default", function()
    assert.equal("bf317218", bits.hex(-math.log(2)))
    assert.equal("80000000", bits.hex(-0.0))
    assert.equal("7fc00000", bits.hex(NAN))
    assert.equal("7fc00000", bits.hex(-NAN))
    assert.equal("3f80", bits.hex(1, "bfloat16"))
    assert.equal("400921fb54442d18", bits.hex(math.pi, "float64"))
    assert.equal("ffffffffffffffff", bits.hex(-1, "int64"))
    assert.equal("01", bits.hex(true, "bool"))
    refusal.says(refusal.misuse(bits.hex, "x"), "hex: the value is the string 'x'")
    refusal.says(refusal.misuse(bits.hex, 1.5, "int8"), "1.5, not an integer")
    refusal.says(refusal.misuse(bits.hex, 1, "int9"), "'int9'")
  end)

  it("comes back", function()
    assert.equal("bf317216", bits.hex(bits.from_hex "bf317216"))
    assert.equal(-0x1.62e42cp-1, bits.from_hex "BF317216")
    assert.is_true(bits.from_hex "ffffffff" ~= bits.from_hex "ffffffff")
    assert.equal("number", type(bits.from_hex "ffffffff"))
    assert.equal(1, bits.from_hex("3c00", "float16"))
    assert.is_true(bits.from_hex("7fffffffffffffff", "int64") == 0x7fffffffffffffffLL)
    for _, bad in ipairs { "bf31721", "bf31721600", "xf317216", "", 12345678, {} } do
      refusal.says(refusal.misuse(bits.from_hex, bad), "not 8 hex digits")
    end
  end)
end)

describe("the assertion same_bits", function()
  it("passes, fails with the report, and can be negated", function()
    local a, b = tensor { 1, 2 }, tensor { 1, 3 }
    assert.same_bits(a, a:clone())
    assert.is_not.same_bits(a, b)
    local ok, message = pcall(function() assert.same_bits(a, b, "the pair") end)
    assert.is_false(ok)
    refusal.says(tostring(message), "the pair: 1 of 2 elements differ", "40000000 and 40400000")
    assert.is_false((pcall(function() assert.is_not.same_bits(a, a) end)))
  end)
end)

describe("within_ulps", function()
  local within_ulps = bits.within_ulps

  it("counts what is further apart, and names the first of it", function()
    local a = tensor { 1, 1, 1, 1 }
    local b = tensor { 1, 1 + 2 ^ -23, 1 + 2 ^ -20, 1 + 2 ^ -19 }
    assert.is_true(within_ulps(a, b, 16))
    assert.is_true(within_ulps(a, a, 0))
    local same, report = within_ulps(a, b, 7)
    assert.is_false(same)
    assert.same({ 2, 4, 2, 16 }, { report.count, report.total, report.first.flat,
                                   report.max_ulps })
    refusal.says(report.message, "2 of 4 elements differ by more than 7 ULPs", "at [2]",
                 "8 ULPs; at most 16 ULPs, at [3]: ")
    refusal.says(select(2, within_ulps(a, b, 1)).message, "by more than 1 ULP (")
    assert.equal(3, select(2, within_ulps(a, b, 0)).count)
  end)

  it("takes +0 for -0, across zero and in every dtype", function()
    assert.is_true(within_ulps(tensor { 0 }, tensor { -0.0 }, 0))
    for name, digits in pairs {
      float32 = { "00000002", "80000001" }, float16 = { "0002", "8001" },
      bfloat16 = { "0002", "8001" }, float64 = { "0000000000000002", "8000000000000001" },
    } do
      local a = samebits.from_bits({ digits[1] }, name)
      local b = samebits.from_bits({ digits[2] }, name)
      assert.is_true(within_ulps(a, b, 3), name)
      assert.is_false((within_ulps(a, b, 2)), name)
    end
    local a, b = tensor({ -3 }, { dtype = "int64" }), tensor({ 4 }, { dtype = "int64" })
    assert.is_true(within_ulps(a, b, 7))
    assert.is_false((within_ulps(a, b, 6)))
  end)

  it("finds NaN near NaNs of the same bits alone", function()
    local nan, other = samebits.from_bits { "7fc00000" }, samebits.from_bits { "7fc00001" }
    assert.is_true(within_ulps(nan, nan:clone(), 0))
    assert.is_false((within_ulps(nan, other, 2 ^ 31)))
    assert.is_false((within_ulps(nan, tensor { 1 }, 2 ^ 53)))
  end)

  it("refuses what is no number of ULPs", function()
    local a = tensor { 1 }
    for _, n in ipairs { -1, 0.5, INF, NAN, "2" } do
      refusal.says(refusal.misuse(function() within_ulps(a, a, n) end), "a number of ULPs")
    end
    refusal.says(refusal.misuse(function() within_ulps(a, 1, 1) end),
                 "within_ulps: argument 2 is 1, not a tensor")
  end)
end)
