-- Heads on a GPU: whatever kernel multiplies, the bits of the cpu, of leaves of every kind; ignored
-- rows between active ones; bad rows of weights with and without a check; how little memory a call
-- needs; lists of kept ids; and cuts of V and D.

local samebits = require "samebits"
local backends = require "spec.support.backends"
local graphs = require "spec.support.graphs"
local heads = require "spec.support.heads"
local refusal = require "spec.support.refusal"

local misuse, says = refusal.misuse, refusal.says
local here = samebits.open "cpu"

-- Weights and hidden states, bf16.
local function random(V, D, rows, seed)
  return heads.values({ V, D }, "bfloat16", seed), heads.values({ rows, D }, "bfloat16", seed + 1)
end

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
          local spec = { hidden = hidden:to(ctx.device), head = of_gpu, ids = ids }
          local function same(what, got, want)
            for name, t in pairs(want) do
              assert.is_true(samebits.same_bits(got[name]:to "cpu", t),
                             ("%s %s of %d"):format(what, name, n))
            end
          end
          for _, outputs in ipairs { { "token", "lse" }, { "token", "lse", "entropy", "saved" } } do
            local want = assert(here:logprob({ hidden = hidden, head = of_cpu, ids = ids },
                                             { outputs = outputs }))
            for _, launch in ipairs { {}, { cluster = -1 }, { table = -1 } } do
              launch.outputs = outputs
              same("logprob", assert(ctx:logprob(spec, launch)), want)
            end
          end
          for _, entropy in ipairs { false, true } do
            local want = assert(here:partial({ hidden = hidden, head = of_cpu, ids = ids },
                                             { entropy = entropy }))
            same("partial", assert(ctx:partial(spec, { entropy = entropy })), want)
          end
          local logits = assert(here:logits { hidden = hidden, head = of_cpu })
          for _, opts in ipairs { { first = 0, n = V }, { first = 16, n = 272, dtype = "float16" },
                                  { first = 32, n = 268, dtype = "bfloat16" } } do
            local want = logits:slice(1, opts.first, opts.first + opts.n):clone()
            local got = assert(ctx:logits({ hidden = spec.hidden, head = of_gpu }, opts))
            same("logits", { got }, { opts.dtype and want:to(opts.dtype) or want })
          end
        end
      end)
    end

    -- Logits of many thousands, in some rows NaN; leaves whose ids are all absent.
    it("has the cpu's bits of leaves of every kind", function()
      local V, D, rows = 150, 20, 70
      local weights, hidden = heads.values({ V, D }, "float32", 31), heads.values({ rows, D },
                                                                                 "float32", 32)
      local bias = samebits.zeros({ V }, "float32")
      for v = 48, 79 do bias:set(-math.huge, v) end
      for v = 100, 105 do
        for d = 0, D - 1 do weights:set(weights:get(v, d) * 2 ^ 18, v, d) end
      end
      for _, r in ipairs { 1, 2, 66 } do hidden:set(0 / 0, r, 3) end
      for r = 1, rows - 1, 4 do
        for d = 0, D - 1 do hidden:set(0, r, d) end
      end
      local ids, temperature = {}, {}
      for r = 1, rows do ids[r], temperature[r] = r * 11 % V, r % 5 == 0 and 2 ^ -10 or 1 end
      local function spec(on)
        return { hidden = hidden:to(on.device), ids = ids, temperature = temperature,
                 head = assert(on:head(weights:to(on.device), { bias = bias:to(on.device) })) }
      end
      local cpu, gpu = spec(here), spec(ctx)
      for _, n in ipairs { 5, 40, rows } do
        for _, its in ipairs { cpu, gpu } do
          its.rows = {}
          for r = 1, n do its.rows[r] = r - 1 end
        end
        for _, launch in ipairs { {}, { cluster = -1 }, { table = -1 } } do
          launch.outputs = { "token", "lse", "entropy", "saved" }
          local want = assert(here:logprob(cpu, { outputs = launch.outputs }))
          for name, t in pairs(assert(ctx:logprob(gpu, launch))) do
            assert.is_true(samebits.same_bits(t:to "cpu", want[name]), name .. " of " .. n)
          end
        end
        local want = assert(here:partial(cpu, { entropy = true }))
        for name, t in pairs(assert(ctx:partial(gpu, { entropy = true }))) do
          assert.is_true(samebits.same_bits(t:to "cpu", want[name]), name .. " of " .. n)
        end
      end
    end)

    it("has the bits of a whole call if V or D is cut over ranks", function()
      local V, D, rows = 420, 210, 130
      local weights, hidden = random(V, D, rows, 21)
      local ids = {}
      for r = 1, rows do ids[r] = r * 53 % V end
      for _, format in ipairs { "h24w16", "h24w24" } do
        local function head_of(part, opts)
          opts.format = format
          return assert(ctx:head(part:clone():to(ctx.device), opts))
        end
        local whole = head_of(weights, {})
        local spec = { hidden = hidden:to(ctx.device), head = whole, ids = ids }
        local outputs = { outputs = { "token", "lse", "entropy" } }
        local expected = assert(ctx:logprob(spec, outputs))
        local records, cuts = {}, { 0, 128, 208, V }
        for i = 1, 3 do
          local head = head_of(weights:slice(0, cuts[i], cuts[i + 1]), { first = cuts[i] })
          records[i] = assert(ctx:partial({ hidden = spec.hidden, head = head, ids = ids,
                                            vocab = V }, { entropy = true }))
        end
        local finished = assert(ctx:finish(ctx:merge(records), spec, outputs))
        for name, t in pairs(expected) do
          assert.is_true(samebits.same_bits(finished[name]:to "cpu", t:to "cpu"), name)
        end
        local parts = { { 0, 64 }, { 64, 130 }, { 130, D } }
        local of_h, of_w, sums, head
        for _, part in ipairs(parts) do
          part.h = hidden:slice(1, part[1], part[2]):clone():to(ctx.device)
          part.w = weights:slice(1, part[1], part[2]):clone()
          of_h = heads.elementwise(math.max, of_h, ctx:scales(part.h):to "cpu")
          of_w = heads.elementwise(math.max, of_w, ctx:scales(part.w:to(ctx.device)):to "cpu")
        end
        for _, part in ipairs(parts) do
          head = head_of(part.w, { scales = of_w:to(ctx.device) })
          local got = assert(ctx:products({ hidden = part.h, head = head }, of_h:to(ctx.device)))
          sums = heads.elementwise(function(x, y) return x + y end, sums, got:to "cpu")
        end
        local got = assert(ctx:combine(sums:to(ctx.device), of_h:to(ctx.device), head))
        local logits = assert(ctx:logits { hidden = spec.hidden, head = whole })
        assert.is_true(samebits.same_bits(got:to "cpu", logits:to "cpu"), format)
      end
    end)

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
      for _, outputs in ipairs { { "token" }, { "token", "entropy" } } do
        assert.is_true(ctx:workspace_size(batch, { outputs = outputs }) <= 32 * 2 ^ 20)
      end
    end)

    -- Of rows that fill no block of threads, few are active, in some blocks all and in some none.
    it("finds the active rows of many, counted by each block or before", function()
      local V, D = 32, 8
      local weights, all = random(V, D, 3100, 71)
      local of_cpu, of_gpu = here:head(weights), ctx:head(weights:to(ctx.device))
      for _, n in ipairs { 2048, 2049, 3100 } do
        local ids = {}
        for r = 1, n do
          local active = r > 512 and r <= 1024 or r % 37 == 5 and r > 1536
          ids[r] = active and r % V or -100
        end
        local hidden = all:slice(0, 0, n)
        local want = assert(here:logprob { hidden = hidden, head = of_cpu, ids = ids })
        local got = assert(ctx:logprob { hidden = hidden:to(ctx.device), head = of_gpu, ids = ids })
        assert.equal(n > 2048, ctx:plan():find "head_count" ~= nil, ctx:plan())
        for name, t in pairs(want) do
          assert.is_true(samebits.same_bits(got[name]:to "cpu", t), ("%s of %d"):format(name, n))
        end
      end
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

    -- Few ids of a row are multiplied by themselves, unless ranks are wanted; of many, all logits
    -- are computed. Ids ignored, twice in a row, absent; rows without ids, and rows of NaN.
    it("has the cpu's bits of several ids, few and many", function()
      local V, D, rows = 1100, 100, 130
      local weights, hidden = random(V, D, rows, 51)
      local bias = heads.values({ V }, "float32", 53)
      bias:set(-math.huge, 7)
      weights:set(0 / 0, 7, 5)
      hidden:set(0 / 0, 1, 3)
      local function ids_of(n, K)
        local ids = {}
        for r = 1, n do
          ids[r] = {}
          for k = 1, K do
            local id = (r * 37 + k * 211) % V
            ids[r][k] = (r % 5 == 3 or k % 4 == 0) and -100 or k == 2 and 7 or k == 5 and ids[r][1]
                        or id
          end
        end
        return ids
      end
      local mask, temperature, list, kept, offsets, words = {}, {}, {}, {}, { 0 }, {}
      for r = 1, rows do
        mask[r], temperature[r] = r % 4 == 0 and 0 or 1, 0.5 + r % 7 / 4
        if r % 3 == 1 then list[#list + 1] = r - 1 end
        words[r] = {}
        for v = 1, V do words[r][v] = (v * r) % 3 ~= 0 and 1 or 0 end
        for v = r % 9, V - 1, 9 do kept[#kept + 1] = v end
        offsets[r + 1] = #kept
      end
      local function first(t, n) return { unpack(t, 1, n) } end
      for _, format in ipairs { "h24w16", "h24w24" } do
        local plain = format == "h24w24"
        local opts = { format = format, bias = not plain and bias or nil, keep_bad = true,
                       softcap = not plain and 30 or nil }
        if plain then weights:set(1, 7, 5) end
        local of_cpu = assert(here:head(weights, opts))
        opts.bias = opts.bias and opts.bias:to(ctx.device)
        local of_gpu = assert(ctx:head(weights:to(ctx.device), opts))
        local function both(n, K, change, outputs, gathers)
          local function spec(on, head)
            local its = { hidden = hidden:slice(0, 0, n):to(on.device), head = head,
                          ids = ids_of(n, K) }
            for key, value in pairs(change) do
              its[key] = samebits.is_tensor(value) and value:to(on.device) or value
            end
            return its
          end
          local want = assert(here:logprob_ids(spec(here, of_cpu), { outputs = outputs }))
          local got = assert(ctx:logprob_ids(spec(ctx, of_gpu), { outputs = outputs }))
          local plan = ctx:plan()
          assert.equal(gathers, plan:find "head_ids_" ~= nil, plan)
          for name, t in pairs(want) do
            assert.is_true(samebits.same_bits(got[name]:to "cpu", t),
                           ("%s of %d rows, %d ids, %s"):format(name, n, K, format))
          end
        end
        local alone = { "logprob", "lse" }
        for _, n in ipairs { 1, 8, 9, 65, rows } do both(n, 3, {}, alone, true) end
        both(9, 40, {}, alone, true)
        both(rows, 70, {}, alone, true)
        both(9, 3, {}, { "logprob", "rank" }, false)
        both(9, 3, {}, { "lse" }, true)
        for _, n in ipairs { 20, rows } do
          both(n, 5, { mask = first(mask, n), temperature = first(temperature, n) }, alone, true)
        end
        both(rows, 5, { rows = list }, alone, true)
        both(rows, 5, { kept = words }, alone, true)
        both(rows, 5, { kept_ids = samebits.tensor(kept, { dtype = "int32" }),
                        kept_offsets = samebits.tensor(offsets, { dtype = "int64" }) }, alone, true)
        local ids = ids_of(rows, 3)
        ids[71][2] = V
        local bad = { hidden = hidden:to(ctx.device), head = of_gpu, ids = ids }
        local opts_of = { outputs = alone, check = true }
        says(misuse(ctx.logprob_ids, ctx, bad, opts_of), "row 70", "1100")
        bad.rows = { 1, 2, 70, 69 }
        says(misuse(ctx.logprob_ids, ctx, bad, opts_of), "row_list[3] is 69")
      end
    end)

    it("takes all logits for many ids of long rows", function()
      local V, D, rows = 1000, 2048, 70
      local weights, hidden = random(V, D, rows, 55)
      local of_cpu, of_gpu = here:head(weights), ctx:head(weights:to(ctx.device))
      for _, K in ipairs { 3, 8 } do
        local ids = {}
        for r = 1, rows do
          ids[r] = {}
          for k = 1, K do ids[r][k] = (r * 29 + k * 71) % V end
        end
        local outputs = { outputs = { "logprob", "lse" } }
        local want = assert(here:logprob_ids({ hidden = hidden, head = of_cpu, ids = ids },
                                             outputs))
        local got = assert(ctx:logprob_ids({ hidden = hidden:to(ctx.device), head = of_gpu,
                                             ids = ids }, outputs))
        assert.equal(K == 3, ctx:plan():find "head_ids_" ~= nil)
        for name, t in pairs(want) do
          assert.is_true(samebits.same_bits(got[name]:to "cpu", t), name)
        end
      end
    end)

    it("multiplies single ids in several chunks of rows", function()
      local V, D, rows = 32, 256, 34200
      local weights, hidden = random(V, D, rows, 61)
      local ids = {}
      for r = 1, rows do ids[r] = { r % V, r % 3 == 0 and -100 or r * 7 % V } end
      local outputs = { outputs = { "logprob", "lse" } }
      local want = assert(here:logprob_ids({ hidden = hidden, head = here:head(weights),
                                             ids = ids }, outputs))
      local got = assert(ctx:logprob_ids({ hidden = hidden:to(ctx.device), ids = ids,
                                           head = ctx:head(weights:to(ctx.device)) }, outputs))
      assert.equal(2, select(2, ctx:plan():gsub("head_ids_a", "")))
      for name, t in pairs(want) do
        assert.is_true(samebits.same_bits(got[name]:to "cpu", t), name)
      end
    end)

    -- Short lists are multiplied by themselves, long ones by the words of all ids. Leaves with one
    -- kept id and with more; an empty list, rows of NaN, logits of many thousands, absent ids.
    it("has the cpu's bits of lists of kept ids, short and long", function()
      local V, D, rows = 1100, 100, 130
      local weights = heads.values({ V, D }, "float32", 71)
      local hidden = heads.values({ 2, rows / 2, D }, "bfloat16", 72)
      local bias = heads.values({ V }, "float32", 73)
      bias:set(-math.huge, 30)
      for v = 500, 520 do
        for d = 0, D - 1 do weights:set(weights:get(v, d) * 2 ^ 16, v, d) end
      end
      hidden:set(0 / 0, 0, 11, 3)
      local ids, mask, temperature, list = {}, {}, {}, {}
      for r = 1, rows do
        local b, t = r > rows / 2 and 2 or 1, (r - 1) % (rows / 2) + 1
        for _, of in ipairs { ids, mask, temperature } do of[b] = of[b] or {} end
        ids[b][t], mask[b][t] = r % 6 == 5 and -100 or r * 8 % V, r % 7 == 3 and 0 or 1
        temperature[b][t] = r % 5 == 0 and 2 ^ -10 or 0.5 + r % 3
        if r % 3 ~= 0 then list[#list + 1] = r - 1 end
      end
      local function lists_of(each, dtype)
        local kept, offsets = {}, { 0 }
        for r = 1, rows do
          local own, n = {}, r % 8 == 0 and 0 or r % 11 == 0 and 4 * each or each
          for i = 1, n do own[i % 3 == 0 and (r * 8 + i) % V or (r * 16 + i * 31) % V] = true end
          for v = 0, V - 1 do
            if own[v] or v == 30 and n > 0 then kept[#kept + 1] = v end
          end
          offsets[r + 1] = #kept
        end
        return { kept_ids = samebits.tensor(kept, { dtype = dtype }),
                 kept_offsets = samebits.tensor(offsets, { dtype = dtype }) }
      end
      local short, long = lists_of(6, "int32"), lists_of(80, "int64")
      for _, format in ipairs { "h24w16", "h24w24" } do
        local opts = { format = format, bias = bias }
        local of_cpu = assert(here:head(weights, opts))
        local of_gpu = assert(ctx:head(weights:to(ctx.device), { format = format,
                                                                 bias = bias:to(ctx.device) }))
        local function spec_of(on, lists, change)
          local its = { hidden = hidden, ids = ids, head = on == here and of_cpu or of_gpu }
          for _, from in ipairs { lists, change } do
            for key, value in pairs(from) do its[key] = value end
          end
          for key, value in pairs(its) do
            if samebits.is_tensor(value) then its[key] = value:to(on.device) end
          end
          return its
        end
        local function both(lists, change, launch)
          local all = { outputs = { "token", "lse", "sequence", "count", "outside", "saved",
                                    launch.entropy and "entropy" or nil } }
          local want = assert(here:logprob(spec_of(here, lists, change), all))
          all.split = launch.split
          local got = assert(ctx:logprob(spec_of(ctx, lists, change), all))
          local plan = ctx:plan()
          assert.equal(lists == short, plan:find "head_lists_" ~= nil, plan)
          assert.equal(lists == short, plan:find "lists_words" == nil, plan)
          for name, t in pairs(want) do
            assert.is_true(samebits.same_bits(got[name]:to "cpu", t), name .. ", " .. format)
          end
        end
        for _, launch in ipairs { {}, { entropy = true }, { split = 3 },
                                  { split = 3, entropy = true } } do
          both(short, {}, launch)
          both(short, { shift = 1, mask = mask, temperature = temperature }, launch)
          both(short, { rows = list }, launch)
        end
        both(long, {}, {})
        local few = { hidden = hidden:view(rows, D):slice(0, 0, 9), ids = { unpack(ids[1], 1, 9) } }
        for name, t in pairs(long) do few[name] = t end
        few.kept_offsets = few.kept_offsets:slice(0, 0, 10)
        few.kept_ids = few.kept_ids:slice(0, 0, tonumber(few.kept_offsets:get(9)))
        local want = assert(here:logprob(spec_of(here, few, {})))
        local got = assert(ctx:logprob(spec_of(ctx, few, {})))
        assert.truthy(ctx:plan():find "head_lists_")
        assert.is_true(samebits.same_bits(got.token:to "cpu", want.token))
        local bad = lists_of(6, "int32")
        bad.kept_ids:set(V, bad.kept_offsets:get(72) + 2)
        says(misuse(ctx.logprob, ctx, spec_of(ctx, bad, {}), { check = true }), "row 72",
             "kept id 1100")
      end
    end)

    -- Rows of which a few are active, in several chunks of logits.
    it("takes lists of kept ids for every call, and names the bad ones", function()
      local V, D, rows = 65600, 3, 400
      local weights, hidden = random(V, D, rows, 15)
      local of_cpu, of_gpu = here:head(weights), ctx:head(weights:to(ctx.device))
      local mask, ids, several, kept, offsets = {}, {}, {}, {}, { 0 }
      for r = 1, rows do
        mask[r] = (r % 127 <= 1 or r == rows) and 1 or 0
        ids[r] = r * 163 % V
        several[r] = { ids[r], ids[r] + 1, -100 }
        for _, id in ipairs { 7, r, ids[r], ids[r] + 1, V - 1 } do
          if id > (kept[#kept] or -1) or #kept == offsets[r] then kept[#kept + 1] = id end
        end
        offsets[r + 1] = #kept
      end
      local function both(call, of_ids, opts)
        local function spec(on, head)
          return { hidden = hidden:to(on.device), head = head, ids = of_ids, mask = mask,
                   kept_ids = samebits.tensor(kept, { dtype = "int32" }):to(on.device),
                   kept_offsets = samebits.tensor(offsets, { dtype = "int64" }):to(on.device) }
        end
        local want = assert(call(here, spec(here, of_cpu), opts))
        local got = assert(call(ctx, spec(ctx, of_gpu), opts))
        if samebits.is_tensor(want) then want, got = { want }, { got } end
        for name, t in pairs(want) do
          assert.is_true(samebits.same_bits(got[name]:to "cpu", t), name)
        end
      end
      both(ctx.topk, nil, 4)
      both(ctx.logprob_ids, several)
      both(ctx.logprob, ids, { outputs = { "token", "entropy", "sequence", "outside" } })
      both(ctx.partial, ids, { entropy = true })
      both(function(on, spec)
        local q = {}
        for key, value in pairs(spec) do q[key] = value end
        q.hidden = heads.values({ rows, D }, "bfloat16", 17):to(on.device)
        return on:kl(spec, q)
      end)
      both(function(on, spec) return on:logits(spec, { first = 65536, n = 64 }) end)
      kept[offsets[382] + 2] = 7
      local function refused(call)
        local _, why = pcall(both, function(on, ...)
          return on == here and {} or call(on, ...)
        end, ids)
        says(why, "row 381", "kept id 7")
      end
      refused(function(on, spec) return on:topk(spec, 4, { check = true }) end)
      refused(function(on, spec) return on:logits(spec, { first = 0, n = 16, check = true }) end)
    end)
  end)
end)
