-- Records that come from outside, damaged: flipped bits, forged numbers, the record of another row
-- or shard. On every backend each call refuses the same ones, or gives the same bits.

local ffi = require "ffi"
local samebits = require "samebits"
local budget = require "spec.support.budget"
local damage = require "spec.support.damage"
local draws = require "spec.support.draws"
local hex = require "spec.support.hex"
local prng = require "spec.support.prng"
local shards = require "spec.support.shards"

local R, V, CUTS = 5, 100, { 0, 16, 64, 100 }
local IDS = { 0, 20, 47, 64, 99 }

local spec = { logits = hex.tensor(hex.values(R * V, 31), { R, V }), temperature = 0.7, ids = IDS }
for id = 16, 63 do spec.logits:set(-math.huge, 3, id) end

local function there(ctx, t) return assert(t:to(ctx.device)) end
local function here(t) return assert(t:to "cpu"):clone() end

-- The batch of whole rows, without logits.
local function whole(ctx) return assert(samebits.batch(shards.shard(spec, 0, 0)):to(ctx.device)) end

-- Records of shards, gathered: tensors by name.
local function partials(ctx, entropy)
  local list = {}
  for s = 1, #CUTS - 1 do
    local batch = assert(samebits.batch(shards.shard(spec, CUTS[s], CUTS[s + 1])):to(ctx.device))
    list[s] = assert(ctx:partial(batch, { entropy = entropy }))
  end
  local all = {}
  for name, t in pairs(list[1]) do
    all[name] = samebits.zeros({ #list, R, t.shape[2] }, "uint8")
    for s, its in ipairs(list) do all[name][s - 1]:copy_(here(its[name])) end
  end
  return all
end

local function merged(ctx, entropy)
  local of = {}
  for name, t in pairs(assert(ctx:merge(partials(ctx, entropy)))) do of[name] = here(t) end
  return of
end

local function placed(ctx, records)
  local of = {}
  for name, t in pairs(records) do of[name] = there(ctx, t) end
  return of
end

local FINISHED = { "token", "lse", "sequence", "count" }

local function policy_records(ctx)
  local list = {}
  for i = 1, 3 do
    list[i] = here(assert(ctx:policy_loss(
      { now = samebits.tensor { -1 * i, -2, -0.25 }, old = samebits.tensor { -1.5, -2, -0.5 },
        advantages = samebits.tensor { 1, -1, 2 } }, { tokens = 9, sequences = 3 })).record)
  end
  local all = samebits.zeros({ 3, list[1].shape[1] }, "uint8")
  for i, t in ipairs(list) do all[i - 1]:copy_(t) end
  return { record = all }
end

local function group_records(ctx)
  local all = samebits.zeros({ 2, 2, 240 }, "uint8")
  for i = 1, 2 do
    local rewards = samebits.tensor { { 1 * i, 0.5, -3 }, { 0, 2, 2 * i } }
    all[i - 1]:copy_(here(assert(ctx:group_advantages(rewards)).records))
  end
  return { records = all }
end

-- Each: the records, made by the reference, and the call that takes them.
local CALLS = {
  { "merge", function(ctx) return partials(ctx) end,
    function(ctx, of) return ctx:merge(placed(ctx, of)) end },
  { "merge with moments", function(ctx) return partials(ctx, true) end,
    function(ctx, of) return ctx:merge(placed(ctx, of)) end },
  { "finish", function(ctx) return merged(ctx) end,
    function(ctx, of) return ctx:finish(placed(ctx, of), whole(ctx), { outputs = FINISHED }) end },
  { "finish with moments", function(ctx) return merged(ctx, true) end,
    function(ctx, of)
      return ctx:finish(placed(ctx, of), whole(ctx), { outputs = { "token", "lse", "entropy" } })
    end },
  { "backward", function(ctx)
      local out = assert(ctx:logprob(spec, { outputs = { "entropy", "saved" } }))
      return { saved = here(out.saved) }
    end,
    function(ctx, of)
      local slopes = samebits.tensor { 1, -1, 2, 0.5, -3 }
      local batch = assert(samebits.batch(spec):to(ctx.device))
      local grad, why = ctx:backward(batch, { saved = there(ctx, of.saved),
                                              token = there(ctx, slopes),
                                              entropy = there(ctx, slopes) })
      return grad and { grad = grad }, why
    end },
  { "policy_merge", policy_records,
    function(ctx, of)
      return ctx:policy_merge(there(ctx, of.record), { tokens = 9, sequences = 3 })
    end },
  { "group_advantages", group_records,
    function(ctx, of)
      local rewards = there(ctx, samebits.tensor { { 1, 0.5, -3 }, { 0, 2, 2 } })
      return ctx:group_advantages(rewards, { records = there(ctx, of.records) })
    end },
}

-- A change of one record: what it is, and the records with it.
local function damaged(random, records)
  local names, copy = {}, {}
  for name, t in pairs(records) do
    names[#names + 1] = name
    copy[name] = t:clone()
  end
  table.sort(names)
  local name = random:pick(names)
  local t = copy[name]
  local size = t.shape[t.ndim]
  local n = t:numel() / size
  local which = random:integer(0, n - 1)
  local at = ffi.cast("uint8_t *", t.ptr) + which * size
  local kind = random:integer(0, damage.KINDS)
  if kind == 0 then
    local from = random:integer(0, n - 1)
    ffi.copy(at, ffi.cast("uint8_t *", records[name].ptr) + from * size, size)
    return copy, ("%s %d is that of %d"):format(name, which, from)
  end
  local what, spoil = damage.of(random, kind)
  return copy, ("%s %d, %s at byte %d"):format(name, which, what, spoil(at, size))
end

-- The results in memory, or nil and the words of the refusal.
local function outcome(call, ctx, records)
  local ok, got = pcall(call, ctx, records)
  if not ok then return nil, tostring(got):gsub("^.-%.lua:%d+: ", "") end
  local results = {}
  for name, t in pairs(assert(got)) do results[name] = here(t) end
  return results
end

describe("damaged records", function()
  local reference
  setup(function() reference = assert(samebits.open("cpu", { isa = "scalar", threads = 1 })) end)
  teardown(function() reference:close() end)

  draws.each_backend(function(at)
    for c, entry in ipairs(CALLS) do
      local name, make, call = unpack(entry)
      it(("are refused alike, or give the same bits: %s, on %s"):format(name, at.name), function()
        local random, records = prng.new(budget.SEED * 50 + c), make(reference)
        local refusals, tried = 0, budget.CASES * 10
        for _ = 1, tried do
          local spoilt, what = damaged(random, records)
          local want, said = outcome(call, reference, spoilt)
          local got, words = outcome(call, at.context(), spoilt)
          assert.equal(said, words, what)
          for key, t in pairs(want or {}) do assert.same_bits(t, got[key], what .. ": " .. key) end
          refusals = refusals + (want and 0 or 1)
        end
        assert.is_true(refusals > 0 and refusals < tried, ("%d of %d"):format(refusals, tried))
      end)
    end
  end)
end)
