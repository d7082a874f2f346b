-- Records of shards as tables of tensors: their kinds and sizes, the struct that the library takes,
-- and what is checked of them before a call reads or replaces them.

local ffi = require "ffi"
local guard = require "samebits.misuse".guard
local lib = require "samebits.lib"
local records = require "samebits.op.records"
local refusal = require "spec.support.refusal"
local samebits = require "samebits"

local check = guard(records.check)

-- What the module needs of a call under way; `held` counts what it keeps.
local function call()
  return {
    what = "spec", device = "cpu", held = 0,
    hold = function(self, thing) self.held = self.held + 1 return thing end,
    in_place = function(_, name, t, boundary) return { name, t, boundary } end,
  }
end

local function bytes(...) return samebits.zeros({ ... }, "uint8") end

local function refused(given, device)
  return refusal.misuse(check, "spec", given, device or "cpu")
end

describe("records", function()
  it("are sums or moments, of the sizes that the library says", function()
    local sums, moments = records.SUMS, records.MOMENTS
    assert.same({ lib.C.SB_SUMS, lib.C.SB_MOMENTS }, { sums.constant, moments.constant })
    assert.equal(sums, records.kind_of { states = bytes(1, 32) })
    assert.equal(moments, records.kind_of { moments = bytes(1, 64) })
    assert.same({ 32, 64 }, { records.size_of(sums), records.size_of(moments) })
  end)

  it("are made in the shape of rows, and held", function()
    local at = call()
    local made = records.make(at, records.MOMENTS, { 2, 3 })
    assert.same({ { 2, 3, 64 }, { 2, 3, 8 } }, { made.moments.shape, made.targets.shape })
    assert.equal("uint8", made.moments.dtype)
    assert.is_nil(made.states)
    assert.equal(2, at.held)
    assert.same({ 2, 3 }, check("spec", made, "cpu"))
    assert.equal(6, records.check_writable(at, made))
  end)

  it("are given to the library by their addresses and their kind", function()
    local made = records.make(call(), records.MOMENTS, { 4 })
    local struct = records.struct(made)
    assert.same({ ffi.sizeof "sb_records", lib.C.SB_MOMENTS }, { struct.size, struct.kind })
    assert.is_true(struct.states == ffi.cast("void *", made.moments.ptr))
    assert.is_true(ffi.cast("void *", struct.targets) == ffi.cast("void *", made.targets.ptr))
    local untouched = records.untouched(records.SUMS)
    assert.equal(lib.C.SB_SUMS, untouched.kind)
    assert.is_true(untouched.states ~= nil and untouched.targets ~= nil)
  end)

  it("are refused where they are no such tensors, or of other rows", function()
    refusal.says(refused(bytes(1)), "spec: expected records { states, targets }, got uint8 [1]")
    refusal.says(refused { states = bytes(2, 32) }, "spec: targets: expected a tensor, got nil")
    refusal.says(refused { states = bytes(2, 31), targets = bytes(2, 8) },
                 "spec: states: ", "expected uint8 [.., 32]")
    assert.equal("spec: states [2, 32] and targets [3, 8] are of other rows",
                 refused { states = bytes(2, 32), targets = bytes(3, 8) })
    assert.equal("spec: records have states or moments, not both",
                 refused { states = bytes(32), moments = bytes(64), targets = bytes(8) })
    assert.equal("spec: states: the tensor is on cpu, the context is on cuda:0",
                 refused({ states = bytes(32), targets = bytes(8) }, "cuda:0"))
  end)

  it("are read at 8-byte boundaries, and replaced only where they lie so", function()
    local buffer = bytes(2 * 32 + 8)
    local odd = { states = buffer:slice(0, 4, 68):reshape(2, 32), targets = bytes(2, 8) }
    assert.same({ states = { "states", odd.states, 8 }, targets = { "targets", odd.targets, 8 } },
                records.in_place(call(), odd))
    refusal.says(refusal.misuse(guard(records.check_writable), call(), odd),
                 "spec: states: strides [32, 1], or no 8-byte boundary",
                 "records are replaced where they are")
  end)
end)
