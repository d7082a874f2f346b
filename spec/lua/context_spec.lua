-- Contexts: opening, closing, options, outputs, and whose fault an error is.

local ffi = require "ffi"
local samebits = require "samebits"
local hex = require "spec.support.hex"

-- The message of the error that f raises, at the line of its caller: this file.
local function refusal(f)
  local ok, message = pcall(f)
  assert.is_false(ok, "expected an error")
  local rest = message:match "context_spec%.lua:%d+: (.*)"
  assert.is_truthy(rest, "the error is not at its caller's line: " .. tostring(message))
  return rest
end

local function example()
  return samebits.batch {
    logits = hex.tensor(hex.values(4 * 40, 7), { 2, 2, 40 }), ids = { { 1, 2 }, { 3, -100 } },
  }
end

describe("open", function()

  it("gives an isa to the cpu only: auto means cpu then", function()
    assert.equal("cpu", samebits.open("auto", { isa = "scalar" }).backend)
    local ok, message = pcall(samebits.open, "cuda", { isa = "scalar" })
    assert.is_false(ok)
    assert.matches('the cuda backend has no isa "scalar"', message, 1, true)
  end)

  it("opens the best backend by default", function()
    local ctx = assert(samebits.open())
    local best
    for _, backend in ipairs(samebits.backends()) do
      best = best or backend.available and backend.name
    end
    assert.equal(best, ctx.backend)
    assert.is_true(ctx.threads >= 1)
    assert.matches("^samebits context: " .. best .. "[:%d]*, [%w_]+, %d+ %w+$", tostring(ctx))
    assert.matches("^" .. best, ctx.device)
    ctx:close()
  end)

  it("takes threads and an instruction set", function()
    local ctx = assert(samebits.open("cpu", { threads = 3, isa = "scalar" }))
    assert.equal("cpu", ctx.backend)
    assert.equal("scalar", ctx.isa)
    assert.equal(3, ctx.threads)
    ctx:close()
  end)

  it("returns nil, a message and a code for a backend that it cannot have", function()
    local ctx, why, code = samebits.open "abacus"
    assert.is_nil(ctx)
    assert.matches("abacus", why)
    assert.equal("SB_ERR_BACKEND", code)
  end)

  it("refuses misuse", function()
    local function words(...)
      local args = { ... }
      return refusal(function() local _ = samebits.open(args[1], args[2]) end)
    end
    assert.matches("expected a backend's name, got table", words {})
    assert.matches("expected a table", words("cpu", "avx2"))
    assert.matches("unknown option 'thread'", words("cpu", { thread = 1 }))
    assert.matches("threads: expected an integer, got 1.5", words("cpu", { threads = 1.5 }))
    assert.matches("threads", words("cpu", { threads = -1 }))
    assert.matches("threads", words("cpu", { threads = 1025 }))
    assert.matches("threads", words("cpu", { threads = 2 ^ 40 }))
    assert.matches("sse9", words("cpu", { isa = "sse9" }))
    assert.matches("isa: expected a name", words("cpu", { isa = 2 }))
    assert.matches("split: expected an integer", words("cpu", { split = "2" }))
  end)
end)

