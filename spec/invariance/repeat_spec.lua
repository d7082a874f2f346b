-- A repeated call gives the same bits: later, after other calls, in a fresh context or process,
-- beside other processes, on a busy machine, and on a GPU that has other work.

local ffi = require "ffi"
local json = require "dkjson"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local budget = require "spec.support.budget"
local cases = require "spec.support.invariance.case"
local children = require "spec.support.children"
local data = require "spec.support.invariance.data"
local hex = require "spec.support.hex"
local prng = require "spec.support.prng"
local temporary = require "spec.support.temporary"
local transforms = require "samebits.verify.transforms"

local ROUNDS = 4 * budget.CASES
local OUTPUTS = { "token", "lse", "sequence", "count" }
local MODEL = "spec/vectors/smollm2.safetensors"
local model = assert(samebits.load(MODEL))

-- Calls of many kinds: a real model's, one of 8 leaves (of 7 pieces some are empty), and some
-- of the invariance suite's. All must give the results of the first variant.
local specs, wanted = {
  { logits = model.logits, ids = model.ids, mask = model.mask },
  { logits = hex.tensor(hex.values(6 * 120, 3), { 2, 3, 120 }),
    ids = { { 0, 119, 7 }, { 60, -100, 33 } } },
}, {}
for i = 1, 5 do
  local case = cases.draw(transforms.named.everything, i, budget.SEED)
  specs[#specs + 1] = transforms.named.everything.calls(case, data.sequences(case))[1].spec
end

-- Whether a call gave the expected results.
local function expect(k, out, when)
  wanted[k] = wanted[k] or out
  for _, name in ipairs(OUTPUTS) do
    assert.same_bits(wanted[k][name], out[name], ("call %d, %s, %s"):format(k, name, when))
  end
end

local function in_memory(out)
  local results = {}
  for name, t in pairs(out) do results[name] = assert(t:to "cpu") end
  return results
end

-- A context like the variant's own.
local function fresh(at, threads)
  local ctx = at.context()
  local opts = { split = ctx.split, block = ctx.block, cluster = ctx.cluster, table = ctx.table,
                 one_read = ctx.one_read }
  if at.backend == "cpu" then opts.isa, opts.threads = ctx.isa, threads or ctx.threads end
  return assert(samebits.open(ctx.device, opts))
end

backends.each(function(at)
  describe("on " .. at.name .. ", the same bits", function()
    local batches
    setup(function()
      batches = {}
      for k, spec in ipairs(specs) do batches[k] = at.batch(spec) end
    end)
    teardown(function() batches = nil end)

    local function score(ctx, k) return in_memory(assert(ctx:logprob(batches[k]))) end

    it("again and again in one context, in any order", function()
      local random = prng.new(budget.SEED)
      for round = 1, ROUNDS do
        local k = random:integer(1, #specs)
        expect(k, score(at.context(), k), "round " .. round)
      end
    end)

    it("first in a fresh context, and later there", function()
      for k = 1, #specs do
        local ctx = fresh(at)
        for _, later in ipairs { k, k, k % #specs + 1, k } do
          expect(later, score(ctx, later), "after a cold call " .. k)
        end
        ctx:close()
      end
    end)

    it("into outputs that hold other results", function()
      local held = {}
      for k = 1, #specs do held[k] = assert(at.context():logprob(batches[k])) end
      for round = 1, 3 do
        for k, out in ipairs(held) do
          for _, name in ipairs(OUTPUTS) do
            local other = samebits.zeros(out[name].shape, out[name].dtype)
            ffi.fill(other.ptr, other:numel() * other.itemsize, 0x40 + round)
            assert(out[name]:copy_(other))
          end
          expect(k, in_memory(assert(at.context():logprob(batches[k], { out = out }))),
                 "round " .. round)
        end
      end
    end)

    it("on a busy machine, with more threads than processors", function()
      local stop = children.busy(4)
      local ok, why = pcall(function()
        for _, threads in ipairs { 2, 9 } do
          local ctx = fresh(at, threads)
          for round = 1, 2 do
            for k = 1, #specs do
              expect(k, score(ctx, k), ("%d threads, round %d"):format(threads, round))
            end
          end
          ctx:close()
        end
      end)
      assert(stop(), "the others had ended before")
      assert(ok, why)
    end)
  end)
end)

-- Processes ---------------------------------------------------------------------------------------

-- Settings that may differ from one process to the next, and must not matter.
local ENVIRONMENTS = {
  "", "MALLOC_PERTURB_=85", "MALLOC_PERTURB_=170", "LC_ALL=C", "LC_ALL=POSIX OMP_NUM_THREADS=1",
  "GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX2_Usable,-AVX2,-FMA_Usable,-FMA,-AVX512F_Usable",
}

describe("in other processes, the same bits", function()
  local files, want
  setup(function()
    files = temporary.folder()
    local out = assert(samebits.logprob(specs[1]))
    want = { token = out.token:bits(), lse = out.lse:bits(), sequence = out.sequence:bits(),
             count = out.count:totable() }
  end)
  teardown(function() files:remove() end)

  local function command(environment, ...)
    return ("%s luajit bin/samebits logprob --json --logits %s --ids %s --mask %s %s"):format(
      environment, MODEL, MODEL, MODEL, table.concat({ ... }, " "))
  end

  local function expect_outputs(commands)
    for i, output in ipairs(children.together(commands, files)) do
      local object = assert(json.decode(output), commands[i])
      assert.same(want, { token = object.token_bits, lse = object.lse_bits,
                          sequence = object.sequence_bits, count = object.count }, commands[i])
    end
  end

  -- One process for each backend and instruction set, and each environment; then all at once.
  local flags, seen = {}, {}
  backends.each(function(at)
    local ctx = at.context()
    if seen[at.key] or ctx.device:find(backends.LOOPBACK, 1, true) then return end
    seen[at.key] = true
    local own = at.backend == "cpu" and ("--backend cpu --isa %s"):format(at.key) or
                "--backend " .. at.backend
    flags[#flags + 1] = own
    it("with " .. own, function()
      for i, environment in ipairs(ENVIRONMENTS) do
        local threads = at.backend == "cpu" and ("--threads %d"):format(i) or ""
        expect_outputs { command(environment, own, threads) }
      end
    end)
  end)

  it("at the same time", function()
    local commands = {}
    for i = 1, 8 do
      local own = flags[i % #flags + 1]
      commands[i] = command("", own, own:find("cpu", 1, true) and "--threads 4" or "")
    end
    expect_outputs(commands)
  end)
end)

-- Streams -----------------------------------------------------------------------------------------

-- A large call that keeps a GPU busy, and calls beside it in streams of their own.
local LOAD_ROWS, LOAD_VOCAB = 256, 50257

backends.each_device(function(device)
  describe("on " .. device .. " with other work, the same bits", function()
    local on_gpu = device:find "^cuda" ~= nil
    local ctx, load
    setup(function()
      ctx = assert(samebits.open(device))
      local row = hex.tensor(hex.values(LOAD_VOCAB, 1), { 1, LOAD_VOCAB }):to "bfloat16"
      local logits = samebits.zeros({ LOAD_ROWS, LOAD_VOCAB }, "bfloat16")
      local ids = {}
      for r = 0, LOAD_ROWS - 1 do
        logits:slice(0, r, r + 1):copy_(row)
        ids[r + 1] = r * 97
      end
      load = assert(samebits.batch({ logits = logits, ids = ids }):to(device))
    end)
    teardown(function()
      ctx:close()
      ctx, load = nil, nil
    end)

    -- A call in a stream of its own, with all that it needs.
    local function prepared(batch)
      local stream, bytes = assert(ctx:stream()), ctx:workspace_size(batch)
      local opts = { check = false, stream = stream, out = {} }
      if bytes > 0 then opts.workspace = assert(samebits.empty({ bytes }, "uint8", device)) end
      assert(ctx:logprob(batch, opts)) -- allocates the outputs
      assert(stream:wait())
      return { batch = batch, opts = opts, stream = stream }
    end

    it("in several streams at once", function()
      local background, calls = prepared(load), {}
      for k, spec in ipairs(specs) do
        calls[k] = prepared(assert(samebits.batch(spec):to(device)))
      end
      local all = in_memory(background.opts.out)
      for round = 1, on_gpu and 5 * ROUNDS or 2 do
        for _ = 1, on_gpu and 8 or 1 do assert(ctx:logprob(background.batch, background.opts)) end
        for _, call in ipairs(calls) do assert(ctx:logprob(call.batch, call.opts)) end
        for k, call in ipairs(calls) do
          assert.is_true(ctx:check(call.stream))
          expect(k, in_memory(call.opts.out), "round " .. round)
        end
      end
      assert.is_true(ctx:check(background.stream))
      local after = in_memory(background.opts.out)
      for _, name in ipairs(OUTPUTS) do assert.same_bits(all[name], after[name]) end
      -- All of its rows are the same one.
      local lse = hex.of(after.lse)
      for r = 2, LOAD_ROWS do assert.equal(lse[1], lse[r]) end
    end)

    it("in several contexts, whose calls are under way together", function()
      local background, others = prepared(load), {}
      for i = 1, 3 do others[i] = assert(samebits.open(device)) end
      local batches = {}
      for k, spec in ipairs(specs) do batches[k] = assert(samebits.batch(spec):to(device)) end
      for round = 1, on_gpu and ROUNDS or 2 do
        for _ = 1, on_gpu and 8 or 1 do assert(ctx:logprob(background.batch, background.opts)) end
        local made = {}
        for i, other in ipairs(others) do
          local k = (round + i) % #specs + 1
          made[i] = { k = k, out = assert(other:logprob(batches[k], { check = false })) }
        end
        for i, other in ipairs(others) do
          assert.is_true(other:check())
          expect(made[i].k, in_memory(made[i].out), ("round %d, context %d"):format(round, i))
        end
      end
      assert.is_true(ctx:check(background.stream))
      for _, other in ipairs(others) do other:close() end
    end)
  end)
end)
