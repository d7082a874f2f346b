-- Policy losses: a token's derivatives, its gradient and a step's loss are the same in any order of
-- sequences, packed or padded with rubbish, and in any micro-batches, in a call of their own and in
-- that of the logprobs.

local ffi = require "ffi"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local hex = require "spec.support.hex"
local prng = require "spec.support.prng"
local with = require "spec.support.with"

local TOKENS = { "old", "ref", "rollout" }
local DTYPES = { "float32", "bfloat16" }
local V, SEQUENCES = 72, 6 -- a V that one launch reads once where it can

local OPTIONS = {
  { norm = "token-mean", beta = 0.1, eps_high = 0.28, dual = 3 },
  { norm = "sequence-mean", loss = "cispo", weight = "truncate", w_high = 1.5 },
  { norm = "sequence-sum", loss = "reinforce", beta = 0.5, kl = "k2" },
  { norm = "constant", constant = 99, kl = "k1+", beta = 0.2, per_token = true },
}
-- These need all logprobs of a sequence, so only a call of their own has them.
local OF_SEQUENCES = {
  { norm = "sequence-mean", loss = "gspo" },
  { norm = "token-mean", weight = "drop", w_high = 2, level = "geometric" },
}

-- A step: sequences of a few tokens, each a list of rows. The advantages are the rows' own, or
-- those of the sequence's first row.
local function step_of(random)
  local step = {}
  for i = 1, SEQUENCES do
    step[i] = {}
    for t = 1, random:integer(1, 7) do
      local row = { id = random:uniform() < 0.1 and -100 or random:integer(0, V - 1),
                    active = random:uniform() < 0.8 and 1 or 0, advantage = random:normal(),
                    logits = {} }
      for id = 1, V do row.logits[id] = random:normal() * 3 end
      for _, name in ipairs(TOKENS) do row[name] = -4 + random:normal() * 0.5 end
      step[i][t] = row
    end
    step[i][1].active = 1
  end
  return step
end

