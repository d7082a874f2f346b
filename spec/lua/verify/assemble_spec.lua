-- Sequences laid out in memory as a case says, and the account of what has to come out where.

local ffi = require "ffi"
local samebits = require "samebits"
local assemble = require "samebits.verify.assemble"
local cases = require "samebits.verify.case"

-- Two sequences, of two tokens and of one: logit 100 s + 10 t + id.
local function sequences()
  local list = {}
  for s, length in pairs { [0] = 2, [1] = 1 } do
    local made = { length = length, ids = {}, temperatures = {}, active = {} }
    local rows = {}
    for t = 0, length - 1 do
      rows[t + 1] = { 100 * s + 10 * t, 100 * s + 10 * t + 1 }
      made.ids[t], made.temperatures[t], made.active[t] = 1, 0.5, true
    end
    made.logits = samebits.tensor(rows)
    list[s] = made
  end
  return list
end

local A, B, C = { s = 0, t = 0 }, { s = 0, t = 1 }, { s = 1, t = 0 }

local function call(fields, grid, opts)
  local case = cases.new(fields)
  case.n, case.T, case.V = 2, 2, 2
  return assemble.call(case, sequences(), grid or { { A, B }, { C } }, opts)
end

describe("a call", function()
  it("is padded to the longest sequence, on either side", function()
    local right = call { by = "ignore", tau = "own" }
    assert.same({ { { 0, 1 }, { 10, 11 } }, { { 100, 101 }, { 0, 0 } } },
                right.spec.logits:totable())
    assert.same({ { 1, 1 }, { 1, -100 } }, right.spec.ids:totable())
    assert.equal(0.5, right.spec.temperature:get(1, 0))
    assert.same({ A, B, C, false }, right.rows)
    assert.same({ { count = 2, whole = 0 }, { count = 1, whole = 1 } }, right.sums)
    local left = call { layout = "left" }
    assert.same({ A, B, false, C }, left.rows)
    assert.same({ { 0, 0 }, { 100, 101 } }, left.spec.logits:totable()[2])
    assert.equal(0, left.spec.mask:get(1, 0))
    assert.is_true(left.spec.mask:get(1, 1) > 0)
  end)

  it("is packed row after row, an empty sequence with no row", function()
    local packed = call({ layout = "packed", index = "int32" }, { { A, B }, {}, { C } })
    assert.equal("int32", packed.spec.cu_seqlens.dtype)
    assert.same({ 0, 2, 2, 3 }, packed.spec.cu_seqlens:totable())
    assert.same({ { 0, 1 }, { 10, 11 }, { 100, 101 } }, packed.spec.logits:totable())
    assert.same({ count = 0 }, packed.sums[2])
    assert.is_nil(call({}, { { A } }, { layout = "single" }).spec.cu_seqlens)
  end)

  it("with a shift holds each token's logits one row before it", function()
    local shifted = call({ shift = 1, fill = "inf" }, { { A, B } }, { layout = "right" })
    local inf = math.huge
    assert.same({ { { 0, 1 }, { 10, 11 }, { inf, inf } } }, shifted.spec.logits:totable())
    assert.same({ false, A, B }, shifted.rows)
    assert.equal(1, shifted.spec.shift)
  end)

  it("keeps the strides and the address asked for, with NaN between", function()
    local logits = call { gap = 3, between = 5, offset = 20, extra = 1 }.spec.logits
    assert.same({ 2, 2, 3 }, { logits.shape[1], logits.shape[2], logits.shape[3] })
    assert.same({ 17, 6, 1 }, { logits.strides[1], logits.strides[2], logits.strides[3] })
    assert.equal(20, tonumber(ffi.cast("uintptr_t", logits.ptr) % 64))
    assert.same({ { 0, 1, -math.huge }, { 10, 11, -math.huge } }, logits:totable()[1])
    local words = ffi.cast("uint32_t *", logits.ptr)
    for _, at in ipairs { 3, 5, 9, 16 } do assert.equal(0xffffffff, words[at]) end
  end)

  it("does not expect tokens that are off or not listed", function()
    local off = call({}, { { A, { s = 0, t = 1, off = true } }, { C } })
    assert.same({ A, false, C, false }, off.rows)
    assert.same({ { count = 1 }, { count = 1, whole = 1 } }, off.sums)
    local listed = call({}, nil, { rows = function(row) return row ~= 0 end })
    assert.same({ false, B, C, false }, listed.rows)
    assert.same({ 1, 2, 3 }, listed.spec.rows)
    assert.is_nil(listed.sums[1].whole)
  end)

  it("is what logprob takes, however rows are made inactive", function()
    for _, by in ipairs { "mask", "ignore", "list", "mixed" } do
      local made = call({ by = by, tau = "own", fill = "nan" }, { { A, B, false }, { false, C } })
      local out = assert(samebits.logprob(made.spec))
      for row, slot in ipairs(made.rows) do
        local token = out.token:get(math.floor((row - 1) / 3), (row - 1) % 3)
        assert.equal(slot and true or false, token < 0 and token > -1, by)
      end
      assert.same({ 2, 1 }, out.count:totable())
    end
  end)
end)
