--- The order of a row's ids by their logits: the logprobs and ranks of several ids per row, and the
-- ids with the largest logits in each row.

local batches = require "samebits.batch"
local call = require "samebits.op.call"
local constants = require "samebits.cdef"
local misuse = require "samebits.misuse"
local tensor = require "samebits.tensor"

local raise = misuse.raise
local shape_text, appended = tensor.layout.text, tensor.layout.appended

local M = {}

-- One element for each of the k ids of a row.
local function per_id(at) return appended(at.shape, at.k) end

local IDS = call.op {
  name = "logprob_ids",
  entry = "sb_logprob_ids",
  struct = "sb_ids_out",
  outputs = {
    { "logprob", "float32", per_id },
    { "rank", "int32", per_id },
    { "lse", "float32", call.per_row },
  },
  launch = call.LAUNCH,
  ids = "several",
  arguments = function(at, given)
    local batch = at:batch(given)
    if not batch.width then
      raise("logprob_ids: ids: shape %s, expected %s", shape_text(batch.ids.shape),
            shape_text(appended(batch.shape, "K")))
    end
    at.k = batch.width
    return batch.c, at.k
  end,
}

local TOPK = call.op {
  name = "topk",
  entry = "sb_topk",
  struct = "sb_topk_out",
  outputs = {
    { "ids", "int32", per_id },
    { "logprob", "float32", per_id },
    { "lse", "float32", call.per_row },
  },
  launch = call.LAUNCH,
  takes = 2,
  ids = "any",
  arguments = function(at, given, k)
    local batch = at:batch(given)
    if type(k) ~= "number" or k % 1 ~= 0 or k < 1 or k > constants.SB_MAX_TOPK then
      raise("topk: k: expected an integer from 1 to %d, got %s", constants.SB_MAX_TOPK,
            tostring(k))
    end
    at.k = k
    return batch.c, k
  end,
}

-- The workspace that is enough for both. What topk needs does not depend on its k. Several ids need
-- another amount with ranks than without them, because without ranks those of hidden states have
-- products of their own.
local LAUNCH = { "split", "threads", "cluster" }
local function has_several(given) return batches.is_batch(given) and given.width ~= nil end

local SIZE = call.like(TOPK, {
  launch = LAUNCH,
  takes = 1,
  default = function() return {} end,
  arguments = function(at, given)
    return at:batch(given, nil, has_several(given) and "several" or "any").c, 1
  end,
})

local SIZE_OF_RANKS = call.like(IDS, { launch = LAUNCH, applies = has_several })

local SIZE_OF_IDS = call.like(SIZE_OF_RANKS, {
  default = function() return { "logprob", "lse" } end,
})

--- Computes the logprobs of K ids per row and their ranks. A rank counts the present ids that come
-- before the id in order of logit, largest first; among equal logits the lower id comes first.
-- @tparam batch batch as for `logprob`, its ids [B, T, K] or [N, K]; each may be `ignore_index`
-- @tparam[opt] table opts `outputs`: a list of "logprob", "rank", "lse" (all by default); the rest
-- as for `logprob`
-- @treturn table `logprob` and `rank` (int32), shaped like the ids, and `lse`, one per row. Ignored
-- ids have logprob +0 and rank -1; rows of NaN have rank -1. Or nil, a message and the status'
-- name. Invalid batches are errors.
M.logprob_ids = call.method(IDS)

--- The first k ids of each row by logit, largest first; among equal logits the lower id comes
-- first. `ctx:topk(batch, 1)` is the argmax.
-- @tparam batch batch as for `logprob`; it needs no ids
-- @tparam number k 1 to 64
-- @tparam[opt] table opts `outputs`: a list of "ids", "logprob", "lse" (all by default); the rest
-- as for `logprob`
-- @treturn table `ids` (int32) and `logprob`, [B, T, k] or [N, k], and `lse`, one per row. If fewer
-- ids are present, the remaining entries are -1 and -inf; an ignored row has -1 and +0; a row of
-- NaN has -1 and NaN. Or nil, a message and the status' name. Invalid batches are errors.
M.topk = call.method(TOPK)

--- Returns the bytes of workspace that are enough for `logprob_ids` and `topk` with a batch; 0 if
-- they need none.
-- @tparam batch batch as for `logprob_ids` or `topk`
-- @tparam[opt] table opts `split`, and on a GPU `threads` and `cluster`, as for `logprob`
M.order_workspace_size = call.workspace("order_workspace_size", SIZE, SIZE_OF_RANKS, SIZE_OF_IDS)

return M