describe("plan", function()
  local function batch(rows, vocab)
    local ids = {}
    for i = 1, rows do ids[i] = i end
    return samebits.batch {
      logits = hex.tensor(hex.values(rows * vocab, 9), { rows, vocab }), ids = ids,
    }
  end

  it("is empty before the first operation, and then says how the last one was divided", function()
    local ctx = assert(samebits.open("cpu", { threads = 3, isa = "scalar" }))
    assert.equal("", ctx:plan())
    ctx:logprob(batch(2, 40))
    assert.equal("cpu scalar, 1 thread, whole rows", ctx:plan())
    ctx:logprob(batch(2, 40), { split = 2 })
    assert.equal("cpu scalar, 1 thread, 2 pieces per row", ctx:plan())
    ctx:logprob(batch(40, 3000))
    assert.equal("cpu scalar, 3 threads, whole rows", ctx:plan())
    ctx:logprob(batch(3, 32768))
    assert.equal("cpu scalar, 3 threads, 4 pieces per row", ctx:plan())
    ctx:close()
  end)

  it("stays what it is until the next operation runs", function()
    local ctx = assert(samebits.open("cpu", { threads = 1, isa = "scalar" }))
    ctx:logprob(batch(2, 40))
    local said = ctx:plan()
    ctx:check()
    refusal(function() ctx:logprob(batch(2, 40), { split = -1 }) end)
    assert.equal(said, ctx:plan())
    ctx:logprob(samebits.batch {
      logits = samebits.zeros { 0, 40 }, ids = samebits.zeros({ 0 }, "int32"),
    })
    assert.equal("", ctx:plan())
    ctx:close()
  end)

  it("is refused by a closed context", function()
    local ctx = assert(samebits.open "cpu")
    ctx:close()
    assert.matches("plan: the context is closed", refusal(function() ctx:plan() end))
  end)
end)

