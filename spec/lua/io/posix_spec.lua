-- The maps of files: what may be given back to the system, and what must not.

local ffi = require "ffi"
local posix = require "samebits.io.posix"
local refusal = require "spec.support.refusal"
local temporary = require "spec.support.temporary"

local PAGE = 4096

describe("posix", function()
  local files
  setup(function() files = temporary.folder() end)
  teardown(function() files:remove() end)

  -- A map of so many bytes of ones.
  local function mapped(size)
    local fd = assert(posix.open(files:write("ones", ("\1"):rep(size))))
    local at = assert(posix.map(fd, size))
    posix.close(fd)
    return ffi.cast("uint8_t *", at)
  end

  -- Bytes of `p` that are not x.
  local function others(p, n, x)
    local count = 0
    for i = 0, n - 1 do if p[i] ~= x then count = count + 1 end end
    return count
  end

  it("forget gives back whole pages of a map, from the first byte's on", function()
    local p = mapped(3 * PAGE)
    ffi.fill(p, 3 * PAGE, 7)
    posix.forget(p + PAGE + 1, PAGE - 2)  -- the page goes on behind these bytes
    assert.equal(0, others(p, 3 * PAGE, 7))
    posix.forget(p + PAGE + 1, PAGE - 1)
    assert.equal(0, others(p, PAGE, 7))
    assert.equal(0, others(p + PAGE, PAGE, 1))
    assert.equal(0, others(p + 2 * PAGE, PAGE, 7))
    posix.forget(p, 3 * PAGE)
    assert.equal(0, others(p, 3 * PAGE, 1))
    posix.unmap(p)
  end)

  it("forget refuses bytes that do not all lie in one map, and leaves them", function()
    -- It ends within a page: behind a page's end another map might begin.
    local size = 2 * PAGE - 100
    local p = mapped(size)
    local heap = ffi.new("uint8_t[?]", 8 * PAGE)
    ffi.fill(heap, 8 * PAGE, 7)
    for _, bytes in ipairs {
      { heap, 8 * PAGE }, { heap + 5 * PAGE, 1 }, { ffi.cast("uint8_t *", 0), PAGE },
      { p - 1, PAGE }, { p + 1, size }, { p + size, 1 }, { p, 3 * PAGE },
    } do
      refusal.says(refusal.misuse(posix.forget, bytes[1], bytes[2]), "forget: ",
                   "do not lie in the map of a file")
    end
    assert.equal(0, others(heap, 8 * PAGE, 7))
    assert.equal(0, others(p, size, 1))
    posix.unmap(p)
    refusal.says(refusal.misuse(posix.forget, p, PAGE), "do not lie in the map of a file")
  end)

  it("unmap ends a map once, and nothing else", function()
    local p = mapped(2 * PAGE)
    refusal.says(refusal.misuse(posix.unmap, p + PAGE), "unmap: no map begins at 0x")
    assert.equal(0, others(p, 2 * PAGE, 1))
    posix.unmap(p)
    refusal.says(refusal.misuse(posix.unmap, p), "unmap: no map begins at 0x")
  end)
end)
