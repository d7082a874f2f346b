--- Policy losses with their gradients and metrics, and advantages within groups. All sums are
-- exact, so micro-batches and ranks give the bits of the whole step.

local ffi = require "ffi"
local batches = require "samebits.batch"
local call = require "samebits.op.call"
local lib = require "samebits.lib"
local misuse = require "samebits.misuse"
local tensor = require "samebits.tensor"

local C, raise, try = lib.C, misuse.raise, misuse.try
local layout, describe = tensor.layout, tensor.describe

local M = {}

local RECORD, GROUP = ffi.sizeof "sb_policy_record", ffi.sizeof "sb_group_record"
local BOUNDARY = 8 -- of records

-- The choices of an option, by name.
local LOSSES = { clip = C.SB_CLIP, gspo = C.SB_GSPO, cispo = C.SB_CISPO,
                 reinforce = C.SB_REINFORCE }
local NORMS = { ["token-mean"] = C.SB_TOKEN_MEAN, ["sequence-mean"] = C.SB_SEQUENCE_MEAN,
                ["sequence-sum"] = C.SB_SEQUENCE_SUM, constant = C.SB_CONSTANT }
local KLS = { k1 = C.SB_K1, k2 = C.SB_K2, k3 = C.SB_K3, ["k1+"] = C.SB_K1_PLUS,
              ["k3+"] = C.SB_K3_PLUS }
local WEIGHTS = { none = C.SB_UNWEIGHTED, truncate = C.SB_TRUNCATE, drop = C.SB_DROP }
local LEVELS = { token = C.SB_PER_TOKEN, sequence = C.SB_PER_SEQUENCE,
                 geometric = C.SB_GEOMETRIC }
local SCALES = { none = C.SB_UNSCALED, group = C.SB_GROUP_STD, step = C.SB_STEP_STD }

local function floats(t) return ffi.cast("const float *", t.ptr) end

