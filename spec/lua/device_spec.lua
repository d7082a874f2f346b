-- Tensors, batches and calls on devices: moving, reading, views, streams, and refusals. They run on
-- the cpu behind a device, and on a GPU.

local ffi = require "ffi"
local samebits = require "samebits"
local devices = require "samebits.device"
local backends = require "spec.support.backends"
local hex = require "spec.support.hex"
local refusal = require "spec.support.refusal"

local misuse, says = refusal.misuse, refusal.says
local tensor = samebits.tensor

local DTYPES = { "float32", "float16", "bfloat16", "float64", "int8", "uint8", "int16", "int32",
                 "int64", "bool" }

-- A second device, to copy to and from.
local OTHER = "otherside:0"
devices.alias(OTHER, "cpu")

-- Calls f while functions of the library are replaced, for devices, by those of replace(library).
local function library(replace, f)
  local function set(value)
    for i = 1, math.huge do
      local name, old = debug.getupvalue(devices.of, i)
      assert(name, "samebits.device keeps the library in C")
      if name == "C" then
        debug.setupvalue(devices.of, i, value)
        return old
      end
    end
  end
  local real = set(nil)
  set(setmetatable(replace(real), { __index = function(_, name) return real[name] end }))
  local results = { pcall(f) }
  set(real)
  if not results[1] then error(results[2], 0) end
  return unpack(results, 2)
end

local function range(shape, dtype)
  local list = {}
  local n = 1
  for _, size in ipairs(shape) do n = n * size end
  for i = 1, n do list[i] = i - 1 end
  return tensor(list, { dtype = dtype, shape = shape })
end

