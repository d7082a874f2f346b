-- Behaviour that only a GPU can show: which pointers are refused, which errors are reported and
-- when, that no geometry, alignment or stream affects any bit, and that the context is usable after
-- every error.

local ffi = require "ffi"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local full_batch = require "spec.support.full_batch"
local graphs = require "spec.support.graphs"
local hex = require "spec.support.hex"
local refusal = require "spec.support.refusal"
local changed = require "spec.support.with"

local misuse, says = refusal.misuse, refusal.says
local tensor = samebits.tensor
local NAN, ZERO = "7fc00000", "00000000"
local OUTPUTS = { "token", "lse", "sequence", "count" }

local function example(V, dtype, packed)
  return full_batch(hex.tensor(hex.values(15 * V, V), { 15, V }):to(dtype or "float32"), packed)
end

describe("on a GPU,", function()
  backends.with("cuda", function(at)
    local ctx, device
    backends.own_context(at, function(...) ctx, device = ... end)

    -- The context is still usable: a call whose bits are known.
    local function works()
      local spec = example(100)
      local want = samebits.logprob(spec)
      local got = assert(ctx:logprob(samebits.batch(spec):to(device)))
      for _, name in ipairs(OUTPUTS) do assert.same_bits(want[name], got[name]) end
      assert.is_true(ctx:check())
    end

    it("the context tells what it is", function()
      assert.equal("cuda", ctx.backend)
      assert.matches("^cuda:%d+$", ctx.device)
      assert.matches("^sm_%d+$", ctx.isa)
      assert.is_true(ctx.threads > 1)
      assert.matches("^samebits context: cuda:%d+, sm_%d+, %d+ multiprocessors$", tostring(ctx))
    end)

    it("there are only so many devices", function()
      local none, why, code = samebits.open "cuda:4096"
      assert.is_nil(none)
      says(why, "4096")
      assert.equal("SB_ERR_BACKEND", code)
      says(refusal.message(tensor({ 1 }):to "cuda:4096"), "cuda:4096", "4096")
    end)

    it("host memory is refused by name", function()
      local spec = example(100, nil, true)
      local host = samebits.batch(spec)
      local moved = assert(host:to(device))
      -- The batch is on the device, except for one pointer to host memory.
      for field, name in pairs { logits = "logits", ids = "ids", mask = "mask",
                                 temperatures = "temperatures", row_list = "row_list",
                                 cu_seqlens = "cu_seqlens" } do
        local kept = moved.c[field]
        moved.c[field] = host.c[field]
        says(misuse(function() ctx:logprob(moved) end), name .. " (", "host memory")
        moved.c[field] = kept
      end
      for name, dtype in pairs { token = "float32", lse = "float32", sequence = "float32",
                                 count = "int64" } do
        local shape = (name == "token" or name == "lse") and { 15 } or { 3 }
        local memory = samebits.zeros(shape, dtype)
        local claimed = tensor(memory.ptr, { device = device, dtype = dtype, shape = shape,
                                             owner = memory })
        says(misuse(function() ctx:logprob(moved, { out = { [name] = claimed } }) end),
             name .. " (", "host memory")
      end
      works()
    end)

    it("page-locked memory is read and written in place", function()
      local spec = example(100)
      local want = samebits.logprob(spec)
      for _, name in ipairs { "logits", "ids", "mask", "temperature" } do
        local locked = assert(samebits.pinned(spec[name].shape, spec[name].dtype, device))
        locked:copy_(spec[name])
        spec[name] = tensor(locked.ptr, { device = device, dtype = locked.dtype,
                                          shape = locked.shape, owner = locked })
      end
      local token = assert(samebits.pinned(want.token.shape, "float32", device))
      local out = assert(ctx:logprob(samebits.batch(spec), { out = {
        token = tensor(token.ptr, { device = device, dtype = "float32", shape = token.shape,
                                    owner = token }) } }))
      assert.same_bits(want.token, token)
      assert.same_bits(want.sequence, out.sequence)
    end)

    it("pointers that are not aligned to their elements are refused by name", function()
      local logits = samebits.zeros({ 2 * 40 + 1 }, "float32", device)
      local off = tensor(logits.ptr + 2, { device = device, dtype = "float32", shape = { 2, 40 },
                                           owner = logits })
      says(misuse(function() ctx:logprob { logits = off, ids = { 1, 2 } } end), "logits (",
           "not aligned to 4 bytes")
      works()
    end)

    it("rows at any element offset have the cpu's bits", function()
      for _, dtype in ipairs { "float32", "float16", "bfloat16" } do
        for _, V in ipairs { 1, 15, 16, 17, 31, 33, 1023, 1025, 4099, 50257 } do
          local R = 3
          local logits = hex.tensor(hex.values(R * V, V + 3), { R, V }):to(dtype)
          local ids = { 0, V - 1, math.floor(V / 2) }
          local want = samebits.logprob { logits = logits, ids = ids, temperature = 0.7 }
          for offset = 0, 8 do
            local stride = V + offset
            local wide = samebits.zeros({ offset + R * stride }, dtype)
            ffi.fill(wide.ptr, wide:numel() * wide.itemsize, 0xff)
            for r = 0, R - 1 do
              local first = offset + r * stride
              wide:slice(0, first, first + V):copy_(logits[r])
            end
            local base = assert(wide:to(device))
            local placed = tensor(base.ptr + offset * base.itemsize, {
              device = device, dtype = dtype, shape = { R, V }, strides = { stride, 1 },
              owner = base })
            local got = assert(ctx:logprob { logits = placed, ids = ids, temperature = 0.7 })
            for _, name in ipairs(OUTPUTS) do
              assert.same_bits(want[name], got[name], ("%s, V = %d, offset %d"):format(dtype, V,
                                                                                      offset))
            end
          end
        end
      end
    end)

    it("every geometry has the cpu's bits", function()
      for _, dtype in ipairs { "float32", "bfloat16" } do
        for _, V in ipairs { 17, 1025, 50257 } do
          for _, packed in ipairs { false, true } do
            local spec = example(V, dtype, packed)
            local want = samebits.logprob(spec)
            local batch = assert(samebits.batch(spec):to(device))
            for _, split in ipairs { 0, 1, 2, 7, 64, 65536 } do
              for _, threads in ipairs { 0, 32, 96, 256, 512 } do
                for cluster = -1, 1 do
                  local got = assert(ctx:logprob(batch, { split = split, threads = threads,
                                                          cluster = cluster }))
                  for _, name in ipairs(OUTPUTS) do
                    assert.same_bits(want[name], got[name],
                      ("%s, %s, V = %d, split %d, %d threads, cluster %d"):format(dtype,
                        packed and "packed" or "padded", V, split, threads, cluster))
                  end
                end
              end
            end
          end
        end
      end
    end)

    -- The last rows of many are cut into pieces, so that the GPU stays full to the end.
    it("many rows have the bits of rows alone", function()
      for _, dtype in ipairs { "bfloat16", "float16", "float32" } do
        local V, R = 65537, 900
        local part = hex.tensor(hex.values(7 * V, 3), { 7, V }):to(dtype)
        local logits, ids = samebits.empty({ R, V }, dtype), {}
        for r = 0, R - 1 do
          ffi.copy(ffi.cast("char *", logits.ptr) + r * V * logits.itemsize,
            ffi.cast("char *", part.ptr) + r % 7 * V * logits.itemsize, V * logits.itemsize)
          ids[r + 1] = r % 11 == 0 and -100 or r * 71 % V
        end
        local batch = assert(samebits.batch { logits = logits, ids = ids }:to(device))
        local many = assert(ctx:logprob(batch))
        local alone = assert(ctx:logprob(batch, { split = 1, threads = 128 }))
        for _, name in ipairs { "token", "lse" } do
          assert.same_bits(alone[name], many[name], dtype .. " " .. name)
        end
      end
    end)

    it("the plan names each kernel that was launched, with its grid", function()
      local batch = assert(samebits.batch(example(100, "bfloat16")):to(device)) -- lists 10 rows
      local only = { outputs = { "token" } }
      local function plan(opts)
        assert(ctx:logprob(batch, changed(only, opts)))
        return ctx:plan()
      end
      assert.equal("logprob_bf16 10 x 64, 4096 B", plan { split = 1, threads = 64 })
      assert.equal("logprob_bf16 30 x 32, 2048 B; logprob_finish 2 x 256",
                   plan { split = 3, threads = 32, cluster = -1 })
      assert.matches("^logprob_bf16[_%w]* 30 x 64, 4160 B.*; sequence_sums 1 x 256$",
                     plan { split = 3, threads = 32, outputs = { "sequence" } })
      local said = plan { split = 7, threads = 32, cluster = 1 }
      assert.is_truthy(said == "logprob_bf16_cluster 70 x 64, 4160 B, clusters of 7" or
                       said == "logprob_bf16_latency 70 x 64, 4160 B; logprob_finish 2 x 256")
      assert.equal(said, select(2, ctx:workspace_size(batch, only), ctx:plan())) -- a query
      assert.is_true(ctx:check())
      assert.equal(said, ctx:plan())
    end)

    it("geometries that are none are refused", function()
      local batch = assert(samebits.batch(example(100)):to(device))
      for _, threads in ipairs { -32, 1, 33, 544, 2 ^ 30 } do
        says(misuse(function() ctx:logprob(batch, { threads = threads }) end), "threads",
             ("%d"):format(threads))
      end
      for _, split in ipairs { -1, 65537 } do
        says(misuse(function() ctx:logprob(batch, { split = split }) end), "split")
      end
      works()
    end)

    it("two streams run at once, each with a workspace of its own", function()
      local V, calls = 50257, {}
      for i = 1, 2 do
        local rows = 40
        local logits = hex.tensor(hex.values(rows * V, i), { rows, V }):to "bfloat16"
        local ids = {}
        for r = 1, rows do ids[r] = r * i * 97 end
        local call = { spec = { logits = logits, ids = ids }, stream = assert(ctx:stream()) }
        call.want = samebits.logprob(call.spec)
        call.batch = assert(samebits.batch(call.spec):to(device))
        local bytes = ctx:workspace_size(call.batch, { split = 5 })
        assert.is_true(bytes > 0)
        call.opts = {
          split = 5, check = false, stream = call.stream, out = {},
          workspace = samebits.empty({ bytes }, "uint8", device),
        }
        calls[i] = call
      end
      for _ = 1, 20 do
        for _, call in ipairs(calls) do assert(ctx:logprob(call.batch, call.opts)) end
      end
      for _, call in ipairs(calls) do
        assert.is_true(ctx:check(call.stream))
        for _, name in ipairs(OUTPUTS) do assert.same_bits(call.want[name], call.opts.out[name]) end
      end
    end)

    for name, opts in pairs {
      ["as it likes"] = {}, ["whole rows"] = { split = 1, threads = 64 },
      ["pieces"] = { split = 5, cluster = -1 }, ["clusters"] = { split = 4, cluster = 1 },
    } do
      it("a call is captured into a graph: " .. name, function()
        local V = 5003
        local function logits(seed) return hex.tensor(hex.values(3 * V, seed), { 3, V }) end
        local there = assert(logits(1):to(device))
        local ids = samebits.tensor({ 7, 5002, 0 }, { dtype = "int32" })
        local batch = samebits.batch { logits = there, ids = assert(ids:to(device)) }
        local stream = assert(ctx:stream())
        opts.stream, opts.check = stream, false
        opts.workspace = samebits.empty({ math.max(1, ctx:workspace_size(batch, opts)) }, "uint8",
                                        device)
        opts.out = ctx:logprob(batch, opts)
        assert.is_true(ctx:check(stream))
        local graph = graphs.capture(device, stream, function()
          assert(ctx:logprob(batch, opts))
        end)
        assert.is_true(graph.nodes >= 1)
        for _, seed in ipairs { 2, 3, 2 } do
          assert(there:copy_(logits(seed)))
          graph:launch()
          assert.is_true(ctx:check(stream))
          local want = samebits.logprob { logits = logits(seed), ids = ids }
          for _, output in ipairs(OUTPUTS) do assert.same_bits(want[output], opts.out[output]) end
        end
        graph:close()
        works()
      end)
    end

    it("a workspace that is too small or askew is refused", function()
      local batch = assert(samebits.batch(example(1000)):to(device))
      local bytes = ctx:workspace_size(batch, { split = 3 })
      assert.is_true(bytes > 0)
      local memory = samebits.empty({ bytes + 256 }, "uint8", device)
      local function with(workspace)
        return function() ctx:logprob(batch, { split = 3, workspace = workspace }) end
      end
      says(misuse(with(memory:slice(0, 0, bytes - 1))), "workspace",
           ("%d bytes"):format(bytes - 1), ("%d"):format(bytes))
      says(misuse(with(memory:slice(0, 4, bytes + 4))), "workspace", "256")
      assert(with(memory:slice(0, 0, bytes)))()
      assert(with(memory:slice(0, 256)))()
      works()
    end)

    it("a choice that is not -1, 0 or 1 is refused", function()
      local batch = assert(samebits.batch(example(100)):to(device))
      for _, name in ipairs { "cluster", "table", "one_read" } do
        for _, value in ipairs { -2, 2 } do
          says(misuse(function() ctx:logprob(batch, { [name] = value }) end),
               ("%s is %d, not -1, 0 or 1"):format(name, value))
        end
      end
      works()
    end)

    -- A bad value in GPU memory: the batch's fields, the message that it must cause, and the rows
    -- that become NaN.
    local V = 40
    local function logits(rows)
      return hex.tensor(hex.values(rows * V, 5), { rows, V }):to(device)
    end
    local wrong = {
      { "ids", { ids = { 1, 2, V, -7, 3 } }, "row 2", "id 40 is outside [0, 40)", { 2, 3 } },
      { "negative ids", { ids = { 1, 2, 3, -7, 3 } }, "row 3", "id -7", { 3 } },
      { "temperatures", { ids = { 1, 2, 3, 4, 5 }, temperature = { 1, 1, 0, 1, 2048 } }, "row 2",
        "temperature 0", { 2, 4 } },
    }
    for _, case in ipairs(wrong) do
      local what, fields, row, words, bad = unpack(case)
      local function batch()
        local spec = { logits = logits(5) }
        for key, value in pairs(fields) do spec[key] = value end
        return samebits.batch(spec)
      end

      it("bad " .. what .. ": the first is named when the call is checked", function()
        says(misuse(function() ctx:logprob(batch()) end), row, words)
        for _, split in ipairs { 1, 3 } do
          says(misuse(function() ctx:logprob(batch(), { split = split }) end), row, words)
          says(misuse(function()
            ctx:logprob(batch(), { outputs = { "count" }, split = split })
          end), row, words)
        end
        works()
      end)

      it("bad " .. what .. ": NaN without a check, and one report", function()
        for _, split in ipairs { 1, 3 } do
          local stream = assert(ctx:stream())
          local out = assert(ctx:logprob(batch(), { check = false, split = split,
                                                    stream = stream }))
          says(misuse(function() ctx:check(stream) end), "row ")
          assert.is_true(ctx:check(stream))
          local token, lse, nans = hex.of(out.token:to "cpu"), hex.of(out.lse:to "cpu"), {}
          for _, r in ipairs(bad) do nans[r] = true end
          for r = 0, 4 do
            assert.equal(nans[r] or false, token[r + 1] == NAN, "row " .. r)
            assert.equal(nans[r] or false, lse[r + 1] == NAN, "row " .. r)
          end
          assert.equal(NAN, out.sequence:bits()[1])
          works()
        end
      end)
    end

    it("bad ids of ignored rows are not looked at", function()
      local spec = { logits = logits(4), ids = { V, -5, 3, 2 ^ 40 }, mask = { 0, 0, 1, 0 } }
      local out = assert(ctx:logprob(spec))
      local token = out.token:bits()
      assert.same({ ZERO, ZERO, ZERO }, { token[1], token[2], token[4] })
      assert.same({ 1 }, out.count:totable())
      spec.mask, spec.rows = nil, { 2 }
      assert.same_bits(out.token, assert(ctx:logprob(spec)).token)
    end)

    it("bad row lists and cu_seqlens are named, wherever they were made", function()
      for _, case in ipairs {
        { { rows = { 1, 1 } }, "row_list[1] is 1" },
        { { rows = { 0, 3, 2 } }, "row_list[2] is 2" },
        { { rows = { 5 } }, "row_list[0] is 5" },
        { { rows = { -1, 2 } }, "row_list[0] is -1" },
        { { rows = { 0, 2 ^ 40 } }, "row_list[1]" },
        { { cu_seqlens = { 1, 5 } }, "cu_seqlens[0] is 1" },
        { { cu_seqlens = { 0, 3, 2, 5 } }, "cu_seqlens[2]" },
        { { cu_seqlens = { 0, 3 } }, "cu_seqlens[1]" },
        { { cu_seqlens = { 0, 6 } }, "cu_seqlens[1]" },
        { { cu_seqlens = { 0, -3, 5 } }, "cu_seqlens[1]" },
        { { cu_seqlens = { 0, 2 ^ 40, 5 } }, "cu_seqlens[1]" },
      } do
        local fields, words = case[1], case[2]
        for _, place in ipairs { "cpu", device } do
          local spec = { logits = logits(5), ids = { 1, 2, 3, 4, 5 } }
          for key, value in pairs(fields) do
            spec[key] = tensor(value, { dtype = "int64", device = place })
          end
          says(misuse(function() ctx:logprob(spec) end), words)
          assert(ctx:logprob(spec, { check = false }))
          says(misuse(function() ctx:check() end), (words:match "^[%a_]+"))
          works()
        end
      end
    end)

    it("nothing in front of the logits is read, even if no sequence starts at row 0", function()
      local out = assert(ctx:logprob({
        logits = logits(6):slice(0, 1, 6),
        ids = { 1, 2, 3, 4, 5 },
        shift = true,
        cu_seqlens = tensor({ 1, 5 }, { dtype = "int64", device = device }),
      }, { check = false }))
      assert.equal(ZERO, out.token:bits()[1])
      says(misuse(function() ctx:check() end), "cu_seqlens")
    end)

    it("more memory than there is, is refused, and nothing else is lost", function()
      local t, why, code = samebits.empty({ 2 ^ 44 }, "float32", device)
      assert.is_nil(t)
      says(why, "empty: " .. device, "OUT_OF_MEMORY")
      assert.equal("SB_ERR_MEMORY", code)
      works()
    end)

    it("a thousand repeats give the same bits", function()
      local rows, vocab = 16, 32000
      local batch = assert(samebits.batch {
        logits = hex.tensor(hex.values(rows * vocab, 3), { 2, rows / 2, vocab }):to "bfloat16",
        ids = samebits.zeros({ 2, rows / 2 }, "int32"),
      }:to(device))
      local want = assert(ctx:logprob(batch)).token:to "cpu"
      local out = {}
      for i = 1, 1000 do
        assert(ctx:logprob(batch, { out = out, check = false, outputs = { "token", "sequence" } }))
        if i % 100 == 0 then assert.same_bits(want, out.token) end
      end
    end)
  end)
end)
