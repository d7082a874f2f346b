--- Logprobs of target ids, with what goes with them: lse, entropy, sums per sequence, and the rows
-- that gradients start from.

local ffi = require "ffi"
local call = require "samebits.op.call"
local tensor = require "samebits.tensor"

local SAVED = ffi.sizeof "sb_saved_row"

local DEFAULT = { "token", "lse", "sequence", "count" }
local WITH_KEPT = { "token", "lse", "sequence", "count", "outside" }

local M = {}

--- The op; samebits.op.shards and samebits.conventional have some like it.
M.OP = call.op {
  name = "logprob",
  entry = "sb_logprob",
  struct = "sb_logprob_out",
  outputs = {
    { "token", "float32", call.per_row },
    { "lse", "float32", call.per_row },
    { "sequence", "float32", call.per_sequence },
    { "count", "int64", call.per_sequence },
    { "outside", "int64", call.per_sequence },
    { "entropy", "float32", call.per_row },
    { "saved", "uint8", function(at) return tensor.layout.appended(at.shape, SAVED) end },
  },
  default = function(at) return at.kept and WITH_KEPT or DEFAULT end,
  launch = call.LAUNCH,
  arguments = function(at, batch) return at:batch(batch).c end,
}

--- Scores a batch, which has to be on the context's device (`batch:to(ctx.device)` moves it).
--
-- On a GPU the call waits until it is done and bad values raise errors, as on the cpu. With
-- `check = false` it returns at once instead: the results are there when the stream has got so far,
-- rows with bad values become NaN, and `ctx:check` tells. Nothing there waits or allocates if `out`
-- and `workspace` are given. What the call uses is held until the stream has been waited for: by
-- `ctx:check`, by the stream's `wait`, or, for the default stream, by anything that copies without
-- one. When 10,000 things are held, and when memory is out, the streams are waited for. A CUDA
-- graph that captured a call holds nothing: keep the batch (made before), the results, the
-- workspace and the context as long as the graph.
-- @param batch a batch, or the table to make one from
-- @tparam[opt] table opts `outputs`: a list of "token", "lse", "sequence", "count" (these four by
-- default), "outside" (by default with kept sets), "entropy", in nats, which costs more, and
-- "saved", for `backward`; `split`: pieces to cut each row into; `out`: a table from an earlier
-- call, whose tensors are written again; and on a GPU: `check`; `stream`: where to run (the default
-- stream); `workspace`: a tensor to compute in, of the bytes that `workspace_size` says; `threads`:
-- of a block; `cluster`: 1 makes a row's pieces a thread block cluster, -1 never does
-- @treturn table `token`, `lse` and `entropy`, shaped like the ids, `saved` [.., 32], uint8, in
-- front the shape of the ids, `sequence`, `count` and `outside` (the active tokens whose id is
-- outside its row's kept set, and whose logprob is -inf) [B], on the context's device; or nil, a
-- message and the status' name where the environment fails. Anything wrong with the batch is an
-- error.
M.logprob = call.method(M.OP)

--- The bytes of workspace that `logprob` needs for a batch with these options; 0 where none.
-- @param batch as for `logprob`
-- @tparam[opt] table opts likewise
M.workspace_size = call.workspace("workspace_size", M.OP)

return M
