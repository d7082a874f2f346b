-- The reports of sb_check on calls without a check, and their timing: one report per stream and per
-- graph, which no other call, stream or sb_check removes.

local samebits = require "samebits"
local backends = require "spec.support.backends"
local device_calls = require "spec.support.device_calls"
local graphs = require "spec.support.graphs"
local hex = require "spec.support.hex"
local refusal = require "spec.support.refusal"

local misuse, says = refusal.misuse, refusal.says
local R, V = 6, 100

-- A batch whose row `bad`, if there is one, has an id outside the vocabulary.
local function example(call, bad)
  local K, ids = call.K or 1, {}
  for i = 1, R * K do ids[i] = i * 37 % V end
  if bad then ids[bad * K + 1] = V end
  return {
    logits = hex.tensor(hex.values(R * V, 31), { R, V }),
    ids = samebits.tensor(ids, { dtype = "int32" }):view(unpack(call.K and { R, K } or { R })),
  }
end

describe("reports on a GPU:", function()
  backends.with("cuda", function(at)
    local ctx, device
    backends.own_context(at, function(...) ctx, device = ... end)

    -- Runs a call whose row `bad` is refused, with or without a check.
    local function run(call, bad, opts)
      return call.make(ctx, example(call, bad), example(call)).run(opts)
    end

    local function unchecked(call, bad, stream)
      return assert(run(call, bad, { check = false, stream = stream }))
    end

    local function tells(row, stream)
      says(misuse(function() ctx:check(stream) end), ("row %d: "):format(row), "outside [0, V)")
    end

    local function tells_nothing(stream) assert.is_true(ctx:check(stream)) end

    for _, call in ipairs(device_calls) do
      it(call.name .. " that fail in a check forget no other call's report", function()
        for _, stream in ipairs { false, assert(ctx:stream()) } do
          stream = stream or nil
          unchecked(call, 1, stream)
          says(misuse(function() run(call, 4, { stream = stream }) end), "row 4 (")
          tells(1, stream)
          tells_nothing(stream)
        end
      end)

      it(call.name .. " that are fine in a check forget no other call's report, either", function()
        unchecked(call, 1)
        assert(run(call))
        tells(1)
        tells_nothing()
      end)
    end

    local plain = device_calls[1]

    it("the call of one kind does not forget that of another", function()
      for _, first in ipairs(device_calls) do
        for _, second in ipairs(device_calls) do
          unchecked(first, 2)
          says(misuse(function() run(second, 5) end), "row 5 (")
          tells(2)
          tells_nothing()
        end
      end
    end)

    it("sums and merges that fail in a check forget no other call's report", function()
      local values = samebits.zeros({ R }, "float32", device)
      local bad = samebits.tensor({ 0, 4, 3, R }, { dtype = "int32" }):to(device)
      unchecked(plain, 3)
      says(misuse(function() ctx:sums(values, { cu_seqlens = bad }) end), "cu_seqlens[2]")
      tells(3)
      local records = assert(ctx:partial(assert(samebits.batch(example(plain)):to(device))))
      local damaged = assert(records.states:to "cpu")
      for byte = 0, 3 do damaged:set(5, 0, byte) end -- J, which no state has
      records.states = assert(damaged:to(device))
      unchecked(plain, 3)
      says(misuse(function() ctx:merge { records } end), "row 0, shard 0")
      tells(3)
      tells_nothing()
    end)

    it("each stream has its own, and keeps it while others are asked", function()
      local first, second = assert(ctx:stream()), assert(ctx:stream())
      unchecked(plain, 1, first)
      unchecked(plain, 2, second)
      unchecked(plain, nil, assert(ctx:stream()))
      tells(2, second)
      tells_nothing(second)
      tells(1, first)
      tells_nothing(first)
      tells_nothing()
    end)

    it("the default stream tells of all, one a check, its own first", function()
      local first, second = assert(ctx:stream()), assert(ctx:stream())
      unchecked(plain, 1, first)
      unchecked(plain, 2, second)
      unchecked(plain, 3)
      assert(first:wait())
      assert(second:wait())
      tells(3)
      local rows = {}
      for i = 1, 2 do rows[i] = misuse(function() ctx:check() end):match "row (%d): " end
      table.sort(rows)
      assert.same({ "1", "2" }, rows)
      for _, stream in ipairs { first, second } do tells_nothing(stream) end
      tells_nothing()
    end)

    it("more streams than there are places lose none", function()
      local streams, told, own = {}, 0, assert(samebits.open(device))
      for i = 1, 300 do
        streams[i] = assert(own:stream())
        local job = plain.make(own, example(plain, i % R))
        assert(job.run { check = false, stream = streams[i] })
      end
      for i = 1, #streams do
        while not pcall(function() assert(own:check(streams[i])) end) do told = told + 1 end
      end
      assert.is_true(own:check())
      own:close()
      -- Streams without a place of their own share one.
      assert.is_true(told > 250 and told <= 300, told)
    end)

    describe("a graph", function()
      -- What is captured reads ids that change: row `bad` of them.
      local function captured(stream)
        local spec = example(plain)
        spec.ids, spec.logits = assert(spec.ids:to(device)), assert(spec.logits:to(device))
        local job = plain.make(ctx, spec)
        local opts = { check = false, stream = stream }
        opts.workspace = samebits.empty({ math.max(1, job.bytes(0)) }, "uint8", device)
        opts.out = assert(job.run(opts))
        tells_nothing(stream)
        local graph = graphs.capture(device, stream, function() assert(job.run(opts)) end)
        return graph, function(bad) assert(spec.ids:copy_(example(plain, bad).ids)) end
      end

      it("has one of its own, whichever stream is asked", function()
        local stream, other = assert(ctx:stream()), assert(ctx:stream())
        local first, change_first = captured(stream)
        local second, change_second = captured(stream)
        change_first(1)
        change_second(2)
        first:launch()
        second:launch()
        assert(stream:wait())
        tells(1, other)
        unchecked(plain, 4, stream)
        says(misuse(function() run(plain, 5) end), "row 5 (")
        tells(4, stream)
        tells(2)
        for _, at_last in ipairs { stream, other } do tells_nothing(at_last) end
        tells_nothing()
        second:launch()
        tells(2, stream)
        first:close()
        second:close()
      end)

      it("takes no call with a check, and no wait: both are refused, and it is whole", function()
        local stream = assert(ctx:stream())
        local spec = example(plain)
        local job = plain.make(ctx, spec)
        local opts = { check = false, stream = stream }
        opts.workspace = samebits.empty({ math.max(1, job.bytes(0)) }, "uint8", device)
        opts.out = assert(job.run(opts))
        tells_nothing(stream)
        local graph = graphs.capture(device, stream, function()
          says(misuse(function()
            job.run { stream = stream, out = opts.out, workspace = opts.workspace }
          end), "check must be 0", "captured")
          says(misuse(function() ctx:check(stream) end), "captured into a graph")
          says(misuse(function() stream:wait() end), "captured into a graph")
          assert(job.run(opts))
        end)
        assert.is_true(graph.nodes >= 1)
        graph:launch()
        tells_nothing(stream)
        graph:close()
      end)
    end)
  end)
end)
