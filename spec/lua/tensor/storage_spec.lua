-- Memory for tensors: zeroed and aligned for any dtype at every size, alive as long as its owner is
-- kept, and nil where there is none to be had.

local ffi = require "ffi"
local storage = require "samebits.tensor.storage"

local LARGE = 2 ^ 20     -- from here on, in bytes, memory is the C library's

local function address(p) return tonumber(ffi.cast("uintptr_t", p)) end

describe("memory for tensors", function()
  it("is zeroed, also where it was used before", function()
    for _, size in ipairs { 1, 7, 8, 4096, LARGE - 1, LARGE, LARGE + 3 } do
      for _ = 1, 3 do
        local p, owner = storage.zeroed(size)
        assert.is_true(owner ~= nil)
        assert.equal(("\0"):rep(size), ffi.string(p, size))
        ffi.fill(p, size, 0xff)
      end
      collectgarbage()
    end
  end)

  it("is aligned to eight bytes, and nobody else's", function()
    local kept, places = {}, {}
    for i, size in ipairs { 0, 1, 3, 9, 100, LARGE, LARGE + 1 } do
      local p, owner = storage.zeroed(size)
      assert.is_true(ffi.istype("uint8_t *", p))
      assert.equal(0, address(p) % 8)
      kept[i], places[i] = owner, { address(p), address(p) + size }
    end
    table.sort(places, function(a, b) return a[1] < b[1] end)
    for i = 2, #places do assert.is_true(places[i - 1][2] <= places[i][1]) end
    assert.equal(7, #kept)
  end)

  it("lasts as long as what is to be kept with it", function()
    for _, size in ipairs { 64, LARGE } do
      local p, owner = storage.zeroed(size)
      ffi.fill(p, size, 0x5a)
      for _ = 1, 200 do ffi.fill(storage.zeroed(64), 64, 1) end
      collectgarbage()
      assert.equal(("\x5a"):rep(size), ffi.string(p, size))
      assert.is_true(owner ~= nil)
    end
  end)

  it("is nil where memory is out", function()
    assert.is_nil((storage.zeroed(2 ^ 53)))
  end)
end)
