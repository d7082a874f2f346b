--- The gradient of a loss with respect to the logits, from its derivatives with respect to logprobs
-- and entropies.

local ffi = require "ffi"
local call = require "samebits.op.call"
local misuse = require "samebits.misuse"
local tensor = require "samebits.tensor"

local raise, describe = misuse.raise, tensor.describe
local layout = tensor.layout
local shape_text, appended = layout.text, layout.appended

local M = {}

local DTYPES = { float32 = 1, float16 = 2, bfloat16 = 3 }
local GIVEN = { saved = true, token = true, entropy = true }
local SAVED = ffi.sizeof "sb_saved_row"

-- Checks the caller's tensor for the gradient: rows like the batch's, with V elements or more.
local function check_grad(grad, batch)
  if not tensor.is_tensor(grad) then
    raise("backward: grad: expected a tensor, got %s", describe(grad))
  end
  local n = grad.ndim
  local front = {}
  for i = 1, n - 1 do front[i] = grad.shape[i] end
  if not DTYPES[grad.dtype] or n < 1 or not layout.same(front, batch.shape) or
     grad.shape[n] < batch.held then
    raise("backward: grad: %s, expected float32, float16 or bfloat16 %s, or wider rows",
          describe(grad), shape_text(appended(batch.shape, batch.held)))
  end
  if grad.device ~= batch.device then
    raise("backward: grad: the tensor is on %s, the batch is on %s", grad.device, batch.device)
  end
  if grad:numel() > 0 and grad.shape[n] > 1 and grad.strides[n] ~= 1 then
    raise("backward: grad: strides %s: a row's elements must lie side by side",
          shape_text(grad.strides))
  end
  for i = 1, n - 1 do
    if grad.shape[i] > 1 and grad.strides[i] < 1 then
      raise("backward: grad: rows overlap: strides %s", shape_text(grad.strides))
    end
  end
  return grad
end

-- The tensor for the gradient: the caller's or a new one.
local function grad_of(opts, batch)
  if opts.grad ~= nil then
    if opts.dtype ~= nil then raise "backward: dtype: given beside grad" end
    return check_grad(opts.grad, batch)
  end
  local dtype = opts.dtype == nil and batch.logits.dtype or opts.dtype
  if not DTYPES[dtype] then
    raise("backward: dtype: expected float32, float16 or bfloat16, got %s", tostring(dtype))
  end
  return misuse.try(tensor.empty(appended(batch.shape, batch.held), dtype, batch.device))
end

-- The library's struct. The rows [N, V] of one sequence are described as B = 1.
local function describe_to_c(grad, batch)
  local c, n = ffi.new "sb_gradient", grad.ndim
  c.size = ffi.sizeof "sb_gradient"
  c.dtype, c.grad, c.width = DTYPES[grad.dtype], grad.ptr, grad.shape[n]
  -- The stride of a dimension of length 1 has no meaning. Use the dense stride, or the logits' if
  -- in place.
  local in_place = grad.ptr == batch.logits.ptr
  if grad.shape[n - 1] > 1 then c.row_stride = grad.strides[n - 1]
  elseif in_place then c.row_stride = batch.c.row_stride end
  if n == 3 and grad.shape[1] > 1 then c.batch_stride = grad.strides[1]
  elseif in_place then c.batch_stride = batch.c.batch_stride end
  -- A first and held of 0 stand for all of V. An empty shard may begin anywhere.
  c.first, c.held = batch.held > 0 and batch.first or batch.vocab, batch.held
  return c
end

local BACKWARD = call.op {
  name = "backward",
  entry = "sb_logprob_backward",
  launch = { "split", "threads", "check", "stream" },
  options = { "grad", "dtype" },
  takes = 2,
  shards = true,
  arguments = function(at, batch, given)
    given = misuse.options("backward", given, GIVEN)
    batch = at:batch(batch)
    if given.token == nil and given.entropy == nil then
      raise "backward: neither token nor entropy, the derivatives of the loss, is given"
    end
    local saved = at:input("saved", given.saved, "uint8", appended(batch.shape, SAVED), 8)
    local derivatives = {}
    for _, name in ipairs { "token", "entropy" } do
      if given[name] ~= nil then
        derivatives[name] = at:input(name, given[name], "float32", batch.shape)
      end
    end
    at.result = at:hold(grad_of(at.opts, batch))
    local c = describe_to_c(at.result, batch)
    c.saved = ffi.cast("const sb_saved_row *", saved.ptr)
    for name, t in pairs(derivatives) do c[name] = ffi.cast("const float *", t.ptr) end
    return c, batch.c
  end,
}

--- Computes the gradient of a loss with respect to the logits from its derivatives with respect to
-- the outputs, in one pass over the logits. Ignored rows, and ids whose logit is -inf, get +0.
-- @param batch the batch that was scored
-- @tparam table given `saved`: the output `saved` of `logprob`; `token` and `entropy`, or one of
-- them: the loss's derivatives with respect to these outputs, float32, of their shape (for
-- `entropy`, both outputs must have been requested together)
-- @tparam[opt] table opts `grad`: a tensor to write to, shaped like the logits or with wider rows,
-- whose ends become +0; it may be the logits themselves; or `dtype`: the dtype of a new tensor, by
-- default the logits' own ("float32", "float16" or "bfloat16", rounded once from float32); `split`,
-- and on a GPU `check`, `stream` and `threads`, as for `logprob`
-- @treturn tensor the gradient; the gradient of row r of the logits is in row r (with `shift`,
-- too); or nil, a message and the status' name. Invalid arguments are errors.
-- or nil, a message and the status' name. Anything wrong with what is given is an error.
M.backward = call.method(BACKWARD)

return M
