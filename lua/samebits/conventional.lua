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
local context = require "samebits.context"
local misuse = require "samebits.misuse"

ffi.cdef [[
sb_status sb_conventional_logprob(sb_context *ctx, const sb_logprob_out *out,
                                  const sb_batch *batch, const sb_launch *launch);
]]

local raise = misuse.raise

local OPTIONS = {
  outputs = true, split = true, threads = true, out = true, check = true, stream = true,
}

-- The options as the call is to have them: what a context makes the defaults of its own logprob is
-- not for this one.
local function options(opts)
  if opts == nil then opts = {} end
  if type(opts) ~= "table" then
    raise("conventional.logprob: expected a table, got %s", type(opts))
  end
  local made = {}
  for key, value in pairs(opts) do
    if not OPTIONS[key] then raise("conventional.logprob: unknown option '%s'", tostring(key)) end
    made[key] = value
  end
  made.split = opts.split == nil and 0 or opts.split
  made.threads = opts.threads == nil and 0 or opts.threads
  made.cluster = 0
  return made
end

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
    raise("conventional.logprob: expected a context, got %s", type(ctx))
  end
  return context.score("conventional.logprob", "sb_conventional_logprob", ctx, batch,
                       options(opts))
end)

return M
