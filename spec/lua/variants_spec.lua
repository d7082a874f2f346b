-- The ways there are to run a call: which the cpu has, and which of all can be opened here.

local context = require "samebits.context"
local variants = require "samebits.variants"

-- f() with contexts that are only told of, "avx2" refused. What it gives, and what was opened.
local function pretending(f)
  local open, backends, opened = context.open, context.backends, {}
  context.backends = function() return { { name = "gpu" }, { name = "cpu" } } end
  context.open = function(backend, opts)
    if opts.isa == "avx2" then return nil, "no avx2 here", "SB_ERR_BACKEND" end
    opened[#opened + 1] = { backend, opts }
    return { backend = backend }
  end
  local ok, a, b = pcall(f)
  context.open, context.backends = open, backends
  assert(ok, a)
  return a, b, opened
end

local function names_of(list)
  local names = {}
  for i, at in ipairs(list) do names[i] = at.name end
  return names
end

describe("variants", function()
  it("are each instruction set of the cpu, alone and cut unevenly", function()
    local names = {}
    for _, at in ipairs(variants.list()) do
      if at.backend == "cpu" then names[#names + 1] = at.name end
    end
    assert.same({ "cpu scalar", "cpu scalar, 3 threads, split 7", "cpu avx2",
                  "cpu avx2, 3 threads, split 7", "cpu avx512", "cpu avx512, 3 threads, split 7" },
                names)
  end)

  it("have names of their own, and one key per backend or instruction set", function()
    local list = pretending(variants.list)
    local seen, keys = {}, {}
    for _, at in ipairs(list) do
      assert.is_nil(seen[at.name], at.name)
      seen[at.name] = true
      keys[at.key] = (keys[at.key] or 0) + 1
    end
    assert.same({ gpu = 8, scalar = 2, avx2 = 2, avx512 = 2 }, keys)
  end)

  it("are split into those that open and one per key of those that do not", function()
    local present, missing, opened = pretending(variants.present)
    assert.equal(12, #present)
    assert.equal(12, #opened)
    assert.same({ "cpu avx2" }, names_of(missing))
    assert.equal("no avx2 here", missing[1].why)
    assert.same({ "gpu", { split = 7, block = 64, cluster = -1 } }, opened[3])
    assert.same({ "cpu", { isa = "scalar", threads = 3, split = 7 } }, opened[10])
  end)

  it("open one context each, once", function()
    for _, at in ipairs(variants.list()) do
      if at.key == "scalar" then
        local ctx = assert(at.context())
        assert.equal("cpu", ctx.backend)
        assert.equal(ctx, at.context())
      end
    end
  end)
end)
