-- Logprobs and their gradient in one launch that reads the logits once: on a GPU that can do that,
-- it gives the bits of two launches and of the cpu, for every kind of row, in place and in a graph.

local samebits = require "samebits"
local backends = require "spec.support.backends"
local graphs = require "spec.support.graphs"
local hex = require "spec.support.hex"
local logits = require "spec.support.logits"
local prng = require "spec.support.prng"
local refusal = require "spec.support.refusal"
local with = require "spec.support.with"

local INF = math.huge
local says = refusal.says
local OUTPUTS = { "token", "lse", "saved", "sequence", "count" }
local KERNELS = "one_read_bf16_bf16_"

-- Policy losses, whose derivatives the launch makes of its own logprobs.
local LOSSES = {
  { norm = "token-mean", beta = 0.1, eps_high = 0.28, dual = 3 },
  { norm = "sequence-mean", loss = "cispo", weight = "truncate", w_high = 1.5 },
  { norm = "sequence-sum", loss = "reinforce", beta = 0.5, kl = "k2" },
  { norm = "constant", constant = 99, kl = "k1+", beta = 0.2 },
  { norm = "token-mean", tokens = 1000000, eps_low = 0.1 },
}

-- A batch of rows of one distribution, with derivatives that differ from row to row.
local function example(distribution, rows, V, seed)
  local random, ids, up = prng.new(seed), {}, {}
  for r = 1, rows do
    ids[r] = random:integer(0, V - 1)
    up[r] = r % 7 == 3 and 0 or random:normal() / rows
  end
  return { batch = { logits = logits.make(distribution, "bfloat16", rows, V, seed), ids = ids,
                     temperature = logits.temperature(distribution) }, up = up }
end

