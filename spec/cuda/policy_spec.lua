-- Policy losses and group advantages on a GPU: the cpu's bits for any division into units, segments
-- and blocks, any alignment and any magnitude; workspaces, streams, captures and reports.

local ffi = require "ffi"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local graphs = require "spec.support.graphs"
local prng = require "spec.support.prng"
local refusal = require "spec.support.refusal"
local with = require "spec.support.with"

local cpu = assert(samebits.open "cpu")
local ALL = { outputs = { "loss", "sequence", "token", "entropy", "record", "metrics" } }
local NAMES = { "now", "old", "ref", "rollout", "entropy" }

-- Tensors of N tokens that begin `offset` elements into an allocation, with powers of two up to
-- 2^wide around 1.
local function tokens_of(random, N, offset, wide)
  local given = {}
  for _, name in ipairs(NAMES) do
    local t = samebits.zeros({ N + offset }, "float32")
    local floats = ffi.cast("float *", t.ptr)
    for i = 0, N + offset - 1 do
      floats[i] = -random:uniform() * 4 * 2 ^ random:integer(-wide, 0)
      if wide > 0 and random:integer(0, 9) == 0 then floats[i] = floats[i] * 2 ^ wide end
    end
    given[name] = t:slice(0, offset, N + offset)
  end
  local mask = samebits.zeros({ N }, "uint8")
  local bytes = ffi.cast("uint8_t *", mask.ptr)
  for i = 0, N - 1 do bytes[i] = random:uniform() < 0.8 and 1 or 0 end
  given.mask = mask
  return given
end

local function advantages_of(random, n)
  local t = samebits.zeros({ n }, "float32")
  for i = 0, n - 1 do t[i] = random:normal() * 3 end
  return t
end

