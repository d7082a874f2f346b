--- The control group: token logprobs as frameworks compute them, in fp32, with sums whose order
-- depends on the launch. Run it beside `ctx:logprob` on the same batch to see how results drift
-- when the batch around a sequence, the threads, or the place of the logits in memory changes.
--
--     local conventional = require "samebits.conventional"
--     local control = conventional.logprob(ctx, batch)   -- drift on
--     local out     = ctx:logprob(batch)                 -- drift off
--
-- Nothing falls back to it, and `require "samebits"` does not load it. src/samebits_conventional.h
-- says which computation is modelled and how far a result may be off.
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

-- The launch affects the bits here, so the defaults that a context sets for its own calls do not
-- apply.
local OP = call.like(logprob.OP, {
  name = "conventional.logprob",
  entry = "sb_conventional_logprob",
  launch = { "split", "threads", "check", "stream" },
  options = {},
  settings = {},
})

local M = {}

--- Scores a batch conventionally, on the context's device. It works like `ctx:logprob` except for
-- the bits, which depend on the launch, and therefore on the batch's size, its place in memory and
-- the machine.
-- @tparam context ctx
-- @tparam batch batch a batch, or the table to make one from
-- @tparam[opt] table opts `outputs`, `out`; `split`: the number of pieces to cut each row into; and
-- on a GPU `threads`: the number of threads per block, `check` and `stream`, as for `ctx:logprob`.
-- Unlike there, `split` and `threads` affect the bits, and the context's own settings of them are
-- not used.
-- @treturn table as `ctx:logprob`; or nil, a message and the status' name
M.logprob = misuse.guard(function(ctx, batch, opts)
  if not context.is_context(ctx) then
    misuse.raise("conventional.logprob: expected a context, got %s", misuse.kind(ctx))
  end
  return call.run(OP, OP.name, ctx, opts, batch)
end)

return M
