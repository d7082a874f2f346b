--- Gradients: the call behind `ctx:backward`.

local ffi = require "ffi"
local call = require "samebits.op.call"
local lib = require "samebits.lib"
local misuse = require "samebits.misuse"
local status_of = require "samebits.status"
local tensor = require "samebits.tensor"

local C, raise = lib.C, misuse.raise
local shape_text, same_shape, describe = tensor.layout.text, tensor.layout.same, tensor.describe

local M = {}

local DTYPES = { float32 = 1, float16 = 2, bfloat16 = 3 }
local OPTIONS = { grad = true, dtype = true, split = true, threads = true, check = true,
                  stream = true }
local GIVEN = { saved = true, token = true, entropy = true }

local function with_last(shape, last)
  local out = {}
  for i = 1, #shape do out[i] = shape[i] end
  out[#out + 1] = last
  return out
end

-- A tensor of the context's device as the library can read it: of a dtype and a shape, contiguous.
-- Nil, a message and a code where the device fails.
local function input(name, t, dtype, shape, ctx, stream)
  if not tensor.is_tensor(t) then
    raise("backward: %s: expected a tensor, got %s", name, describe(t))
  end
  if t.dtype ~= dtype or not same_shape(t.shape, shape) then
    raise("backward: %s: %s, expected %s %s", name, describe(t), dtype, shape_text(shape))
  end
  if t.device ~= ctx.device then
    raise("backward: %s: the tensor is on %s, the context is on %s", name, t.device, ctx.device)
  end
  if t:is_contiguous() and tonumber(ffi.cast("uintptr_t", t.ptr) % 8) % t.itemsize == 0 and
     (dtype ~= "uint8" or tonumber(ffi.cast("uintptr_t", t.ptr) % 8) == 0) then
    return t
  end
  if stream then
    raise("backward: %s: strides %s, or its place, need a copy: not in a stream", name,
          shape_text(t.strides))
  end
  return t:clone()
end

-- The caller's tensor for the gradient: rows as the batch's, of V elements or more.
local function check_grad(grad, batch)
  if not tensor.is_tensor(grad) then
    raise("backward: grad: expected a tensor, got %s", describe(grad))
  end
  local n = grad.ndim
  local front = {}
  for i = 1, n - 1 do front[i] = grad.shape[i] end
  if not DTYPES[grad.dtype] or n < 1 or not same_shape(front, batch.shape) or
     grad.shape[n] < batch.held then
    raise("backward: grad: %s, expected float32, float16 or bfloat16 %s, or wider rows",
          describe(grad), shape_text(with_last(batch.shape, batch.held)))
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

local function new_grad(batch, dtype)
  if dtype == nil then dtype = batch.logits.dtype end
  if not DTYPES[dtype] then
    raise("backward: dtype: expected float32, float16 or bfloat16, got %s", tostring(dtype))
  end
  return tensor.empty(with_last(batch.shape, batch.held), dtype, batch.device)
end

-- The library's struct. In one sequence [N, V] rows are those of B = 1.
local function describe_to_c(grad, batch)
  local c, n = ffi.new "sb_gradient", grad.ndim
  c.size = ffi.sizeof "sb_gradient"
  c.dtype, c.grad, c.width = DTYPES[grad.dtype], grad.ptr, grad.shape[n]
  -- A stride of a dimension of length 1 means nothing: the dense one, or the logits' in place.
  local in_place = grad.ptr == batch.logits.ptr
  if grad.shape[n - 1] > 1 then c.row_stride = grad.strides[n - 1]
  elseif in_place then c.row_stride = batch.c.row_stride end
  if n == 3 and grad.shape[1] > 1 then c.batch_stride = grad.strides[1]
  elseif in_place then c.batch_stride = batch.c.batch_stride end
  -- First and held of 0 say all of V; an empty shard may begin anywhere.
  c.first, c.held = batch.held > 0 and batch.first or batch.vocab, batch.held
  return c
end

function M.backward(ctx, batch, given, opts)
  opts = call.options("backward", opts, OPTIONS)
  given = call.options("backward", given, GIVEN)
  batch = call.batch("backward", ctx, batch)
  if given.token == nil and given.entropy == nil then
    raise "backward: neither token nor entropy, the derivatives of the loss, is given"
  end
  if opts.grad ~= nil and opts.dtype ~= nil then raise "backward: dtype: given beside grad" end
  local held, message, code = {}
  held.saved, message, code = input("saved", given.saved, "uint8",
    with_last(batch.shape, ffi.sizeof "sb_saved_row"), ctx, opts.stream)
  if not held.saved then return nil, message, code end
  for _, name in ipairs { "token", "entropy" } do
    if given[name] ~= nil then
      held[name], message, code = input(name, given[name], "float32", batch.shape, ctx,
                                        opts.stream)
      if not held[name] then return nil, message, code end
    end
  end
  local grad = opts.grad
  if grad ~= nil then
    check_grad(grad, batch)
  else
    grad, message, code = new_grad(batch, opts.dtype)
    if not grad then return nil, message, code end
  end

  local c = describe_to_c(grad, batch)
  c.saved = ffi.cast("const sb_saved_row *", held.saved.ptr)
  if held.token then c.token = ffi.cast("const float *", held.token.ptr) end
  if held.entropy then c.entropy = ffi.cast("const float *", held.entropy.ptr) end
  local status = C.sb_logprob_backward(ctx.handle, c, batch.c, call.launch("backward", ctx, opts))
  call.hold(ctx, opts, { batch, grad }, held)
  local ok
  ok, message, code = status_of.check(status, ctx.handle)
  if not ok then return nil, message, code end
  return grad
end

return M