-- The constant that an option chooses by name.
local function choice(what, name, value, choices, default)
  if value == nil then value = default end
  local constant = type(value) == "string" and choices[value]
  if constant then return constant end
  local names = {}
  for known in pairs(choices) do names[#names + 1] = known end
  table.sort(names)
  raise("%s: %s: expected one of %s; got %s", what, name, table.concat(names, ", "),
        tostring(value))
end

local function number(what, name, value, default)
  if value == nil then return default end
  if type(value) ~= "number" then
    raise("%s: %s: expected a number, got %s", what, name, tostring(value))
  end
  return value
end

local function count(what, name, value)
  value = number(what, name, value, 0)
  if value % 1 ~= 0 or value < 0 or value > 2 ^ 53 then
    raise("%s: %s: expected an integer in [0, 2^53], got %s", what, name, tostring(value))
  end
  return value
end

-- Packed layouts: the offsets of sequences or groups, and their number.
local function set_offsets(at, name, given, shape, of)
  if #shape ~= 1 then
    raise("%s: %s: given with %s %s; packed ones are [N]", at.what, name, of, layout.text(shape))
  end
  local offsets, n = batches.index_list(name, given, "[n + 1]", at.device)
  if n < 1 then raise("%s: %s: shape [0], expected [n + 1]", at.what, name) end
  at:hold(offsets)
  return offsets, n - 1
end

-- Losses ----------------------------------------------------------------------------------------

local TOKENS = { "old", "ref", "rollout", "entropy" }
local KNOWN = { now = true, advantages = true, mask = true, cu_seqlens = true }
for _, name in ipairs(TOKENS) do KNOWN[name] = true end

-- The options that a merge has, too.
local function set_norm(at, c)
  local opts, what = at.opts, at.what
  c.size = ffi.sizeof "sb_policy"
  c.norm = choice(what, "norm", opts.norm, NORMS, "token-mean")
  c.constant = number(what, "constant", opts.constant, 0)
  c.tokens = count(what, "tokens", opts.tokens)
  c.sequences = count(what, "sequences", opts.sequences)
  return c
end

local function set_options(at, c)
  local opts, what = at.opts, at.what
  set_norm(at, c)
  c.loss = choice(what, "loss", opts.loss, LOSSES, "clip")
  c.kl = choice(what, "kl", opts.kl, KLS, "k3")
  c.weight = choice(what, "weight", opts.weight, WEIGHTS, "none")
  c.level = choice(what, "level", opts.level, LEVELS, "token")
  for name, default in pairs { eps_low = 0.2, eps_high = 0.2, dual = 0, beta = 0, eta = 0,
                               w_low = 0, w_high = 0, upstream = 1 } do
    c[name] = number(what, name, opts[name], default)
  end
end

local function set_layout(at, c, given, shape)
  if given.cu_seqlens ~= nil then
    local offsets, n = set_offsets(at, "cu_seqlens", given.cu_seqlens, shape, "now")
    c.cu_seqlens, c.batch, c.rows = offsets.ptr, n, shape[1]
    c.cu_seqlens_dtype = offsets.dtype == "int64" and C.SB_I64 or C.SB_I32
  elseif #shape == 1 then
    c.batch, c.time = 1, shape[1]
  elseif #shape == 2 then
    c.batch, c.time = shape[1], shape[2]
  else
    raise("%s: now %s, expected [B, T] or [N]", at.what, layout.text(shape))
  end
end

-- Advantages are one per sequence, [B], or one per token, shaped as now.
local function set_advantages(at, c, given, shape)
  local t, sequences = given, { tonumber(c.batch) }
  if not tensor.is_tensor(t) then
    raise("%s: advantages: expected a tensor, got %s", at.what, describe(t))
  end
  local per_sequence = layout.same(t.shape, sequences) and
                       not (#shape == 1 and layout.same(t.shape, shape) and c.cu_seqlens == nil)
  if not per_sequence and not layout.same(t.shape, shape) then
    raise("%s: advantages: %s, expected %s or %s", at.what, describe(t),
          layout.text(sequences), layout.text(shape))
  end
  c.per_token = per_sequence and 0 or 1
  c.advantages = floats(at:input("advantages", t, "float32", t.shape))
end

-- Checks the tensors besides now and sets them. shape: now's.
local function set_tokens(at, c, given, shape)
  for name in pairs(given) do
    if not KNOWN[name] then raise("%s: unknown input '%s'", at.what, tostring(name)) end
  end
  for _, name in ipairs(TOKENS) do
    if given[name] ~= nil then
      c[name] = floats(at:input(name, given[name], "float32", shape))
    end
  end
  if given.mask ~= nil then
    local mask = at:hold(batches.mask_bytes("mask", given.mask, shape, at.device))
    c.mask = ffi.cast("const uint8_t *", mask.ptr)
  end
end

local function one() return { 1 } end

local OUTPUTS = {
  { "loss", "float32", one },
  { "sequence", "float32", call.per_sequence },
  { "token", "float32", call.per_row },
  { "entropy", "float32", call.per_row },
  { "record", "uint8", function() return { RECORD } end },
  { "metrics", "float32", function() return { #M.METRICS } end },
}

--- The names of a tensor of metrics, in order: see `policy_metrics`.
M.METRICS = { "loss", "pg", "kl", "entropy", "ratio", "k1", "k3", "weight", "high", "low", "dual",
              "cut", "drift", "outside", "ratio_min", "ratio_max" }

local LOSS = call.op {
  name = "policy_loss",
  entry = "sb_policy_loss",
  struct = "sb_policy_out",
  outputs = OUTPUTS,
  launch = { "check", "stream", "workspace" },
  options = { "loss", "norm", "kl", "weight", "level", "eps_low", "eps_high", "dual", "beta",
              "eta", "w_low", "w_high", "constant", "tokens", "sequences", "upstream" },
  default = function(at)
    local names = { "loss", "sequence", "token", "record", "metrics" }
    if (at.opts.eta or 0) ~= 0 then names[#names + 1] = "entropy" end
    return names
  end,
  arguments = function(at, given)
    if type(given) ~= "table" or tensor.is_tensor(given) then
      raise("policy_loss: expected a table { now, old, advantages, .. }, got %s", describe(given))
    end
    local c = ffi.new "sb_policy"
    set_options(at, c)
    if not tensor.is_tensor(given.now) then
      raise("policy_loss: now: expected a tensor, got %s", describe(given.now))
    end
    local now = at:input("now", given.now, "float32")
    local shape = now.shape
    c.now = floats(now)
    set_tokens(at, c, given, shape)
    set_layout(at, c, given, shape)
    set_advantages(at, c, given.advantages, shape)
    at.shape, at.sequences = shape, tonumber(c.batch)
    return c
  end,
}

local OPTIONS = {}
for _, name in ipairs(LOSS.options) do OPTIONS[name] = true end

--- The library's structs for a policy loss whose gradient `logprob` computes, in place of the
-- derivatives: `given` and `options` are those of `policy_loss`, without `now`. Makes the outputs
-- `loss`, `record` and `metrics`. untouched: to ask for a workspace only.
function M.beside(outer, given, options, batch, untouched)
  local what = outer.what .. ": gradient: policy"
  local at = setmetatable({ what = what, opts = misuse.options(what, options, OPTIONS) },
                          { __index = outer })
  if type(given) ~= "table" or tensor.is_tensor(given) then
    raise("%s: expected a table { old, advantages, .. }, got %s", what, describe(given))
  end
  for _, name in ipairs { "now", "cu_seqlens" } do
    if given[name] ~= nil then raise("%s: %s: given by the batch", what, name) end
  end
  local c, out = ffi.new "sb_policy", ffi.new "sb_policy_out"
  set_options(at, c)
  set_tokens(at, c, given, batch.shape)
  c.batch, c.cu_seqlens = batch.c.batch, batch.c.cu_seqlens
  set_advantages(at, c, given.advantages, batch.shape)
  out.size = ffi.sizeof "sb_policy_out"
  for _, i in ipairs { 1, 5, 6 } do
    local name, dtype, shape = unpack(OUTPUTS[i])
    out[name] = untouched and call.ANYWHERE or outer:output(name, dtype, shape(outer))
  end
  return outer:hold(c), outer:hold(out)
end

-- Records [.., 784], in a form that the library can read, and their number.
local function records_of(at, what, given, size)
  if not tensor.is_tensor(given) or given.dtype ~= "uint8" or given.ndim < 1 or
     given.shape[given.ndim] ~= size then
    raise("%s: %s: expected uint8 [.., %d], got %s", at.what, what, size, describe(given))
  end
  if given.device ~= at.device then
    raise("%s: %s: the tensor is on %s, the context is on %s", at.what, what, given.device,
          at.device)
  end
  return at:in_place(what, given, BOUNDARY), given:numel() / size
end

-- A list of records, each after the other in new memory.
local function gathered(at, list, size)
  for i, record in ipairs(list) do records_of(at, ("record %d"):format(i - 1), record, size) end
  local n = 0
  for _, record in ipairs(list) do n = n + record:numel() / size end
  local all = at:hold(try(tensor.empty({ n, size }, "uint8", at.device)))
  local opts = at.device ~= "cpu" and at.opts.stream and { stream = at.opts.stream } or nil
  n = 0
  for _, record in ipairs(list) do
    local rows = record:numel() / size
    try(all:slice(0, n, n + rows):copy_(record:view(rows, size), opts))
    n = n + rows
  end
  return all
end

local MERGE = call.op {
  name = "policy_merge",
  entry = "sb_policy_merge",
  struct = "sb_policy_out",
  outputs = { OUTPUTS[1], OUTPUTS[5], OUTPUTS[6] },
  launch = { "check", "stream" },
  options = { "norm", "constant", "tokens", "sequences" },
  default = function() return { "loss", "record", "metrics" } end,
  arguments = function(at, given)
    if type(given) == "table" and not tensor.is_tensor(given) then
      if #given == 0 then raise "policy_merge: an empty list" end
      given = gathered(at, given, RECORD)
    end
    local records, n = records_of(at, "records", given, RECORD)
    return set_norm(at, ffi.new "sb_policy"), ffi.cast("sb_policy_record *", records.ptr), n
  end,
}

-- Groups ----------------------------------------------------------------------------------------

local GROUPS = call.op {
  name = "group_advantages",
  entry = "sb_group_advantages",
  struct = "sb_groups_out",
  outputs = {
    { "advantages", "float32", call.per_row },
    { "records", "uint8", function(at) return { at.sequences, GROUP } end },
    { "mean", "float64", call.per_sequence },
    { "std", "float64", call.per_sequence },
  },
  launch = { "check", "stream", "workspace" },
  options = { "offsets", "records", "scale", "population", "eps" },
  arguments = function(at, rewards)
    local opts, c = at.opts, ffi.new "sb_groups"
    c.size = ffi.sizeof "sb_groups"
    local x = at:input("rewards", rewards, "float32")
    local shape = x.shape
    c.rewards = floats(x)
    if opts.offsets ~= nil then
      local offsets, n = set_offsets(at, "offsets", opts.offsets, shape, "rewards")
      c.offsets, c.groups, c.rows = offsets.ptr, n, shape[1]
      c.offsets_dtype = offsets.dtype == "int64" and C.SB_I64 or C.SB_I32
    elseif #shape == 1 then
      c.groups, c.each = 1, shape[1]
    elseif #shape == 2 then
      c.groups, c.each = shape[1], shape[2]
    else
      raise("group_advantages: rewards %s, expected [groups, each] or [N]", layout.text(shape))
    end
    c.scale = choice("group_advantages", "scale", opts.scale, SCALES, "group")
    if opts.population ~= nil and type(opts.population) ~= "boolean" then
      raise("group_advantages: population: expected a boolean, got %s", tostring(opts.population))
    end
    c.population = opts.population and 1 or 0
    c.eps = number("group_advantages", "eps", opts.eps, 1e-4)
    at.shape, at.sequences = shape, tonumber(c.groups)
    if opts.records ~= nil then
      local records = opts.records
      if type(records) == "table" and not tensor.is_tensor(records) then
        records = gathered(at, records, GROUP)
      end
      local all, n = records_of(at, "records", records, GROUP)
      if n < 1 or n % at.sequences ~= 0 then
        raise("group_advantages: records: %d of %d groups", n, at.sequences)
      end
      c.records, c.shards = ffi.cast("sb_group_record *", all.ptr), n / at.sequences
    end
    return c
  end,
}

--- Computes a policy loss (PPO, GRPO, Dr. GRPO, DAPO, GSPO, CISPO, REINFORCE), its gradient by the
-- token logprobs, and metrics. If a step is divided into micro-batches or ranks that are given the
-- step's `tokens` and `sequences`, the gradients have the bits of one call for the whole step;
-- `policy_merge` makes the step's loss and metrics from the records.
-- @tparam table tokens float32 tensors on the context's device, [B, T], or [N] (one sequence, or
-- packed): `now`, the logprobs by the policy that is trained; optional: `old` (before the first
-- update; `now` by default), `ref` (the reference policy), `rollout` (the engine that drew the
-- tokens), `entropy`. `advantages`: [B], or shaped as `now`. `mask`: shaped as `now`, non-zero
-- where active; `cu_seqlens`: [B + 1], for packed ones
-- @tparam[opt] table opts `loss`: "clip" (the default), "gspo", "cispo" or "reinforce"; `eps_low`,
-- `eps_high` (0.2), `dual` (0: off); `norm`: "token-mean" (the default), "sequence-mean",
-- "sequence-sum" or "constant", with `constant`, the divisor; `tokens` and `sequences`: the active
-- ones of the whole step (those of this call by default); `kl`: "k1", "k2", "k3" (the default),
-- "k1+" or "k3+", with `beta`, its coefficient (0); `eta`: that of the entropy bonus (0); `weight`:
-- "none" (the default), "truncate" or "drop", with `level`: "token" (the default), "sequence" or
-- "geometric", `w_low` (0) and `w_high`; `upstream`: scales the gradients (1); `outputs`: a list of
-- "loss", "sequence", "token", "entropy", "record", "metrics" (all by default, "entropy" if `eta`
-- is given); `out`: a table from an earlier call; and on a GPU `check`, `stream`, `workspace`
-- @treturn table `loss` [1], `sequence` [B], `token`, the gradient by `now`, and `entropy`, the
-- gradient by `entropy`, shaped as `now`; `record` [784], uint8; `metrics`, float32, see
-- `policy_metrics`. Or nil, a message and the status' name. Invalid inputs are errors.
M.policy_loss = call.method(LOSS)

--- Returns the bytes of workspace that are enough for `policy_loss` with the same arguments.
M.policy_workspace_size = call.workspace("policy_workspace_size", LOSS)

--- Merges the records of `policy_loss` of micro-batches or ranks, in any order, and computes the
-- loss and the metrics of all their tokens together.
-- @param records a list of records, or a tensor uint8 [.., 784], on the context's device
-- @tparam[opt] table opts `norm`, `constant`, `tokens`, `sequences`, `outputs` (of "loss",
-- "record", "metrics"), `out`, and on a GPU `check` and `stream`, as for `policy_loss`
-- @treturn table the outputs; or nil, a message and the status' name. A record that does not fit
-- the others or the norm is an error that names it, counted from 0.
M.policy_merge = call.method(MERGE)

--- Computes advantages of rewards within groups: (reward - mean) / (std + eps), from exact sums.
-- @param rewards a float32 tensor on the context's device: [groups, each], or [N] (one group, or
-- with offsets)
-- @tparam[opt] table opts `offsets`: [groups + 1], where each group begins; `scale`: "group" (the
-- group's own std, the default), "step" (that of all groups together) or "none"; `eps` (1e-4);
-- `population`: true to divide the squares by n, not by n - 1; `records`: those of all ranks, a
-- list or a tensor [shards, groups, 240], if other ranks have rewards of the same groups;
-- `outputs`: a list of "advantages", "records", "mean", "std" (all by default); `out`; and on a GPU
-- `check`, `stream`, `workspace`
-- @treturn table `advantages` shaped as `rewards`; `records` [groups, 240], uint8, of these
-- rewards or merged; `mean` and `std` [groups], float64. Or nil, a message and the status' name.
M.group_advantages = call.method(GROUPS)

--- Returns metrics by name: a table with `loss`, `pg`, `kl`, `entropy`, `ratio`, `k1`, `k3`,
-- `weight`, the fractions `high`, `low`, `dual`, `cut`, `drift`, `outside`, and `ratio_min` and
-- `ratio_max`.
-- @param metrics the tensor from `policy_loss` or `policy_merge`, on any device
M.policy_metrics = call.plain("policy_metrics", function(_, metrics)
  if not tensor.is_tensor(metrics) or metrics.dtype ~= "float32" or
     metrics:numel() ~= #M.METRICS then
    raise("policy_metrics: expected float32 [%d], got %s", #M.METRICS, describe(metrics))
  end
  local on_host, named = try(metrics:to "cpu"), {}
  for i, name in ipairs(M.METRICS) do named[name] = on_host[i - 1] end
  return named
end)

return M
