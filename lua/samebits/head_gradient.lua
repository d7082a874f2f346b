--- The gradients of a loss of logprobs with respect to hidden states and the weights of a head, in
-- memory, for experiments. A trainer multiplies the chunks that `ctx:backward` gives by its own
-- means.
--
--     local saved = ctx:logprob(batch, { outputs = { "token", "saved" } }).saved
--     local by = require("samebits.head_gradient").compute(ctx, batch, weights,
--                                                          { saved = saved, token = derivatives })
--     by.hidden, by.weights, by.bias
--
-- The gradient by each logit is that of `ctx:backward`, bit for bit. From there on:
--
-- * Each product and sum is one operation in fp64, and each result is rounded to fp32 at the end.
--   An element of `hidden` is summed over the ids in ascending order, those of `weights` and `bias`
--   over the rows in ascending order. So the bits are the same on any machine, for any threads, and
--   for any `chunk` of ids.
-- * They are not those of another order of rows, of a batch in pieces, or of a trainer's own
--   products: unlike logprobs, they belong to the batch. The sum over the pieces of a batch is
--   right up to rounding.
-- * The roundings of a head are passed straight through: this is the derivative of the product
--   before it is rounded, then scale and softcap.
-- @module samebits.head_gradient

local ffi = require "ffi"
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

local function floats(t) return ffi.cast("float *", t.ptr) end

-- A tensor as contiguous fp32 in memory.
local function wide(t) return try(try(t:to "cpu"):to "float32":contiguous()) end

local function rounded(values, shape)
  local t = tensor.empty(shape, "float32")
  local to = floats(t)
  for i = 0, t:numel() - 1 do to[i] = values[i] end
  return t
end

-- What is computed: sums in fp64, and the operands.
local function begin(batch, weights)
  local head, rows = batch.head, batch.rows_total
  local s = { rows = rows, D = head.width, first = batch.first, held = batch.held,
              scale = head.scale, cap = head.softcap,
              hidden = wide(batch.hidden), weights = wide(weights) }
  s.by_hidden = ffi.new("double[?]", rows * s.D)
  s.by_weights = ffi.new("double[?]", s.held * s.D)
  s.by_bias = ffi.new("double[?]", s.held)
  return s
end

-- Adds the products of a chunk: grad and logits of the ids first .. first + n - 1 of every row.
local function add(s, grad, logits, first, n)
  local g, x, D = floats(grad), logits and floats(logits), s.D
  local h, w = floats(s.hidden), floats(s.weights)
  local by_hidden, by_weights, by_bias = s.by_hidden, s.by_weights, s.by_bias
  for r = 0, s.rows - 1 do
    local row = r * D
    for v = 0, n - 1 do
      local d = tonumber(g[r * n + v])
      if d ~= 0 then
        local id = (first - s.first + v) * D
        if x then
          local part = x[r * n + v] / s.cap
          d = d * (1 - part * part)
        end
        d = d * s.scale
        by_bias[first - s.first + v] = by_bias[first - s.first + v] + d
        for k = 0, D - 1 do by_hidden[row + k] = by_hidden[row + k] + d * w[id + k] end
        for k = 0, D - 1 do by_weights[id + k] = by_weights[id + k] + d * h[row + k] end
      end
    end
  end
end

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
-- @tparam context ctx on the batch's device
-- @tparam batch batch with hidden states and a head, as it was scored; without `shift`
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
  if batch.shift ~= 0 then raise "head_gradient.compute: shift: gradients are without it" end
  local s = begin(batch, weights)
  for first = s.first, s.first + s.held - 1, chunk do
    local part = { first = first, n = math.min(chunk, s.first + s.held - first) }
    local grad = try(ctx:backward(batch, given,
                                  { first = part.first, n = part.n, dtype = "float32" }))
    local logits = s.cap ~= 0 and wide(try(ctx:logits(batch, part))) or nil
    add(s, wide(grad), logits, part.first, part.n)
  end
  return { hidden = rounded(s.by_hidden, batch.hidden.shape),
           weights = rounded(s.by_weights, weights.shape),
           bias = rounded(s.by_bias, { s.held }) }
end)

return M
