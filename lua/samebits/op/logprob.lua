--- Logprobs of target ids, with the outputs that belong to them: lse, entropy, sums per sequence,
-- the saved rows that gradients start from, and the gradient itself.

local ffi = require "ffi"
local call = require "samebits.op.call"
local gradient = require "samebits.op.gradient"
local tensor = require "samebits.tensor"

local SAVED = ffi.sizeof "sb_saved_row"

local DEFAULT = { "token", "lse", "sequence", "count" }
local WITH_KEPT = { "token", "lse", "sequence", "count", "outside" }

local M = {}

--- The op. samebits.op.shards and samebits.conventional derive ops without gradients from it.
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
  options = { "gradient" },
  arguments = function(at, batch)
    batch = at:batch(batch)
    if at.opts.gradient ~= nil then
      at.beside.gradient, at.made.grad = gradient.beside(at, at.opts.gradient, batch)
    end
    return batch.c
  end,
}

local SIZE = call.like(M.OP, {
  arguments = function(at, batch)
    batch = at:batch(batch)
    if at.opts.gradient ~= nil then
      at.beside.gradient = gradient.untouched(at, at.opts.gradient, batch)
    end
    return batch.c
  end,
})

--- Scores a batch, which must be on the context's device (`batch:to(ctx.device)` moves it).
--
-- On a GPU the call waits until it is done, and bad values raise errors, as on the cpu. With `check
-- = false` it returns at once instead: the results are ready when the stream has reached that
-- point, rows with bad values become NaN, and `ctx:check` reports them. With `out` and `workspace`
-- given, such a call neither waits nor allocates. Everything the call uses is held until the stream
-- has been waited for: by `ctx:check`, by the stream's `wait`, or, for the default stream, by any
-- copy without a stream. The streams are also waited for when 10,000 things are held and when
-- memory runs out. A CUDA graph that captured a call holds nothing: keep the batch (made before the
-- capture), the results, the workspace and the context as long as the graph.
--
-- With the option `gradient` the call also computes the gradient of a loss with respect to the
-- logits. It has the bits that `backward` gives, and takes less time than a second call. The option
-- is a table: `token` and `entropy`, or one of them, are the derivatives of the loss, as for
-- `backward`; with them, `dtype` or `grad`, as there, or `in_place`, which if true replaces the
-- batch's logits by their gradient. Instead of derivatives, `policy` may be a policy loss that the
-- call's own logprobs enter: the table that `policy_loss` takes, without `now` and `cu_seqlens`;
-- `options` are its options. The results have the bits of three calls, and `loss`, `record` and
-- `metrics` are among them.
-- @tparam batch batch a batch, or the table to make one from
-- @tparam[opt] table opts `outputs`: a list of "token", "lse", "sequence", "count" (these four by
-- default), "outside" (by default with kept sets), "entropy", in nats, which costs more, and
-- "saved", for `backward`; `gradient`: see above; `split`: the number of pieces to cut each row
-- into; `out`: a table from an earlier call, whose tensors are overwritten; and on a GPU: `check`;
-- `stream`: the stream to run in (the default stream if not given); `workspace`: a tensor to
-- compute in, of the bytes that `workspace_size` returns; `threads`: the number of threads per
-- block; `cluster`: 1 makes a row's pieces a thread block cluster, -1 never does; `table`: 1 looks
-- terms up in a table in shared memory where the batch and the GPU allow that, -1 never does;
-- `one_read`: the same for reading the logits once where a gradient is computed as well
-- @treturn table `token`, `lse` and `entropy`, shaped like the ids; `saved`, uint8, the shape of
-- the ids followed by 32; `sequence`, `count` and `outside` [B], where `outside` counts the active
-- tokens whose id is outside its row's kept set, and whose logprob is -inf; `grad`, if there is a
-- `gradient`; all on the context's device. Or nil, a message and the status' name if the
-- environment fails. Invalid batches are errors.
M.logprob = call.method(M.OP)

--- Returns the bytes of workspace that `logprob` needs for a batch with these options; 0 if none.
-- @tparam batch batch as for `logprob`
-- @tparam[opt] table opts as for `logprob`
M.workspace_size = call.workspace("workspace_size", SIZE)

return M
