-- Behaviour of shards that only a GPU can show: which pointers are refused, what kernels report
-- about records, and how the rows are filled.

local ffi = require "ffi"
local samebits = require "samebits"
local call = require "samebits.op.call"
local logprob = require "samebits.op.logprob"
local backends = require "spec.support.backends"
local graphs = require "spec.support.graphs"
local hex = require "spec.support.hex"
local refusal = require "spec.support.refusal"
local shards = require "spec.support.shards"

local misuse, says = refusal.misuse, refusal.says
local NAN = "7fc00000"
local R, V, CUT = 6, 100, 48

describe("shards on a GPU,", function()
  backends.with("cuda", function(at)
    local ctx, device, spec, want, list, memory
    backends.own_context(at, function(...) ctx, device = ... end)
    setup(function()
      spec = { logits = hex.tensor(hex.values(R * V, 11), { R, V }), temperature = 0.7,
               ids = { 0, 20, 47, 48, 90, 99 } }
      want = samebits.logprob(spec)
      list = {}
      for s, cut in ipairs { { 0, CUT }, { CUT, V } } do
        local batch = samebits.batch(shards.shard(spec, cut[1], cut[2])):to(device)
        list[s] = assert(ctx:partial(batch))
      end
      -- Gathered, in memory: to be damaged.
      memory = { states = samebits.zeros({ 2, R, 32 }, "uint8"),
                 targets = samebits.zeros({ 2, R, 8 }, "uint8") }
      for s = 1, 2 do
        memory.states[s - 1]:copy_(list[s].states)
        memory.targets[s - 1]:copy_(list[s].targets)
      end
    end)

    local function whole_batch(change)
      local batch = shards.shard(spec, 0, 0)
      for key, value in pairs(change or {}) do batch[key] = value end
      return assert(samebits.batch(batch):to(device))
    end

    local function works()
      shards.assert_same(want, ctx:finish(ctx:merge(list), whole_batch()), "works")
      assert.is_true(ctx:check())
    end

    -- The gathered records with words changed, { shard, row, offset, word } each, on the device.
    local function damaged(field, ...)
      local copy = { states = memory.states:clone(), targets = memory.targets:clone() }
      for _, change in ipairs { ... } do
        local t = copy[field]
        local size = t.shape[3]
        local words = ffi.cast("uint32_t *", t.ptr + (change[1] * R + change[2]) * size)
        words[change[3] / 4] = change[4]
      end
      return { states = assert(copy.states:to(device)), targets = assert(copy.targets:to(device)) }
    end

    it("host memory and pointers that are not aligned are refused by name", function()
      local function claimed(t, offset)
        return samebits.tensor(t.ptr + (offset or 0), { device = device, dtype = "uint8",
                                                        shape = t.shape, owner = t })
      end
      local host = { states = claimed(memory.states), targets = claimed(memory.targets) }
      says(misuse(function() ctx:merge(host) end), "from.states (", "host memory")
      host.states = assert(memory.states:to(device))
      says(misuse(function() ctx:merge(host) end), "from.targets (", "host memory")
      local one = { states = claimed(memory.states[0]), targets = claimed(memory.targets[0]) }
      says(misuse(function() ctx:finish(one, whole_batch()) end), "states (", "host memory")
      local C = require("samebits.lib").C
      local batch = whole_batch()
      local there = assert(samebits.zeros({ R * 40 + 8 }, "uint8", device))
      local function partial(states, targets)
        local records = ffi.new("sb_records", ffi.sizeof "sb_records", C.SB_SUMS, states,
                                ffi.cast("sb_target_record *", targets))
        return C.sb_partial(ctx.handle, records, batch.c, 0, 0, nil)
      end
      assert.equal(1, tonumber(partial(there.ptr + 4, there.ptr)))
      says(ffi.string(C.sb_last_error(ctx.handle)), "states (", "not aligned to 8 bytes")
      assert.equal(1, tonumber(partial(there.ptr, there.ptr + R * 32 + 2)))
      says(ffi.string(C.sb_last_error(ctx.handle)), "targets (", "not aligned to 4 bytes")
      works()
    end)

    it("a workspace that is too small is refused, one that is large enough is used", function()
      local batch = samebits.batch(spec):to(device)
      local size = assert(ctx:shard_workspace_size(batch, { split = 5 }))
      assert.is_true(size >= R * 5 * 32)
      local enough = assert(samebits.empty({ size }, "uint8", device))
      local out = assert(ctx:partial(batch, { split = 5, workspace = enough }))
      assert.same_bits(ctx:merge(list).states, out.states)
      local sums = ctx:finish(out, batch, { outputs = { "sequence" }, workspace = enough })
      assert.same_bits(want.sequence, sums.sequence)
      local little = enough:slice(0, 0, 16)
      says(misuse(function() ctx:partial(batch, { split = 5, workspace = little }) end),
           "the workspace has 16 bytes")
      says(misuse(function()
        ctx:finish(out, batch, { outputs = { "sequence" }, workspace = little })
      end), "the workspace has 16 bytes, the call needs 24")
      works()
    end)

    local wrong = {
      { "J", "states", { 1, 2, 0, 5 }, "row 2, shard 1: no state has J = 5", "such a J" },
      { "digits", "states", { 0, 3, 0, 0 }, "row 3, shard 0: the state is empty", "has digits" },
      { "sums", "states", { 1, 1, 28, 0x20000000 }, "row 1, shard 1", "no sum of leaves" },
      { "c", "states", { 1, 4, 4, 0x3fb8aa3b }, "row 4, shard 1: the state is of another",
        "another" },
      { "logits", "targets", { 1, 0, 0, 1 }, "row 0, shard 1: the target record has", "no owner" },
    }
    for _, case in ipairs(wrong) do
      local what, field, change, words, short = unpack(case)
      it("bad " .. what .. " are named if a merge is checked, else refused afterwards", function()
        local bad = damaged(field, change)
        says(misuse(function() ctx:merge(bad) end), words)
        local merged = assert(ctx:merge(bad, { check = false }))
        says(misuse(function() ctx:check() end), ("row %d: "):format(change[2]), short)
        says(misuse(function() ctx:finish(merged, whole_batch()) end),
             ("row %d: no state has J = 4294967295"):format(change[2]))
        local out = assert(ctx:finish(merged, whole_batch(), { check = false }))
        says(misuse(function() ctx:check() end), ("row %d: "):format(change[2]), "such a J")
        local expected, got = hex.of(want.token), hex.of(assert(out.token:to "cpu"))
        expected[change[2] + 1] = NAN
        assert.same(expected, got)
        assert.equal(NAN, out.sequence:bits()[1])
        works()
      end)
    end

    it("the first bad record is named by row, then by shard", function()
      local bad = damaged("states", { 1, 2, 0, 5 }, { 0, 3, 0, 6 }, { 1, 5, 0, 7 })
      says(misuse(function() ctx:merge(bad) end), "row 2, shard 1", "J = 5")
      works()
    end)

    it("whole rows' records that do not fit are named", function()
      local one = { states = list[1].states, targets = list[1].targets }
      says(misuse(function() ctx:finish(one, whole_batch()) end),
           "row 3: id 48 lies in 0 of the merged shards")
      local twice = ctx:merge { list[1], list[2], list[2] }
      says(misuse(function() ctx:finish(twice, whole_batch()) end), "row 3: id 48 lies in 2")
      local merged = ctx:merge(list)
      says(misuse(function() ctx:finish(merged, whole_batch { temperature = 1 }) end),
           "row 0: the state is of another temperature", "4003e74f, not 3fb8aa3b")
      says(misuse(function()
        ctx:finish(merged, whole_batch { ids = { 0, 20, 47, 48, V, 99 } })
      end), "row 4", "id 100 is outside [0, 100)")
      local bad = damaged("targets", { 0, 1, 0, 0x7fc00000 })
      says(misuse(function() ctx:finish(ctx:merge(bad), whole_batch()) end), "row 1", "(7fc00000)")
      works()
    end)

    it("a target's logit that the state cannot hold is named, or its row becomes NaN", function()
      local bad = ctx:merge(damaged("targets", { 1, 3, 0, 0x42c80000 })) -- 100
      says(misuse(function() ctx:finish(bad, whole_batch()) end),
           "row 3: the target's logit (42c80000) is larger than any that such a state holds")
      local out = assert(ctx:finish(bad, whole_batch(), { check = false }))
      says(misuse(function() ctx:check() end), "row 3: the target's logit is not among those")
      for _, name in ipairs { "token", "lse" } do
        local expected = hex.of(want[name])
        expected[4] = NAN
        assert.same(expected, hex.of(assert(out[name]:to "cpu")), name)
      end
      assert.equal(NAN, out.sequence:bits()[1])
      works()
    end)

    it("bad ids and temperatures: named at once, or records that are refused", function()
      for _, split in ipairs { 1, 3 } do
        local cut = shards.shard(spec, 0, CUT)
        cut.ids, cut.temperature = { 0, V, 47, -100, 90, 99 }, { 1, 1, 1, 0, 0, 1 }
        local batch = samebits.batch(cut):to(device)
        says(misuse(function() ctx:partial(batch, { split = split }) end), "row 1", "id 100")
        local out = assert(ctx:partial(batch, { split = split, check = false }))
        says(misuse(function() ctx:check() end), "row ")
        local bits = out.states:bits()
        for row, J in pairs { [1] = "ffffffff", [3] = "00000000", [4] = "ffffffff" } do
          assert.equal(J, table.concat(bits[row + 1], "", 1, 4), "row " .. row)
        end
        assert.equal(("00"):rep(32), table.concat(bits[4]))
        says(misuse(function() ctx:merge { out } end), "row 1, shard 0: no state")
      end
      works()
    end)

    it("unlisted rows have zero records, and +0", function()
      local cut = shards.shard(spec, 0, CUT)
      cut.rows = { 1, 4 }
      for _, split in ipairs { 1, 3 } do
        local out = assert(ctx:partial(samebits.batch(cut):to(device), { split = split }))
        assert.same_bits(samebits.open("cpu"):partial(cut).states, out.states)
      end
      local out = assert(ctx:finish(ctx:merge(list), whole_batch { rows = { 1, 4 } }))
      local listed = samebits.logprob { logits = spec.logits, ids = spec.ids, rows = { 1, 4 },
                                        temperature = 0.7 }
      shards.assert_same(listed, out, "rows")
    end)

    it("run in a stream", function()
      local stream = assert(ctx:stream())
      local opts = { stream = stream, check = false }
      local made, batches = {}, {}
      for s, cut in ipairs { { 0, CUT }, { CUT, V } } do
        batches[s] = samebits.batch(shards.shard(spec, cut[1], cut[2])):to(device)
        made[s] = assert(ctx:partial(batches[s], opts))
      end
      local merged = assert(ctx:merge(made, opts))
      local batch = whole_batch()
      local out = assert(ctx:finish(merged, batch, opts))
      assert.is_true(ctx:check(stream))
      shards.assert_same(want, out, "stream")
    end)

    -- The calls themselves: in Lua partial and merge make their records, which allocates.
    local function capture(stream, logits, ids, split)
      local C = require("samebits.lib").C
      local parts, bytes = {}, 0
      for s, cut in ipairs { { 0, CUT }, { CUT, V } } do
        parts[s] = samebits.batch { logits = logits[s], ids = ids, first = cut[1], vocab = V,
                                    temperature = spec.temperature }
        bytes = math.max(bytes, ctx:shard_workspace_size(parts[s], { split = split }))
      end
      local whole = samebits.batch { logits = logits[1]:slice(1, 0, 0), ids = ids, first = 0,
                                     vocab = V, temperature = spec.temperature }
      local held = { states = samebits.empty({ 2 * R * 32 }, "uint8", device),
                       targets = samebits.empty({ 2 * R * 8 }, "uint8", device),
                       workspace = samebits.empty({ bytes }, "uint8", device) }
      local launch = call.launch("capture", ctx, { split = split, check = false, stream = stream,
                                                   workspace = held.workspace })
      local finish = call.begin(call.like(logprob.OP, { shards = true }), "capture", ctx)
      finish:batch(whole)
      local c = finish:outputs()
      local function records_of(s)
        return ffi.new("sb_records", ffi.sizeof "sb_records", C.SB_SUMS,
                       ffi.cast("sb_state_record *", held.states.ptr) + s * R,
                       ffi.cast("sb_target_record *", held.targets.ptr) + s * R)
      end
      local function does(status)
        assert(status == 0, ffi.string(C.sb_last_error(ctx.handle)))
      end
      local graph = graphs.capture(device, stream, function()
        for s, batch in ipairs(parts) do
          does(C.sb_partial(ctx.handle, records_of(s - 1), batch.c, batch.first, batch.held,
                            launch))
        end
        does(C.sb_merge(ctx.handle, records_of(0), records_of(0), 2, R, launch))
        does(C.sb_finish(ctx.handle, c, whole.c, records_of(0), launch))
      end)
      return graph, finish:results(), { parts, whole, held, launch }
    end

    for _, split in ipairs { 1, 3 } do
      it(("are captured into a graph, in %d pieces per row"):format(split), function()
        local stream = assert(ctx:stream())
        local other = { logits = hex.tensor(hex.values(R * V, 12), { R, V }), ids = spec.ids,
                        temperature = spec.temperature }
        local function part(of, s)
          return of.logits:slice(1, s == 1 and 0 or CUT, s == 1 and CUT or V):contiguous()
        end
        local logits = { part(spec, 1):to(device), part(spec, 2):to(device) }
        local ids = samebits.tensor(spec.ids, { dtype = "int32" }):to(device)
        local graph, out, kept = capture(stream, logits, ids, split)
        assert.is_true(graph.nodes >= 4)
        for _, of in ipairs { spec, other, spec } do
          -- Not yet the new bits: they are those of the launch.
          for s = 1, 2 do assert(logits[s]:copy_(part(of, s))) end
          assert(out.token:copy_(samebits.zeros({ R }, "float32")))
          graph:launch()
          assert.is_true(ctx:check(stream))
          shards.assert_same(samebits.logprob(of), out, "graph")
        end
        assert(ids:copy_(samebits.tensor({ 0, 20, 47, V, 90, 99 }, { dtype = "int32" })))
        graph:launch()
        says(misuse(function() ctx:check(stream) end), "row 3")
        local expected = hex.of(want.token)
        expected[4] = NAN
        assert.same(expected, hex.of(assert(out.token:to "cpu")))
        graph:close()
        assert.is_table(kept)
        works()
      end)
    end
  end)
end)
