-- DLPack: what is imported and exported, who owns it when, and what is refused. The managed tensors
-- are made here, field by field, and by PyTorch where PYTHON has it.

local ffi = require "ffi"
local samebits = require "samebits"
local dlpack = require "samebits.dlpack"
local backends = require "spec.support.backends"
local refusal = require "spec.support.refusal"
local shell = require "spec.support.shell"
local torch = require "spec.support.torch"

local misuse, says = refusal.misuse, refusal.says

local function address(p) return tonumber(ffi.cast("uintptr_t", ffi.cast("void *", p))) end

-- Deleters that count, by the address of what they delete. Callbacks are few: made once.
local deleted = {}
local function count(managed)
  local at = address(managed)
  deleted[at] = (deleted[at] or 0) + 1
end
local deleter = ffi.cast("void (*)(samebits_dl_managed *)", count)
local versioned_deleter = ffi.cast("void (*)(samebits_dl_versioned *)", count)

-- What a producer keeps until its deleter is called; here for good.
local boxes = {}

-- A DLManagedTensor [2, 3] of fp32, 1 to 6, with changes to its tensor.
local function produced(changes, kind)
  local box = { managed = ffi.new(kind or "samebits_dl_managed"),
                data = ffi.new("float[6]", 1, 2, 3, 4, 5, 6),
                shape = ffi.new("int64_t[8]", 2, 3, 1, 1, 1, 1, 1, 1),
                strides = ffi.new("int64_t[8]", 3, 1) }
  boxes[#boxes + 1] = box
  local t = box.managed.tensor
  t.data, t.device_type, t.ndim, t.code, t.bits, t.lanes = box.data, 1, 2, 2, 32, 1
  t.shape, t.strides = box.shape, nil
  box.managed.deleter = kind and versioned_deleter or deleter
  for key, value in pairs(changes or {}) do
    if type(key) == "number" then box.shape[key] = value
    elseif key == "strides" then t.strides = box.strides
    else t[key] = value end
  end
  function box.deleted() return deleted[address(box.managed)] or 0 end
  return box
end

local function collect()
  collectgarbage()
  collectgarbage()
end

describe("DLPack import", function()
  it("has dlpack.h's layout", function()
    assert.equal(64, ffi.sizeof "samebits_dl_managed")
    assert.equal(80, ffi.sizeof "samebits_dl_versioned")
    for field, offset in pairs { data = 0, device_type = 8, device_id = 12, ndim = 16, code = 20,
                                 bits = 21, lanes = 22, shape = 24, strides = 32,
                                 byte_offset = 40 } do
      assert.equal(offset, ffi.offsetof("samebits_dl_tensor", field), field)
    end
    assert.equal(56, ffi.offsetof("samebits_dl_managed", "deleter"))
    assert.equal(24, ffi.offsetof("samebits_dl_versioned", "flags"))
    assert.equal(32, ffi.offsetof("samebits_dl_versioned", "tensor"))
  end)

  it("shares the memory, with strides, offsets and dtypes", function()
    local box = produced()
    local t = dlpack.import(box.managed)
    assert.same({ 2, 3 }, t.shape)
    assert.equal("float32", t.dtype)
    assert.equal(6, t:get(1, 2))
    box.data[5] = 7
    assert.equal(7, t:get(1, 2))
    local turned = produced { strides = true, [0] = 3, [1] = 2 }
    turned.strides[0], turned.strides[1] = 1, 3
    assert.same({ { 1, 4 }, { 2, 5 }, { 3, 6 } }, dlpack.import(turned.managed):totable())
    local later = produced { byte_offset = 8, [0] = 2, [1] = 2 }
    assert.same({ { 3, 4 }, { 5, 6 } }, dlpack.import(later.managed):totable())
    local spread = produced { strides = true }
    spread.strides[0], spread.strides[1] = 0, -1
    spread.managed.tensor.byte_offset = 8
    assert.same({ { 3, 2, 1 }, { 3, 2, 1 } }, dlpack.import(spread.managed):totable())
    assert.equal(1, dlpack.import(produced({ ndim = 0, shape = nil }).managed):get())
    assert.same({ 0, 3 }, dlpack.import(produced({ [0] = 0, data = nil }).managed).shape)
    collect()
  end)

  it("reads all dtypes, and versioned tensors", function()
    for name, kind in pairs { float32 = { 2, 32 }, float16 = { 2, 16 }, bfloat16 = { 4, 16 },
                              float64 = { 2, 64 }, int8 = { 0, 8 }, uint8 = { 1, 8 },
                              int16 = { 0, 16 }, int32 = { 0, 32 }, int64 = { 0, 64 },
                              bool = { 6, 8 } } do
      local box = produced { code = kind[1], bits = kind[2], ndim = 1 }
      local t = dlpack.import(box.managed)
      assert.equal(name, t.dtype)
      assert.equal(kind[2] / 8, t.itemsize)
    end
    local box = produced({}, "samebits_dl_versioned")
    box.managed.major, box.managed.minor = 1, 7
    local t = dlpack.import_versioned(box.managed)
    assert.equal(6, t:get(1, 2))
    t = nil -- luacheck: ignore
    collect()
    assert.equal(1, box.deleted())
  end)

  it("names the device", function()
    for code, name in pairs { [1] = "cpu", [3] = "cpu", [2] = "cuda:1", [13] = "cuda:1" } do
      local box = produced { device_type = code, device_id = 1 }
      assert.equal(name, dlpack.import(box.managed).device)
      collect()
      assert.equal(1, box.deleted())
    end
  end)

  it("calls the deleter once, when the last view is gone", function()
    local box = produced()
    local t = dlpack.import(box.managed)
    local view = t[1]
    t = nil -- luacheck: ignore
    collect()
    assert.equal(0, box.deleted())
    assert.equal(5, view:get(1))
    view = nil -- luacheck: ignore
    collect()
    assert.equal(1, box.deleted())
    collect()
    assert.equal(1, box.deleted())
    local without = produced()
    without.managed.deleter = nil
    dlpack.import(without.managed)
    collect()
  end)

  it("refuses what it cannot take, and leaves it to the caller", function()
    for words, changes in pairs {
      ["device_type is 10"] = { device_type = 10 },
      ["device_id is -1"] = { device_type = 2, device_id = -1 },
      ["lanes is 4"] = { lanes = 4 },
      ["code 2 and 8 bits"] = { bits = 8 },
      ["code 5 and 64 bits"] = { code = 5, bits = 64 },
      ["code 1 and 32 bits"] = { code = 1 },
      ["byte_offset 6 is no multiple of the element's 4 bytes"] = { byte_offset = 6 },
      ["ndim is -1"] = { ndim = -1 },
      ["ndim is 2000000000"] = { ndim = 2000000000 },
      ["shape is null"] = { shape = nil, ndim = 2 },
      ["data is null"] = { data = nil },
      ["dim 0 is not a size"] = { [0] = -2 },
      ["shape[1] is 9.2233720368547748e+18"] = { [1] = 2 ^ 63 - 1024 },
    } do
      local box = produced(changes)
      if words == "shape is null" then box.managed.tensor.shape = nil end
      if words == "data is null" then box.managed.tensor.data = nil end
      says(misuse(function() dlpack.import(box.managed) end), "dlpack.import: ", words)
      collect()
      assert.equal(0, box.deleted(), words)
    end
    local far = produced { strides = true }
    far.strides[0] = 2 ^ 62
    says(misuse(function() dlpack.import(far.managed) end), "strides[0] is")
    far.strides[0] = 2 ^ 53 - 1
    says(misuse(function() dlpack.import(far.managed) end), "dim 0 is not a stride")
    local other = produced({}, "samebits_dl_versioned")
    other.managed.major = 2
    says(misuse(function() dlpack.import_versioned(other.managed) end), "version 2.0; 1 is read")
    other.managed.major, other.managed.flags = 1, 1
    says(misuse(function() dlpack.import_versioned(other.managed) end), "read-only")
    collect()
    assert.equal(0, far.deleted() + other.deleted())
    says(misuse(function() dlpack.import(nil) end), "expected a pointer to a managed tensor")
    says(misuse(function() dlpack.import(samebits.tensor { 1 }) end), "a pointer", "tensor")
    says(misuse(function() dlpack.import(ffi.cast("void *", 0)) end), "a null pointer")
    says(misuse(function() dlpack.import(ffi.new "int64_t") end), "expected a pointer")
  end)
end)

describe("DLPack export", function()
  it("describes the tensor, in place", function()
    local t = samebits.tensor({ { 1, 2, 3 }, { 4, 5, 6 } }, { dtype = "int16" })
    local managed = dlpack.export(t:transpose(0, 1))
    local to = managed.tensor
    assert.equal(t.ptr, ffi.cast("uint8_t *", to.data))
    assert.same({ 1, 0, 2, 0, 16, 1, 0 }, { to.device_type, to.device_id, to.ndim, to.code, to.bits,
                                            to.lanes, tonumber(to.byte_offset) })
    assert.same({ 3, 2 }, { tonumber(to.shape[0]), tonumber(to.shape[1]) })
    assert.same({ 1, 3 }, { tonumber(to.strides[0]), tonumber(to.strides[1]) })
    dlpack.release(managed)
  end)

  it("keeps the memory until the deleter is called", function()
    local before = dlpack.exported()
    local managed = dlpack.export(samebits.tensor { 1, 2, 3 })
    collect()
    assert.equal(before + 1, dlpack.exported())
    assert.equal(3, ffi.cast("float *", managed.tensor.data)[2])
    dlpack.release(managed)
    assert.equal(before, dlpack.exported())
  end)

  it("comes back by import: the same bits, and released with the last view", function()
    local before = dlpack.exported()
    for _, name in ipairs { "float32", "float16", "bfloat16", "float64", "int8", "uint8", "int16",
                            "int32", "int64", "bool" } do
      local t = samebits.tensor({ { 1, 0, 1 }, { 0, 1, 1 } }, { dtype = "int8" }):to(name)
      local back = dlpack.import(dlpack.export(t))
      assert.equal(name, back.dtype)
      assert.equal(t.ptr, back.ptr)
      assert.same_bits(t, back)
    end
    assert.equal("[]", tostring(dlpack.import(dlpack.export(samebits.tensor(5))).shape[1] or "[]"))
    collect()
    assert.equal(before, dlpack.exported())
  end)

  it("names GPUs, and refuses devices that DLPack does not know", function()
    local t = samebits.tensor(ffi.cast("void *", 4096), { device = "cuda:2", dtype = "float32",
                                                         shape = { 4 } })
    local managed = dlpack.export(t)
    assert.same({ 2, 2 }, { managed.tensor.device_type, managed.tensor.device_id })
    dlpack.release(managed)
    local there = assert(samebits.tensor({ 1 }):to(backends.LOOPBACK))
    says(misuse(function() dlpack.export(there) end), "DLPack knows no device loopback:0")
    says(misuse(function() dlpack.export { 1 } end), "expected a tensor, got table")
    says(misuse(function() dlpack.release(5) end), "expected a pointer")
  end)
end)

describe("DLPack with PyTorch", function()
  local version, why = torch.version()
  if not version then return pending(why) end
  if (os.getenv "SB_BUILD" or "release") ~= "release" then
    return pending "PyTorch takes the release build"
  end

  it("goes both ways, in one process", function()
    local python = shell.quote(os.getenv "PYTHON" or "python3")
    local said, status = shell.run(python .. " -B spec/support/dlpack_torch.py")
    if status == 77 then return pending(said:match "[^\n]*") end
    assert.equal(0, status, said)
    assert.equal("fine\n", said)
  end)
end)
