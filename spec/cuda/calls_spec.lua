-- Behaviour of the calls other than ctx:logprob that only a GPU can show: which pointers are
-- refused, how bad values are reported and their rows filled, workspaces, graphs; and that the
-- context is usable after every error.

local ffi = require "ffi"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local device_calls = require "spec.support.device_calls"
local ending = require "spec.support.ending"
local graphs = require "spec.support.graphs"
local hex = require "spec.support.hex"
local refusal = require "spec.support.refusal"

local misuse, says = refusal.misuse, refusal.says
local R, V = 6, 100
local ROW = 2 -- the one that is made bad

local here = samebits.open "cpu"

-- A batch of one sequence, with all that a batch may have but a row list. Row 3 is ignored.
local function example(call, seed)
  local K, ids, kept = call.K or 1, {}, {}
  for i = 1, R * K do ids[i] = i * 37 % V end
  for i = 1, R * V do kept[i] = i % 7 == 3 and 0 or 1 end
  if call.K then ids[1] = -100 end
  return {
    logits = hex.tensor(hex.values(R * V, seed or 21), { R, V }),
    ids = samebits.tensor(ids, { dtype = "int32" }):view(unpack(call.K and { R, K } or { R })),
    temperature = samebits.tensor { 1, 0.5, 0.7, 1, 2, 1 },
    mask = samebits.tensor({ 1, 1, 1, 0, 1, 1 }, { dtype = "uint8" }),
    kept = samebits.tensor(kept, { dtype = "uint8" }):view(R, V),
  }
end

-- The example with a field's element changed.
local function changed(spec, field, index, value)
  local copy = {}
  for key, t in pairs(spec) do copy[key] = t end
  copy[field] = spec[field]:clone()
  local pointer = field == "temperature" and "float *" or "int32_t *"
  ffi.cast(pointer, copy[field].ptr)[index] = value
  return copy
end

-- The bits of an output, one text per row.
local function texts(t)
  local bits, list = assert(t:to "cpu"):bits(), {}
  for row = 1, #bits do
    list[row] = type(bits[row]) == "table" and table.concat(bits[row]) or bits[row]
  end
  return list
end

local function assert_same(want, got, what)
  for name, t in pairs(want) do
    assert.same_bits(t, assert(got[name], name), what .. ": " .. name)
  end
end

