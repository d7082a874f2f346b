-- The control group: it is as accurate as fp32 permits and scores the same rows as sb_logprob; it
-- drifts where samebits does not on the same data; and it is loaded only by its own name.

local ffi = require "ffi"
local samebits = require "samebits"
local conventional = require "samebits.conventional"
local backends = require "spec.support.backends"
local bounds = require "spec.support.bounds"
local read = require("spec.support.files").read
local full = require "spec.support.full_batch"
local hex = require "spec.support.hex"
local prng = require "spec.support.prng"
local refusal = require "spec.support.refusal"

local misuse, says = refusal.misuse, refusal.says
local DTYPES = { "float32", "float16", "bfloat16" }
local PIECES = 64 -- more are not chosen for any V here
local OUTPUTS = { "token", "lse", "sequence", "count" }

-- Logits [rows, V], normal with a deviation of 3.
local function normal(rows, V, seed)
  local random, t = prng.new(seed), samebits.zeros({ rows, V }, "float32")
  local x = ffi.cast("float *", t.ptr)
  for i = 0, rows * V - 1 do x[i] = 3 * random:normal() end
  return t
end

local function to_cpu(out)
  local results = {}
  for name, t in pairs(out) do results[name] = assert(t:to "cpu") end
  return results
end

-- Both ways on a context: the control group's results and sb_logprob's, in memory.
local function both(ctx, batch, opts)
  return to_cpu(assert(conventional.logprob(ctx, batch, opts))),
         to_cpu(assert(ctx:logprob(batch)))
end

