--- The calls besides ctx:logprob that score batches, each behind the same interface, for specs of
-- properties that all of them have on a GPU.
--
--     for _, call in ipairs(device_calls) do
--       local job = call.make(ctx, spec)   -- spec: a batch's description; ctx: any context
--       local out = job.run(opts)          -- tensors by name
--     end
--
-- `job.batch` is the batch on the context's device; `job.bytes(split)` is the size of the workspace
-- that the library asks for (nil: the call takes none); `job.inputs` are other tensors that the
-- call reads or writes, and that may be replaced. `call.rows[name]` gives the bits of each element
-- of a refused row in an output that has one row for each; `call.K` is the number of ids per row;
-- `call.states` is the field of the batch that takes the place of the logits: "hidden" if these are
-- hidden states, for a head whose weights are the identity.

local ffi = require "ffi"
local samebits = require "samebits"
local calls = require "samebits.op.call"
local logprob = require "samebits.op.logprob"
local misuse = require "samebits.misuse"
local status_of = require "samebits.status"
local with = require "spec.support.with"
local C = require("samebits.lib").C

local NAN, NONE = "7fc00000", "ffffffff"
local here = samebits.open "cpu"

local function placed(ctx, spec) return assert(samebits.batch(spec):to(ctx.device)) end

-- The same description with the logits as hidden states, and everything on the context's device.
local heads = setmetatable({}, { __mode = "k" })
local function headed(ctx, spec)
  local V, made = spec.logits.shape[2], {}
  if not heads[ctx] then
    local weights = samebits.zeros { V, V }
    for v = 0, V - 1 do weights:set(1, v, v) end
    heads[ctx] = assert(ctx:head(assert(weights:to(ctx.device))))
  end
  for key, value in pairs(spec) do
    made[key] = samebits.is_tensor(value) and assert(value:to(ctx.device)) or value
  end
  made.hidden, made.head, made.logits = made.logits, heads[ctx], nil
  return made
end
local function as_it_is(_, spec) return spec end

local ENTROPY = { outputs = { "token", "lse", "sequence", "entropy", "saved" } }
local ROWS = { token = NAN, lse = NAN, entropy = NAN, saved = "00" }

-- prepare: as_it_is or headed, here and below.
local function entropy(prepare)
  return function(ctx, spec)
    local job = { batch = placed(ctx, prepare(ctx, spec)) }
    function job.run(opts) return ctx:logprob(job.batch, with(opts, ENTROPY)) end
    function job.bytes(split)
      return ctx:workspace_size(job.batch, with(ENTROPY, { split = split }))
    end
    return job
  end
end

local function several(prepare, outputs)
  return function(ctx, spec)
    local job = { batch = placed(ctx, prepare(ctx, spec)) }
    function job.run(opts) return ctx:logprob_ids(job.batch, with(opts, { outputs = outputs })) end
    function job.bytes(split) return ctx:order_workspace_size(job.batch, { split = split }) end
    return job
  end
end

local function first(prepare)
  return function(ctx, spec)
    local job = { batch = placed(ctx, prepare(ctx, spec)) }
    function job.run(opts) return ctx:topk(job.batch, 5, opts) end
    function job.bytes(split) return ctx:order_workspace_size(job.batch, { split = split }) end
    return job
  end
end

-- Draws of tokens, without filters, from the first k ids, or from a nucleus.
local function draws(filters)
  return function(ctx, spec)
    local job = { batch = placed(ctx, spec), inputs = {} }
    local position = {}
    for row = 1, job.batch.shape[1] do position[row] = row * 7 end
    job.inputs.positions = assert(samebits.tensor(position, { dtype = "int64" }):to(ctx.device))
    local function how() return with(filters, { seed = 3, position = job.inputs.positions }) end
    function job.run(opts) return ctx:sample(job.batch, how(), opts) end
    function job.bytes(split)
      return ctx:sample_workspace_size(job.batch, how(), { split = split })
    end
    return job
  end
end

