-- Two GPUs in one process: each computes with the data on it, and neither touches the other's.

local ffi = require "ffi"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local graphs = require "spec.support.graphs"
local hex = require "spec.support.hex"
local refusal = require "spec.support.refusal"
local shards = require "spec.support.shards"

local misuse, says = refusal.misuse, refusal.says
local tensor = samebits.tensor
local OUTPUTS = { "token", "lse", "sequence", "count" }
local R, V = 40, 50257

describe("two GPUs,", function()
  backends.with_two_gpus(function(first, second)
    local devices, ctx, spec, want = { first, second }, {}, nil, nil
    setup(function()
      for i, device in ipairs(devices) do ctx[i] = assert(samebits.open(device)) end
      local ids = {}
      for r = 1, R do ids[r] = r * 1237 % V end
      spec = { logits = hex.tensor(hex.values(R * V, 5), { R, V }):to "bfloat16", ids = ids,
               temperature = 0.7 }
      want = samebits.logprob(spec)
    end)
    teardown(function()
      for _, opened in ipairs(ctx) do opened:close() end
    end)

    local function same(got, device)
      for _, name in ipairs(OUTPUTS) do
        assert.equal(device, got[name].device)
        assert.same_bits(want[name], got[name])
      end
    end

    local function both_work()
      for i, device in ipairs(devices) do
        same(assert(ctx[i]:logprob(samebits.batch(spec):to(device))), device)
        assert.is_true(ctx[i]:check())
      end
    end

    it("each says which it is", function()
      for i, device in ipairs(devices) do
        assert.equal(device, ctx[i].device)
        says(tostring(ctx[i]), device .. ", sm_")
      end
    end)

    it("both at once have the cpu's bits, whole rows and in pieces", function()
      for _, split in ipairs { 1, 5 } do
        local calls = {}
        for i, device in ipairs(devices) do
          local stream = assert(ctx[i]:stream())
          local batch = assert(samebits.batch(spec):to(device))
          local bytes = math.max(ctx[i]:workspace_size(batch, { split = split }), 256)
          calls[i] = { batch, { split = split, check = false, stream = stream, out = {},
                                workspace = samebits.empty({ bytes }, "uint8", device) } }
        end
        for _ = 1, 20 do
          for i, call in ipairs(calls) do assert(ctx[i]:logprob(call[1], call[2])) end
        end
        for i, call in ipairs(calls) do
          assert.is_true(ctx[i]:check(call[2].stream))
          same(call[2].out, devices[i])
        end
      end
    end)

    it("tensors and results go from either to the other", function()
      local t = hex.tensor(hex.values(3 * 2 ^ 18, 9), { 3, 2 ^ 18 })
      for i, from in ipairs(devices) do
        local to = devices[3 - i]
        local there = assert(t:to(from))
        local moved = assert(there:to(to))
        assert.equal(to, moved.device)
        assert.same_bits(t, moved)
        assert.same_bits(t:transpose(), assert(there:transpose():to(to)))
        local copied = samebits.zeros(t.shape, "float32", to)
        copied:copy_(there)
        assert.same_bits(t, copied)
        assert.same_bits(there, moved)
        local token = assert(ctx[i]:logprob(samebits.batch(spec):to(from))).token
        assert.same_bits(want.token, assert(token:to(to)))
      end
    end)

    it("a vocab shard on each gives the bits of the whole", function()
      local cut = V / 2 - V / 2 % 16
      local parts = {}
      for s, range in ipairs { { 0, cut }, { cut, V } } do
        local batch = samebits.batch(shards.shard(spec, range[1], range[2])):to(devices[s])
        parts[s] = assert(ctx[s]:partial(batch))
      end
      local moved = { states = parts[2].states:to(first), targets = parts[2].targets:to(first) }
      local whole = samebits.batch(shards.shard(spec, 0, 0)):to(first)
      shards.assert_same(want, ctx[1]:finish(ctx[1]:merge { parts[1], moved }, whole), "merged")
      says(misuse(function() ctx[1]:merge(parts) end), first, second)
    end)

    it("a batch, an output or a stream of the other is refused by name", function()
      for i, device in ipairs(devices) do
        local other = devices[3 - i]
        local mine, theirs = samebits.batch(spec):to(device), samebits.batch(spec):to(other)
        says(misuse(function() ctx[i]:logprob(theirs) end), device, other)
        local out = { token = samebits.zeros({ R }, "float32", other) }
        says(misuse(function() ctx[i]:logprob(mine, { out = out }) end),
             "out.token: ", "on " .. device)
        local stream = assert(ctx[3 - i]:stream())
        says(misuse(function() ctx[i]:logprob(mine, { stream = stream }) end),
             "the stream is on " .. other)
        says(misuse(function() local _ = mine.logits:to("cpu", { stream = stream }) end),
             "the stream is on " .. other)
      end
      both_work()
    end)

    it("a pointer of the other is refused by name", function()
      for i, device in ipairs(devices) do
        local other = devices[3 - i]
        local mine, theirs = samebits.batch(spec):to(device), samebits.batch(spec):to(other)
        for _, name in ipairs { "logits", "ids" } do
          local kept = mine.c[name]
          mine.c[name] = theirs.c[name]
          says(misuse(function() ctx[i]:logprob(mine) end), name .. " (",
               ("lies on device %s, the context is on device %s"):format(other:match "%d+$",
                                                                        device:match "%d+$"))
          mine.c[name] = kept
        end
        local memory = samebits.zeros({ R }, "float32", other)
        local claimed = tensor(memory.ptr, { device = device, dtype = "float32", shape = { R },
                                             owner = memory })
        says(misuse(function() ctx[i]:logprob(mine, { out = { token = claimed } }) end),
             "token (", "lies on device " .. other:match "%d+$")
      end
      both_work()
    end)

    it("bad ids on one are no report of the other", function()
      local bad = { logits = spec.logits, ids = { unpack(spec.ids) } }
      bad.ids[3] = V
      assert(ctx[2]:logprob(samebits.batch(bad):to(second), { check = false }))
      assert.is_true(ctx[1]:check())
      says(misuse(function() ctx[2]:check() end), "row 2", "outside [0, V)")
      both_work()
    end)

    it("what a framework made current stays so", function()
      graphs.inside(second, function()
        local before = graphs.current()
        assert.is_true(before ~= ffi.cast("void *", nil))
        for i, device in ipairs(devices) do
          same(assert(ctx[i]:logprob(samebits.batch(spec):to(device))), device)
          assert.equal(before, graphs.current())
          says(refusal.message(samebits.empty({ 2 ^ 44 }, "float32", device)), device)
          assert.equal(before, graphs.current())
        end
      end)
    end)

    it("one is open after the other was closed", function()
      local opened = assert(samebits.open(second))
      opened:close()
      both_work()
    end)
  end)
end)
