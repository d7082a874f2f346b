-- Elements from one place to another: within memory by any strides and element sizes, and from a
-- device, whose calls are counted here.

local ffi = require "ffi"
local devices = require "samebits.device"
local samebits = require "samebits"
local transfer = require "samebits.tensor.transfer"

-- Stands for a device whose memory is ours; `calls` are its calls and their bytes, in order. The
-- call named `fault` fails.
local function device(fault)
  local at = { calls = {} }
  local function call(name, bytes, result)
    at.calls[#at.calls + 1] = bytes and ("%s %d"):format(name, bytes) or name
    if name == fault then return nil, "the device failed", "DEVICE" end
    return result or true
  end
  local function copy(name, target, source, bytes)
    ffi.copy(target, source, bytes)
    return call(name, bytes)
  end
  function at.copy(_, ...) return copy("copy", ...) end
  function at.queue(_, ...) return copy("queue", ...) end
  function at.wait() return call "wait" end
  function at.alloc(_, bytes)
    at.buffer = ffi.new("uint8_t[?]", bytes)
    return call("alloc", bytes, ffi.cast("uint8_t *", at.buffer))
  end
  return at
end

local function range(...)
  local t = samebits.zeros({ ... }, "int32")
  for i = 0, t:numel() - 1 do t:pointer()[i] = i end
  return t
end

-- What is fetched of a tensor and the calls it took; or nil, the message and the code.
local function fetched(t, fault)
  local at, target = device(fault), samebits.zeros({ t:numel() }, "int32")
  local ok, message, code = transfer.fetch(at, target.ptr, t)
  if not ok then return nil, message, code end
  return target:totable(), table.concat(at.calls, ", ")
end

describe("a transfer", function()
  it("in memory puts elements of every size in index order", function()
    for dtype, size in pairs { int8 = 1, bfloat16 = 2, int32 = 4, float64 = 8 } do
      local source = range(2, 3):to(dtype)
      local target = samebits.zeros({ 7 }, dtype)
      transfer.dense(target.ptr, source.ptr, size, { 3, 2 }, { 1, 3 })
      assert.same({ 0, 3, 1, 4, 2, 5, 0 }, target:totable(), dtype)
    end
  end)

  it("from a device is one copy where elements follow each other", function()
    assert.same({ { 0, 1, 2, 3, 4, 5 }, "copy 24" }, { fetched(range(2, 3)) })
    assert.same({ {}, "" }, { fetched(range(2, 3):slice(0, 1, 1)) })
  end)

  it("from a device takes run by run what is spread out, and else all that lies between", function()
    assert.same({ { 0, 1, 6, 7, 12, 13 }, "queue 8, queue 8, queue 8, wait" },
                { fetched(range(3, 6):slice(1, 0, 2)) })
    assert.same({ { 0, 3, 1, 4, 2, 5 }, "alloc 24, copy 24" },
                { fetched(range(2, 3):transpose(0, 1)) })
    local t = range(6)
    local back = samebits.tensor(t:pointer() + 5, { shape = { 3 }, strides = { -2 },
                                                    dtype = "int32", owner = t })
    assert.same({ { 5, 3, 1 }, "alloc 20, copy 20" }, { fetched(back) })
  end)

  it("hands on what a device refuses, wherever it does", function()
    local spread, turned = range(3, 6):slice(1, 0, 2), range(2, 3):transpose(0, 1)
    for fault, t in pairs { queue = spread, wait = spread, alloc = turned, copy = turned } do
      assert.same({ nil, "the device failed", "DEVICE" }, { fetched(t, fault) }, fault)
    end
  end)

  it("reads one element, in memory and behind a device, any NaN as one", function()
    devices.alias("loopback:0", "cpu")
    local t = samebits.tensor({ 1, 2, 0 }, { dtype = "bfloat16" })
    ffi.cast("uint16_t *", t.ptr)[2] = 0xffff
    for _, placed in ipairs { t, assert(t:to "loopback:0") } do
      assert.equal(2, transfer.read(placed, 1))
      local nan = transfer.read(placed, 2)
      assert.is_true(type(nan) == "number" and nan ~= nan)
    end
  end)
end)
