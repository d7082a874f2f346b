--- Shards of the vocabulary: records of a part of every row's logits, merged and finished.

local call = require "samebits.op.call"
local logprob = require "samebits.op.logprob"
local misuse = require "samebits.misuse"
local records = require "samebits.op.records"
local tensor = require "samebits.tensor"

local raise, try = misuse.raise, misuse.try
local layout, describe = tensor.layout, tensor.describe

local M = {}

local PARTIAL = call.op {
  name = "partial",
  entry = "sb_partial",
  launch = call.LAUNCH,
  options = { "entropy" },
  shards = true,
  arguments = function(at, given)
    local entropy = at.opts.entropy
    if entropy ~= nil and type(entropy) ~= "boolean" then
      raise("partial: entropy: expected a boolean, got %s", tostring(entropy))
    end
    local kind = entropy and records.MOMENTS or records.SUMS
    local batch = at:batch(given)
    at.result = records.make(at, kind, batch.shape)
    return records.struct(at.result), batch.c, batch.first, batch.held
  end,
}

-- A list of records joined as an all-gather would leave them, and the shape of their rows.
local function gathered(at, list)
  local shape, kind
  for s, of_shard in ipairs(list) do
    local what = ("merge: shard %d"):format(s - 1)
    local its, its_kind = records.check(what, of_shard, at.device), records.kind_of(of_shard)
    kind, shape = kind or its_kind, shape or its
    if its_kind ~= kind then
      raise("%s: records with %s, those of shard 0 have %s", what, its_kind[1], kind[1])
    end
    if not layout.same(its, shape) then
      raise("%s: records of rows %s, those of shard 0 are of rows %s", what, layout.text(its),
            layout.text(shape))
    end
  end
  local together = { #list, unpack(shape) }
  local all = records.make(at, kind, together)
  local opts = at.device ~= "cpu" and at.opts.stream and { stream = at.opts.stream } or nil
  for s, of_shard in ipairs(list) do
    for _, name in ipairs(kind) do try(all[name][s - 1]:copy_(of_shard[name], opts)) end
  end
  return all, together
end

-- The caller's records of all shards, given as gathered tensors or as a list.
local function all_shards(at, given)
  if type(given) ~= "table" or tensor.is_tensor(given) then
    raise("merge: expected a list of records, or gathered ones, got %s", describe(given))
  end
  if given.states == nil and given.moments == nil and given.targets == nil then
    if #given == 0 then raise "merge: an empty list" end
    return gathered(at, given)
  end
  local together = records.check("merge", given, at.device)
  if #together < 1 or together[1] < 1 then
    local kind = records.kind_of(given)
    raise("merge: %s %s, expected [S, .., %d] of 1 shard or more", kind[1],
          layout.text(given[kind[1]].shape), records.size_of(kind))
  end
  return records.in_place(at, given), together
end

local MERGE = call.op {
  name = "merge",
  entry = "sb_merge",
  launch = { "check", "stream" },
  arguments = function(at, given)
    local all, together = all_shards(at, given)
    local shape = { unpack(together, 2) }
    at.result = records.make(at, records.kind_of(all), shape)
    return records.struct(at.result), records.struct(all), together[1], layout.numel(shape)
  end,
}

local FINISH = call.like(logprob.OP, {
  name = "finish",
  entry = "sb_finish",
  options = {},
  takes = 2,
  shards = true,
  arguments = function(at, given, batch)
    batch = at:batch(batch)
    local shape = records.check("finish", given, at.device)
    if not layout.same(shape, batch.shape) then
      raise("finish: records of rows %s, the batch has rows %s", layout.text(shape),
            layout.text(batch.shape))
    end
    return batch.c, records.struct(records.in_place(at, given))
  end,
})

-- The ops that tell the workspace of both, for records of the larger kind and any outputs.
local PARTIAL_SIZE = call.like(PARTIAL, {
  options = {},
  arguments = function(at, given)
    local batch = at:batch(given)
    return records.untouched(records.MOMENTS), batch.c, batch.first, batch.held
  end,
})

local FINISH_SIZE = call.like(FINISH, {
  takes = 1,
  default = function() return { "sequence" } end,
  arguments = function(at, given)
    return at:batch(given).c, records.untouched(records.MOMENTS)
  end,
})

--- Makes the records of a batch whose logits are a shard of the vocabulary: the ids of `vocab` from
-- `first` on (see `samebits.batch`). Each process or GPU that holds a shard makes such records.
-- After they are exchanged, merged and finished, they give the bits that `logprob` gives for whole
-- rows.
-- @tparam batch batch as for `logprob`
-- @tparam[opt] table opts `entropy`: true for records that `finish` can compute entropy from;
-- `split`, and on a GPU `check`, `stream`, `workspace`, `threads`, as for `logprob`
-- @treturn table `states` [.., 32] and `targets` [.., 8], uint8, after the dimensions of the ids:
-- 40 bytes per row, the same on every machine, which may be sent, saved and loaded. With `entropy`,
-- `moments` [.., 64] instead of the states. Or nil, a message and the status' name. Invalid batches
-- are errors.
M.partial = call.method(PARTIAL)

--- Merges the records of shards, in any order or tree. The result is a record of their ids
-- together.
-- @tparam table records a list of records of the same rows; or, as an all-gather leaves them,
-- `states` [S, .., 32] (or `moments` [S, .., 64]) and `targets` [S, .., 8]. On the context's
-- device.
-- @tparam[opt] table opts on a GPU `check` and `stream`, as for `logprob`
-- @treturn table new records; or nil, a message and the status' name. A record that no shard can
-- give, or that has another temperature than the first shard's, is an error that names the row and
-- the shard, both counted from 0.
M.merge = call.method(MERGE)

--- Computes the results of `logprob` from the records of whole rows, with the same bits.
-- @tparam table records the merged ones
-- @tparam batch batch the batch of any one of the shards; its logits are not read. (A batch with
-- logits of no ids, [.., 0], and a `vocab` is enough.)
-- @tparam[opt] table opts as for `logprob`
-- @treturn table as `logprob`; or nil, a message and the status' name. Records that do not fit the
-- batch, and an id that is not in exactly one of the merged shards, are errors.
M.finish = call.method(FINISH)

--- Returns the bytes of workspace that are enough for `partial` and `finish` with a batch; 0 if
-- they need none.
-- @tparam batch batch as for `partial` or `finish`
-- @tparam[opt] table opts the launch options, as for `logprob`
M.shard_workspace_size = call.workspace("shard_workspace_size", PARTIAL_SIZE, FINISH_SIZE)

return M
