--- Everything that ranks compute together: a list of parts. The whole of each rank's task is
--
--     local got = part.ranks(world)          -- with the other ranks
--     local want = part.whole(ctx, world)    -- the same results, on a context alone
--
-- world: { ctx =, comm =, rank =, ranks =, opts =, stream = }; opts: the options of every launch;
-- stream: those of launches that take a stream only. Results are tensors by name.

local samebits = require "samebits"
local draws = require "spec.support.draws"
local heads = require "spec.support.heads"
local hex = require "spec.support.hex"
local prng = require "spec.support.prng"
local shards = require "spec.support.shards"
local with = require "spec.support.with"

local M = {}

local function part(name, ranks, whole)
  M[#M + 1] = { name = name, ranks = ranks, whole = whole }
end

local function there(ctx, t) return assert(t:to(ctx.device)) end

-- The first and the past of this rank's share of n things, cut at multiples of `of`. Shares are
-- uneven, but none is empty.
local function share(world, n, of)
  local random, places, cuts = prng.new(world.ranks * 31 + n), {}, { 0 }
  for i = 1, math.ceil(n / of) - 1 do places[i] = i * of end
  for _ = 2, world.ranks do
    cuts[#cuts + 1] = assert(table.remove(places, random:integer(1, #places)), "too many ranks")
  end
  table.sort(cuts)
  cuts[#cuts + 1] = n
  return cuts[world.rank + 1], cuts[world.rank + 2]
end

local function add(to, name, results)
  for key, t in pairs(results) do to[name .. ", " .. key] = t end
  return results
end

local OUTPUTS = { [false] = { "token", "lse", "sequence", "count" },
                  [true] = { "token", "lse", "sequence", "count", "entropy", "saved" } }

-- Records of a rank's ids, exchanged and finished: states or moments.
local function exchanged(world, got, name, batch, moments)
  local ctx = world.ctx
  local records = assert(ctx:partial(batch, with(world.opts, { entropy = moments })))
  add(got, name, assert(ctx:exchange(records, world.comm, world.opts)))
  return add(got, name, assert(ctx:finish(records, batch, with(world.opts, {
    outputs = OUTPUTS[moments] }))))
end

local function alone(ctx, want, name, batch, moments)
  add(want, name, assert(ctx:partial(batch, { entropy = moments })))
  return add(want, name, assert(ctx:logprob(batch, { outputs = OUTPUTS[moments] })))
end

-- Logits cut in V --------------------------------------------------------------------------------

do
  local B, T, V = 3, 7, 1531

  local function values(n, seed)
    local list = {}
    for i = 1, n do list[i] = ((i * 37 + seed) % 19 - 9) / 8 end
    return hex.tensor(list, { B, T })
  end

  -- Calls body(name, spec, moments) for each way to score the same logits. One row is empty, one
  -- poisoned.
  local function each(body)
    local list = hex.values(B * T * V, 21)
    for id = 1, V do list[3 * V + id] = "ff800000" end
    list[4 * V + 17] = "7fc00000"
    local logits = hex.tensor(list, { B, T, V })
    local ids, mask, temperature, kept = {}, {}, {}, {}
    for b = 1, B do
      ids[b], mask[b], temperature[b], kept[b] = {}, {}, {}, {}
      for t = 1, T do
        local r = (b - 1) * T + t - 1
        ids[b][t], mask[b][t] = r == 5 and V - 1 or r * 211 % V, r == 8 and 0 or 1
        temperature[b][t], kept[b][t] = 0.5 + r / 16, {}
        for v = 1, V do kept[b][t][v] = (v * 7 + r) % 3 > 0 and 1 or 0 end
      end
    end
    temperature = samebits.tensor(temperature, { dtype = "float32" })
    for _, dtype in ipairs { "float32", "bfloat16" } do
      for _, of in ipairs { { "all ids" }, { "kept sets", kept } } do
        local spec = { logits = logits:to(dtype), ids = ids, mask = mask,
                       temperature = temperature, kept = of[2] }
        for _, moments in ipairs { false, true } do
          body(("%s, %s, %s"):format(dtype, of[1], moments and "moments" or "sums"), spec, moments)
        end
      end
    end
  end

  local function gradient(ctx, batch, out, opts)
    return assert(ctx:backward(batch, { saved = out.saved, token = there(ctx, values(B * T, 1)),
                                        entropy = there(ctx, values(B * T, 5)) }, opts))
  end

  part("logits cut in V", function(world)
    local got, first, past = {}, share(world, V, 16)
    each(function(name, spec, moments)
      local batch = samebits.batch(shards.shard(spec, first, past)):to(world.ctx.device)
      local out = exchanged(world, got, name, batch, moments)
      if moments then -- of its own ids
        got[name .. ", gradient"] = gradient(world.ctx, batch, out, world.opts)
      end
    end)
    return got
  end, function(ctx, world)
    local want, first, past = {}, share(world, V, 16)
    each(function(name, spec, moments)
      local batch = samebits.batch(spec):to(ctx.device)
      local out = alone(ctx, want, name, batch, moments)
      if moments then
        local grad = assert(gradient(ctx, batch, out):to "cpu")
        want[name .. ", gradient"] = grad:slice(2, first, past):clone()
      end
    end)
    return want
  end)
end

-- A head, cut in V and in D ----------------------------------------------------------------------

do
  local B, T, V, D = 2, 9, 403, 210
  local hidden, weights = heads.values({ B, T, D }, "bfloat16", 3),
                          heads.values({ V, D }, "bfloat16", 4)
  local bias, ids, mask = heads.values({ V }, "float32", 5), {}, {}
  bias:set(-math.huge, 7)
  for b = 1, B do
    ids[b], mask[b] = {}, {}
    for t = 1, T do ids[b][t], mask[b][t] = (b * 131 + t * 57) % V, t == 4 and 0 or 1 end
  end
  local FORMATS = { "h24w16", "h24w24" }

  -- The head of some ids and some columns of the weights.
  local function head(ctx, format, first, past, columns, opts)
    local of = there(ctx, columns:slice(0, first, past):clone())
    return assert(ctx:head(of, with({
      format = format, softcap = 30, bias = there(ctx, bias:slice(0, first, past):clone()),
      first = first > 0 and first or nil }, opts or {})))
  end

  local function batch(fields)
    return with({ ids = ids, mask = mask, temperature = 0.7 }, fields)
  end

  local function whole(ctx, format)
    return batch { hidden = there(ctx, hidden), head = head(ctx, format, 0, V, weights) }
  end

  part("a head cut in V", function(world)
    local got, first, past = {}, share(world, V, 16)
    for _, format in ipairs(FORMATS) do
      local own = head(world.ctx, format, first, past, weights, world.opts)
      exchanged(world, got, format, batch { hidden = there(world.ctx, hidden), head = own,
                                            vocab = V }, true)
    end
    return got
  end, function(ctx)
    local want = {}
    for _, format in ipairs(FORMATS) do alone(ctx, want, format, whole(ctx, format), true) end
    return want
  end)

  part("a head cut in D", function(world)
    local got, ctx, first, past = {}, world.ctx, share(world, D, 1)
    local opts, stream = world.opts, world.stream
    local function reduced(t, how) return assert(ctx:all_reduce(t, how, world.comm, opts)) end
    local h = there(ctx, hidden:slice(2, first, past):clone())
    local w = weights:slice(1, first, past):clone()
    local of_w = reduced(assert(ctx:scales(there(ctx, w), stream)), "max")
    local of_h = reduced(assert(ctx:scales(h, stream)), "max")
    for _, format in ipairs(FORMATS) do
      local own = head(ctx, format, 0, V, w, with(opts, { scales = of_w }))
      local function logits(from, n, spec)
        local sums = assert(ctx:products(with(spec, { hidden = h, head = own }), of_h,
                                         with(opts, { first = from, n = n })))
        return assert(ctx:combine(reduced(sums, "add"), of_h, own, with(stream, { first = from })))
      end
      local all, records = logits(0, V, {}), {} -- of all rows, and below of active ones
      got[format .. ", logits"] = all
      add(got, format, assert(ctx:logprob(batch { logits = all },
                                          with(opts, { outputs = OUTPUTS[true] }))))
      for _, chunk in ipairs { { 0, 192 }, { 192, 64 }, { 256, V - 256 } } do
        records[#records + 1] = assert(ctx:partial(
          batch { logits = logits(chunk[1], chunk[2], batch {}), first = chunk[1], vocab = V },
          with(opts, { entropy = true })))
      end
      add(got, format .. ", in chunks", assert(ctx:finish(
        assert(ctx:merge(records, opts)), batch { logits = all },
        with(opts, { outputs = OUTPUTS[true] }))))
    end
    return got
  end, function(ctx)
    local want = {}
    for _, format in ipairs(FORMATS) do
      local spec = whole(ctx, format)
      want[format .. ", logits"] = assert(ctx:logits { hidden = spec.hidden, head = spec.head })
      local out = assert(ctx:logprob(spec, { outputs = OUTPUTS[true] }))
      add(want, format, out)
      add(want, format .. ", in chunks", out)
    end
    return want
  end)
end

-- Policy losses and group advantages -------------------------------------------------------------

do
  local B, T = 37, 12
  local LOSSES = {
    { loss = "clip", beta = 0.1, weight = "truncate", w_high = 1.5 },
    { loss = "clip", norm = "sequence-mean", dual = 3, eta = 0.01 },
    { loss = "gspo", norm = "sequence-mean", eps_low = 0.01, eps_high = 0.02 },
    { loss = "cispo", norm = "constant", constant = 100, weight = "drop", level = "geometric",
      w_low = 0.5, w_high = 2 },
    { loss = "reinforce", norm = "sequence-sum" },
  }

  local function logprobs(n, seed)
    local list = heads.values(n, "float32", seed)
    for b = 0, n[1] - 1 do
      for t = 0, (n[2] or 1) - 1 do
        if n[2] then list:set(-math.abs(list:get(b, t)), b, t) end
      end
    end
    return list
  end

  -- Sequences first .. past - 1 of the step, on a context.
  local function tokens(ctx, first, past)
    local all = { now = logprobs({ B, T }, 1), old = logprobs({ B, T }, 2),
                  ref = logprobs({ B, T }, 3), rollout = logprobs({ B, T }, 4),
                  entropy = heads.values({ B, T }, "float32", 5),
                  advantages = heads.values({ B }, "float32", 6), mask = {} }
    for b = 1, B do
      all.mask[b] = {}
      for t = 1, T do all.mask[b][t] = t <= b * 5 % (T + 1) and 1 or 0 end
    end
    all.mask = samebits.tensor(all.mask, { dtype = "uint8" })
    local some = {}
    for key, t in pairs(all) do some[key] = there(ctx, t:slice(0, first, past):clone()) end
    return some
  end

  -- Active tokens, and sequences that have one: int64 [2].
  local function counted(mask)
    local active, sequences = 0, 0
    for b = 0, mask.shape[1] - 1 do
      local its = 0
      for t = 0, T - 1 do its = its + mask:get(b, t) end
      active, sequences = active + its, sequences + (its > 0 and 1 or 0)
    end
    return samebits.tensor({ active, sequences }, { dtype = "int64" })
  end

  local ALL = { "loss", "sequence", "token", "entropy", "record", "metrics" }
  local MERGED = { "loss", "record", "metrics" }

  part("policy losses of sequences on ranks", function(world)
    local got, ctx, first, past = {}, world.ctx, share(world, B, 1)
    local own = tokens(ctx, first, past)
    local counts = there(ctx, counted(assert(own.mask:to "cpu")))
    counts = assert(assert(ctx:all_reduce(counts, "add", world.comm)):to "cpu")
    for i, its in ipairs(LOSSES) do
      local step = { tokens = tonumber(counts:get(0)), sequences = tonumber(counts:get(1)) }
      local out = assert(ctx:policy_loss(own, with(with(its, step),
                                                   with(world.opts, { outputs = ALL }))))
      local records = assert(ctx:all_gather(out.record, world.comm, world.opts))
      local merged = assert(ctx:policy_merge(records, with(world.opts, {
        norm = its.norm, constant = its.constant, tokens = step.tokens,
        sequences = step.sequences, outputs = MERGED })))
      for _, name in ipairs { "sequence", "token", "entropy" } do
        got[("%d, %s"):format(i, name)] = out[name]
      end
      add(got, i .. ", merged", merged)
    end
    return got
  end, function(ctx, world)
    local want, first, past = {}, share(world, B, 1)
    local all = tokens(ctx, 0, B)
    for i, its in ipairs(LOSSES) do
      local out = assert(ctx:policy_loss(all, with(its, { outputs = ALL })))
      for _, name in ipairs { "sequence", "token", "entropy" } do
        want[("%d, %s"):format(i, name)] = assert(out[name]:to "cpu"):slice(0, first, past):clone()
      end
      for _, name in ipairs(MERGED) do want[("%d, merged, %s"):format(i, name)] = out[name] end
    end
    return want
  end)

  local GROUPS, EACH = 19, 33

  part("advantages of groups on ranks", function(world)
    local got, ctx, first, past = {}, world.ctx, share(world, EACH, 1)
    local rewards = heads.values({ GROUPS, EACH }, "float32", 8)
    local own = there(ctx, rewards:slice(1, first, past):clone())
    local records = assert(ctx:group_advantages(own, with(world.opts, { outputs = { "records" } })))
    records = assert(ctx:all_gather(records.records, world.comm, world.opts))
    for _, scale in ipairs { "group", "step", "none" } do
      add(got, scale, assert(ctx:group_advantages(own, with(world.opts, {
        records = records, scale = scale }))))
    end
    return got
  end, function(ctx, world)
    local want, first, past = {}, share(world, EACH, 1)
    local rewards = there(ctx, heads.values({ GROUPS, EACH }, "float32", 8))
    for _, scale in ipairs { "group", "step", "none" } do
      local out = add(want, scale, assert(ctx:group_advantages(rewards, { scale = scale })))
      want[scale .. ", advantages"] = assert(out.advantages:to "cpu"):slice(1, first, past):clone()
    end
    return want
  end)
end

-- Draws ----------------------------------------------------------------------------------------

do
  local V = 1041

  -- Calls body(name, spec, how) for draws with each way of filters.
  local function each(body)
    for f, filters in ipairs(draws.FILTERS) do
      local spec, how = draws.example(prng.new(f), V)
      body(("filters %d"):format(f), spec, with(how, filters))
    end
  end

  -- Without the kept sets, of which each rank has its own part.
  local OPTS = { outputs = { "token", "logprob", "kept_logprob", "count" } }

  part("draws", function(world)
    local got, ctx, first, past = {}, world.ctx, share(world, V, 16)
    each(function(name, spec, how)
      local draw = assert(ctx:draw(draws.shard(ctx.device, spec, first, past), how,
                                   with(OPTS, { shard = world.rank, shards = world.ranks })))
      local all
      while draw.round < draw.rounds do
        all = assert(ctx:all_gather(assert(ctx:draw_round(draw, all, world.stream)), world.comm,
                                    world.opts))
      end
      add(got, name, assert(ctx:draw_finish(draw, all, world.stream)))
    end)
    return got
  end, function(ctx)
    local want = {}
    each(function(name, spec, how)
      add(want, name, assert(ctx:sample(draws.whole(ctx.device, spec), how, OPTS)))
    end)
    return want
  end)
end

return M
