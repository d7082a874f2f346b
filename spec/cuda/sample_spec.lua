-- Draws of tokens on a GPU from rows that are long enough for every way of a launch: sums by a
-- table, blocks that share a row, guessed brackets, leaves of which nothing is kept. All have the
-- cpu's bits.

local ffi = require "ffi"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local draws = require "spec.support.draws"
local logits = require "spec.support.logits"
local prng = require "spec.support.prng"

local R = 2
local FILTERS = {
  {}, { top_p = 0.9 }, { top_p = 0.999 }, { min_p = 0.05 }, { min_p = 1 }, { top_k = 1000 },
  { top_k = 3000, top_p = 0.95, min_p = 0.01 }, { top_k = 50, top_p = 0.9 }, { top_k = 1 },
  { top_k = 64, min_p = 0.01 },
}
-- Aligned rows of whole leaves; aligned rows whose last leaf is half; rows of every alignment.
local SIZES = { 9504, 9512, 9499 }
local GEOMETRIES = { {}, { table = 1 }, { split = 5, cluster = 1 }, { split = 3, block = 96 } }

local function how_of(filters, rows)
  local how = { seed = 11, position = {} }
  for row = 1, rows or R do how.position[row] = row end
  for name, value in pairs(filters) do how[name] = value end
  return how
end

-- Without filters, a call that returns no kept set is another launch.
local function outputs_of(filters)
  return next(filters) and draws.OUTPUTS or { "token", "logprob", "kept_logprob" }
end

