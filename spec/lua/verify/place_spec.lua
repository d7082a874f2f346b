-- samebits.verify.place: tensors and batches on a device, whose elements lie there as they lie in
-- memory.

local ffi = require "ffi"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local hex = require "spec.support.hex"
local place = require "samebits.verify.place"

local DEVICE = backends.LOOPBACK
local whole = hex.tensor(hex.values(5 * 8, 11), { 5, 8 })

-- How far the first element is from a multiple of 16 bytes, at which the device's memory begins.
local function offset(t) return tonumber(ffi.cast("uintptr_t", t.ptr) % 16) end

local function back(t) return hex.of(assert(t:to "cpu"):contiguous()) end

describe("a placed tensor", function()
  it("keeps its strides, its alignment and its elements", function()
    local views = {
      whole, whole:transpose(0, 1), whole:slice(0, 1, 4):slice(1, 3, 8),
      whole:slice(1, 0, 1), whole:slice(1, 5, 6),
    }
    for i, t in ipairs(views) do
      local placed = place.tensor(t, DEVICE)
      assert.equal(DEVICE, placed.device)
      assert.same({ t.shape, t.strides }, { placed.shape, placed.strides })
      assert.equal(offset(t), offset(placed), i)
      assert.same(hex.of(t:contiguous()), back(placed))
    end
  end)

  it("is plainly moved where it is empty or there already", function()
    assert.same({ 0, 8 }, place.tensor(whole:slice(0, 2, 2), DEVICE).shape)
    assert.equal(whole.ptr, place.tensor(whole, "cpu").ptr)
  end)
end)

describe("a placed batch", function()
  local ids = { 0, 1, 2, 3, 4 }

  it("has its logits where they lay, and leaves what it was made from alone", function()
    local logits = hex.tensor(hex.values(5 * 16, 12), { 5, 16 }):slice(1, 3, 11)
    local spec = { logits = logits, ids = ids }
    local batch = place.batch(DEVICE, spec)
    assert.equal(DEVICE, batch.logits.device)
    assert.same({ 16, 1 }, batch.logits.strides)
    assert.same(hex.of(logits:contiguous()), back(batch.logits))
    assert.equal(logits, spec.logits)
  end)

  it("has logits that cannot be read in place made contiguous", function()
    local turned = whole:transpose(0, 1)
    local batch = place.batch(DEVICE, { logits = turned, ids = { 0, 1, 2, 3, 4, 0, 1, 2 } })
    assert.same({ 5, 1 }, batch.logits.strides)
    assert.same(hex.of(turned:contiguous()), back(batch.logits))
  end)

  it("is made of a batch and of nested lists, too", function()
    local made = samebits.batch { logits = whole, ids = ids }
    assert.equal(DEVICE, place.batch(DEVICE, made).logits.device)
    local batch = place.batch(DEVICE, { logits = { { 1, 2 }, { 3, 4 } }, ids = { 0, 1 } })
    assert.same({ "3f800000", "40000000", "40400000", "40800000" }, back(batch.logits))
  end)

  it("is refused as in memory", function()
    local ok, why = pcall(place.batch, DEVICE, { logits = whole, ids = { 0, 1 } })
    assert.is_false(ok)
    local _, want = pcall(samebits.batch, { logits = whole, ids = { 0, 1 } })
    assert.equal(tostring(want), tostring(why))
  end)
end)