local function ends_of(random, B, N)
  local cuts = { 0, N }
  for _ = 1, B - 1 do cuts[#cuts + 1] = random:integer(0, N) end
  table.sort(cuts)
  return samebits.tensor(cuts, { dtype = "int32" })
end

local OPTIONS = {
  { norm = "token-mean", beta = 0.1, eps_high = 0.28, dual = 3 },
  { loss = "gspo", norm = "sequence-mean", kl = "k1+", beta = 0.5 },
  { loss = "cispo", norm = "constant", constant = 99, weight = "truncate", w_high = 1.5 },
  { loss = "reinforce", norm = "sequence-sum", eta = 0.01, weight = "drop", w_high = 2,
    level = "sequence", kl = "k2" },
  { loss = "gspo", norm = "sequence-mean", eps_low = 3e-4, eps_high = 4e-4 },
}

describe("policy losses on a GPU:", function()
  backends.with("cuda", function(at)
    local ctx, device
    backends.own_context(at, function(...) ctx, device = ... end)

    -- Copies whose addresses have the alignment of the originals.
    local function there(given)
      local moved = {}
      for name, t in pairs(given) do moved[name] = backends.placed(t, ctx.device) end
      return moved
    end

    local function same(given, opts, words)
      local want, got = assert(cpu:policy_loss(given, opts)),
                        assert(ctx:policy_loss(there(given), opts))
      for name, t in pairs(want) do
        assert.same_bits(t, assert(got[name]:to "cpu"), words .. ": " .. name)
      end
      return want
    end

    it("the cpu's bits, for any lengths, alignment and magnitude", function()
      local random = prng.new(77)
      for i, N in ipairs { 1, 3, 255, 256, 257, 1030, 3000 } do
        for offset = 0, 1 do
          local given = tokens_of(random, N, offset, i % 3 * 30)
          local B = math.min(N, 1 + i * 3)
          given.cu_seqlens, given.advantages = ends_of(random, B, N), advantages_of(random, B)
          local opts = OPTIONS[(i + offset) % #OPTIONS + 1]
          local words = ("%d tokens, offset %d"):format(N, offset)
          local want = same(given, with(opts, ALL), words)
          local step = with(opts, { tokens = 2 ^ 40 + 1, sequences = 12345,
                                    outputs = { "loss", "token", "sequence", "record" } })
          same(given, step, words .. ", of a step")
          given.cu_seqlens, given.advantages = nil, advantages_of(random, N)
          same(given, with(opts, ALL), words .. ", one sequence")
          assert.is_true(want ~= nil)
        end
      end
    end)

    it("the cpu's bits if values are as large and small as digits in registers take", function()
      local T = 2 ^ 20 -- a lane has more rows than such digits have room for
      local mask = samebits.zeros({ 2, T }, "uint8")
      for i = 0, 2 * T - 1 do ffi.cast("uint8_t *", mask.ptr)[i] = i % 7 < 6 and 1 or 0 end
      local now, entropy = samebits.zeros({ 2, T }, "float32"), samebits.zeros({ 2, T }, "float32")
      local below = 1 - 2 ^ -24
      for _, value in ipairs { 64, 64 * below, 2 ^ -30, 2 ^ -30 * below, 2 ^ -62, 2 ^ -63 } do
        for i = 0, 2 * T - 1 do ffi.cast("float *", entropy.ptr)[i] = value end
        local given = { now = now, old = now, ref = now, mask = mask }
        given.advantages = samebits.tensor({ value, -value }, { dtype = "float32" })
        same(given, with({ beta = 0.1 }, ALL), "advantages of " .. value)
        given.entropy = entropy
        same(given, with({ beta = 0.1 }, ALL), "entropies of " .. value)
      end
    end)

    it("run in a workspace, in a stream and in a graph", function()
      local given = tokens_of(prng.new(3), 900, 0, 0)
      given.advantages = advantages_of(prng.new(4), 900)
      local moved = there(given)
      for _, opts in ipairs(OPTIONS) do
        opts = with(opts, ALL)
        local want = assert(cpu:policy_loss(given, opts))
        local bytes = ctx:policy_workspace_size(moved, opts)
        local workspace = assert(samebits.empty({ bytes }, "uint8", ctx.device))
        local stream = assert(ctx:stream())
        local out = {}
        for name, t in pairs(want) do
          out[name] = samebits.zeros(t.shape, t.dtype, ctx.device)
        end
        local launch = with(opts, { stream = stream, workspace = workspace, check = false,
                                    out = out })
        local graph = graphs.capture(device, stream, function() ctx:policy_loss(moved, launch) end)
        graph:launch()
        assert(stream:wait())
        graph:close()
        for name, t in pairs(want) do assert.same_bits(t, assert(out[name]:to "cpu"), name) end
        local small = samebits.empty({ bytes - 256 }, "uint8", ctx.device)
        refusal.says(refusal.misuse(function()
          ctx:policy_loss(moved, with(opts, { workspace = small }))
        end), "the workspace has", "the call needs")
      end
    end)

    it("refuse as the cpu does; without a check the results are NaN, and a check tells", function()
      local given = tokens_of(prng.new(5), 40, 0, 0)
      given.mask, given.advantages = nil, advantages_of(prng.new(6), 2)
      given.cu_seqlens = samebits.tensor({ 0, 30, 40 }, { dtype = "int64" })
      local bad = with(given, { cu_seqlens = samebits.tensor({ 0, 50, 40 }, { dtype = "int64" }) })
      for _, case in ipairs {
        { bad, {}, "cu_seqlens[1] is 50", "cu_seqlens around sequence" },
        { given, { tokens = 39 }, "tokens is 39, and 40 tokens are active", "40 tokens are active"
        },
        { given, { sequences = 1 }, "sequences is 1, and 2 sequences have active tokens",
          "2 sequences have active tokens" },
      } do
        local tokens, opts, words, later = unpack(case)
        local moved = there(tokens)
        refusal.says(refusal.misuse(function() ctx:policy_loss(moved, opts) end), words)
        local out = ctx:policy_loss(moved, with(opts, { check = false, outputs = ALL.outputs }))
        refusal.says(refusal.misuse(function() ctx:check() end), later)
        for _, name in ipairs { "loss", "sequence", "token", "entropy", "metrics" } do
          local t = assert(out[name]:to "cpu")
          for i = 0, t:numel() - 1 do assert.is_true(t[i] ~= t[i], name) end
        end
        refusal.says(refusal.misuse(function() ctx:policy_merge { out.record } end),
                     "record 0: no call gives it")
      end
      assert.is_true(ctx:check())
    end)

    it("merge records, and refuse as the cpu does", function()
      local given = tokens_of(prng.new(8), 300, 0, 0)
      given.advantages = advantages_of(prng.new(9), 300)
      local record = ctx:policy_loss(there(given)).record
      local other = ctx:policy_loss(there(given), { norm = "sequence-mean" }).record
      local list = {}
      for i = 1, 70 do list[i] = record end
      local here = {}
      for i = 1, 70 do here[i] = assert(record:to "cpu") end
      local want, got = cpu:policy_merge(here), ctx:policy_merge(list)
      for name, t in pairs(want) do assert.same_bits(t, assert(got[name]:to "cpu"), name) end
      list[33] = other
      refusal.says(refusal.misuse(function() ctx:policy_merge(list) end), "record 32: its first")
      local out = ctx:policy_merge(list, { check = false })
      refusal.says(refusal.misuse(function() ctx:check() end), "record 32")
      assert.is_true(out.loss:to "cpu"[0] ~= out.loss:to "cpu"[0])
    end)

    it("merge records of which a word is at a bound or beyond as the cpu does", function()
      local N = 5
      local given = tokens_of(prng.new(11), N, 0, 0)
      given.mask, given.advantages = nil, advantages_of(prng.new(12), N)
      local digits = 2LL ^ 32 * N
      local values = { 0LL, 1LL, -1LL, 7LL, 8LL, N + 0LL, N + 1LL, -N - 0LL, digits, digits + 1,
                       digits + 2LL ^ 32, -digits, -digits - 1, 2LL ^ 30, 2LL ^ 30 + 1, 2LL ^ 32,
                       2LL ^ 33, 2LL ^ 32 + 2, 0xffLL * 2LL ^ 32, 2LL ^ 62, -2LL ^ 62 }
      local accepted, refused = 0, 0
      for _, outputs in ipairs { { "loss", "record" }, { "loss", "record", "metrics" } } do
        local well = assert(cpu:policy_loss(given, { outputs = outputs })).record
        local words = well:numel() / 8 -- of its bytes
        for which = 1, 3 do -- 3: both
          for word = 0, words - 1 do
            for _, value in ipairs(values) do
              local spoilt = well:clone()
              ffi.cast("int64_t *", spoilt.ptr)[word] = value
              local here = { which == 2 and well or spoilt, which == 1 and well or spoilt }
              local moved = { backends.placed(here[1], device), backends.placed(here[2], device) }
              local want, why = pcall(cpu.policy_merge, cpu, here, { outputs = outputs })
              local got, said = pcall(ctx.policy_merge, ctx, moved, { outputs = outputs })
              local what = ("word %d of records %d: %s"):format(word, which, tostring(value))
              assert.equal(want, got, what)
              if want then
                for name, t in pairs(why) do
                  assert.same_bits(t, assert(said[name]:to "cpu"), what .. ": " .. name)
                end
                accepted = accepted + 1
              else
                assert.equal(tostring(why), tostring(said), what)
                refused = refused + 1
              end
            end
          end
        end
      end
      assert.is_true(accepted > 1000 and refused > 1000, ("%d and %d"):format(accepted, refused))
    end)

    it("group advantages have the cpu's bits, and refuse as the cpu does", function()
      local random = prng.new(10)
      for _, N in ipairs { 1, 5, 300, 1000 } do
        local rewards = advantages_of(random, N)
        local offsets = ends_of(random, math.min(N, 7), N)
        for _, scale in ipairs { "group", "step", "none" } do
          local opts = { scale = scale, offsets = offsets }
          local want = assert(cpu:group_advantages(rewards, opts))
          local got = assert(ctx:group_advantages(assert(rewards:to(ctx.device)), with(opts, {
            offsets = assert(offsets:to(ctx.device)) })))
          for name, t in pairs(want) do assert.same_bits(t, assert(got[name]:to "cpu"), name) end
        end
      end
      local rewards = assert(advantages_of(random, 6):to(ctx.device))
      local function bad(opts)
        return ctx:group_advantages(rewards, with({
          offsets = assert(samebits.tensor({ 0, 7, 6 }, { dtype = "int64" }):to(ctx.device)) },
          opts))
      end
      refusal.says(refusal.misuse(function() bad {} end), "offsets[1] is 7")
      local out = bad { check = false }
      refusal.says(refusal.misuse(function() ctx:check() end), "offsets around group")
      local t = assert(out.advantages:to "cpu")
      for i = 0, 5 do assert.is_true(t[i] ~= t[i]) end
      local record = assert(ctx:group_advantages(rewards).records:to "cpu")
      record[0][88] = 8
      refusal.says(refusal.misuse(function()
        ctx:group_advantages(rewards, { records = assert(record:to(ctx.device)) })
      end), "group 0, shard 0")
    end)
  end)
end)