describe("close", function()
  it("may be repeated, and makes later use an error", function()
    local ctx = assert(samebits.open "cpu")
    ctx:close()
    ctx:close()
    assert.matches("closed", tostring(ctx))
    assert.matches("the context is closed", refusal(function() ctx:logprob(example()) end))
  end)

  it("is done by the collector, too", function()
    local function threads()
      local pipe = io.popen "ls /proc/$PPID/task | wc -l"
      local n = pipe:read "*n"
      pipe:close()
      return n
    end
    for _ = 1, 5 do collectgarbage() end -- what earlier specs dropped, one behind the other
    local before = threads()
    local contexts = {}
    for i = 1, 5 do contexts[i] = assert(samebits.open("cpu", { threads = 4 })) end
    assert.is_true(threads() > before, #contexts .. " contexts without a thread")
    for i = 1, 5 do contexts[i] = nil end
    collectgarbage()
    assert.equal(before, threads())
  end)
end)

describe("logprob", function()
  local ctx
  setup(function() ctx = assert(samebits.open "cpu") end)
  teardown(function() ctx:close() end)

  it("gives token and lse by row, sequence and count by sequence", function()
    local out = ctx:logprob(example())
    assert.same({ { 2, 2 }, { 2, 2 }, { 2 }, { 2 } },
                { out.token.shape, out.lse.shape, out.sequence.shape, out.count.shape })
    assert.same({ "float32", "float32", "float32", "int64" },
                { out.token.dtype, out.lse.dtype, out.sequence.dtype, out.count.dtype })
    assert.same({ 2, 1 }, out.count:totable())
    assert.equal(hex.of(out.token)[3], hex.of(out.sequence)[2])
  end)

  it("is near ln softmax in fp64", function()
    local values = hex.values(4 * 40, 7)
    local out = ctx:logprob(example())
    for row, id in ipairs { 1, 2, 3 } do
      local sum, x = 0, values[(row - 1) * 40 + id + 1]
      for i = 1, 40 do sum = sum + math.exp(values[(row - 1) * 40 + i]) end
      assert.near(x - math.log(sum), out.token:view(4)[row - 1], 2e-6)
      assert.near(math.log(sum), out.lse:view(4)[row - 1], 2e-6)
    end
  end)

  it("takes the table that makes a batch, and needs no context", function()
    local spec = { logits = hex.tensor(hex.values(40, 7), { 1, 40 }), ids = { 1 } }
    assert.same(hex.of(ctx:logprob(spec).token), hex.of(samebits.logprob(spec).token))
  end)

  it("computes only what is asked for", function()
    local all = ctx:logprob(example())
    for _, name in ipairs { "token", "lse", "sequence", "count" } do
      local out = ctx:logprob(example(), { outputs = { name } })
      local names = {}
      for key in pairs(out) do names[#names + 1] = key end
      assert.same({ name }, names)
      assert.is_true(samebits.same_bits(all[name], out[name]))
    end
    assert.same({}, ctx:logprob(example(), { outputs = {} }))
  end)

  it("writes to tensors of an earlier call", function()
    local out = ctx:logprob(example())
    local want, token = hex.of(out.token), out.token
    ffi.fill(token.ptr, 16, 0x55)
    local again = ctx:logprob(example(), { out = out })
    assert.equal(out, again)
    assert.equal(token, again.token)
    assert.same(want, hex.of(token))
    local partly = ctx:logprob(example(), { out = { token = token }, outputs = { "token", "lse" } })
    assert.equal(token, partly.token)
    assert.same({ 2, 2 }, partly.lse.shape)
  end)

  it("refuses outputs that do not fit", function()
    local function with(opts) return refusal(function() ctx:logprob(example(), opts) end) end
    assert.matches("out.token: float32 %[4%], expected float32 %[2, 2%]",
                   with { out = { token = samebits.zeros { 4 } } })
    assert.matches("out.count: int32 %[2%], expected int64 %[2%]",
                   with { out = { count = samebits.zeros({ 2 }, "int32") } })
    assert.matches("out.lse: expected a contiguous",
                   with { out = { lse = samebits.zeros({ 2, 2 }):transpose() } })
    assert.matches("out.sequence: expected a tensor, got number", with { out = { sequence = 3 } })
    assert.matches("unknown output 'tokens'", with { outputs = { "tokens" } })
    assert.matches("outputs: expected a list", with { outputs = "token" })
    assert.matches("out: expected a table", with { out = 5 })
    assert.matches("unknown option 'splits'", with { splits = 2 })
  end)

  it("takes any split, and refuses what is none", function()
    local want = hex.of(ctx:logprob(example()).token)
    for _, split in ipairs { 0, 1, 2, 3, 100, 65536 } do
      assert.same(want, hex.of(ctx:logprob(example(), { split = split }).token))
    end
    for _, split in ipairs { -1, 65537, 1.5 } do
      assert.matches("split", refusal(function() ctx:logprob(example(), { split = split }) end))
    end
    local cut = assert(samebits.open("cpu", { split = 5 }))
    assert.same(want, hex.of(cut:logprob(example()).token))
    cut:close()
  end)

  it("refuses what is no batch, and a call without a context", function()
    assert.matches("expected a table", refusal(function() ctx:logprob(5) end))
    assert.matches("logits is missing", refusal(function() ctx:logprob {} end))
    assert.matches("call it as ctx:logprob", refusal(function() ctx.logprob(example()) end))
  end)

  it("raises what the library finds wrong with values, at the caller's line", function()
    local logits = samebits.zeros { 3, 5 }
    local function words(spec)
      spec.logits = logits
      spec.ids = spec.ids or { 1, 2, 3 }
      return refusal(function() ctx:logprob(samebits.batch(spec)) end)
    end
    assert.matches("row 2 .*id 5 is outside %[0, 5%)", words { ids = { 1, 2, 5 } })
    assert.matches("cu_seqlens%[0%] is 1", words { cu_seqlens = { 1, 3 } })
    assert.matches("cu_seqlens%[2%]", words { cu_seqlens = { 0, 2, 1, 3 } })
    assert.matches("cu_seqlens%[1%]", words { cu_seqlens = { 0, 2 } })
    assert.matches("cu_seqlens", words { cu_seqlens = { 0, 4 } })
    assert.matches("row_list%[1%] is 1", words { rows = { 1, 1 } })
    assert.matches("row_list%[0%] is 3", words { rows = { 3 } })
    assert.matches("row_list%[0%] is %-1", words { rows = { -1 } })
    assert.matches("temperature", words { temperature = 0 })
    assert.matches("row 1 .*temperature", words { temperature = { 1, 1e9, 1 } })
    -- The next call is as good as any.
    assert.equal(3, ctx:logprob({ logits = logits, ids = { 1, 2, 3 } }).token:numel())
  end)
end)