describe("on a GPU,", function()
  backends.with("cuda", function(at)
    local ctx, device
    backends.own_context(at, function(...) ctx, device = ... end)

    -- A pointer that is declared as device memory but points to host memory.
    local function claimed(t)
      return samebits.tensor(t.ptr, { device = device, dtype = t.dtype, shape = t.shape,
                                      owner = t })
    end

    for _, call in ipairs(device_calls) do
      describe(call.name, function()
        local spec, want
        setup(function()
          spec = example(call)
          want = call.make(here, spec).run()
        end)

        local function works()
          assert_same(want, assert(call.make(ctx, spec).run()), "works")
          assert.is_true(ctx:check())
        end

        it("have the cpu's bits", function()
          for _, split in ipairs { 0, 1, 3 } do
            assert_same(want, assert(call.make(ctx, spec).run { split = split }),
                        "split " .. split)
          end
        end)

        it("say which kernels they launch", function()
          assert(call.make(ctx, spec).run { split = 3 })
          for kernel in (ctx:plan() .. "; "):gmatch "(.-); " do
            assert.matches("^%l[%w_]+ %d+ x %d+[%w, ]*$", kernel)
          end
        end)

        it("refuse host memory by name", function()
          local list = { 0, 1, 2, 4, 5 }
          local host, job = call.make(here, spec).batch, call.make(ctx, spec)
          local listed = samebits.tensor(list, { dtype = "int64" })
          job.batch.c.row_count = #list
          local states = call.states or "logits"
          for field, name in pairs { [states] = states, ids = "ids", mask = "mask", kept = "kept",
                                     temperatures = "temperatures", row_list = "row_list" } do
            local good = job.batch.c[field]
            job.batch.c[field] = field == "row_list" and ffi.cast("int64_t *", listed.ptr) or
                                 host.c[field]
            says(misuse(function() job.run() end), name .. " (", "host memory")
            job.batch.c[field] = good
          end
          for name, t in pairs(job.inputs or {}) do
            job.inputs[name] = claimed(assert(t:to "cpu"))
            says(misuse(function() job.run() end), name .. " (", "host memory")
            job.inputs[name] = t
          end
          for name, t in pairs(want) do
            local there = samebits.zeros(t.shape, t.dtype)
            says(misuse(function() job.run { out = { [name] = claimed(there) } } end),
                 name .. " (", "host memory")
            assert.same_bits(samebits.zeros(t.shape, t.dtype), there)
          end
          works()
        end)

        it("refuse arrays that end too early by name, and take those that just fit", function()
          local list = { 0, 1, 2, 3, 4, 5 }
          local job = call.make(ctx, spec)
          local held = { [call.states or "logits"] = spec.logits, ids = job.batch.ids,
                         mask = job.batch.mask, kept = job.batch.kept,
                         temperatures = job.batch.temperature,
                         row_list = samebits.tensor(list, { dtype = "int64" }) }
          job.batch.c.row_count = #list
          for field, t in pairs(held) do
            local good = job.batch.c[field]
            for _, missing in ipairs { t.itemsize, 0 } do
              local short = ending(t, device, missing)
              job.batch.c[field] = ffi.cast(ffi.typeof(good), short.ptr)
              if missing == 0 then
                assert_same(want, assert(job.run()), field)
              else
                local bytes = t:numel() * t.itemsize
                says(misuse(function() job.run() end), field .. " (", "is too short",
                     ("needs %d bytes"):format(bytes), ("has %d"):format(bytes - missing))
              end
            end
            job.batch.c[field] = good
          end
          for name, t in pairs(job.inputs or {}) do
            job.inputs[name] = ending(t, device, 8)
            says(misuse(function() job.run() end), name .. " (", "is too short")
            job.inputs[name] = ending(t, device, 0)
            assert_same(want, assert(job.run()), name)
            job.inputs[name] = t
          end
          for name, t in pairs(want) do
            if t:numel() > 1 then
              local missing = t.itemsize == 1 and 8 or t.itemsize
              says(misuse(function()
                job.run { out = { [name] = ending(t, device, missing) } }
              end), name .. " (", "is too short")
            end
            local out = { [name] = ending(t, device, 0) }
            assert_same(want, assert(job.run { out = out }), name)
          end
          works()
        end)

        -- The bad value, its place, and the message of a checked call.
        local K = call.K or 1
        for what, bad in pairs {
          ids = { "ids", ROW * K + K - 1, V, "row 2", ("id %d is outside [0, %d)"):format(V, V) },
          ["negative ids"] = { "ids", ROW * K, -7, "row 2", "id -7" },
          temperatures = { "temperature", ROW, 0, "row 2", "temperature 0" },
        } do
          it("name bad " .. what .. " if checked, and else make their rows NaN", function()
            local damaged = changed(spec, bad[1], bad[2], bad[3])
            for _, split in ipairs { 1, 3 } do
              local job = call.make(ctx, damaged, spec)
              says(misuse(function() job.run { split = split } end), bad[4], bad[5])
              local stream = assert(ctx:stream())
              local out = assert(job.run { split = split, check = false, stream = stream })
              says(misuse(function() ctx:check(stream) end), "row 2: ")
              assert.is_true(ctx:check(stream))
              for name, element in pairs(call.rows) do
                local expected = texts(want[name])
                expected[ROW + 1] = element:rep(#expected[ROW + 1] / #element)
                assert.same(expected, texts(out[name]), name)
              end
              if out.sequence then assert.equal("7fc00000", out.sequence:bits()[1]) end
              works()
            end
          end)

          it("do not look at bad " .. what .. " of ignored rows", function()
            local row = bad[1] == "ids" and K or 1
            local damaged = changed(spec, bad[1], bad[2] + row, bad[3]) -- row 3 is masked
            assert_same(want, assert(call.make(ctx, damaged, spec).run()), what)
            assert.is_true(ctx:check())
          end)
        end

        it("name bad row lists, and leave the rows before it as they are", function()
          for _, case in ipairs {
            { { 0, 2, 1 }, "row_list[2] is 1" }, { { 0, 2, 6 }, "row_list[2] is 6" },
            { { 0, 2, -1 }, "row_list[2] is -1" }, { { 0, 2, 2 ^ 40 }, "row_list[2]" },
          } do
            local damaged = { rows = samebits.tensor(case[1], { dtype = "int64" }):to(device) }
            for key, t in pairs(spec) do damaged[key] = t:to(device) end
            for _, split in ipairs { 1, 3 } do
              local job = call.make(ctx, damaged, spec)
              says(misuse(function() job.run { split = split } end), case[2])
              local out = assert(job.run { split = split, check = false })
              says(misuse(function() ctx:check() end), "row_list[2] is outside")
              for name in pairs(call.rows) do
                local whole, got = texts(want[name]), texts(out[name])
                for _, row in ipairs { 1, 3 } do assert.equal(whole[row], got[row], name) end
              end
              works()
            end
          end
        end)

        it("take the workspace that they ask for, stay inside, and take no less", function()
          local job = call.make(ctx, spec)
          if not job.bytes then return end
          local bytes = assert(job.bytes(3))
          assert.is_true(bytes > 16)
          local memory = samebits.empty({ bytes + 512 }, "uint8", device)
          local guard = samebits.zeros({ bytes + 512 }, "uint8")
          ffi.fill(guard.ptr, bytes + 512, 0x5a)
          assert(memory:copy_(guard))
          local function with(workspace)
            return function() return assert(job.run { split = 3, workspace = workspace }) end
          end
          says(misuse(with(memory:slice(0, 0, 16))), "the workspace has 16 bytes, the call needs ")
          says(misuse(with(memory:slice(0, 4, bytes + 4))), "workspace", "256")
          local ends = ending(samebits.zeros({ 512 }, "uint8"), device, 256)
          says(misuse(with(ends)), "workspace (", "needs 512 bytes, the allocation has 256")
          assert_same(want, with(memory:slice(0, 0, bytes))(), "workspace")
          assert.same_bits(guard:slice(0, bytes, bytes + 512):clone(),
                           assert(memory:to "cpu"):slice(0, bytes, bytes + 512):clone())
          works()
        end)

        for _, split in ipairs { 1, 3 } do
          it(("are captured into a graph, in %d pieces per row"):format(split), function()
            local stream = assert(ctx:stream())
            local there = {}
            for key, t in pairs(spec) do there[key] = assert(t:to(device)) end
            local job = call.make(ctx, there, spec)
            local bytes = job.bytes and job.bytes(split) or 0
            local opts = { split = split, check = false, stream = stream }
            if bytes > 0 then opts.workspace = samebits.empty({ bytes }, "uint8", device) end
            opts.out = assert(job.run(opts))
            assert.is_true(ctx:check(stream))
            local graph = graphs.capture(device, stream, function() assert(job.run(opts)) end)
            assert.is_true(graph.nodes >= 1)
            for _, seed in ipairs { 22, 23, 22 } do
              local other = example(call, seed)
              local expected = call.make(here, other)
              assert(there.logits:copy_(other.logits))
              if job.inputs and job.inputs.saved then
                assert(job.inputs.saved:copy_(expected.inputs.saved))
              end
              graph:launch()
              assert.is_true(ctx:check(stream))
              assert_same(expected.run(), opts.out, "seed " .. seed)
            end
            -- A bad id that is written after the capture.
            assert(there.ids:copy_(changed(spec, "ids", ROW * K, V).ids))
            graph:launch()
            says(misuse(function() ctx:check(stream) end), "row 2: ")
            for name, element in pairs(call.rows) do
              local row = texts(opts.out[name])[ROW + 1]
              assert.equal(element:rep(#row / #element), row, name)
            end
            graph:close()
            works()
          end)
        end
      end)
    end

    local gradients
    for _, call in ipairs(device_calls) do
      if call.name == "gradients" then gradients = call end
    end

    -- A word of row 2's saved record, and its message from a checked call and from a later report.
    for what, bad in pairs {
      ["an unknown kind"] = { 0, 7, "no active row leaves such a saved record",
                              "no active row leaves" },
      ["another temperature"] = { 4, 0x3fb8aa3b, "c is 3fb8aa3b, not 4003e74f",
                                  "another temperature" },
      ["no entropy"] = { 0, 1, "has no entropy", "has no entropy" },
    } do
      it("gradients name saved records of " .. what, function()
        local spec = example(gradients)
        local want = gradients.make(here, spec).run().grad
        local function damaged(row)
          local job = gradients.make(ctx, spec)
          local saved = assert(job.inputs.saved:to "cpu")
          ffi.cast("uint32_t *", saved.ptr + row * 32)[bad[1] / 4] = bad[2]
          job.inputs.saved = assert(saved:to(device))
          return job
        end
        for _, split in ipairs { 1, 3 } do
          local job = damaged(ROW)
          says(misuse(function() job.run { split = split } end), "row 2: ", bad[3])
          local out = assert(job.run { split = split, check = false })
          says(misuse(function() ctx:check() end), "row 2: ", bad[4])
          local expected = texts(want)
          expected[ROW + 1] = ("7fc00000"):rep(V)
          assert.same(expected, texts(out.grad))
          assert.same_bits(want, damaged(3).run({ split = split }).grad) -- 3 is ignored
        end
        assert.is_true(ctx:check())
      end)
    end

    it("statistics of tokens are captured into a graph, and refuse host memory", function()
      local stream = assert(ctx:stream())
      local function values(seed) return hex.tensor(hex.values(15, seed), { 3, 5 }) end
      local x, y = assert(values(1):to(device)), assert(values(2):to(device))
      local compare = { stream = stream, check = false }
      local mask = samebits.tensor({ { 1, 1, 1, 0, 1 }, { 0, 0, 0, 0, 0 }, { 1, 0, 1, 0, 0 } },
                                   { dtype = "uint8" })
      local sums = { stream = stream, check = false, minus = y, mask = assert(mask:to(device)) }
      local function run()
        compare.out = assert(ctx:compare(x, y, compare))
        sums.out = assert(ctx:sums(x, sums))
      end
      run()
      local graph = graphs.capture(device, stream, run)
      for _, seed in ipairs { 3, 4, 3 } do
        assert(x:copy_(values(seed)))
        graph:launch()
        assert.is_true(ctx:check(stream))
        assert_same(here:compare(values(seed), values(2)), compare.out, "compare")
        assert_same(here:sums(values(seed), { minus = values(2), mask = mask }), sums.out, "sums")
      end
      graph:close()
      for name, t in pairs(compare.out) do
        local there = claimed(samebits.zeros(t.shape, t.dtype))
        says(misuse(function() ctx:compare(x, y, { out = { [name] = there } }) end), name .. " (",
             "host memory")
      end
      for name, t in pairs(sums.out) do
        local there = claimed(samebits.zeros(t.shape, t.dtype))
        says(misuse(function() ctx:sums(x, { out = { [name] = there } }) end), name .. " (",
             "host memory")
      end
      assert.is_true(ctx:check())
    end)
  end)
end)