local function totals_of(step)
  local tokens = 0
  for _, rows in ipairs(step) do
    for _, row in ipairs(rows) do tokens = tokens + row.active end
  end
  return { tokens = tokens, sequences = #step }
end

-- A call of some sequences, in their order: packed, or in rows of more tokens than any has. Returns
-- the batch, the inputs of the loss, and where each row is.
local function laid_out(random, sequences, padded, dtype, per_token)
  local T, place, n = 0, {}, 0
  for _, rows in ipairs(sequences) do T = math.max(T, #rows + 2) end
  local all, cu = {}, { 0 }
  for b, rows in ipairs(sequences) do
    local first = padded and (b - 1) * T + random:integer(0, T - #rows) or n
    for t, row in ipairs(rows) do place[row], all[first + t] = first + t, row end
    n = padded and b * T or n + #rows
    cu[b + 1] = n
  end
  local flat = { logits = {}, id = {}, active = {}, advantage = {} }
  for _, name in ipairs(TOKENS) do flat[name] = {} end
  for i = 1, n do
    local row = all[i]
    for id = 1, V do flat.logits[(i - 1) * V + id] = row and row.logits[id] or random:normal() end
    flat.id[i], flat.active[i] = row and row.id or random:integer(0, V - 1), row and row.active or 0
    flat.advantage[i] = row and row.advantage or random:normal()
    for _, name in ipairs(TOKENS) do flat[name][i] = row and row[name] or random:normal() end
  end
  local function shaped(t, ...)
    if padded then return t:view(#sequences, T, ...) end
    return t:view(n, ...)
  end
  local given = { mask = shaped(samebits.tensor(flat.active, { dtype = "uint8" })) }
  for _, name in ipairs(TOKENS) do given[name] = shaped(samebits.tensor(flat[name])) end
  if per_token then
    given.advantages = shaped(samebits.tensor(flat.advantage))
  else
    local own = {}
    for b, rows in ipairs(sequences) do own[b] = rows[1].advantage end
    given.advantages = samebits.tensor(own)
  end
  local logits = assert(samebits.tensor(flat.logits):to(dtype))
  return { logits = shaped(logits, V), cu_seqlens = not padded and cu or nil,
           ids = shaped(samebits.tensor(flat.id, { dtype = "int32" })) }, given, place
end

-- The two ways to a step's gradients. Each returns its results, whose rows are tokens; the first
-- takes the logprobs of the whole step.
local ways = {}

function ways.apart(ctx, batch, given, opts)
  local scored = assert(ctx:logprob(batch, { outputs = { "token", "saved" } }))
  local cu = batch.cu_seqlens
  local loss = assert(ctx:policy_loss(with(given, { now = scored.token, cu_seqlens = cu }), opts))
  local grad = assert(ctx:backward(batch, { saved = scored.saved, token = loss.token }))
  return { record = loss.record, rows = { token = scored.token, derivative = loss.token,
                                          grad = grad }, sequence = loss.sequence }
end

function ways.together(ctx, batch, given, opts)
  local out = assert(ctx:logprob(batch, { outputs = { "token" },
                                          gradient = { policy = given, options = opts } }))
  return { record = out.record, rows = { token = out.token, grad = out.grad } }
end

-- The bits of row i of a tensor whose rows are tokens, from 1 on.
local function row_bits(t, tokens, i)
  local bytes = t:numel() * t.itemsize / tokens
  return ffi.string(t.ptr + (i - 1) * bytes, bytes)
end

-- Scores sequences of a step, in calls of the numbers that `cuts` lists. Returns the bits of each
-- row, by row and name, those of each sequence's loss, and those of the merged loss and metrics.
local function score(ctx, way, step, order, cuts, how)
  local rows, sequences, records, first = {}, {}, {}, 1
  local totals = #cuts > 1 and totals_of(step) or {}
  local opts = with(how.opts, totals)
  opts.per_token = nil
  for _, count in ipairs(cuts) do
    local some = {}
    for i = first, first + count - 1 do some[#some + 1] = step[order[i]] end
    local spec, given, place = laid_out(how.random, some, how.padded, how.dtype,
                                        how.opts.per_token)
    local moved = {}
    for name, t in pairs(given) do moved[name] = assert(t:to(ctx.device)) end
    local out = ways[way](ctx, assert(samebits.batch(spec):to(ctx.device)), moved, opts)
    records[#records + 1] = out.record
    for name, t in pairs(out.rows) do
      local here, n = assert(t:to "cpu"), given.mask:numel()
      for row, i in pairs(place) do
        rows[row] = rows[row] or {}
        rows[row][name] = row_bits(here, n, i)
      end
    end
    if out.sequence then
      local here = assert(out.sequence:to "cpu")
      for i, rows_of in ipairs(some) do sequences[rows_of] = row_bits(here, #some, i) end
    end
    first = first + count
  end
  local merged = assert(ctx:policy_merge(records, { norm = how.opts.norm,
                                                    constant = how.opts.constant }))
  return { rows = rows, sequences = sequences, loss = hex.of(assert(merged.loss:to "cpu")),
           metrics = hex.of(assert(merged.metrics:to "cpu")) }
end

local LAYOUTS = {
  { name = "packed, in another order", cuts = { SEQUENCES } },
  { name = "padded", cuts = { SEQUENCES }, padded = true },
  { name = "in micro-batches", cuts = { 1, 3, 2 } },
  { name = "in padded micro-batches", cuts = { 2, 1, 1, 2 }, padded = true },
}

describe("the gradients and the loss of a step are the same", function()
  local cpu = assert(samebits.open("cpu", { isa = "scalar", threads = 1 }))

  local function check(at, way, opts, seed)
    local random = prng.new(seed)
    local step, plain = step_of(random), {}
    for i = 1, SEQUENCES do plain[i] = i end
    local how = { random = random, opts = opts, dtype = DTYPES[seed % 2 + 1] }
    local want = score(cpu, "apart", step, plain, { SEQUENCES }, how)
    for _, layout in ipairs(LAYOUTS) do
      local order = {}
      for i = 1, SEQUENCES do table.insert(order, random:integer(1, i), i) end
      how.padded = layout.padded
      local got = score(at.context(), way, step, order, layout.cuts, how)
      assert.same(want.loss, got.loss, layout.name)
      assert.same(want.metrics, got.metrics, layout.name)
      for row, results in pairs(got.rows) do
        for name, bits in pairs(results) do
          assert.is_true(want.rows[row][name] == bits, layout.name .. ": " .. name)
        end
      end
      for rows, bits in pairs(got.sequences) do
        assert.is_true(want.sequences[rows] == bits, layout.name .. ": a sequence's loss")
      end
    end
  end

  backends.each(function(at)
    it("in calls of their own, on " .. at.name, function()
      for i, opts in ipairs(OPTIONS) do check(at, "apart", opts, i) end
      for i, opts in ipairs(OF_SEQUENCES) do check(at, "apart", opts, i + 50) end
    end)

    it("in the call of the logprobs, on " .. at.name, function()
      for i, opts in ipairs(OPTIONS) do
        check(at, "together", opts, i + 100)
        check(at, "together", opts, i + 101)
      end
    end)
  end)
end)
