-- Calls without a check return before the GPU is done. Everything they use, including values that
-- they made from tables or converted, lives until their stream has been waited for, even if the
-- caller drops it.

local ffi = require "ffi"
local samebits = require "samebits"
local devices = require "samebits.device"
local dlpack = require "samebits.dlpack"
local backends = require "spec.support.backends"
local device_calls = require "spec.support.device_calls"
local hex = require "spec.support.hex"

local R, V = 6, 100
local here = samebits.open "cpu"

local function example(K)
  local ids = {}
  for i = 1, R * K do ids[i] = i * 37 % V end
  return {
    logits = hex.tensor(hex.values(R * V, 61), { R, V }), mask = { 1, 1, 0, 1, 1, 1 },
    ids = samebits.tensor(ids, { dtype = "int32" }):view(unpack(K > 1 and { R, K } or { R })),
    temperature = { 1, 0.5, 0.7, 1, 2, 1 },
  }
end

-- Frees all unreferenced objects, and overwrites their memory.
local function disturb(device)
  for _ = 1, 3 do collectgarbage() end
  for _, bytes in ipairs { 6, 24, 48, 72, 192, 384, 2400 } do
    for _ = 1, 4 do
      local t = samebits.empty({ bytes }, "uint8")
      ffi.fill(t.ptr, bytes, 0xa5)
      assert(t:to(device))
    end
  end
end