-- Draws from one shard, of all ids, whose messages go back to it. used: what the runs allocated; a
-- graph uses it for as long as it is launched.
local function shard_draws(filters)
  return function(ctx, spec)
    local job = { batch = placed(ctx, spec), inputs = {}, used = {} }
    local position = {}
    for row = 1, job.batch.shape[1] do position[row] = row * 7 end
    job.inputs.positions = assert(samebits.tensor(position, { dtype = "int64" }):to(ctx.device))
    local start = misuse.unguarded(ctx.draw)
    local step, finish = misuse.unguarded(ctx.draw_round), misuse.unguarded(ctx.draw_finish)
    job.run = misuse.guard(function(opts)
      local how = with(filters, { seed = 3, position = job.inputs.positions })
      local draw, all = start(ctx, job.batch, how, { shard = 0, shards = 1 }), nil
      local used = { draw }
      job.used[#job.used + 1] = used
      local own = with(opts, {})
      own.out, own.outputs, own.split, own.threads = nil, nil, nil, nil
      while draw.round < draw.rounds do
        local mine = step(ctx, draw, all, own)
        all, used[#used + 1] = mine:view(1, unpack(mine.shape)), mine
      end
      return finish(ctx, draw, all, with(own, { out = opts and opts.out }))
    end)
    if spec.kept_ids then -- otherwise it needs none
      function job.bytes()
        local how = with(filters, { position = job.inputs.positions })
        return ctx:draw_workspace_size(assert(ctx:draw(job.batch, how, { shard = 0, shards = 1 })))
      end
    end
    return job
  end
end
local DRAWN = { token = NONE, logprob = NAN, kept_logprob = NAN }

-- The derivatives of a loss, different in each row.
local function upstream(ctx, rows, scale)
  local values = {}
  for row = 1, rows do values[row] = (row - 2.5) * scale end
  return assert(samebits.tensor(values):to(ctx.device))
end

-- good: the description that the forward call had, where spec is damaged. Its bits are the cpu's.
local function gradient(prepare)
  return function(ctx, spec, good)
    local job = { batch = placed(ctx, prepare(ctx, spec)) }
    local forward = with(good or spec, { logits = assert(spec.logits:to "cpu") })
    local saved = assert(here:logprob(prepare(here, forward), { outputs = { "entropy", "saved" } }))
                  .saved
    local rows = job.batch.shape[1]
    job.inputs = { saved = assert(saved:to(ctx.device)), token = upstream(ctx, rows, 0.5),
                   entropy = upstream(ctx, rows, -0.75) }
    local backward = misuse.unguarded(ctx.backward)
    job.run = misuse.guard(function(opts)
      local own = with(opts, {})
      own.grad, own.out = own.out and own.out.grad, nil
      return { grad = backward(ctx, job.batch, job.inputs, own) }
    end)
    if spec.kept_ids or job.batch.head then -- otherwise it needs none
      function job.bytes() return ctx:backward_workspace_size(job.batch) end
    end
    return job
  end
end

-- In the same call as the logprobs. outputs: those of the logprobs; names: the derivatives given.
local function together(prepare, outputs, names)
  return function(ctx, spec)
    local job = { batch = placed(ctx, prepare(ctx, spec)), inputs = {} }
    for i, name in ipairs(names) do
      job.inputs["gradient." .. name] = upstream(ctx, job.batch.shape[1], 1.25 * i - 2)
    end
    local function options()
      local given = {}
      for _, name in ipairs(names) do given[name] = job.inputs["gradient." .. name] end
      return { outputs = outputs, gradient = given }
    end
    function job.run(opts) return ctx:logprob(job.batch, with(opts, options())) end
    function job.bytes(split)
      return ctx:workspace_size(job.batch, with(options(), { split = split }))
    end
    return job
  end
end

-- What a policy loss of R rows takes besides their logprobs, on the context's device.
local function policy_inputs(ctx, R)
  local inputs = {}
  for i, name in ipairs { "old", "ref", "rollout", "advantages" } do
    local values = {}
    for row = 1, R do values[row] = i == 4 and (row - 2.5) * 0.75 or -4 - (row * i * 5 % 7) / 8 end
    inputs[name] = assert(samebits.tensor(values):to(ctx.device))
  end
  return inputs
end

local LOSS = { beta = 0.25, norm = "sequence-mean", weight = "truncate", w_high = 1.5 }

-- A policy loss of the call's own logprobs, and its gradient.
local function with_policy(prepare)
  return function(ctx, spec)
    local job = { batch = placed(ctx, prepare(ctx, spec)) }
    job.inputs = policy_inputs(ctx, job.batch.shape[1])
    local function options(opts)
      return with(opts, { outputs = { "token" }, gradient = { policy = job.inputs,
                                                              options = LOSS } })
    end
    function job.run(opts) return ctx:logprob(job.batch, options(opts)) end
    function job.bytes(split) return ctx:workspace_size(job.batch, options { split = split }) end
    return job
  end
end

-- A policy loss in a call of its own, behind the one for the logprobs.
local function policy_loss(ctx, spec)
  local job = { batch = placed(ctx, spec), inputs = policy_inputs(ctx, spec.logits.shape[1]) }
  local score, loss = misuse.unguarded(ctx.logprob), misuse.unguarded(ctx.policy_loss)
  local scored
  local function given(now) return with(job.inputs, { now = now }) end
  job.run = misuse.guard(function(opts)
    opts = opts or {}
    local own = with(opts, { outputs = { "token" }, out = scored or {} })
    scored = assert(score(ctx, job.batch, own))
    return loss(ctx, given(scored.token), with(LOSS, {
      outputs = { "loss", "sequence", "token", "record", "metrics" }, out = opts.out,
      check = opts.check, stream = opts.stream, workspace = opts.workspace }))
  end)
  function job.bytes(split)
    local opts = { outputs = { "token" }, split = split }
    return math.max(ctx:workspace_size(job.batch, opts),
                    ctx:policy_workspace_size(given(job.inputs.old), LOSS))
  end
  return job
end

-- Avoids the Lua tables of records, which would be made for each call. One shard, merged in place.
local function moments(ctx, spec)
  local batch = placed(ctx, spec)
  local rows, V = batch.shape[1], batch.vocab
  local job = { batch = batch, inputs = {
    states = samebits.zeros({ rows, 64 }, "uint8", ctx.device),
    targets = samebits.zeros({ rows, 8 }, "uint8", ctx.device) } }
  local function does(status) return assert(status_of.check(status, ctx.handle)) end
  job.run = misuse.guard(function(opts)
    opts = with(opts, ENTROPY)
    local launch = calls.launch("moments", ctx, opts)
    local call = calls.begin(logprob.OP, "moments", ctx, opts)
    call:batch(batch)
    local c = call:outputs()
    local records = ffi.new("sb_records", ffi.sizeof "sb_records", C.SB_MOMENTS,
                            job.inputs.states.ptr,
                            ffi.cast("sb_target_record *", job.inputs.targets.ptr))
    does(C.sb_partial(ctx.handle, records, batch.c, 0, V, launch))
    does(C.sb_merge(ctx.handle, records, records, 1, rows, launch))
    does(C.sb_finish(ctx.handle, c, batch.c, records, launch))
    return call:results()
  end)
  function job.bytes(split) return ctx:shard_workspace_size(batch, { split = split }) end
  return job
end

-- The divergence of p from a flatter distribution.
local function divergence(ctx, spec)
  local job = { batch = placed(ctx, spec) }
  local q = placed(ctx, { logits = spec.logits, temperature = 4, ids = spec.ids })
  function job.run(opts) return ctx:kl(job.batch, q, opts) end
  function job.bytes(split) return ctx:kl_workspace_size(job.batch, q, { split = split }) end
  return job
end

return {
  { name = "logprobs with entropy", make = entropy(as_it_is), rows = ROWS },
  { name = "logprobs of hidden states with entropy", states = "hidden", make = entropy(headed),
    rows = ROWS },
  { name = "several ids", make = several(as_it_is), K = 3,
    rows = { logprob = NAN, rank = NONE, lse = NAN } },
  { name = "several ids of hidden states", states = "hidden", K = 3,
    make = several(headed, { "logprob", "lse" }), rows = { logprob = NAN, lse = NAN } },
  { name = "several ids of hidden states and their ranks", states = "hidden", K = 3,
    make = several(headed), rows = { logprob = NAN, rank = NONE, lse = NAN } },
  { name = "first ids", make = first(as_it_is), rows = { ids = NONE, logprob = NAN, lse = NAN } },
  { name = "first ids of hidden states", states = "hidden", make = first(headed),
    rows = { ids = NONE, logprob = NAN, lse = NAN } },
  { name = "draws", make = draws {}, rows = DRAWN },
  { name = "draws from the first ids", make = draws { top_k = 9, top_p = 0.9 }, rows = DRAWN },
  { name = "draws from a nucleus", make = draws { top_p = 0.9, min_p = 0.01 }, rows = DRAWN },
  { name = "draws from shards", make = shard_draws { top_p = 0.9, min_p = 0.01 }, rows = DRAWN },
  { name = "gradients", make = gradient(as_it_is), rows = { grad = NAN } },
  { name = "logprobs with their gradient", rows = { token = NAN, saved = "00", grad = NAN },
    make = together(as_it_is, { "token", "saved" }, { "token" }) },
  { name = "sums with the gradient of entropies", rows = { grad = NAN },
    make = together(as_it_is, { "sequence" }, { "token", "entropy" }) },
  { name = "gradients of hidden states", states = "hidden", make = gradient(headed),
    rows = { grad = NAN } },
  { name = "logprobs of hidden states with their gradient", states = "hidden",
    make = together(headed, { "token", "sequence" }, { "token", "entropy" }),
    rows = { token = NAN, grad = NAN } },
  { name = "logprobs with the gradient of a policy loss",
    make = with_policy(as_it_is), rows = { token = NAN, grad = NAN } },
  { name = "logprobs of hidden states with the gradient of a policy loss", states = "hidden",
    make = with_policy(headed), rows = { token = NAN, grad = NAN } },
  { name = "policy losses", make = policy_loss, rows = { token = NAN } },
  { name = "records with moments", make = moments, rows = ROWS },
  { name = "divergences", make = divergence, rows = { token = NAN } },
}