describe("draws from long rows", function()
  backends.with("cuda", function(at)
    local cpu, contexts = nil, {}
    setup(function()
      cpu = assert(samebits.open "cpu")
      for i, geometry in ipairs(GEOMETRIES) do
        contexts[i] = assert(samebits.open(at.context().device, geometry))
      end
    end)
    teardown(function()
      cpu:close()
      for _, ctx in ipairs(contexts) do ctx:close() end
    end)

    -- Draws by every geometry, from the same logits, and returns the plans.
    local function check(x, temperature, filters, more)
      local spec, plans = { logits = x, temperature = temperature }, {}
      local opts, how = { outputs = outputs_of(filters) }, how_of(filters, x.shape[1])
      for key, value in pairs(more or {}) do spec[key] = value end
      local want = assert(cpu:sample(spec, how, opts))
      for i, ctx in ipairs(contexts) do
        local there = {}
        for key, value in pairs(spec) do
          there[key] = samebits.is_tensor(value) and assert(value:to(ctx.device)) or value
        end
        local got = assert(ctx:sample(samebits.batch(there, { ids = false }), how, opts))
        plans[i] = ctx:plan()
        for _, name in ipairs(opts.outputs) do
          assert.same_bits(want[name], assert(got[name]:to "cpu"))
        end
      end
      return plans
    end

    -- The first k ids by every geometry.
    local function check_first(x, k, more)
      local spec = { logits = x, kept = more and more.kept }
      local want = assert(cpu:topk(samebits.batch(spec, { ids = false }), k))
      for _, ctx in ipairs(contexts) do
        local there = { logits = x:to(ctx.device), kept = more and more.kept:to(ctx.device) }
        local got = assert(ctx:topk(samebits.batch(there, { ids = false }), k))
        for name, values in pairs(want) do
          assert.same_bits(values, assert(got[name]:to "cpu"))
        end
      end
    end

    for d, distribution in ipairs(logits.distributions) do
      it("have the cpu's bits, " .. distribution.name, function()
        for i, V in ipairs(SIZES) do
          local dtype = (d + i) % 4 == 0 and "float16" or (d + i) % 5 == 0 and "float32" or
                        "bfloat16"
          local x = logits.make(distribution, dtype, R, V, 100 * d + i)
          for _, filters in ipairs(FILTERS) do
            check(x, logits.temperature(distribution), filters)
          end
        end
      end)
    end

    it("have them if all logits are equal, or rows are ignored, poisoned or empty", function()
      for _, V in ipairs(SIZES) do
        local x = samebits.zeros({ R, V }, "bfloat16")
        local words = ffi.cast("uint16_t *", x.ptr)
        local mask = samebits.tensor({ 1, 0 }, { dtype = "uint8" })
        for _, filters in ipairs(FILTERS) do check(x, 1, filters) end
        for i = 0, V - 1 do words[i], words[V + i] = 0x4000 + i % 5, 0xff80 end
        for _, filters in ipairs(FILTERS) do check(x, 1, filters) end
        words[7], words[2 * V - 1] = 0x7fc0, 0xbf80
        for _, filters in ipairs(FILTERS) do check(x, 1, filters, { mask = mask }) end
      end
    end)

    -- More ids around the cut than can be listed: of one logit, of two, of neighbouring numbers.
    it("have them if many logits are equal, or nearly", function()
      local V, random = 40013, prng.new(6)
      local x = samebits.zeros({ 3, V }, "float32")
      local words = ffi.cast("int32_t *", x.ptr)
      for id = 0, V - 1 do
        words[id] = 0x3f800000 -- 1
        words[V + id] = random:integer(0, 1) * 0x3f800000
        words[2 * V + id] = 0x3f800000 + random:integer(0, 99)
      end
      for _, dtype in ipairs { "float32", "float16" } do
        for _, filters in ipairs { { top_p = 0.9 }, { top_p = 0.02 }, { top_k = 30000 },
                                   { top_k = 9000, top_p = 0.5 } } do
          check(x:to(dtype), 1, filters)
        end
      end
    end)

    it("have them if weights are about the least that min-p keeps", function()
      local V = SIZES[3]
      local x = samebits.zeros({ R, V }, "float32") -- the first id of a row is the largest
      local words, bound = ffi.cast("int32_t *", x.ptr), ffi.new("float[1]", math.log(0.05))
      local middle = ffi.cast("int32_t *", bound)[0]
      for i = 1, V - 1 do -- one ulp apart
        local id = i * 7919 % V
        words[id], words[V + id] = middle + i - 4750, middle + i % 40 - 20
      end
      check(x, 1, { min_p = 0.05 })
      local out = cpu:sample({ logits = x }, how_of { min_p = 0.05 }, { outputs = { "count" } })
      for r = 0, R - 1 do assert.is_true(out.count[r] > 1 and out.count[r] < V) end
    end)

    it("have them from a row of as many parts as there may be, one for each thread", function()
      local x = logits.make(logits.distributions[2], "bfloat16", 1, 2^20 - 8, 5)
      local how, opts = { seed = 11, position = 3 }, { outputs = outputs_of {} }
      local ctx = assert(samebits.open(at.context().device, { split = 1000 }))
      finally(function() ctx:close() end)
      local want = assert(cpu:sample({ logits = x }, how, opts))
      local batch = samebits.batch({ logits = assert(x:to(ctx.device)) }, { ids = false })
      local got = assert(ctx:sample(batch, how, opts))
      assert.matches("^sample_sum_bf16 64 x 256, .*; sample_draw_bf16 1 x 512$", ctx:plan())
      for _, name in ipairs(opts.outputs) do
        assert.same_bits(want[name], assert(got[name]:to "cpu"))
      end
    end)

    -- Rows whose first ids are hard to pick by the largest logits of parts, and some without any.
    it("have them wherever the first ids lie", function()
      local V, rows = 70001, 10
      local x = samebits.zeros({ rows, V }, "float32")
      local values, kept = ffi.cast("float *", x.ptr), samebits.zeros({ rows, V }, "uint8")
      local flags, random = ffi.cast("uint8_t *", kept.ptr), prng.new(5)
      for id = 0, V - 1 do
        local noise, few = random:integer(0, 2 ^ 20) * 2 ^ -20, id % 1999 == 7
        local values_of_rows = {
          id * 2 ^ -13, -id * 2 ^ -13,                          -- rising, falling
          id >= 5000 and id < 5600 and 9 + noise or noise,      -- large in few parts
          few and noise or -math.huge, few and 5 or noise,      -- few ids, few ties
          1, noise, -math.huge, id == V - 1 and 0 or -math.huge, -- all equal; poisoned, none, one
          id == V - 2 and 1 + 2 ^ -23 or 1                      -- the next number behind many ties
        }
        for row = 1, rows do values[(row - 1) * V + id] = values_of_rows[row] end
        -- in these rows, small logits alone are kept
        for row = 1, rows do
          flags[(row - 1) * V + id] = values_of_rows[row] < 0.9 and id % 3 == 0 and 1 or 0
        end
      end
      values[6 * V + V / 2 - 0.5] = 0 / 0
      for _, filters in ipairs { { top_k = 1 }, { top_k = 64 }, { top_k = 50, top_p = 0.9 } } do
        for _, dtype in ipairs { "float32", "bfloat16" } do
          local y = x:to(dtype)
          local plans = check(y, 1, filters)
          assert.matches("; sample_pick_", plans[1])
          check(y, 1, filters, { kept = kept })
          check_first(y, filters.top_k)
          check_first(y, filters.top_k, { kept = kept })
        end
      end
    end)

    -- 20 parts tell the first 16 ids from the others, and are too few for 17; 4 are for 4. The ways
    -- take different workspaces.
    it("have them, as the first k ids of rows that need more parts for more ids", function()
      local ctx = contexts[1]
      for V, most in pairs { [10240] = 16, [2048] = 3 } do
        local x = logits.make(logits.distributions[2], "bfloat16", R, V, 3)
        local batch = samebits.batch({ logits = x:to(ctx.device) }, { ids = false })
        local size = assert(ctx:order_workspace_size(batch))
        for _, k in ipairs { 1, most, most + 1, 64 } do
          local want = assert(cpu:topk(samebits.batch({ logits = x }, { ids = false }), k))
          local workspace = samebits.empty({ size }, "uint8", ctx.device)
          local got = assert(ctx:topk(batch, k, { workspace = workspace }))
          assert.matches(k <= most and "; topk_pick_bf16 " or "; topk_finish ", ctx:plan())
          for name, values in pairs(want) do
            assert.same_bits(values, assert(got[name]:to "cpu"))
          end
        end
      end
    end)

    it("are launched in these ways", function()
      local x = logits.make(logits.distributions[2], "bfloat16", R, SIZES[1], 1)
      local plans, filtered = check(x, 1, {}), check(x, 1, { top_p = 0.9 })
      local ctx = contexts[2]
      assert(ctx:logprob(samebits.batch { logits = x:to(ctx.device),
                                          ids = samebits.tensor({ 1, 2 }, { dtype = "int32" })
                                                        :to(ctx.device) }))
      if not ctx:plan():match "_table" then return pending "the GPU has no room for a table" end
      assert.matches("^sample_sum_bf16_table ", plans[2])
      assert.matches("^sample_sum_bf16_table .*; sample_filter_bf16 ", filtered[2])
      for i, plan in ipairs(plans) do
        assert.matches(i == 2 and "_table .*; sample_draw_bf16 " or "; sample_draw_bf16 ", plan)
      end
    end)
  end)
end)
