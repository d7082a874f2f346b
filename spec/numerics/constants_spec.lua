-- The constants in src/det are those of docs/numerics.md, to the last bit. A wrong last bit in one
-- of lg's lower terms changes a result so rarely that no vector sees it.

local bits = require "samebits.bits"
local read = require("spec.support.files").read

-- The table "Fixed constants": name, value where it is a C number, encoding.
local function documented()
  local text = read "docs/numerics.md":match "### Fixed constants\n(.-)\n### "
  local list = {}
  for name, value, encoding in text:gmatch "\n| ([^|]-) | ([^|]-) | (%x+) |" do
    list[#list + 1] = { name = name, value = tonumber(value:match "%S+$"), encoding = encoding }
  end
  return list
end

local function by_name(list)
  local of = {}
  for _, constant in ipairs(list) do
    of[constant.name:match "(%S+)$":gsub("[^%w]", "")] = constant.value
  end
  return of
end

-- A header's code, and the hexadecimal floating-point numbers in it, in order.
local function code(name)
  return (read("src/det/" .. name):gsub("/%*.-%*/", ""))
end

local function numbers(text)
  local list = {}
  for word in text:gmatch "%f[%w](0x[%x.]+p[+-]%d+)" do list[#list + 1] = tonumber(word) end
  return list
end

local function defined(text, name)
  return tonumber((assert(text:match("#define " .. name .. " (0x[%x.]+p[+-]%d+)f"), name)))
end

describe("the constants", function()
  local list = documented()
  local of = by_name(list)

  it("in docs/numerics.md have the encodings that stand beside them", function()
    local checked = 0
    for _, constant in ipairs(list) do
      if constant.value then
        local dtype = #constant.encoding == 16 and "float64" or "float32"
        assert.equal(constant.encoding, bits.hex(constant.value, dtype), constant.name)
        checked = checked + 1
      end
    end
    assert.equal(22, checked)
  end)

  it("in exp2.h are those", function()
    local text, want, got = code "exp2.h", {}, {}
    for k = 1, 6 do
      want[k], got[k] = assert(of["C" .. k]), defined(text, "SB_EXP2_C" .. k)
    end
    assert.same(want, got)
  end)

  it("in log2.h are those, in their order", function()
    local want = { of.R2 }
    for k = 10, 0, -1 do want[#want + 1] = of["K" .. k] end
    assert.equal(12, #want)
    assert.same(want, numbers(code "log2.h"))
  end)

  it("in ratio.h are those of the section on ratios, in their order", function()
    local section = read "docs/numerics.md":match "\n## Ratios\n(.-)\n## "
    local want = numbers(section)
    assert.equal(18, #want)
    assert.same(want, numbers(code "ratio.h"))
    local factorial, last = 1, #want
    for k = 2, 14 do
      factorial = factorial * k
      assert.equal(1 / factorial, want[last + 2 - k])
    end
  end)

  it("in leaf.h and row.h are those", function()
    local leaf, row = code "leaf.h", numbers(code "row.h")
    assert.equal(of.MAGIC, defined(leaf, "SB_INT_MAGIC"))
    assert.equal(of.EVEN, defined(leaf, "SB_EVEN_MAGIC"))
    -- The range of temperatures, log2(e), 2^21.
    assert.same({ 2 ^ -10, 2 ^ 10, of.c, of.lim }, row)
  end)
end)
