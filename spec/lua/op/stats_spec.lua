-- ctx:compare and ctx:sums from Lua: layouts, outputs, and what is refused in which words.

local samebits = require "samebits"
local backends = require "spec.support.backends"
local hex = require "spec.support.hex"
local refusal = require "spec.support.refusal"

local misuse, says = refusal.misuse, refusal.says

local function values(shape, seed)
  local n = 1
  for _, size in ipairs(shape) do n = n * size end
  return hex.tensor(hex.values(n, seed), shape)
end

describe("statistics from Lua", function()
  local ctx, x, y
  setup(function()
    ctx = assert(samebits.open "cpu")
    x, y = values({ 3, 5 }, 1), values({ 3, 5 }, 2)
  end)
  teardown(function() ctx:close() end)

  it("are shaped as what they are of", function()
    local out = ctx:compare(x, y)
    for _, name in ipairs { "ratio", "k1", "k2", "k3" } do
      assert.same({ 3, 5 }, out[name].shape)
      assert.equal("float32", out[name].dtype)
    end
    assert.same({ 3 }, ctx:sums(x).mean.shape)
    assert.equal("int64", ctx:sums(x).count.dtype)
    assert.same({ 1 }, ctx:sums(x, { per = "batch" }).sum.shape)
    assert.same({ 1 }, ctx:sums(x[0]).sum.shape)
    assert.same({ 2 }, ctx:sums(x[0], { cu_seqlens = { 0, 1, 5 } }).sum.shape)
  end)

  it("are written where the caller says, and only those asked for", function()
    local ratio = samebits.zeros { 3, 5 }
    local given = { ratio = ratio }
    local out = ctx:compare(x, y, { out = given, outputs = { "ratio", "k3" } })
    assert.equal(given, out)
    assert.equal(ratio, out.ratio)
    assert.is_nil(out.k1)
    assert.same_bits(ctx:compare(x, y).ratio, ratio)
    assert.same_bits(ctx:compare(x, y).k3, out.k3)
    out = ctx:sums(x, { outputs = { "count" } })
    assert.same({ 5, 5, 5 }, out.count:totable())
    assert.is_nil(out.sum)
  end)

  it("of views with any strides are those of their copies", function()
    local wide = values({ 5, 6 }, 3)
    local view = wide:transpose(0, 1):slice(0, 1, 4)
    assert.is_false(view:is_contiguous())
    local copy = view:clone()
    assert.same_bits(ctx:compare(copy, y).k3, ctx:compare(view, y).k3)
    assert.same_bits(ctx:compare(y, copy).k3, ctx:compare(y, view).k3)
    assert.same_bits(ctx:sums(y, { minus = copy }).sum, ctx:sums(y, { minus = view }).sum)
    assert.same_bits(ctx:sums(copy).sum, ctx:sums(view).sum)
  end)

  it("take masks as batches do", function()
    local want = ctx:sums(x, { mask = { { 1, 0, 1, 1, 0 }, { 0, 0, 0, 0, 0 }, { 1, 1, 1, 1, 1 } } })
    local mask = samebits.tensor({ { 256, 0, -1, 1, 0 }, { 0, 0, 0, 0, 0 }, { 1, 1, 1, 1, 1 } },
                                 { dtype = "int32" })
    local got = ctx:sums(x, { mask = mask })
    assert.same({ 3, 0, 5 }, got.count:totable())
    assert.same_bits(want.sum, got.sum)
  end)

  it("refuse misuse at the caller's line", function()
    local half = x:to "float16"
    says(misuse(function() ctx:compare(x) end), "other: expected a float32 tensor, got nil")
    says(misuse(function() ctx:compare(half, y) end), "compare: sampled", "float16 [3, 5]")
    says(misuse(function() ctx:compare(x, y[0]) end), "other: float32 [5], expected float32 [3, 5]")
    says(misuse(function() ctx:compare(x, y, { mask = x }) end), "unknown option 'mask'")
    says(misuse(function() ctx:compare(x, y, { outputs = { "k4" } }) end), "unknown output 'k4'",
         "ratio, k1, k2, k3")
    says(misuse(function() ctx:compare(x, y, { out = { k1 = y[0] } }) end),
         "out.k1: float32 [5], expected float32 [3, 5]")
    says(misuse(function() ctx:sums { 1, 2 } end), "sums: values: expected a float32 tensor")
    says(misuse(function() ctx:sums(values({ 2, 2, 2 }, 1)) end),
         "[2, 2, 2], expected [B, T] or [N]")
    says(misuse(function() ctx:sums(x, { minus = y[0] }) end),
         "minus: float32 [5], expected float32 [3, 5]")
    says(misuse(function() ctx:sums(x, { mask = { 1, 2 } }) end), "mask has 2 entries, expected 3")
    says(misuse(function() ctx:sums(x, { per = "token" }) end), "per: expected")
    says(misuse(function() ctx:sums(x, { cu_seqlens = { 0, 15 } }) end), "packed values are [N]")
    says(misuse(function() ctx:sums(x[0], { cu_seqlens = {} }) end), "cu_seqlens: shape [0]")
    says(misuse(function() ctx:sums(x[0], { cu_seqlens = { 0, 4 } }) end),
         "cu_seqlens[1] is 4, not the number of rows 5")
    says(misuse(function() ctx:sums(x[0], { cu_seqlens = { 0, 5 }, per = "batch" }) end),
         "a whole batch has none")
    says(misuse(function() ctx:sums(x, { out = { sum = samebits.zeros { 4 } } }) end),
         "out.sum: float32 [4], expected float32 [3]")
    local there = assert(x:to(backends.LOOPBACK))
    says(misuse(function() ctx:sums(there) end), "is on loopback:0, the context is on cpu")
    local closed = samebits.open "cpu"
    closed:close()
    says(misuse(function() closed:compare(x, y) end), "the context is closed")
    says(misuse(function() closed:sums(x) end), "the context is closed")
  end)
end)

