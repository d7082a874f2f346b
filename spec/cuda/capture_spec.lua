-- While a stream is captured into a graph, the collector may run, and memory, streams and contexts
-- may be made and freed. The capture stays complete, and the thread's mode is restored.

local ffi = require "ffi"
local samebits = require "samebits"
local devices = require "samebits.device"
local backends = require "spec.support.backends"
local graphs = require "spec.support.graphs"
local hex = require "spec.support.hex"
local says = require("spec.support.refusal").says

local V = 100

describe("while a GPU's stream is captured,", function()
  backends.with("cuda", function(at)
    local ctx, device
    backends.own_context(at, function(...) ctx, device = ... end)

    -- Captures a call with what `body` does before and after it, and sees that the graph is good.
    -- handle: of the stream, if it is somebody else's.
    local function captured(body, handle)
      local spec = { logits = hex.tensor(hex.values(3 * V, 51), { 3, V }), ids = { 1, 2, 3 } }
      local batch, stream = assert(samebits.batch(spec):to(device)), assert(ctx:stream(handle))
      local opts = { check = false, stream = stream }
      opts.workspace = samebits.empty({ math.max(1, ctx:workspace_size(batch)) }, "uint8", device)
      opts.out = assert(ctx:logprob(batch, opts))
      assert.is_true(ctx:check(stream))
      local mode
      local graph = graphs.capture(device, stream, function()
        body()
        assert(ctx:logprob(batch, opts))
        body()
        mode = graphs.mode()
      end)
      assert.equal(graphs.GLOBAL, mode)
      for _, t in pairs(opts.out) do assert(t:copy_(samebits.zeros(t.shape, t.dtype))) end
      graph:launch()
      assert.is_true(ctx:check(stream))
      for name, want in pairs(samebits.logprob(spec)) do assert.same_bits(want, opts.out[name]) end
      graph:close()
    end

    -- Unreferenced objects, each of which the collector gives back to the driver.
    local garbage = {
      memory = function() return samebits.zeros({ 1000 }, "float32", device) end,
      ["page-locked memory"] = function() return samebits.pinned({ 1000 }, "float32", device) end,
      streams = function() return ctx:stream() end,
      contexts = function() return samebits.open(device) end,
      ["contexts of the control group"] = function()
        local own = assert(samebits.open(device))
        local batch = { logits = samebits.zeros({ 1, V }, "float32", device), ids = { 1 } }
        assert(require("samebits.conventional").logprob(own, batch))
        return own
      end,
    }

    for name, make in pairs(garbage) do
      it("the collector frees " .. name, function()
        local weak = setmetatable({}, { __mode = "k" })
        for _ = 1, 5 do weak[assert(make())] = true end
        captured(function() for _ = 1, 3 do collectgarbage() end end)
        assert.is_nil(next(weak))
      end)
    end

    it("memory, streams and contexts are made", function()
      captured(function()
        local t = assert(samebits.empty({ 1000 }, "float32", device))
        assert.is_true(t.ptr ~= ffi.cast("uint8_t *", nil))
        assert(samebits.pinned({ 1000 }, "float32", device))
        assert(ctx:stream())
        assert(samebits.open(device)):close()
      end)
    end)

    it("the default stream is left alone where it would wait for that one", function()
      local handle = graphs.blocking_stream(device)
      captured(function()
        local checked, why = ctx:check()
        assert.is_nil(checked)
        says(why, "cuStreamGetCaptureInfo", "906")
        -- Memory is freed, for which streams are waited for that hold something: not this one.
        local logits = samebits.empty({ 3, V }, "float32", device)
        devices.of(device):hold(nil, logits)
        samebits.empty({ 1000 }, "float32", device) -- luacheck: ignore
        for _ = 1, 2 do collectgarbage() end
        assert.is_true(devices.of(device):count_held() > 0)
      end, handle)
      assert(devices.of(device):wait())
      graphs.destroy(device, handle)
    end)

    it("another stream is waited for", function()
      local other = assert(ctx:stream())
      captured(function()
        assert(other:wait())
        assert.is_true(ctx:check(other))
      end)
    end)
  end)
end)
