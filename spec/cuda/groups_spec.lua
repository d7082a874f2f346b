-- The kernels whose groups of threads look terms up in a table in shared memory: entropies and
-- divergences of bf16 logits have the cpu's bits, whatever the rows hold and however groups share
-- them.

local ffi = require "ffi"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local prng = require "spec.support.prng"

local INF = math.huge

-- Each changes a row of logits, which are normal numbers of sigma 3. x(i) reads, x(i, v) writes.
local KINDS = {
  function() end,
  function(x, V) x(math.floor(V / 3), 0 / 0) end,
  function(x, V) x(V - 1, INF) end,
  function(x, V) for i = 0, V - 1 do x(i, -INF) end end,
  function(x, V) for i = 0, V - 2 do x(i, -INF) end end,
  function(x, V) for i = 0, V - 1, 2 do x(i, -INF) end end,
  function(x, V) for i = 0, math.floor(V / 2) do x(i, -INF) end end,
  function(x) x(7, 60) end,
  function(x) x(3, 1000) end, -- out of the table's reach, beside leaves within it
  function(x) x(3, 1e6) end,
  function(x, V) for i = 0, V - 1 do x(i, x(i) + 300) end end,
  function(x, V) for i = 0, V - 1 do x(i, x(i) - 300) end end,
  function(x, V) for i = 0, V - 1 do x(i, x(i) * 30) end end,
  function(x, V) for i = 0, V - 1 do x(i, 160 * i / V - 80) end end, -- the window rises
  function(x, V) for i = 0, V - 1 do x(i, 80 - 160 * i / V) end end,
  function(x, V) for i = 0, V - 1 do x(i, 0) end end,
  function(x, V) for i = 0, V - 1 do x(i, i % 2 == 0 and 1e-39 or -1e-39) end end,
  function(x, V) for i = 1, V - 1 do x(i, -3e38) end end,
  function(x, V) for i = 0, V - 1 do x(i, x(i) * 2 ^ -24) end end,
}

-- bf16 logits [rows, V] of kind r + shift in row r.
local function logits(rows, V, seed, shift)
  local random, t = prng.new(seed), samebits.zeros({ rows, V }, "float32")
  local floats = ffi.cast("float *", t.ptr)
  for i = 0, rows * V - 1 do floats[i] = 3 * random:normal() end
  for r = 0, rows - 1 do
    local row = floats + r * V
    KINDS[(r + shift) % #KINDS + 1](function(i, v)
      if v then row[i] = v end
      return row[i]
    end, V)
  end
  return assert(t:to "bfloat16")
end

-- More rows than the groups' rings of items hold; last leaves that lack ids; one group's row.
local SIZES = { { 19, 4112 }, { 40, 1096 }, { 700, 40 }, { 1, 16 }, { 23, 8 } }

describe("groups on a GPU,", function()
  backends.with("cuda", function(at)
    local ctx, device, cpu
    backends.own_context(at, function(...) ctx, device = ... end)
    setup(function() cpu = assert(samebits.open "cpu") end)
    teardown(function() cpu:close() end)

    -- A GPU whose blocks have too little shared memory takes the other kernels.
    local function takes(kernel)
      local plan = ctx:plan()
      return plan:find(kernel .. " ", 1, true) or not plan:find("_table", 1, true)
    end

    local function both(call, batches, opts)
      local here, there = {}, {}
      for i, batch in ipairs(batches) do
        here[i] = samebits.batch(batch, { ids = false })
        there[i] = assert(here[i]:to(device))
      end
      local want = assert(call(cpu, here, { outputs = opts.outputs }))
      local got = assert(call(ctx, there, opts))
      for name, t in pairs(want) do
        assert.same_bits(t, got[name], ("%s of %d x %d at %g"):format(name,
          batches[1].logits.shape[1], batches[1].logits.shape[2], batches[1].temperature))
      end
    end

    local function logprob(context, b, opts) return context:logprob(b[1], opts) end
    local function kl(context, b, opts) return context:kl(b[1], b[2], opts) end

    it("entropies have the cpu's bits", function()
      for _, size in ipairs(SIZES) do
        for _, tau in ipairs { 1, 0.7, 0.1, 3 } do
          local rows, V = unpack(size)
          local ids = {}
          for r = 1, rows do ids[r] = r % 11 == 5 and -100 or r * 7919 % V end
          both(logprob, { { logits = logits(rows, V, rows, 0), ids = ids, temperature = tau } },
               { table = 1, outputs = { "token", "lse", "entropy", "saved" } })
          assert.is_truthy(takes "entropy_bf16_table", ctx:plan())
        end
      end
    end)

    it("divergences have the cpu's bits", function()
      for k, size in ipairs(SIZES) do
        for _, tau in ipairs { 1, 0.7, 0.1, 3 } do
          local rows, V = unpack(size)
          local ids = {}
          for r = 1, rows do ids[r] = r % 11 == 5 and -100 or 0 end
          for _, shift in ipairs { 0, k } do -- rows of one kind, and of two
            both(kl, { { logits = logits(rows, V, rows, 0), ids = ids, temperature = tau },
                       { logits = logits(rows, V, rows + 1, shift), temperature = tau } },
                 { table = 1 })
            assert.is_truthy(takes "kl_bf16_bf16_table", ctx:plan())
          end
        end
      end
    end)

    it("the other kernels serve other calls", function()
      local x = logits(5, 1096, 3, 0)
      local function plan_of(batch, opts)
        opts.outputs = { "entropy" }
        assert(ctx:logprob(assert(samebits.batch(batch):to(device)), opts))
        return ctx:plan()
      end
      local ids = { 0, 1, 2, 3, 4 }
      local function none(plan) assert.is_nil(plan:find("_table", 1, true), plan) end
      none(plan_of({ logits = x, ids = ids }, { table = -1 }))
      none(plan_of({ logits = x:to "float32", ids = ids }, { table = 1 }))
      none(plan_of({ logits = x:to "float16", ids = ids }, { table = 1 }))
      none(plan_of({ logits = x, ids = ids, temperature = { 1, 2, 3, 4, 5 } }, { table = 1 }))
      none(plan_of({ logits = logits(5, 1097, 3, 0), ids = ids }, { table = 1 })) -- not aligned
    end)
  end)
end)
