-- Lists of kept ids on a GPU: the bits of words, whatever the launch; bad lists are named if the
-- call checks, and else reported, with NaN in their rows; no entry or id outside its array is read.

local ffi = require "ffi"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local device_calls = require "spec.support.device_calls"
local ending = require "spec.support.ending"
local hex = require "spec.support.hex"
local kept = require "spec.support.kept"
local prng = require "spec.support.prng"
local refusal = require "spec.support.refusal"
local with = require "spec.support.with"

local misuse, says = refusal.misuse, refusal.says
local R, V = 6, 100
local ROW = 2 -- the one that is made bad
local here = samebits.open "cpu"

local function logprobs(ctx, spec)
  local job = { batch = assert(samebits.batch(spec):to(ctx.device)) }
  function job.run(opts) return ctx:logprob(job.batch, opts) end
  function job.bytes(split) return ctx:workspace_size(job.batch, { split = split }) end
  return job
end

local calls = { { name = "logprobs", make = logprobs, rows = { token = "7fc00000" } } }
for _, call in ipairs(device_calls) do calls[#calls + 1] = call end

-- A batch of one sequence, once with words and once with lists. Row 3 is ignored; each row keeps
-- 8 ids, some side by side.
local function example(call, dtype)
  local K, ids, list, offsets = call.K or 1, {}, {}, { 0 }
  for i = 1, R * K do ids[i] = i * 37 % V end
  if call.K then ids[1] = -100 end
  local flags = samebits.zeros({ R, V }, "uint8")
  for row = 0, R - 1 do
    for _, id in ipairs { row, 37 * (row + 1) % V, 16, 17, 19, 47, 48, 99 } do
      flags:set(1, row, id)
    end
    for id = 0, V - 1 do
      if flags:get(row, id) == 1 then list[#list + 1] = id end
    end
    offsets[#offsets + 1] = #list
  end
  local spec = {
    logits = hex.tensor(hex.values(R * V, 21), { R, V }),
    ids = samebits.tensor(ids, { dtype = "int32" }):view(unpack(call.K and { R, K } or { R })),
    temperature = samebits.tensor { 1, 0.5, 0.7, 1, 2, 1 },
    mask = samebits.tensor({ 1, 1, 1, 0, 1, 1 }, { dtype = "uint8" }),
  }
  return with(spec, { kept = flags }),
         with(spec, { kept_ids = samebits.tensor(list, { dtype = dtype or "int32" }),
                      kept_offsets = samebits.tensor(offsets, { dtype = dtype or "int32" }) })
end

local function changed(spec, field, index, value)
  local copy = spec[field]:clone()
  ffi.cast("int32_t *", copy.ptr)[index] = value
  return with(spec, { [field] = copy })
end

local function assert_same(want, got, what)
  for name, t in pairs(want) do
    assert.same_bits(t, assert(assert(got[name], name):to "cpu"), what .. ": " .. name)
  end
end

local function texts(t)
  local bits, list = assert(t:to "cpu"):bits(), {}
  for row = 1, #bits do
    list[row] = type(bits[row]) == "table" and table.concat(bits[row]) or bits[row]
  end
  return list
end

describe("lists of kept ids on a GPU", function()
  backends.with("cuda", function(at)
    local ctx, device
    backends.own_context(at, function(...) ctx, device = ... end)

    for _, call in ipairs(calls) do
      describe(call.name, function()
        local words, lists, want
        setup(function()
          words, lists = example(call)
          want = call.make(here, words).run()
        end)

        it("have the cpu's bits of words", function()
          for _, dtype in ipairs { "int32", "int64" } do
            local _, other = example(call, dtype)
            for _, split in ipairs { 0, 1, 3, 40 } do
              local got = assert(call.make(ctx, other).run { split = split, threads = 64 })
              assert_same(want, got, ("%s, split %d"):format(dtype, split))
            end
          end
          assert.is_true(ctx:check())
        end)

        -- The bad value, its place, and the message of a checked call and of a report.
        local first = { 0, 8, 16, 24 } -- where the lists of rows 0 .. 3 begin, or near it
        for what, bad in pairs {
          ["ids past V"] = { "kept_ids", 17, V, "kept id 100 (entry 1) is outside [0, 100)",
                             "kept ids are outside" },
          ["negative ids"] = { "kept_ids", 16, -1, "kept id -1 (entry 0) is outside",
                               "kept ids are outside" },
          ["repeated ids"] = { "kept_ids", 19, 16, "is not above the 16 before it",
                               "or do not rise" },
          ["offsets that fall"] = { "kept_offsets", 3, 15, "kept_offsets[3] is 15",
                                    "kept offsets do not rise" },
          ["offsets past the end"] = { "kept_offsets", 3, 2 ^ 30, "kept_offsets[3] is 1073741824",
                                       "kept offsets do not rise" },
        } do
          it("name " .. what .. " if checked, and else make their rows NaN", function()
            assert.equal(first[3], tonumber(lists.kept_offsets:get(ROW)))
            local damaged = changed(lists, bad[1], bad[2], bad[3])
            for _, split in ipairs { 1, 3 } do
              local job = call.make(ctx, damaged, words)
              says(misuse(function() job.run { split = split } end), "row 2", bad[4])
              local stream = assert(ctx:stream())
              local out = assert(job.run { split = split, check = false, stream = stream })
              says(misuse(function() ctx:check(stream) end), "row ", bad[5])
              assert.is_true(ctx:check(stream))
              for name, element in pairs(call.rows) do
                if name ~= "saved" then
                  local expected, got = texts(want[name]), texts(out[name])
                  expected[ROW + 1] = element:rep(#expected[ROW + 1] / #element)
                  -- with a bad offset the next row is bad as well; here it is ignored
                  assert.same(expected, got, name)
                end
              end
              if out.sequence then assert.equal("7fc00000", texts(out.sequence)[1]) end
            end
            assert_same(want, assert(call.make(ctx, lists).run()), "works")
          end)
        end

        it("do not look at the ids of ignored rows", function()
          local damaged = changed(lists, "kept_ids", 25, -5)
          assert_same(want, assert(call.make(ctx, damaged, words).run()), "ignored")
          assert.is_true(ctx:check())
        end)

        it("refuse host memory and short arrays by name, and take those that just fit", function()
          local job, host = call.make(ctx, lists), samebits.batch(lists)
          for _, field in ipairs { "kept_ids", "kept_offsets" } do
            local good = job.batch.c[field]
            job.batch.c[field] = host.c[field]
            says(misuse(function() job.run() end), field .. " (", "host memory")
            job.batch.c[field] = ending(lists[field], device, 4).ptr
            says(misuse(function() job.run() end), field .. " (", "is too short")
            local fits = ending(lists[field], device, 0)
            job.batch.c[field] = fits.ptr
            assert_same(want, assert(job.run()), field)
            job.batch.c[field] = good
          end
        end)

        it("take the workspace that they ask for, stay inside, and take no less", function()
          local job = call.make(ctx, lists)
          local bytes = assert(job.bytes(3))
          assert.is_true(bytes > 0)
          local memory = samebits.empty({ bytes + 512 }, "uint8", device)
          local guard = samebits.zeros({ bytes + 512 }, "uint8")
          ffi.fill(guard.ptr, bytes + 512, 0x5a)
          assert(memory:copy_(guard))
          local out = assert(job.run { split = 3, workspace = memory:slice(0, 0, bytes) })
          assert_same(want, out, "workspace")
          assert.same_bits(guard:slice(0, bytes, bytes + 512):clone(),
                           assert(memory:to "cpu"):slice(0, bytes, bytes + 512):clone())
          says(misuse(function() job.run { split = 3, workspace = memory:slice(0, 0, 1) } end),
               "the workspace has 1 bytes, the call needs ")
        end)
      end)
    end

    it("of any lengths have the bits of words, for any launch", function()
      local random = prng.new(7)
      local N, W = 5, 1500
      local logits = hex.tensor(hex.values(N * W, 5), { N, W })
      local flags = kept.flags(random, { N, W }, 2)
      local ids = {}
      for row = 1, N do ids[row] = random:integer(0, W - 1) end
      local list, offsets = kept.lists(flags)
      for _, dtype in ipairs { "float32", "bfloat16" } do
        local spec = { logits = kept.poisoned_outside(logits, flags):to(dtype), ids = ids }
        for _, outputs in ipairs { { "token", "outside", "saved" }, { "entropy", "saved" } } do
          local expected = assert(here:logprob(with(spec, { kept = flags }), { outputs = outputs }))
          local batch = assert(samebits.batch(with(spec, { kept_ids = list,
                                                           kept_offsets = offsets })):to(device))
          for _, threads in ipairs { 0, 512 } do
            for _, split in ipairs { 0, 3, 30 } do
              local got = assert(ctx:logprob(batch, { outputs = outputs, split = split,
                                                      threads = threads > 0 and threads or nil }))
              assert_same(expected, got, ("%s, %d threads, split %d"):format(dtype, threads, split))
            end
          end
        end
      end
    end)
  end)
end)