describe("statistics on a GPU,", function()
  backends.with("cuda", function(at)
    local ctx, device, x, y
    setup(function()
      ctx = assert(samebits.open(at.context().device))
      device = ctx.device
      x, y = assert(values({ 3, 5 }, 1):to(device)), assert(values({ 3, 5 }, 2):to(device))
    end)
    teardown(function() ctx:close() end)

    it("host memory is refused by name", function()
      local host = values({ 3, 5 }, 1)
      local claimed = samebits.tensor(host.ptr, { device = device, dtype = "float32",
                                                  shape = { 3, 5 }, owner = host })
      says(misuse(function() ctx:compare(claimed, y) end), "sampled (", "host memory")
      says(misuse(function() ctx:compare(x, claimed) end), "other (", "host memory")
      says(misuse(function() ctx:sums(claimed) end), "values (", "host memory")
      says(misuse(function() ctx:sums(x, { minus = claimed }) end), "minus (", "host memory")
    end)

    it("bad cu_seqlens are named at once, or NaN and named later", function()
      local flat = x:view(15)
      local opts = { cu_seqlens = { 0, 9, 4, 15 } }
      says(misuse(function() ctx:sums(flat, opts) end), "cu_seqlens[2] is 4")
      opts.check = false
      local out = assert(ctx:sums(flat, opts))
      says(misuse(function() ctx:check() end), "cu_seqlens around sequence 1")
      assert.equal("7fc00000", hex.of(assert(out.sum:to "cpu"))[2])
      assert.equal("7fc00000", hex.of(assert(out.exp_mean:to "cpu"))[2])
      assert.is_true(ctx:check())
    end)

    it("a stream gives the same bits", function()
      local stream = assert(ctx:stream())
      local opts = { stream = stream, check = false }
      local out = assert(ctx:compare(x, y, opts))
      local sums = assert(ctx:sums(out.k3, opts))
      assert.is_true(ctx:check(stream))
      local cpu = assert(samebits.open "cpu")
      local want = cpu:compare(assert(x:to "cpu"), assert(y:to "cpu"))
      assert.same_bits(want.k3, assert(out.k3:to "cpu"))
      assert.same_bits(cpu:sums(want.k3).mean, assert(sums.mean:to "cpu"))
    end)
  end)
end)