describe("what calls without a check use on a GPU", function()
  backends.with("cuda", function(at)
    local ctx, device, streams
    backends.own_context(at, function(...) ctx, device = ... end)

    -- What an earlier spec has dropped, and what it held, does not count here.
    before_each(function()
      collectgarbage()
      collectgarbage()
    end)
    setup(function()
      streams = { ["the default stream"] = function() end,
                  ["a stream"] = function() return assert(ctx:stream()) end,
                  ["a framework's stream"] = function()
                    local own = assert(ctx:stream())
                    return assert(ctx:stream(own.handle)), own
                  end }
    end)

    local function same(want, out, stream)
      assert.is_true(ctx:check(stream))
      for name, t in pairs(want) do assert.same_bits(t, out[name], name) end
    end

    -- In each stream the call gives the expected result, though all unreferenced objects are gone.
    local function holds(want, run)
      for _, make in pairs(streams) do
        local stream, owner = make()
        local out = assert(run { check = false, stream = stream })
        disturb(device)
        same(want, out, stream)
        assert(owner ~= false)
      end
    end

    for _, call in ipairs(device_calls) do
      it(("is held: %s"):format(call.name), function()
        local spec = example(call.K or 1)
        local want = call.make(here, spec).run()
        holds(want, function(opts) return call.make(ctx, spec).run(opts) end)
      end)
    end

    -- The batch is a table, of which only the logits are on the device: the call copies the rest.
    local table_calls = {
      logprob = function(own, spec, opts) return own:logprob(spec, opts) end,
      topk = function(own, spec, opts) return own:topk(spec, 3, opts) end,
      kl = function(own, spec, opts) return own:kl(spec, { logits = spec.logits }, opts) end,
      partial = function(own, spec, opts) return own:partial(spec, opts) end,
      ["a context that is let go of"] = function(own, spec, opts)
        if own ~= here then own = assert(samebits.open(device)) end
        return own:logprob(spec, opts)
      end,
      ["a context that is closed"] = function(own, spec, opts)
        if own == here then return own:logprob(spec, opts) end
        own = assert(samebits.open(device))
        local out = own:logprob(spec, opts)
        own:close()
        return out
      end,
    }
    for name, call in pairs(table_calls) do
      it("is held where it was made of a table: " .. name, function()
        local spec = example(1)
        local want = call(here, spec)
        local there = assert(spec.logits:to(device))
        holds(want, function(opts)
          return call(ctx, { logits = there, ids = spec.ids:totable(), mask = spec.mask,
                             temperature = spec.temperature }, opts)
        end)
      end)
    end

    it("is held where it was converted: statistics of tokens", function()
      local x, y = hex.tensor(hex.values(12, 1), { 3, 4 }), hex.tensor(hex.values(12, 2), { 4, 3 })
      local want = here:compare(x, y:transpose())
      local sums = here:sums(x, { minus = y:transpose(), mask = samebits.zeros({ 3, 4 }, "int32") })
      local there, other = assert(x:to(device)), assert(y:to(device))
      local compared = assert(ctx:compare(there, other:transpose())) -- it never waits
      local summed = assert(ctx:sums(there, { minus = other:transpose(), check = false,
                                              mask = samebits.zeros({ 3, 4 }, "int32") }))
      there, other = nil, nil -- luacheck: ignore
      disturb(device)
      same(want, compared)
      same(sums, summed)
    end)

    it("is let go of by any wait for the stream, and no other one", function()
      local dev = devices.of(device)
      local stream, other = assert(ctx:stream()), assert(ctx:stream())
      local there = assert(example(1).logits:to(device))
      local function run(at_stream)
        assert(ctx:logprob({ logits = there, ids = { 1, 2, 3, 4, 5, 6 } },
                           { check = false, stream = at_stream }))
      end
      assert(dev:wait())
      assert.equal(0, dev:count_held())
      for _, wait in ipairs {
        function(s) assert(s:wait()) end,
        function(s) assert.is_true(ctx:check(s)) end,
        function(s) assert(assert(ctx:stream(s.handle)):wait()) end,
      } do
        run(stream)
        local held = dev:count_held()
        assert.is_true(held > 0)
        assert(other:wait())
        assert.is_true(ctx:check())
        assert.equal(held, dev:count_held())
        wait(stream)
        assert.equal(0, dev:count_held())
      end
      run()
      assert.is_true(dev:count_held() > 0)
      assert(there:to "cpu") -- waits for the default stream
      assert.equal(0, dev:count_held())
    end)

    it("stays when a wait fails", function()
      local dev, stream = devices.of(device), assert(ctx:stream())
      local there = assert(example(1).logits:to(device))
      assert(ctx:logprob({ logits = there, ids = { 1, 2, 3, 4, 5, V } },
                         { check = false, stream = stream }))
      assert.is_true(dev:count_held() > 0)
      assert.is_false((pcall(ctx.check, ctx, stream))) -- a bad id: it has waited
      assert.equal(0, dev:count_held())
    end)

    -- Imitates the end of a state: LuaJIT turns its compiler off before all finalizers run.
    it("outlives a framework's memory that goes at the end of a Lua state", function()
      local dev = devices.of(device)
      local there = assert(example(1).logits:to(device))
      for _, at_end in ipairs { false, true } do
        assert(ctx:logprob({ logits = there, ids = { 1, 2, 3, 4, 5, 6 } }, { check = false }))
        assert.is_true(dev:count_held() > 0)
        local given_back = 0
        local deleter = ffi.cast("void (*)(samebits_dl_managed *)", function()
          given_back = given_back + 1
          assert.equal(at_end, dev:count_held() == 0)
        end)
        local managed = ffi.new "samebits_dl_managed"
        managed.tensor.data, managed.tensor.device_type = there.ptr, 2
        managed.tensor.code, managed.tensor.bits, managed.tensor.lanes = 2, 32, 1
        managed.deleter = deleter
        assert(dlpack.import(ffi.cast("samebits_dl_managed *", managed)))
        if at_end then jit.off() end
        collectgarbage()
        collectgarbage()
        jit.on()
        assert.equal(1, given_back)
        deleter:free()
        assert(dev:wait())
      end
    end)

    it("is not held twice, and not without end", function()
      local dev = devices.of(device)
      local there = assert(samebits.batch(example(1)):to(device))
      local opts = { check = false, out = assert(ctx:logprob(there)) }
      assert(ctx:logprob(there, opts))
      local held = dev:count_held()
      for _ = 1, 100 do assert(ctx:logprob(there, opts)) end
      assert.equal(held, dev:count_held())
      local most = 0
      for _ = 1, 25000 do
        dev:hold(nil, {})
        most = math.max(most, dev:count_held())
      end
      assert.equal(10000, most)
      assert(dev:wait())
      assert.equal(0, dev:count_held())
    end)
  end)
end)
