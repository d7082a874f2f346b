--- The gradients of a loss of logprobs with respect to hidden states and the weights of a head, in
-- memory: chunks of `ctx:backward`, multiplied by `ctx:head_backward`.
--
--     local saved = ctx:logprob(batch, { outputs = { "token", "saved" } }).saved
--     local by = require("samebits.head_gradient").compute(ctx, batch, weights,
--                                                          { saved = saved, token = derivatives })
--     by.hidden, by.weights, by.bias
--
-- Every sum is in fp64, in a fixed order, and each result is rounded to fp32 at the end. So the
-- bits are the same on any machine, for any threads, and for any `chunk` of ids. Those of `hidden`
-- do not depend on other rows either; those of `weights` and `bias` depend on the active rows and
-- their order. See `sb_head_backward` in src/samebits.h.
-- @module samebits.head_gradient

local class = require "samebits.op.class"
local batches = require "samebits.batch"
local misuse = require "samebits.misuse"
local tensor = require "samebits.tensor"

local raise, try = misuse.raise, misuse.try
local layout, describe = tensor.layout, tensor.describe

local M = {}

local LEAF, CHUNK = 16, 1024
local GIVEN = { saved = true, token = true, entropy = true }
local OPTIONS = { chunk = true }

local function check(ctx, batch, weights, given)
  if not class.is_context(ctx) then
    raise("head_gradient.compute: expected a context, got %s", describe(ctx))
  end
  if not batches.is_batch(batch) or not batch.head then
    raise("head_gradient.compute: expected a batch with hidden and head, got %s", describe(batch))
  end
  if not tensor.is_tensor(weights) or
     not layout.same(weights.shape, { batch.head.ids, batch.head.width }) then
    raise("head_gradient.compute: weights: expected those of the head, [%d, %d], got %s",
          batch.head.ids, batch.head.width, describe(weights))
  end
  misuse.options("head_gradient.compute", given, GIVEN)
end

--- Computes the gradients.
-- @tparam context ctx on the cpu
-- @tparam batch batch with hidden states and a head, as it was scored
-- @tparam tensor weights [V, D], those that the head was made from
-- @tparam table given `saved`, `token`, `entropy`: as for `ctx:backward`
-- @tparam[opt] table opts `chunk`: how many ids at a time, a multiple of 16 (1024)
-- @treturn table float32 tensors in memory: `hidden`, shaped as the batch's; `weights` [V, D];
-- `bias` [V]; rows that are ignored add nothing. Or nil, a message and the status' name. Invalid
-- arguments are errors.
M.compute = misuse.guard(function(ctx, batch, weights, given, opts)
  check(ctx, batch, weights, given)
  opts = misuse.options("head_gradient.compute", opts, OPTIONS)
  local chunk = opts.chunk == nil and CHUNK or opts.chunk
  if type(chunk) ~= "number" or chunk < LEAF or chunk % LEAF ~= 0 then
    raise("head_gradient.compute: chunk: expected a multiple of 16, got %s", tostring(chunk))
  end
  local head = batch.head
  local by = { hidden = tensor.zeros(batch.hidden.shape, "float64"),
               weights = tensor.zeros(weights.shape, "float64"),
               bias = tensor.zeros({ head.ids }, "float64") }
  for first = head.first, head.first + head.ids - 1, chunk do
    local part = { first = first, n = math.min(chunk, head.first + head.ids - first) }
    local from, past = first - head.first, first - head.first + part.n
    local grad = try(ctx:backward(batch, given,
                                  { first = part.first, n = part.n, dtype = "float32" }))
    local logits = head.softcap ~= 0 and try(ctx:logits(batch, part)) or nil
    try(ctx:head_backward(batch, {
      grad = grad, logits = logits, weights = weights:slice(0, from, past),
      by_hidden = by.hidden, by_weights = by.weights:slice(0, from, past),
      by_bias = by.bias:slice(0, from, past),
    }, part))
  end
  for name, t in pairs(by) do by[name] = try(t:to "float32") end
  return by
end)

return M
