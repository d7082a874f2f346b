--- The control group: token logprobs as frameworks compute them, in fp32, with sums whose order
-- follows from the launch. Run beside `ctx:logprob` on the same batch, it shows what drifts when
-- the batch around a sequence changes, or the threads, or where the logits lie.
--
--     local conventional = require "samebits.conventional"
--     local control = conventional.logprob(ctx, batch)   -- drift on
--     local out     = ctx:logprob(batch)                 -- drift off
--
-- Nothing falls back to it, and `require "samebits"` does not load it. What is modelled, and how
-- far a result may be off, is in src/samebits_conventional.h.
-- @module samebits.conventional

local ffi = require "ffi"
local call = require "samebits.op.call"
local context = require "samebits.context"
local logprob = require "samebits.op.logprob"
local misuse = require "samebits.misuse"

ffi.cdef [[
sb_status sb_conventional_logprob(sb_context *ctx, const sb_logprob_out *out,
                                  const sb_batch *batch, const sb_launch *launch);
]]

-- The launch reaches the bits here: what a context makes the defaults of its own calls is not for
-- this one.
local OP = call.like(logprob.OP, {
  name = "conventional.logprob",
  entry = "sb_conventional_logprob",
  launch = { "split", "threads", "check", "stream" },
  settings = {},
})

local M = {}

--- Scores a batch conventionally, on the context's device. As `ctx:logprob`, but for the bits: they
-- depend on the launch, hence on the batch's size, its place in memory and the machine.
-- @param ctx a context
-- @param batch a batch, or the table to make one from
-- @tparam[opt] table opts `outputs`, `out`; `split`: pieces to cut each row into; and on a GPU
-- `threads`: of a block, `check` and `stream`, as for `ctx:logprob`. Unlike there, `split` and
-- `threads` reach the bits; the context's own settings of them are not used.
-- @treturn table as `ctx:logprob`; or nil, a message and the status' name
M.logprob = misuse.guard(function(ctx, batch, opts)
  if not context.is_context(ctx) then
    misuse.raise("conventional.logprob: expected a context, got %s", type(ctx))
  end
  return call.run(OP, OP.name, ctx, opts, batch)
end)

return M
