-- Heads on a GPU: whatever kernel multiplies, the bits of the cpu; ignored rows between active
-- ones; bad rows of weights with and without a check; and how little memory a call needs.

local samebits = require "samebits"
local backends = require "spec.support.backends"
local graphs = require "spec.support.graphs"
local heads = require "spec.support.heads"
local refusal = require "spec.support.refusal"

local misuse, says = refusal.misuse, refusal.says
local here = samebits.open "cpu"

backends.with("cuda", function(at)
  describe("a head on cuda", function()
    local ctx
    backends.own_context(at, function(own) ctx = own end)

    -- As many rows as each of the kernels takes, V and D that fill no tile. Every third row is
    -- ignored where there are many.
    for _, format in ipairs { "h24w16", "h24w24" } do
      it("has the cpu's bits for any number of rows, " .. format, function()
        local V, D = 300, 100
        local weights = heads.values({ V, D }, "bfloat16", 11)
        local of_cpu = assert(here:head(weights, { format = format }))
        local of_gpu = assert(ctx:head(weights:to(ctx.device), { format = format }))
        local all = heads.values({ 150, D }, "bfloat16", 12)
        for _, n in ipairs { 1, 8, 9, 64, 65, 150 } do
          local hidden, ids = all:slice(0, 0, n), {}
          for i = 1, n do ids[i] = n > 9 and i % 3 == 0 and -100 or i * 37 % V end
          local opts = { outputs = { "token", "lse" } }
          local want = assert(here:logprob({ hidden = hidden, head = of_cpu, ids = ids }, opts))
          local spec = { hidden = hidden:to(ctx.device), head = of_gpu, ids = ids }
          for _, launch in ipairs { {}, { cluster = -1 }, { table = -1 } } do
            launch.outputs = opts.outputs
            local got = assert(ctx:logprob(spec, launch))
            for name, t in pairs(want) do
              assert.is_true(samebits.same_bits(got[name]:to "cpu", t), name .. " of " .. n)
            end
          end
        end
      end)
    end

    it("names bad rows of weights, or makes their logits NaN", function()
      local weights = heads.values({ 40, 20 }, "float32", 13)
      weights:set(math.huge, 17, 3)
      weights:set(0 / 0, 30, 0)
      local there = weights:to(ctx.device)
      says(misuse(ctx.head, ctx, there), "row 17 of the weights (id 17)", "as 2 of 40 rows do")
      local head = assert(ctx:head(there, { keep_bad = true }))
      local hidden = heads.values({ 2, 20 }, "float32", 14):to(ctx.device)
      local x = assert(ctx:logits { hidden = hidden, head = head }):to "cpu"
      for v = 0, 39 do assert.equal(v == 17 or v == 30, x[0][v] ~= x[0][v], v) end
    end)

    it("needs at most 32 MB for 4096 rows", function()
      local rows, V, D = 4096, 1040, 4096
      local head = assert(ctx:head(samebits.zeros({ V, D }, "bfloat16", ctx.device)))
      local batch = samebits.batch {
        hidden = samebits.empty({ rows, D }, "bfloat16", ctx.device), head = head,
        ids = samebits.zeros({ rows }, "int32", ctx.device),
      }
      assert.is_true(ctx:workspace_size(batch) <= 32 * 2 ^ 20)
    end)

    it("bounds errors in streams and graphs, and names bad rows and host memory", function()
      local weights = { heads.values({ 40, 20 }, "bfloat16", 17),
                        heads.values({ 40, 20 }, "bfloat16", 18) }
      local hidden = heads.values({ 5, 20 }, "bfloat16", 19)
      local there, opts = hidden:to(ctx.device), { norms = true }
      local function expected(w)
        return here:head_error { hidden = hidden, head = here:head(w, opts) }
      end
      local stream = assert(ctx:stream())
      local own = weights[1]:to(ctx.device)
      local head = assert(ctx:head(own, opts))
      local temperature = samebits.tensor({ 1, 1, 1, 1, 1 }):to(ctx.device)
      local batch = { hidden = there, head = head, temperature = temperature }
      local launch = { check = false, stream = stream }
      local out
      local graph = graphs.capture(ctx.device, stream, function()
        assert(ctx:head_update(head, own, launch))
        out = assert(ctx:head_error(batch, launch))
      end)
      for _, w in ipairs { weights[1], weights[2] } do
        assert(own:copy_(w))
        graph:launch()
        assert.is_true(ctx:check(stream))
        assert.same_bits(expected(w), out:to "cpu")
      end
      assert(temperature:copy_(samebits.tensor { 1, 1, 0, 1, 1 }))
      graph:launch()
      says(misuse(function() ctx:check(stream) end), "row 2: ")
      graph:close()
      says(misuse(ctx.head_error, ctx, batch), "row 2 ", "temperature 0")
      batch.temperature, batch.ids = 1, { 1, 2, 3, 4, 5 }
      local at_host = samebits.batch(batch)
      at_host.c.hidden = hidden.ptr
      says(misuse(ctx.head_error, ctx, at_host), "hidden (", "host memory")
    end)

    it("refuses lists of kept ids where only words are taken", function()
      local head = assert(ctx:head(heads.values({ 40, 20 }, "float32", 15):to(ctx.device)))
      local spec = {
        hidden = heads.values({ 2, 20 }, "float32", 16):to(ctx.device), head = head, ids = { 1, 2 },
        kept_ids = samebits.tensor({ 1, 5, 2 }, { dtype = "int32" }),
        kept_offsets = samebits.tensor({ 0, 2, 3 }, { dtype = "int32" }),
      }
      says(misuse(ctx.topk, ctx, spec, 2), "kept_ids", "use kept")
    end)
  end)
end)