-- A result's error bound, in steps of 2^-24, with Y the largest |y|: quotients 2 Y; differences
-- from the maximum 2 Y in the sum, 2 Y in the target, 2 Y for a piece's maximum; expf, of 2 ulps at
-- most (CUDA's; C libraries keep within 1), 4 in a term, 4 and a product's 1 in a piece; logf, of 1
-- ulp, 2 ln V; the last subtraction 2 Y + ln V. Then an addition each for the longest chain: a lane
-- of 32, the lanes themselves, what no vector holds before (15) and behind (31), the pieces.
local function bound(V, Y, pieces)
  return 2 ^ -24 * (10 * Y + 3 * math.log(V) + 10 + V / 32 + 80 + pieces)
end

-- sb_logprob's own; the entropy is at most ln V.
local function contract_bound(V, result)
  return bounds.stated(bounds.LOGPROB, math.log(V), result)
end

local function full_batch(V, dtype, packed, shift)
  return full(normal(15, V, V):to(dtype), packed, shift)
end

backends.each(function(at)
  describe("the control group on " .. at.name .. ":", function()
    -- Rows 0 .. rows - 1 of both, with logits / tau up to Y in magnitude.
    local function compare(control, ours, rows, V, Y, pieces)
      for r = 0, rows - 1 do
        for _, name in ipairs { "token", "lse" } do
          local x, y = control[name]:view(-1)[r], ours[name]:view(-1)[r]
          local limit = bound(V, Y, pieces) + contract_bound(V, y)
          assert(math.abs(x - y) <= limit,
            ("%s of row %d, V = %d: %.9g, sb_logprob has %.9g; the bound is %.3g")
              :format(name, r, V, x, y, limit))
        end
      end
    end

    for _, dtype in ipairs(DTYPES) do
      it("is near sb_logprob: " .. dtype, function()
        for _, V in ipairs { 1, 2, 15, 16, 17, 31, 33, 127, 1023, 1025, 4099, 32000, 50257 } do
          local rows = V < 5000 and 7 or 2
          local logits = normal(rows, V, V + 1):to(dtype)
          local ids = {}
          for r = 1, rows do ids[r] = r * 7919 % V end
          for _, tau in ipairs { 1, 0.7 } do
            local batch = at.batch { logits = logits, ids = ids, temperature = tau }
            for _, split in ipairs { 0, 1, 3 } do
              local control, ours = both(at.context(), batch, { split = split })
              compare(control, ours, rows, V, 18 / tau, split == 0 and PIECES or split)
            end
          end
        end
      end)
    end

    for _, packed in ipairs { false, true } do
      for shift = 0, 1 do
        it(("scores the same rows: %s, shift %d"):format(packed and "packed" or "padded", shift),
           function()
          for _, V in ipairs { 40, 20011 } do
            for _, dtype in ipairs(DTYPES) do
              local spec = full_batch(V, dtype, packed, shift)
              local control, ours = both(at.context(), at.batch(spec))
              assert.same_bits(ours.count, control.count)
              compare(control, ours, 15, V, 36, PIECES)
              local zero, n = hex.of(samebits.zeros({ 1 }, "float32"))[1], 0
              for r, bits in ipairs(hex.of(ours.lse)) do
                local ignored = bits == zero
                if ignored then n = n + 1 end
                for _, name in ipairs { "token", "lse" } do
                  assert.equal(ignored, hex.of(control[name])[r] == zero, name .. " " .. r - 1)
                end
              end
              assert.is_true(n >= 5 and n < 12)
              for b = 0, 2 do -- of at most 7 tokens
                assert.near(ours.sequence[b], control.sequence[b], 7 * bound(V, 36, PIECES) + 1e-4)
              end
            end
          end
        end)
      end
    end

    it("gives the outputs that are asked for", function()
      local batch, ctx = at.batch(full_batch(20011, "float32", true, 1)), at.context()
      local all = to_cpu(assert(conventional.logprob(ctx, batch)))
      for _, name in ipairs(OUTPUTS) do
        local out = to_cpu(assert(conventional.logprob(ctx, batch, { outputs = { name } })))
        assert.same_bits(all[name], out[name], name)
        assert.is_nil(next(out, next(out)))
      end
    end)

    it("NaN, inf and -inf end as in any softmax", function()
      local nan, inf = 0 / 0, math.huge
      for _, V in ipairs { 3, 20000 } do
        local logits = normal(8, V, 3)
        local x = ffi.cast("float *", logits.ptr)
        local function fill(row, value, from, to)
          for i = from or 0, to or V - 1 do x[row * V + i] = value end
        end
        fill(1, nan, V - 1)
        fill(2, inf, V - 1)
        fill(3, -inf)
        fill(4, -inf, 1, V - 1)          -- one token alone
        fill(5, -inf, 0, V - 2)          -- all but the last: the target, too
        fill(6, -200)                    -- far below 0, with pieces of -inf
        fill(6, -inf, 1, V - 1)
        fill(7, -inf)
        fill(7, nan, V - 1, V - 1)
        for _, split in ipairs { 0, 1, 3 } do
          local control = both(at.context(), at.batch {
            logits = logits, ids = { 0, 0, 0, 0, 0, 0, 0, 0 },
          }, { split = split })
          local token, lse = control.token, control.lse
          assert.is_true(token[0] < 0 and lse[0] > 0)
          for _, r in ipairs { 1, 2, 7 } do
            assert.is_true(token[r] ~= token[r] and lse[r] ~= lse[r], "row " .. r)
          end
          assert.is_true(token[3] ~= token[3])
          assert.equal(-inf, lse[3])
          assert.equal(0, token[4])
          assert.equal(x[4 * V], lse[4])
          assert.equal(-inf, token[5])
          assert.equal(x[5 * V + V - 1], lse[5])
          assert.equal(0, token[6])
          assert.equal(-200, lse[6])
        end
      end
    end)

    it("refuses what sb_logprob refuses, in its words", function()
      local ctx = at.context()
      local logits = normal(4, 40, 1)
      for _, fields in ipairs {
        { ids = { 1, 2, 40, 3 } }, { ids = { 1, -1, 40, 3 } },
        { ids = { 1, 2, 3, 4 }, temperature = { 1, 1, 1, 5000 } },
        { ids = { 1, 2, 3, 4 }, rows = { 0, 2, 1 } },
        { ids = { 1, 2, 3, 4 }, cu_seqlens = { 0, 3, 2, 4 } },
      } do
        fields.logits = logits
        local batch = at.batch(fields)
        local ours = misuse(function() ctx:logprob(batch) end)
        assert.equal(ours, misuse(function() conventional.logprob(ctx, batch) end))
      end
    end)

    it("repeats itself", function()
      for _, V in ipairs { 1025, 50257 } do
        local batch = at.batch { logits = normal(5, V, 9), ids = { 0, 1, 2, 3, 4 } }
        local first = both(at.context(), batch)
        for _ = 1, 5 do
          local again = both(at.context(), batch)
          for _, name in ipairs(OUTPUTS) do assert.same_bits(first[name], again[name], name) end
        end
      end
    end)
  end)
end)

-- ---- drift ------------------------------------------------------------------------------------

-- How many values of a tensor have other bits in another one.
local function moved(a, b)
  local x, y, n = hex.of(a), hex.of(b), 0
  assert(#x == #y)
  for i = 1, #x do if x[i] ~= y[i] then n = n + 1 end end
  return n
end

-- B sequences of T positions, and each of them by itself.
local function sequences(B, T, V, seed)
  local random = prng.new(seed)
  local logits, ids = normal(B * T, V, seed):view(B, T, V), samebits.zeros({ B, T }, "int32")
  local id = ffi.cast("int32_t *", ids.ptr)
  for r = 0, B * T - 1 do id[r] = random:integer(0, V - 1) end
  local alone = {}
  for b = 0, B - 1 do
    alone[b] = { logits = logits:slice(0, b, b + 1):clone(), ids = ids:slice(0, b, b + 1):clone() }
  end
  return { logits = logits, ids = ids }, alone
end

-- Tokens and lses of the control group, and of samebits, that alone are not what they are in the
-- batch; `contexts` gives the context for either.
local function drift(placed, in_batch, by_itself)
  local control, ours = 0, 0
  for _, size in ipairs { { 8, 3, 50257, 1 }, { 8, 3, 50257, 2 }, { 100, 3, 1025, 3 },
                          { 100, 3, 1025, 4 } } do
    local batch, alone = sequences(unpack(size))
    local c, s = both(in_batch, placed(batch))
    for b = 0, size[1] - 1 do
      local c1, s1 = both(by_itself, placed(alone[b]))
      for _, name in ipairs { "token", "lse" } do
        control = control + moved(c[name]:slice(0, b, b + 1), c1[name])
        ours = ours + moved(s[name]:slice(0, b, b + 1), s1[name])
      end
    end
  end
  return control, ours
end

local function in_memory(spec) return samebits.batch(spec) end

describe("drift:", function()
  local contexts = {}
  setup(function()
    for _, threads in ipairs { 1, 2, 8 } do
      contexts[threads] = assert(samebits.open("cpu", { threads = threads }))
    end
  end)
  teardown(function() for _, ctx in pairs(contexts) do ctx:close() end end)

  for _, threads in ipairs { 1, 2, 8 } do
    it(("alone or in a batch, cpu, %d thread%s"):format(threads, threads == 1 and "" or "s"),
       function()
      local control, ours = drift(in_memory, contexts[threads], contexts[threads])
      assert.is_true(control > 0, "the control group did not drift")
      assert.equal(0, ours)
    end)
  end

  it("by the number of threads", function()
    local control, ours = 0, 0
    for seed = 1, 12 do
      local _, alone = sequences(1, 2, 20000, seed)
      local c1, s1 = both(contexts[1], alone[0])
      local c8, s8 = both(contexts[8], alone[0])
      control = control + moved(c1.lse, c8.lse) + moved(c1.token, c8.token)
      ours = ours + moved(s1.lse, s8.lse) + moved(s1.token, s8.token)
    end
    assert.is_true(control > 0)
    assert.equal(0, ours)
  end)

  -- The same rows one after the other, from another element on.
  it("by where the logits lie", function()
    local control, ours, V, R = 0, 0, 2000, 40
    for seed = 1, 3 do
      local logits, ids = normal(R, V, seed), {}
      for r = 1, R do ids[r] = r * 7919 % V end
      local wide = samebits.zeros({ R * V + 3 }, "float32")
      wide:slice(0, 3, R * V + 3):copy_(logits:view(-1))
      local elsewhere = wide:slice(0, 3, R * V + 3):view(R, V)
      local c, s = both(contexts[1], { logits = logits, ids = ids })
      local c3, s3 = both(contexts[1], { logits = elsewhere, ids = ids })
      control = control + moved(c.lse, c3.lse)
      ours = ours + moved(s.lse, s3.lse)
    end
    assert.is_true(control > 0)
    assert.equal(0, ours)
  end)

  it("shows in a real model's sequences", function()
    local data = assert(samebits.load "spec/vectors/smollm2.safetensors")
    local T, control, ours = data.ids.shape[2], 0, 0
    local all_c, all_s = both(contexts[8], { logits = data.logits, ids = data.ids })
    for b = 0, data.ids.shape[1] - 1 do
      for t = 0, T - 1 do -- as a decoder meets them
        local c, s = both(contexts[8], {
          logits = data.logits[b]:slice(0, t, t + 1), ids = data.ids[b]:slice(0, t, t + 1),
        })
        control = control + moved(all_c.token[b]:slice(0, t, t + 1), c.token)
        ours = ours + moved(all_s.token[b]:slice(0, t, t + 1), s.token)
      end
    end
    assert.is_true(control > 0)
    assert.equal(0, ours)
  end)

  backends.with("cuda", function(at)
    it("alone or in a batch, on a GPU", function()
      local control, ours = drift(at.batch, at.context(), at.context())
      assert.is_true(control > 0, "the control group did not drift")
      assert.equal(0, ours)
    end)

    it("by the launch, on a GPU", function()
      local ctx, control, ours = at.context(), 0, 0
      local batch = at.batch(sequences(8, 3, 50257, 5))
      local c, s = both(ctx, batch)
      for _, opts in ipairs { { split = 1 }, { split = 7 }, { threads = 96 }, { threads = 32 } } do
        local c1 = both(ctx, batch, opts)
        local s1 = to_cpu(assert(ctx:logprob(batch, opts)))
        control = control + moved(c.lse, c1.lse) + moved(c.token, c1.token)
        ours = ours + moved(s.lse, s1.lse) + moved(s.token, s1.token)
      end
      assert.is_true(control > 0)
      assert.equal(0, ours)
    end)

    it("runs in a stream, unchecked, and reports to check", function()
      local ctx = at.context()
      local stream = assert(ctx:stream())
      local spec = { logits = normal(3, 20000, 1), ids = { 1, 20000, 3 } }
      local batch = at.batch(spec)
      local out = assert(conventional.logprob(ctx, batch, { check = false, stream = stream }))
      says(misuse(function() ctx:check(stream) end), "row 1", "id")
      out = to_cpu(out)
      assert.is_true(out.token[0] < 0 and out.token[1] ~= out.token[1] and out.token[2] < 0)
      assert.is_true(ctx:check())
    end)
  end)
end)

-- ---- how it is reached ------------------------------------------------------------------------

local function output(command)
  local pipe = io.popen(command .. " 2>&1")
  local text = pipe:read "*a"
  pipe:close()
  return text
end

describe("the control group is reached by its own name alone:", function()
  it("require 'samebits' brings nothing of it", function()
    local program = os.tmpname()
    local file = assert(io.open(program, "w"))
    file:write [[
      package.path = "./lua/?.lua;" .. package.path
      local samebits = require "samebits"
      local ctx = assert(samebits.open "cpu")
      for name in pairs(package.loaded) do assert(not name:find "conventional", name) end
      local seen, count = {}, 0
      local function walk(t, where)
        if type(t) ~= "table" or seen[t] then return end
        seen[t] = true
        for k, v in pairs(t) do
          count = count + 1
          local here = where .. "." .. tostring(k)
          assert(not here:find "conventional", here)
          walk(v, here)
        end
        walk(getmetatable(t), where .. "()")
      end
      walk(samebits, "samebits")
      walk(ctx, "ctx")
      assert(count > 30, count)
      local C = require("samebits.lib").C
      assert(C.sb_logprob)
      assert(not pcall(function() return C.sb_conventional_logprob end))
      require "samebits.conventional"
      assert(C.sb_conventional_logprob)
      assert(not samebits.conventional and not ctx.conventional)
      print "nothing"
    ]]
    file:close()
    local said = output("luajit " .. program)
    os.remove(program)
    assert.equal("nothing\n", said)
  end)

  it("the public header does not know it", function()
    assert.is_nil(read("src/samebits.h"):lower():find "conventional")
    assert.is_nil(read("lua/samebits/cdef.lua"):find "conventional")
  end)

  it("Lua declares it as its header does", function()
    local function words(text) return (text:gsub("%s+", " "):gsub("^ ", "")) end
    local declared = read("src/samebits_conventional.h"):match "/%* ffi begin %*/(.-)/%* ffi end"
    declared = declared:gsub("/%*.-%*/", ""):gsub("SB_API ", "")
    assert.is_truthy(words(read "lua/samebits/conventional.lua"):find(words(declared), 1, true))
  end)

  it("one place runs it", function()
    local calls = output "grep -nE '(run|workspace)\\(.*SB_OP_CONVENTIONAL' -r src"
    assert.matches("^src/control/conventional%.c:%d+:[^\n]*\n$", calls)
    assert.equal("lua/samebits/conventional.lua\n",
                 output "grep -l sb_conventional -r lua bin")
    assert.equal("lua/samebits/verify/paths.lua\n",
                 output "grep -l '^local .*require .samebits.conventional' -r lua bin")
  end)

  it("refuses misuse at its caller's line", function()
    local ctx = assert(samebits.open "cpu")
    local batch = samebits.batch { logits = normal(2, 40, 1), ids = { 1, 2 } }
    local function words(...)
      local args = { ... }
      return misuse(function() conventional.logprob(unpack(args, 1, 3)) end)
    end
    says(words(batch), "expected a context")
    says(words(nil), "expected a context, got nil")
    says(words(ctx, batch, { cluster = 1 }), "unknown option 'cluster'")
    says(words(ctx, batch, { workspace = batch.logits }), "unknown option 'workspace'")
    says(words(ctx, batch, "token"), "expected a table")
    says(words(ctx, batch, { split = 65537 }), "split")
    says(words(ctx, batch, { outputs = { "tokens" } }), "unknown output 'tokens'")
    says(words(ctx, 5), "batch: expected a table")
    ctx:close()
    says(words(ctx, batch), "conventional.logprob", "closed")
  end)

  it("takes no workspace, cluster, table or one_read from C", function()
    local ctx = assert(samebits.open "cpu")
    local batch = samebits.batch { logits = normal(2, 40, 1), ids = { 1, 2 } }
    local C = require("samebits.lib").C
    local out = ffi.new("sb_logprob_out", { size = ffi.sizeof "sb_logprob_out" })
    local function status(fields)
      fields.size = ffi.sizeof "sb_launch"
      return tonumber(C.sb_conventional_logprob(ctx.handle, out, batch.c,
                                                ffi.new("sb_launch", fields)))
    end
    assert.equal(0, status {})
    assert.equal(1, status { cluster = -1 })
    assert.equal(1, status { table = 1 })
    assert.equal(1, status { one_read = -1 })
    assert.equal(1, status { workspace = batch.logits.ptr, workspace_size = 8 })
    says(ffi.string(C.sb_last_error(ctx.handle)), "takes no workspace, cluster, table or one_read")
    assert.equal(1, tonumber(C.sb_conventional_logprob(nil, out, batch.c, nil)))
    assert.equal(1, tonumber(C.sb_conventional_logprob(ctx.handle, nil, batch.c, nil)))
    ctx:close()
  end)
end)
