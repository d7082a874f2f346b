--- The gradient of a loss with respect to the logits, from its derivatives with respect to logprobs
-- and entropies: `backward`, and what it shares with `logprob`, which can compute the gradient in
-- the same call.

local ffi = require "ffi"
local call = require "samebits.op.call"
local misuse = require "samebits.misuse"
local policy = require "samebits.op.policy"
local tensor = require "samebits.tensor"

local raise, describe = misuse.raise, tensor.describe
local layout = tensor.layout
local shape_text, appended = layout.text, layout.appended

local M = {}

local DTYPES = { float32 = 1, float16 = 2, bfloat16 = 3 }
local GIVEN = { saved = true, token = true, entropy = true }
local BESIDE = { token = true, entropy = true, dtype = true, grad = true, in_place = true,
                 policy = true, options = true }
local SAVED = ffi.sizeof "sb_saved_row"

-- Checks the caller's tensor for the gradient: rows like the batch's, with V elements or more.
-- what: its name in messages.
local function check_grad(what, grad, batch)
  if not tensor.is_tensor(grad) then
    raise("%s: expected a tensor, got %s", what, describe(grad))
  end
  local n = grad.ndim
  local front = {}
  for i = 1, n - 1 do front[i] = grad.shape[i] end
  if not DTYPES[grad.dtype] or n < 1 or not layout.same(front, batch.shape) or
     grad.shape[n] < batch.held then
    raise("%s: %s, expected float32, float16 or bfloat16 %s, or wider rows", what, describe(grad),
          shape_text(appended(batch.shape, batch.held)))
  end
  if grad.device ~= batch.device then
    raise("%s: the tensor is on %s, the batch is on %s", what, grad.device, batch.device)
  end
  if grad:numel() > 0 and grad.shape[n] > 1 and grad.strides[n] ~= 1 then
    raise("%s: strides %s: a row's elements must lie side by side", what, shape_text(grad.strides))
  end
  for i = 1, n - 1 do
    if grad.shape[i] > 1 and grad.strides[i] < 1 then
      raise("%s: rows overlap: strides %s", what, shape_text(grad.strides))
    end
  end
  return grad
end

-- The caller's tensor for the gradient, or nil and the dtype of a new one.
local function grad_or_dtype(what, opts, batch)
  if opts.grad ~= nil then
    if opts.dtype ~= nil then raise("%s: dtype: given beside grad", what) end
    return check_grad(what .. ": grad", opts.grad, batch)
  end
  local dtype = opts.dtype == nil and (batch.logits and batch.logits.dtype or "float32") or
                opts.dtype
  if not DTYPES[dtype] then
    raise("%s: dtype: expected float32, float16 or bfloat16, got %s", what, tostring(dtype))
  end
  return nil, dtype
end

local function new_grad(batch, dtype)
  return misuse.try(tensor.empty(appended(batch.shape, batch.held), dtype, batch.device))
end

-- The library's struct. The rows [N, V] of one sequence are described as B = 1.
local function describe_to_c(grad, batch)
  local c, n = ffi.new "sb_gradient", grad.ndim
  c.size = ffi.sizeof "sb_gradient"
  c.dtype, c.grad, c.width = DTYPES[grad.dtype], grad.ptr, grad.shape[n]
  -- The stride of a dimension of length 1 has no meaning. Use the dense stride, or the logits' if
  -- in place.
  local in_place = batch.logits ~= nil and grad.ptr == batch.logits.ptr
  if grad.shape[n - 1] > 1 then c.row_stride = grad.strides[n - 1]
  elseif in_place then c.row_stride = batch.c.row_stride end
  if n == 3 and grad.shape[1] > 1 then c.batch_stride = grad.strides[1]
  elseif in_place then c.batch_stride = batch.c.batch_stride end
  -- A first and held of 0 stand for all of V. An empty shard may begin anywhere.
  c.first, c.held = batch.held > 0 and batch.first or batch.vocab, batch.held
  return c
end

local function check_derivatives(what, given)
  if given.policy ~= nil then
    for _, name in ipairs { "token", "entropy" } do
      if given[name] ~= nil then raise("%s: %s: given beside policy", what, name) end
    end
    return
  end
  if given.options ~= nil then raise("%s: options: given without policy", what) end
  if given.token == nil and given.entropy == nil then
    raise("%s: neither token nor entropy, the derivatives of the loss, is given", what)
  end
end

-- The derivatives that are given, by name. front: stands before their names in messages.
local function derivatives_of(at, front, given, batch)
  local derivatives = {}
  for _, name in ipairs { "token", "entropy" } do
    if given[name] ~= nil then
      derivatives[name] = at:input(front .. name, given[name], "float32", batch.shape)
    end
  end
  return derivatives
end

-- Checks the option `gradient` of `logprob`. Returns the caller's tensor for the gradient, or nil
-- and the dtype of a new one.
local function check_beside(at, given, batch)
  local what = at.what .. ": gradient"
  misuse.options(what, given, BESIDE)
  check_derivatives(what, given)
  local in_place, out = given.in_place, at.opts.out
  if in_place ~= nil and type(in_place) ~= "boolean" then
    raise("%s: in_place: expected a boolean, got %s", what, tostring(in_place))
  end
  if in_place then
    for _, name in ipairs { "grad", "dtype" } do
      if given[name] ~= nil then raise("%s: %s: given beside in_place", what, name) end
    end
    if not batch.logits then raise("%s: in_place: the batch has no logits", what) end
    return batch.logits
  end
  if given.grad == nil and given.dtype == nil and type(out) == "table" and out.grad ~= nil then
    return check_grad("out.grad", out.grad, batch)
  end
  return grad_or_dtype(what, given, batch)