backends.each_device(function(device)
  describe("tensors on " .. device, function()
    it("come back as they went, in every dtype", function()
      for _, dtype in ipairs(DTYPES) do
        local values = { { 1, 0, 1 }, { 0, 0, 1 } }
        if dtype == "bool" then values = { { true, false, true }, { false, false, true } } end
        local t = tensor(values, { dtype = dtype })
        local there = assert(t:to(device))
        assert.same({ device, dtype, { 2, 3 }, { 3, 1 } },
                    { there.device, there.dtype, there.shape, there.strides })
        assert.is_true(there:is_contiguous())
        local back = assert(there:to "cpu")
        assert.equal("cpu", back.device)
        assert.same_bits(t, back)
        assert.equal(there, there:to(device))
        assert.same(values, there:totable())
        assert.same(t:bits(), there:bits())
      end
    end)

    -- Their copies in memory are referred to by nothing but a running function, which allocates.
    it("are read whole while the collector runs all the time", function()
      local rows = {}
      for i = 1, 40 do
        rows[i] = {}
        for j = 1, 40 do rows[i][j] = i * 64 + j end
      end
      local t = tensor(rows)
      local there, across = assert(t:to(device)), t:transpose():clone()
      local bits, columns = t:bits(), across:totable()
      local pause, step = collectgarbage("setpause", 20), collectgarbage("setstepmul", 5000)
      local ok, why = pcall(function()
        for _ = 1, 20 do
          assert.same(rows, there:totable())
          assert.same(bits, there:bits())
          assert.same(columns, there:transpose():totable())
          assert.same_bits(across, there:transpose())
        end
      end)
      collectgarbage("setpause", pause)
      collectgarbage("setstepmul", step)
      assert(ok, why)
    end)

    it("may be empty, without dimensions, or large", function()
      assert.same({ {}, {} }, tensor({ {}, {} }, { device = device }):totable())
      assert.equal(2.5, tensor(2.5, { device = device }):get())
      local n = 3 * 2 ^ 20 + 5
      local t = samebits.zeros({ n }, "int32")
      local p = t:pointer()
      for i = 0, n - 1 do p[i] = i * 31 end
      assert.same_bits(t, assert(assert(t:to(device)):to "cpu"))
    end)

    it("are made from lists, as zeros, and to be written", function()
      local t = tensor({ 1, 2, 3, 4 }, { dtype = "int16", shape = { 2, 2 }, device = device })
      assert.same({ device, { { 1, 2 }, { 3, 4 } } }, { t.device, t:totable() })
      local zeros = samebits.zeros({ 2, 3 }, "float16", device)
      assert.same({ device, { { 0, 0, 0 }, { 0, 0, 0 } } }, { zeros.device, zeros:totable() })
      local empty = samebits.empty({ 5 }, "int64", device)
      assert.same({ device, { 5 }, "int64" }, { empty.device, empty.shape, empty.dtype })
      says(misuse(samebits.zeros, { 1 }, "int8", 5), "zeros: device 5")
      says(misuse(samebits.empty, { 1 }, "int8", "GPU 7"), "GPU 7")
    end)

    it("have views that copy nothing and show the same as in memory", function()
      local t = range({ 4, 5, 6 }, "int32")
      local there = assert(t:to(device))
      for _, view in ipairs {
        function(x) return x:slice(0, 1, 3) end,
        function(x) return x:slice(1, 2, 4) end,
        function(x) return x:slice(2, 0, 1) end,
        function(x) return x:slice(2, 5) end,
        function(x) return x:select(1, 4) end,
        function(x) return x[2][3] end,
        function(x) return x:transpose(0, 2) end,
        function(x) return x:transpose(1, 2):slice(1, 1, 2) end,
        function(x) return x:view(20, 6) end,
        function(x) return x:view(20, 6):slice(1, 2, 4) end,
        function(x) return x:slice(0, 2, 2) end,
        function(x) return x:reshape(6, 20) end,
        function(x) return x:transpose(0, 1):reshape(120) end,
      } do
        local want, got = view(t), view(there)
        assert.same({ device, want.shape }, { got.device, got.shape })
        assert.same(want:totable(), got:totable())
        assert.same(want:bits(), got:bits())
        assert.same_bits(want, got)
        assert.same_bits(want, got:contiguous())
        assert.same_bits(want, got:clone())
        assert.is_true(got:contiguous():is_contiguous())
        assert.same({ device, device }, { got:contiguous().device, got:clone().device })
      end
      assert.equal(there.ptr + 30 * 4, there[1].ptr)
    end)

    it("over foreign pointers, with any strides", function()
      local base = assert(range({ 24 }, "int32"):to(device))
      local t = tensor(ffi.cast("void *", base.ptr + 4 * 20), {
        device = device, dtype = "int32", shape = { 3, 4 }, strides = { -8, 1 }, owner = base,
      })
      assert.same({ { 20, 21, 22, 23 }, { 12, 13, 14, 15 }, { 4, 5, 6, 7 } }, t:totable())
      assert.same({ { 23, 15, 7 } }, t:slice(1, 3):transpose():totable())
      assert.equal(13, t:get(1, 1))
    end)

    it("show single elements, and are not set", function()
      local t = assert(tensor({ { 1, 2 }, { 3, -0.5 } }, { dtype = "bfloat16" }):to(device))
      assert.equal(-0.5, t:get(1, 1))
      assert.equal(3, t[1][0])
      assert.is_false(tensor({ false }, { dtype = "bool", device = device })[0])
      says(misuse(function() local _ = t:get(2, 0) end), "index 2 in dim 0")
      says(misuse(function() t:set(1, 0, 0) end), "set: the elements are on " .. device)
      says(misuse(function() t[0][1] = 5 end), "the elements are on " .. device)
      assert.equal(2, t:get(0, 1))
    end)

    it("are printed with their values, shortened", function()
      local t = range({ 2, 3 }, "int32")
      assert.equal((tostring(t):gsub("cpu", device)), tostring(t:to(device)))
      t = range({ 30, 40 }, "float32")
      assert.equal((tostring(t):gsub("cpu", device)), tostring(t:to(device)))
      assert.equal("tensor float32 [0] " .. device .. "\n[]",
                   tostring(samebits.zeros({ 0 }, "float32", device)))
    end)

    it("are converted where they are", function()
      local t = tensor({ { 1.5, 2 }, { 3, 4 } }, { device = device })
      local half = t:to "float16"
      assert.same({ device, "float16" }, { half.device, half.dtype })
      assert.same(t:totable(), half:totable())
      assert.equal(half, half:to "float16")
      assert.same({ { 1.5, 3 }, { 2, 4 } }, t:transpose():to("bfloat16"):totable())
      says(misuse(function() local _ = t:to "int8" end), "[0, 0]", "1.5")
    end)

    it("go to other devices", function()
      local t = assert(range({ 3, 4 }, "int16"):to(device))
      local other = assert(t:transpose():to(OTHER))
      assert.equal(OTHER, other.device)
      assert.same_bits(t:transpose(), other)
      assert.equal(t:get(2, 1), other:get(1, 2))
      says(refusal.message(t:to "moon:3"), "to: moon:3:")
    end)

    it("are copied into, from anywhere", function()
      local want = range({ 3, 4 }, "int32")
      for _, from in ipairs { "cpu", device, OTHER } do
        for _, to in ipairs { "cpu", device, OTHER } do
          local target = samebits.zeros({ 3, 4 }, "int32", to)
          assert.equal(target, target:copy_(want:to(from)))
          assert.same_bits(want, target)
          target = samebits.zeros({ 4, 3 }, "int32", to)
          target:copy_(want:to(from):transpose())
          assert.same_bits(want:transpose(), target)
          -- A part of it.
          target = samebits.zeros({ 3, 4 }, "int32", to)
          target[1]:copy_(want:to(from)[2])
          assert.same({ { 0, 0, 0, 0 }, { 8, 9, 10, 11 }, { 0, 0, 0, 0 } }, target:totable())
        end
      end
      local t = assert(want:to(device))
      says(misuse(function() t:copy_(5) end), "copy_: 5 is no tensor")
      says(misuse(function() t:copy_(samebits.zeros { 3, 4 }) end), "from float32 [3, 4] to int32")
      says(misuse(function() t:copy_(want[0]) end), "from int32 [4] to int32 [3, 4]")
      says(misuse(function() t:transpose():copy_(want:transpose()) end), "not contiguous")
      says(misuse(function() t:copy_(want, { streams = 1 }) end), "unknown option 'streams'")
      says(misuse(function() t:copy_(want, 7) end), "options are 7")
    end)

    it("outlive contexts, and are freed with what they keep", function()
      local ctx = assert(samebits.open(device))
      collectgarbage()
      collectgarbage()
      local box = devices.of(device).box
      local before = box.users
      local view = assert(range({ 8 }, "int32"):to(ctx.device)):slice(0, 3, 5)
      ctx:close()
      collectgarbage()
      assert.equal(before + 1, box.users)
      assert.same({ 3, 4 }, view:totable())
      view = nil -- luacheck: ignore
      collectgarbage()
      collectgarbage()
      assert.equal(before, box.users)
    end)

    -- The collector may run at any time; here it does between a call and the question what was
    -- wrong.
    it("say what was wrong, whatever is collected just then", function()
      local at, ctx = devices.of(device), assert(samebits.open(device))
      local box = at.box
      local function with_collector(f)
        return library(function(real)
          return { sb_memory_copy = function(...)
            local status = real.sb_memory_copy(...)
            collectgarbage()
            collectgarbage()
            return status
          end }
        end, f)
      end
      local function end_of_state() -- how finalizers of others' memory see it
        ffi.gc(ffi.new "int[1]", function() devices.settle_at_end(device) end)
      end
      collectgarbage()
      collectgarbage()
      local before = box.users
      for name, leave in pairs {
        tensor = function() samebits.zeros({ 4 }, "int32", device) end,
        stream = function() ctx:stream() end,
        context = function() samebits.open(device) end,
        ["others' memory"] = end_of_state,
      } do
        at:hold(nil, {}) -- something to settle
        jit.off()
        leave()
        local ok, why = pcall(with_collector, function() at:queue(nil, ffi.new "int[1]", 4) end)
        jit.on()
        assert.is_false(ok, name)
        says(tostring(why), "to is null")
        assert.equal(before, box.users, name)
        assert.same({}, box.put_off)
        assert.is_false(box.asked)
        assert(at:wait())
      end
      ctx:close()
    end)

    it("are compared wherever they are", function()
      local a, b = tensor { 1, 2, 3 }, tensor { 1, 2.5, 3 }
      assert.same_bits(a, assert(a:to(device)))
      local same, report = samebits.same_bits(a:to(device), b:to(device))
      assert.is_false(same)
      assert.same({ 1 }, report.first.index)
    end)
  end)

  describe("streams on " .. device, function()
    local ctx
    setup(function() ctx = assert(samebits.open(device)) end)
    teardown(function() ctx:close() end)

    it("copy page-locked memory there and back without waiting", function()
      local stream = assert(ctx:stream())
      assert.equal("samebits stream on " .. device, tostring(stream))
      local n = 2 ^ 20
      local from = assert(samebits.pinned({ n }, "int32", device))
      local back = assert(samebits.pinned({ n }, "int32", device))
      assert.same({ "cpu", { n }, "int32" }, { from.device, from.shape, from.dtype })
      local p = from:pointer()
      for i = 0, n - 1 do p[i] = i * 7 end
      local there = assert(from:to(device, { stream = stream }))
      local twice = assert(samebits.empty({ n }, "int32", device):copy_(there, { stream = stream }))
      assert(back:copy_(twice, { stream = stream }))
      assert.equal(stream, stream:wait())
      assert.same_bits(from, back)
      local third = assert(twice:to("cpu", { stream = stream }))
      stream:wait()
      assert.same_bits(from, third)
    end)

    it("keep what is copied until they are waited for", function()
      local stream = assert(ctx:stream())
      local box = devices.of(device).box
      collectgarbage()
      collectgarbage()
      local before = box.users
      for i = 1, 3 do
        local from = assert(samebits.pinned({ 100 }, "int8", device))
        ffi.fill(from.ptr, 100, i)
        assert(from:to(device, { stream = stream }))
      end
      collectgarbage()
      collectgarbage()
      assert.equal(before + 6, box.users)
      stream:wait()
      collectgarbage()
      collectgarbage()
      assert.equal(before, box.users)
    end)

    it("may be a framework's", function()
      local own = assert(ctx:stream())
      local wrapped = assert(ctx:stream(own.handle))
      local there = assert(range({ 5 }, "int32"):to(device, { stream = wrapped }))
      wrapped:wait()
      assert.same({ 0, 1, 2, 3, 4 }, there:totable())
      says(misuse(function() ctx:stream(17) end), "stream: expected a pointer", "number")
      says(misuse(function() ctx:stream(ffi.new "int[1]") end), "stream: expected a pointer")
      says(misuse(function() ctx:stream(tensor { 1 }) end), "stream: expected a pointer", "tensor")
    end)

    it("refuse what cannot be one copy, and other devices", function()
      local stream, t = assert(ctx:stream()), range({ 3, 4 }, "int32")
      local there = assert(t:to(device))
      says(misuse(function() local _ = there:transpose():to("cpu", { stream = stream }) end),
           "not in a stream")
      says(misuse(function() local _ = there:to(OTHER, { stream = stream }) end), "through memory")
      says(misuse(function()
        samebits.zeros({ 4, 3 }, "int32"):copy_(there:transpose(), { stream = stream })
      end), "not in a stream")
      local other = assert(t:to(OTHER))
      says(misuse(function() local _ = other:to("cpu", { stream = stream }) end),
           "the stream is on " .. device .. ", not on " .. OTHER)
      says(misuse(function() other:copy_(t, { stream = stream }) end),
           "the stream is on " .. device)
      says(misuse(function() local _ = t:to(device, { stream = 5 }) end),
           "expected a stream", "number")
      says(misuse(function() local _ = t:to("int8", { stream = stream }) end),
           "options are for devices")
      says(misuse(function() local _ = t:to(device, { async = true }) end),
           "unknown option 'async'")
    end)
  end)

  describe("batches on " .. device, function()
    local V = 40
    local logits, ids, temperature = hex.tensor(hex.values(6 * V, 7), { 2, 3, V }),
      tensor({ { 1, 2, 3 }, { 4, -100, 39 } }, { dtype = "int64" }), { 0.5, 2 }
    local ctx, want
    setup(function()
      ctx = assert(samebits.open(device))
      want = samebits.logprob { logits = logits, ids = ids, temperature = temperature }
    end)
    teardown(function() ctx:close() end)

    local function same(out)
      for _, name in ipairs { "token", "lse", "sequence", "count" } do
        assert.equal(device, out[name].device)
        assert.same_bits(want[name], out[name], name)
      end
    end

    it("take what is per row from anywhere, and have it converted", function()
      local there = assert(logits:to(device))
      for _, kind in ipairs { "int64", "int32", "int16" } do
        same(ctx:logprob { logits = there, ids = ids:to(kind), temperature = temperature })
        same(ctx:logprob { logits = there, ids = assert(ids:to(kind):to(device)),
                           temperature = tensor(temperature, { device = device }),
                           mask = samebits.tensor({ { 1, 1, 1 }, { 1, 0, 256 } },
                                                  { dtype = "int16", device = device }) })
      end
      local strided = ids:transpose():clone():to(device):transpose()
      assert.is_false(strided:is_contiguous())
      local batch = samebits.batch {
        logits = there, ids = strided, temperature = tensor({ 0.5, 2 }, { dtype = "float64" }),
        mask = { { true, true, true }, { true, true, true } }, rows = { 0, 1, 2, 3, 4, 5 },
      }
      same(ctx:logprob(batch))
      assert.same({ device, device, device, device, device, device }, {
        batch.device, batch.ids.device, batch.mask.device, batch.rows.device,
        batch.temperature.device, batch.logits.device })
      same(ctx:logprob { logits = there, ids = ids, rows = tensor({ 0, 1, 2, 3, 4, 5 }, {
                           dtype = "int32", device = device }),
                         temperature = { { 0.5, 0.5, 0.5 }, { 2, 2, 2 } } })
    end)

    it("are read where they are: what is ready is not copied", function()
      local there, mask = assert(logits:to(device)), samebits.zeros({ 2, 3 }, "bool", device)
      local own, taus = assert(ids:to(device)), samebits.zeros({ 2, 3 }, "float32", device)
      local batch = samebits.batch { logits = there, ids = own, mask = mask, temperature = taus }
      assert.same({ there, own, mask, taus },
                  { batch.logits, batch.ids, batch.mask, batch.temperature })
    end)

    it("may be packed", function()
      local flat, own = logits:view(6, V), { 1, 2, 3, 4, -100, 39 }
      local cu = tensor({ 0, 2, 2, 6 }, { dtype = "int32" })
      local spec = { logits = flat, ids = own, cu_seqlens = cu, temperature = { 1, 2, 3 } }
      local expected = samebits.logprob(spec)
      for _, offsets in ipairs { cu, cu:to(device), cu:to "int64", { 0, 2, 2, 6 } } do
        spec.logits, spec.cu_seqlens = flat:to(device), offsets
        local batch = samebits.batch(spec)
        local out = assert(ctx:logprob(batch))
        assert.same_bits(expected.token, out.token)
        assert.same_bits(expected.sequence, out.sequence)
        assert.same({ 2, 6 }, { batch:bounds(2) })
      end
    end)

    it("are moved whole", function()
      local batch = samebits.batch { logits = logits, ids = ids, temperature = temperature,
                                     mask = { { 1, 1, 1 }, { 1, 1, 1 } },
                                     rows = { 0, 1, 2, 3, 4, 5 } }
      local there = assert(batch:to(device))
      for _, name in ipairs { "logits", "ids", "mask", "rows", "row_list", "temperature" } do
        assert.equal(device, there[name].device, name)
        assert.equal("cpu", batch[name].device, name)
      end
      local packed = samebits.batch { logits = logits[0], ids = ids[0], cu_seqlens = { 0, 3 } }
      assert.equal(device, packed:to(device).cu_seqlens.device)
      assert.equal(there, there:to(device))
      same(ctx:logprob(there))
      assert.equal("cpu", batch.device)
      local stream = assert(ctx:stream())
      same(ctx:logprob(assert(batch:to(device, { stream = stream })), { stream = stream }))
      -- Logits that had to be strided in memory.
      local wide = samebits.zeros({ 2, 3, V + 3 })
      for b = 0, 1 do
        for t = 0, 2 do wide[b][t]:slice(0, 0, V):copy_(logits[b][t]) end
      end
      local strided = samebits.batch { logits = wide:slice(2, 0, V), ids = ids,
                                       temperature = temperature }
      same(ctx:logprob(strided:to(device)))
      -- And back.
      local back = assert(there:to "cpu")
      assert.equal("cpu", back.ids.device)
      assert.same_bits(want.token, samebits.logprob(back).token)
      assert.same_bits(batch:active(), there:active())
      assert.same({ 3, 6 }, { there:bounds(1) })
      says(tostring(there), "device       " .. device, "5 of 6 tokens")
      says(refusal.message(batch:to "moon"), "moon:0")
      says(misuse(function() local _ = batch:to "GPU 7" end), "GPU 7 is no device")
    end)

    it("of sequences, too", function()
      local batch = samebits.batch_from {
        sequences = { { logits = logits[0], ids = ids[0] }, { logits = logits[1], ids = ids[1] } },
        layout = "packed", temperature = temperature,
      }
      local out = ctx:logprob(batch:to(device))
      assert.same_bits(want.sequence, out.sequence)
    end)

    it("without rows", function()
      for _, shape in ipairs { { 0, 3, V }, { 3, 0, V }, { 0, V } } do
        local spec = { logits = samebits.zeros(shape, "float32", device) }
        spec.ids = samebits.zeros({ shape[1], #shape == 3 and shape[2] or nil }, "int32")
        local out = assert(ctx:logprob(spec))
        assert.equal(0, out.token:numel())
        assert.equal(#shape == 3 and shape[1] or 1, out.sequence:numel())
        for b = 0, out.sequence:numel() - 1 do assert.equal(0, out.sequence[b]) end
      end
    end)

    it("are refused where devices do not go together", function()
      local there = assert(logits:to(device))
      local function batch(spec)
        return misuse(function() local _ = samebits.batch(spec) end)
      end
      says(batch { logits = logits, ids = ids:to(device) }, "ids: the tensor is on " .. device,
           "the logits are on cpu")
      says(batch { logits = there, ids = ids:to(OTHER) }, "ids: the tensor is on " .. OTHER,
           "the logits are on " .. device)
      says(batch { logits = there, ids = ids, mask = samebits.zeros({ 2, 3 }, "bool", OTHER) },
           "mask: the tensor is on " .. OTHER)
      says(batch { logits = there, ids = ids, temperature = samebits.zeros({ 2 }, nil, OTHER) },
           "temperature: the tensor is on " .. OTHER)
      says(batch { logits = there:transpose(1, 2):slice(2, 0, 2), ids = ids:slice(1, 0, 2) },
           "ids: shape [2, 2], expected [2, 40]")
      says(batch { logits = there:transpose(0, 2), ids = samebits.zeros({ V, 3 }, "int32") },
           "cannot be read in place on " .. device, "make them contiguous")
      local other = assert(samebits.open "cpu")
      says(misuse(function() other:logprob { logits = there, ids = ids } end),
           "the batch is on " .. device, "the context is on cpu")
      says(misuse(function() ctx:logprob { logits = logits, ids = ids } end),
           "the batch is on cpu", "the context is on " .. device)
      other:close()
    end)

    it("give results there, into tensors of an earlier call", function()
      local batch = samebits.batch { logits = logits:to(device), ids = ids,
                                     temperature = temperature }
      local out = ctx:logprob(batch)
      local token = out.token
      token:copy_(samebits.zeros({ 2, 3 }, "float32"))
      assert.equal(out, ctx:logprob(batch, { out = out }))
      assert.equal(token, out.token)
      same(out)
      says(misuse(function() ctx:logprob(batch, { out = { token = samebits.zeros { 2, 3 } } }) end),
           "out.token: expected a contiguous tensor on " .. device)
      assert.same({ "lse" }, { next(ctx:logprob(batch, { outputs = { "lse" } })) and "lse" })
    end)

    it("are scored in streams, with a workspace, without waiting", function()
      local batch = samebits.batch { logits = logits:to(device), ids = ids,
                                     temperature = temperature }
      local stream = assert(ctx:stream())
      for _, opts in ipairs { {}, { split = 2 }, { split = 3, threads = 64 } } do
        local bytes = ctx:workspace_size(batch, opts)
        assert.is_true(bytes >= 0 and bytes % 1 == 0)
        opts.workspace = samebits.empty({ bytes }, "uint8", device)
        opts.stream, opts.check = stream, false
        local out = assert(ctx:logprob(batch, opts))
        assert.is_true(ctx:check(stream))
        same(out)
      end
      assert.is_true(ctx:check())
      local function refused(opts) return misuse(function() ctx:logprob(batch, opts) end) end
      says(refused { workspace = 5 }, "workspace: expected a tensor, got number")
      says(refused { workspace = samebits.zeros { 4 } },
           "workspace: expected a contiguous tensor on " .. device)
      says(refused { check = 1 }, "check: expected a boolean, got 1")
      says(refused { stream = "x" }, "logprob: expected a stream, got string")
      says(refused { threads = 0.5 }, "threads: expected an integer")
      says(misuse(function() ctx:check(5) end), "check: expected a stream")
      says(misuse(function() ctx:workspace_size(5) end), "expected a table")
    end)

    it("with ids out of range are errors that name the first bad row", function()
      local bad = tensor({ { 1, 2, 40 }, { 4, 77, 39 } }, { dtype = "int64" })
      local there = assert(logits:to(device))
      for _, held in ipairs { bad, bad:to(device) } do
        says(misuse(function() ctx:logprob { logits = there, ids = held } end), "row 2",
             "id 40 is outside [0, 40)")
      end
      same(ctx:logprob { logits = there, ids = ids, temperature = temperature })
    end)
  end)

  it("samebits.logprob opens " .. device .. " for a batch there", function()
    local batch = samebits.batch { logits = hex.tensor(hex.values(40, 7), { 1, 40 }), ids = { 1 } }
    assert.same_bits(samebits.logprob(batch).token, samebits.logprob(batch:to(device)).token)
  end)
end)

describe("a device that is not there", function()
  it("is nil and a message, also for page-locked memory", function()
    for _, call in ipairs {
      function() return samebits.zeros({ 1 }, nil, "moon") end,
      function() return samebits.empty({ 1 }, nil, "moon:1") end,
      function() return samebits.pinned({ 1 }, nil, "moon") end,
      function() return tensor({ 1 }, { device = "moon" }) end,
      function() return tensor({ 1 }):to "moon:0" end,
      function() return samebits.zeros({ 1 }):copy_(tensor(ffi.cast("void *", 64), {
        device = "moon", shape = { 1 }, dtype = "float32" })) end,
    } do
      local result, message, code = call()
      says(refusal.message(result, message), "moon:")
      assert.equal("SB_ERR_BACKEND", code)
    end
  end)

  it("cuda says why it cannot be had, or is had", function()
    local t, why = samebits.pinned({ 3 }, "int8")
    assert.is_true(t ~= nil or why:find("cuda:0", 1, true) ~= nil)
  end)
end)

describe("names of devices", function()
  it("are a backend's, and a number", function()
    assert.same({ "cpu", "cuda:0", "cuda:1", "cuda:12" }, {
      devices.normal "cpu", devices.normal "cuda", devices.normal "cuda:01",
      devices.normal "cuda:12" })
    for _, bad in ipairs { "", "GPU", "cuda:", "cuda:x", ":1", "cuda:-1", 5, false } do
      assert.is_nil(devices.normal(bad))
    end
  end)
end)