-- The same with a policy loss in place of the derivatives.
local function policy_example(distribution, rows, V, seed)
  local spec, random = example(distribution, rows, V, seed), prng.new(seed + 1)
  spec.options, spec.up = LOSSES[seed % #LOSSES + 1], nil
  local mask = {}
  for r = 1, rows do mask[r] = random:uniform() < 0.9 and 1 or 0 end
  spec.policy = { mask = samebits.tensor(mask, { dtype = "uint8" }) }
  for i, name in ipairs { "old", "ref", "rollout", "advantages" } do
    local values = {}
    for r = 1, rows do values[r] = random:normal() + (i < 4 and -9 or 0) end
    spec.policy[name] = samebits.tensor(values, { dtype = "float32" })
  end
  return spec
end

describe("one read of the logits", function()
  backends.with("cuda", function(at)
    local ctx, device, serves
    backends.own_context(at, function(...) ctx, device = ... end)

    -- The option `gradient` of a call on a device.
    local function gradient_of(spec, where)
      if spec.up then
        return { token = assert(samebits.tensor(spec.up, { dtype = "float32" }):to(where)) }
      end
      local policy = {}
      for name, t in pairs(spec.policy) do policy[name] = assert(t:to(where)) end
      return { policy = policy, options = spec.options }
    end

    local function placed(spec)
      return assert(samebits.batch(spec.batch):to(device)), gradient_of(spec, device)
    end

    -- The results of one call, in memory, and its plan.
    local function results(spec, one_read, in_place)
      local batch, gradient = placed(spec)
      local out = assert(ctx:logprob(batch, {
        outputs = spec.outputs or OUTPUTS, one_read = one_read,
        gradient = with(gradient, { in_place = in_place }) }))
      local plan, here = ctx:plan(), {}
      for name, t in pairs(out) do here[name] = assert(t:to "cpu") end
      return here, plan
    end

    local function reads_once(plan) return plan:find(KERNELS, 1, true) ~= nil end

    -- Whether this GPU can do it at all; if not, the tests are pending.
    local function can()
      if serves == nil then
        local _, plan = results(example(logits.distributions[1], 2, 512, 1), 1)
        serves = reads_once(plan)
      end
      if not serves then pending "this GPU reads the logits twice" end
      return serves
    end

    -- The results of a call without a check, whose report says `words`.
    local function unchecked(spec, one_read, words)
      local batch, gradient = placed(spec)
      local stream, here = assert(ctx:stream()), {}
      local out = assert(ctx:logprob(batch, { outputs = OUTPUTS, one_read = one_read, check = false,
                                              stream = stream, gradient = gradient }))
      says(refusal.misuse(function() ctx:check(stream) end), words)
      assert.is_true(ctx:check(stream))
      for name, t in pairs(out) do here[name] = assert(t:to "cpu") end
      return here
    end

    -- Compares one launch with two, and in place; cpu: with the cpu, too.
    local function same(spec, cpu)
      local want, plan = results(spec, -1)
      assert.is_false(reads_once(plan))
      for _, in_place in ipairs { false, true } do
        local got, its = results(spec, 1, in_place)
        assert.is_true(reads_once(its), its)
        for name, t in pairs(want) do assert.same_bits(t, got[name], name) end
      end
      if not cpu then return end
      local here = assert(samebits.logprob(spec.batch, { outputs = spec.outputs or OUTPUTS,
                                                         gradient = gradient_of(spec, "cpu") }))
      for name, t in pairs(here) do assert.same_bits(t, want[name], name .. " of the cpu") end
    end

    it("gives the same bits for every distribution and many sizes", function()
      if not can() then return end
      for d, distribution in ipairs(logits.distributions) do
        for v, V in ipairs { 8, 16, 24, 504, 512, 520, 4104, 38400, 38408 } do
          local rows = V < 1000 and 2000 or 5
          same(example(distribution, (d + v) % 3 == 0 and rows or 3, V, d * 100 + v), V < 1000)
        end
      end
    end)

    it("gives the same bits in teams of 2 to 8 blocks, with more rows than teams", function()
      if not can() then return end
      for k, V in ipairs { 50264, 100352, 151936, 180000, 201088, 240000, 300000 } do
        same(example(logits.distributions[k % 7 + 1], V < 110000 and 150 or 70, V, k))
      end
    end)

    it("gives the same bits with a policy loss, and makes its derivatives itself", function()
      if not can() then return end
      for d, distribution in ipairs(logits.distributions) do
        for v, V in ipairs { 8, 24, 512, 520, 4104 } do
          local rows = V < 1000 and 1000 or 5
          same(policy_example(distribution, (d + v) % 3 == 0 and rows or 3, V, d * 10 + v), true)
        end
      end
      for k, V in ipairs { 50264, 100352, 151936, 201088, 300000 } do
        local spec = policy_example(logits.distributions[k % 7 + 1], 70, V, k)
        if k % 2 == 0 then spec.outputs = { "sequence" } end -- its logprobs are scratch
        same(spec)
      end
    end)

    it("gives the same bits at many temperatures, ties of the table's terms included", function()
      if not can() then return end
      local LOG2_E = 1.4426950408889634 -- its c is a power of 2, and so is that of its half
      for k, tau in ipairs { 2 ^ -10, 0.1, 0.3, 0.7, LOG2_E, LOG2_E / 2, 3, 2 ^ 10 } do
        local spec = example(logits.distributions[2], 40, 1024, k)
        spec.batch.temperature = tau
        same(spec, true)
      end
    end)

    it("gives the same bits for rows with absent, huge, tiny, poisoned and equal logits", function()
      if not can() then return end
      local V, random = 2056, prng.new(77)
      local kinds = {
        function() return -INF end,
        function(i, x) return i % 3 == 0 and -INF or x end,
        function(i, x) return i < 600 and -INF or x end,
        function(i, x) return i > 1500 and -INF or x end,
        function(i, x) return i == 700 and 0 / 0 or x end,
        function(i, x) return i == V - 1 and INF or x end,
        function(i, x) return i == 900 and x or -INF end,
        function(_, x) return x * 30 end, function(_, x) return x * 1e30 end,
        function(_, x) return x * 1e-38 end, function() return 0 end,
        function(_, x) return x + 65 end, function(_, x) return x - 75 end,
        function(_, x) return x + 1000 end, function(i, x) return i == 5 and 40 or x - 44 end,
        function(i, x) return i == 5 and 3e38 or x end, function() return -3e38 end,
        function(i) return (i - V / 2) / 8 end,
        function(i) return i % 2 == 0 and 60 or -60 end,
      }
      for _, tau in ipairs { 1, 0.35 } do
        for _, up in ipairs { 1, -1e-38, 1e38, INF, 0 / 0, 1e-45 } do
          local values, ids, ups = {}, {}, {}
          for r, kind in ipairs(kinds) do
            for i = 0, V - 1 do values[#values + 1] = kind(i, 3 * random:normal()) end
            ids[r], ups[r] = random:integer(0, V - 1), up
          end
          local t = assert(hex.tensor(values, { #kinds, V }):to "bfloat16")
          same({ batch = { logits = t, ids = ids, temperature = tau }, up = ups }, true)
        end
      end
    end)

    it("gives the same bits with ignored rows, masks, row lists, shift and packed rows", function()
      if not can() then return end
      local rows = 340
      local plain = example(logits.distributions[3], rows, 1000, 5)
      local mask, list, cu = {}, {}, { 0, 0, 9, 200, rows }
      for r = 1, rows do
        mask[r] = r % 3 == 0 and 0 or 1
        if r % 5 ~= 1 then list[#list + 1] = r - 1 end
      end
      local losses = {}
      for i = 1, #LOSSES do
        losses[i] = policy_example(logits.distributions[3], rows, 1000, 4 + i)
      end
      for i, change in ipairs {
        { mask = mask }, { rows = list }, { shift = 1 }, { cu_seqlens = cu },
        { shift = 1, cu_seqlens = cu, mask = mask }, { rows = list, mask = mask, shift = 1 },
      } do
        for _, from in ipairs { plain, losses[i % #losses + 1] } do
          local spec = with(from, { batch = with(from.batch, change) })
          spec.batch.ids = {}
          for r = 1, rows do spec.batch.ids[r] = from.batch.ids[r] end
          same(spec, true)
          for r = 1, rows, 2 do spec.batch.ids[r] = -100 end
          same(spec, true)
        end
      end
    end)

    it("reports bad ids as two launches do, and leaves NaN in their rows", function()
      if not can() then return end
      for _, make in ipairs { example, policy_example } do
        local spec = make(logits.distributions[2], 300, 520, 9)
        spec.batch.ids[7], spec.batch.ids[260] = 520, -3
        says(refusal.misuse(function() results(spec, 1) end), "row 6", "id 520")
        local want, got = unchecked(spec, -1, "row "), unchecked(spec, 1, "row ")
        for name, t in pairs(want) do assert.same_bits(t, got[name], name) end
      end
    end)

    it("reports a step's totals and offsets as two launches do, with NaN for gradients", function()
      if not can() then return end
      local plain = policy_example(logits.distributions[2], 300, 520, 4)
      local active = 0
      for r = 0, 299 do active = active + plain.policy.mask[r] end
      for _, case in ipairs {
        { { options = { tokens = 7 } }, ("tokens is 7, and %d tokens are active"):format(active),
          ("%d tokens are active"):format(active) },
        { { options = { norm = "sequence-mean", sequences = 1 },
            batch = with(plain.batch, { cu_seqlens = { 0, 150, 300 } }) },
          "sequences is 1, and 2 sequences", "2 sequences have active tokens" },
      } do
        local spec = with(plain, case[1])
        says(refusal.misuse(function() results(spec, 1) end), case[2])
        local want, got = unchecked(spec, -1, case[3]), unchecked(spec, 1, case[3])
        for name, t in pairs(want) do assert.same_bits(t, got[name], name) end
        for _, row in ipairs { 0, 1, 299 } do
          local x = got.grad:get(row, 5)
          assert.is_true(x ~= x)
        end
      end
    end)

    it("is captured into a graph, which can be launched again and again", function()
      if not can() then return end
      for _, make in ipairs { example, policy_example } do
        local spec = make(logits.distributions[2], 150, 100352, 4)
        local want = results(spec, -1)
        local batch, gradient = placed(spec)
        local stream = assert(ctx:stream())
        local opts = { outputs = OUTPUTS, one_read = 1, check = false, stream = stream,
                       gradient = gradient }
        opts.workspace = samebits.empty({ ctx:workspace_size(batch, opts) }, "uint8", device)
        opts.out = assert(ctx:logprob(batch, opts))
        assert.is_true(ctx:check(stream))
        local graph = graphs.capture(device, stream, function()
          assert(ctx:logprob(batch, opts))
        end)
        for _ = 1, 3 do
          for _, t in pairs(opts.out) do assert(t:copy_(samebits.zeros(t.shape, t.dtype))) end
          graph:launch()
          assert.is_true(ctx:check(stream))
          for name, t in pairs(want) do assert.same_bits(t, opts.out[name], name) end
        end
        graph:close()
      end
    end)

    it("is chosen for many rows, and refused by calls that it does not serve", function()
      if not can() then return end
      local function plan_of(V, rows, change, gradient)
        local spec = example(logits.distributions[1], rows, V, 3)
        local batch, own = placed({ batch = with(spec.batch, change or {}), up = spec.up })
        assert(ctx:logprob(batch, { outputs = { "token" }, one_read = change and 1 or 0,
                                    gradient = with(own, gradient or {}) }))
        return ctx:plan()
      end
      assert.is_true(reads_once(plan_of(1024, 4096)))
      assert.is_false(reads_once(plan_of(1024, 8)))
      assert.is_false(reads_once(plan_of(1020, 300, {})))
      assert.is_false(reads_once(plan_of(1024, 300, {}, { dtype = "float32" })))
      assert.is_true(reads_once(plan_of(1024, 300, {})))
    end)
  end)
end)