end

--- The library's struct for the option `gradient` of `logprob`, and the tensor for the gradient.
-- The call holds both.
function M.beside(at, given, batch)
  local grad, dtype = check_beside(at, given, batch)
  local derivatives = derivatives_of(at, "gradient: ", given, batch)
  grad = at:hold(grad or new_grad(batch, dtype))
  local c = at:hold(describe_to_c(grad, batch))
  c.first, c.held = 0, 0
  for name, t in pairs(derivatives) do c[name] = ffi.cast("const float *", t.ptr) end
  if given.policy ~= nil then
    c.policy, c.policy_out = policy.beside(at, given.policy, given.options, batch)
  end
  return c, grad
end

--- The same without a new tensor, and without reading the derivatives: to ask for a workspace.
function M.untouched(at, given, batch)
  local grad, dtype = check_beside(at, given, batch)
  local c
  if grad then
    c = describe_to_c(grad, batch)
  else
    c = ffi.new("sb_gradient", ffi.sizeof "sb_gradient", DTYPES[dtype], call.ANYWHERE)
  end
  c.first, c.held = 0, 0
  for _, name in ipairs { "token", "entropy" } do
    if given[name] ~= nil then c[name] = ffi.cast("const float *", call.ANYWHERE) end
  end
  if given.policy ~= nil then
    c.policy, c.policy_out = policy.beside(at, given.policy, given.options, batch, true)
  end
  return at:hold(c)
end

-- The batch as it is, or with the ids of a piece of its head.
local function part_of(at, batch)
  local first, n = at.opts.first, at.opts.n
  if first == nil and n == nil then return batch end
  if not batch.head then raise "backward: first, n: the batch has logits, not hidden states" end
  first = first == nil and batch.first or call.small_integer("first", first)
  n = n == nil and batch.first + batch.held - first or call.small_integer("n", n)
  if first < batch.first or n < 1 or first + n > batch.first + batch.held then
    raise("backward: first %d, n %d: the head has the ids %d to %d", first, n, batch.first,
          batch.first + batch.held - 1)
  end
  return setmetatable({ first = first, held = n }, { __index = batch })
end

local BACKWARD = call.op {
  name = "backward",
  entry = "sb_logprob_backward",
  launch = { "split", "threads", "check", "stream", "workspace" },
  options = { "grad", "dtype", "first", "n" },
  takes = 2,
  shards = true,
  arguments = function(at, batch, given)
    given = misuse.options("backward", given, GIVEN)
    batch = at:batch(batch)
    check_derivatives("backward", given)
    local saved = at:input("saved", given.saved, "uint8", appended(batch.shape, SAVED), 8)
    local derivatives = derivatives_of(at, "", given, batch)
    local part = part_of(at, batch)
    local grad, dtype = grad_or_dtype("backward", at.opts, part)
    at.result = at:hold(grad or new_grad(part, dtype))
    local c = describe_to_c(at.result, part)
    c.saved = ffi.cast("const sb_saved_row *", saved.ptr)
    for name, t in pairs(derivatives) do c[name] = ffi.cast("const float *", t.ptr) end
    return c, batch.c
  end,
}

--- Computes the gradient of a loss with respect to the logits from its derivatives with respect to
-- the outputs, in one pass over the logits. Ignored rows, and ids whose logit is -inf, get +0. If
-- the derivatives are known before the batch is scored, the option `gradient` of `logprob` gives
-- the same gradient in one call.
-- @tparam batch batch the batch that was scored
-- @tparam table given `saved`: the output `saved` of `logprob`; `token` and `entropy`, or one of
-- them: the loss's derivatives with respect to these outputs, float32, of their shape (for
-- `entropy`, both outputs must have been requested together)
-- @tparam[opt] table opts `grad`: a tensor to write to, shaped like the logits or with wider rows,
-- whose ends become +0; it may be the logits themselves; or `dtype`: the dtype of a new tensor, by
-- default the logits' own ("float32", "float16" or "bfloat16", rounded once from float32); `first`
-- and `n`, for hidden states: only the ids from `first` on, n of them, multiples of 16; `split`,
-- and on a GPU `check`, `stream`, `threads` and `workspace`, as for `logprob`
-- @treturn tensor the gradient; the gradient of row r of the logits is in row r (with `shift`,
-- too); or nil, a message and the status' name. Invalid arguments are errors.
M.backward = call.method(BACKWARD)

-- The same call without its tensors: only the batch tells how much workspace it needs.
local SIZE = call.like(BACKWARD, {
  takes = 1,
  arguments = function(at, batch)
    batch = at:batch(batch)
    local dtype = at.opts.dtype or batch.logits and batch.logits.dtype or "float32"
    local part = part_of(at, batch)
    local c = ffi.new("sb_gradient", ffi.sizeof "sb_gradient", DTYPES[dtype], call.ANYWHERE)
    c.first, c.held = part.held > 0 and part.first or batch.vocab, part.held
    c.saved = ffi.cast("const sb_saved_row *", call.ANYWHERE)
    c.token = ffi.cast("const float *", call.ANYWHERE)
    return at:hold(c), batch.c
  end,
})

--- Returns the bytes of workspace that `backward` needs for a batch: 0 unless it has hidden states,
-- or its rows keep lists of ids.
-- @param batch as for `backward`
-- @tparam[opt] table opts `dtype`, `first` and `n`, as for `backward`
M.backward_workspace_size = call.workspace("backward_workspace_size", SIZE)

return M
