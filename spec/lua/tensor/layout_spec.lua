-- Shapes and strides without data: which are taken, what lies dense, which runs cover a view, and
-- which other shape can show it.

local layout = require "samebits.tensor.layout"
local refusal = require "spec.support.refusal"

local message = refusal.message

-- The offsets of all elements in index order, by the runs that cover them.
local function offsets(shape, strides)
  local out = {}
  layout.each_run(shape, strides, function(offset, count, step, first)
    assert.equal(#out, first)
    for i = 0, count - 1 do out[#out + 1] = offset + i * step end
  end)
  return out
end

describe("a shape", function()
  it("is copied, and refused by its first bad dimension", function()
    local given = { 2, 0, 3 }
    local taken = assert(layout.shape(given))
    assert.same(given, taken)
    assert.are_not.equal(given, taken)
    assert.same({ 2, 0, 3, 32 }, layout.appended(given, 32))
    assert.equal("shape [2, -1]: dim 1 is not a size", message(layout.shape { 2, -1 }))
    assert.equal("shape is string, not a list", message(layout.shape "2"))
    assert.same({ 2 ^ 53, 0 }, layout.shape { 2 ^ 53, 0 })
    assert.equal("shape [9007199254740992, 0, 2]: too many elements",
                 message(layout.shape { 2 ^ 53, 0, 2 }))
    local deep = {}
    for d = 1, 65 do deep[d] = 1 end
    assert.equal("65 dimensions, at most 64", message(layout.shape(deep)))
  end)

  it("has strides either way, and is dense with the last index fastest", function()
    local shape = { 2, 3, 4 }
    assert.equal(24, layout.numel(shape))
    assert.same({ 12, 4, 1 }, layout.dense(shape))
    assert.same({ 1, 2, 6 }, layout.dense_fortran(shape))
    assert.is_true(layout.is_dense(shape, { 12, 4, 1 }))
    assert.is_false(layout.is_dense(shape, { 1, 2, 6 }))
    assert.is_true(layout.is_dense({ 2, 1, 4 }, { 4, 77, 1 }))
    assert.is_true(layout.is_dense({ 3, 0 }, { 7, 7 }))
    assert.same({ 1, 2, 3 }, layout.index(23, shape))
    assert.same({ true, false }, { layout.same(shape, { 2, 3, 4 }), layout.same(shape, { 2, 3 }) })
  end)

  it("takes strides of its own number that reach no further than numbers are exact", function()
    assert.same({ -3, 0 }, layout.strides({ -3, 0 }, { 2, 3 }))
    assert.equal("strides [1] for shape [2, 3]", message(layout.strides({ 1 }, { 2, 3 })))
    assert.equal("strides [9007199254740992, 1]: dim 0 is not a stride",
                 message(layout.strides({ 2 ^ 53, 1 }, { 2, 3 })))
  end)
end)

describe("a view", function()
  it("reaches from its lowest to its highest offset", function()
    assert.same({ -4, 3 }, { layout.extent({ 3, 4 }, { -2, 1 }) })
    assert.same({ 0, -1 }, { layout.extent({ 3, 0 }, { 5, 1 }) })
  end)

  it("is covered by runs in index order, as few as its strides allow", function()
    local runs = 0
    layout.each_run({ 2, 3, 4 }, { 12, 4, 1 }, function() runs = runs + 1 end)
    assert.equal(1, runs)
    assert.same({ 0, 1, 5, 6, 10, 11 }, offsets({ 3, 2 }, { 5, 1 }))
    assert.same({ 0, 3, 1, 4, 2, 5 }, offsets({ 3, 2 }, { 1, 3 }))
    assert.same({ 0, -2, 1, -1, 2, 0 }, offsets({ 3, 1, 2 }, { 1, 99, -2 }))
    assert.same({}, offsets({ 2, 0 }, { 1, 1 }))
  end)

  it("shows another shape where no copy is needed", function()
    assert.same({ 6, 2, 1 }, layout.reshaped({ 4, 6 }, { 6, 1 }, { 4, 3, 2 }))
    assert.same({ 20, 10, 1 }, layout.reshaped({ 4, 3 }, { 10, 1 }, { 2, 2, 3 }))
    assert.is_nil(layout.reshaped({ 4, 3 }, { 10, 1 }, { 12 }))
    assert.is_nil(layout.reshaped({ 2, 3 }, { 1, 2 }, { 3, 2 }))
    assert.same({ 3, 1 }, layout.reshaped({ 0, 5 }, { 7, 7 }, { 0, 3 }))
  end)
end)
