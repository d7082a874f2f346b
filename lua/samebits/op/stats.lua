--- Statistics of tokens: ratios and KL estimates of two sets of logprobs, exact sums and means. The
-- calls behind `ctx:compare` and `ctx:sums`.

local ffi = require "ffi"
local batches = require "samebits.batch"
local call = require "samebits.op.call"
local lib = require "samebits.lib"
local misuse = require "samebits.misuse"
local status_of = require "samebits.status"
local tensor = require "samebits.tensor"

local C, raise = lib.C, misuse.raise
local describe, shape_text = tensor.describe, tensor.layout.text

local M = {}

local POINTERS = { float32 = "float *", int64 = "int64_t *" }

-- The outputs of a call, in order, and their dtypes.
local COMPARE = {
  what = "compare", struct = "sb_compare_out", names = { "ratio", "k1", "k2", "k3" },
  dtypes = { ratio = "float32", k1 = "float32", k2 = "float32", k3 = "float32" },
}
local SUMS = {
  what = "sums", struct = "sb_sums_out", names = { "sum", "mean", "exp_mean", "count" },
  dtypes = { sum = "float32", mean = "float32", exp_mean = "float32", count = "int64" },
}

local function wanted(kind, opts)
  if opts.outputs == nil then return kind.names end
  if type(opts.outputs) ~= "table" then
    raise("outputs: expected a list of names, got %s", type(opts.outputs))
  end
  for _, name in ipairs(opts.outputs) do
    if not kind.dtypes[name] then
      raise("outputs: unknown output '%s'; known: %s", tostring(name),
            table.concat(kind.names, ", "))
    end
  end
  return opts.outputs
end

local function check_given(name, given, shape, dtype, device)
  if not tensor.is_tensor(given) or given.dtype ~= dtype or
     not tensor.layout.same(given.shape, shape) then
    raise("out.%s: %s, expected %s %s", name, describe(given), dtype, shape_text(shape))
  end
  if given.device ~= device or not given:is_contiguous() then
    raise("out.%s: expected a contiguous tensor on %s", name, device)
  end
end

-- The outputs asked for: the library's struct, and the table of results.
local function outputs(kind, opts, shape, device)
  if opts.out ~= nil and type(opts.out) ~= "table" then
    raise("out: expected a table of tensors, got %s", type(opts.out))
  end
  local c, results = ffi.new(kind.struct), opts.out or {}
  c.size = ffi.sizeof(kind.struct)
  for _, name in ipairs(wanted(kind, opts)) do
    local dtype, t = kind.dtypes[name], results[name]
    if t ~= nil then
      check_given(name, t, shape, dtype, device)
    else
      local message, code
      t, message, code = tensor.empty(shape, dtype, device)
      if not t then return nil, message, code end
      results[name] = t
    end
    c[name] = ffi.cast(POINTERS[dtype], t.ptr)
  end
  return c, results
end

-- An fp32 tensor of a context's device, as the library can read it.
local function floats(kind, name, t, ctx, shape, opts)
  if not tensor.is_tensor(t) or t.dtype ~= "float32" then
    raise("%s: %s: expected a float32 tensor, got %s", kind.what, name, describe(t))
  end
  if t.device ~= ctx.device then
    raise("%s: %s: the tensor is on %s, the context is on %s", kind.what, name, t.device,
          ctx.device)
  end
  if shape and not tensor.layout.same(t.shape, shape) then
    raise("%s: %s: shape %s, expected %s", kind.what, name, shape_text(t.shape), shape_text(shape))
  end
  if t:is_contiguous() then return t end
  if opts.stream then
    raise("%s: %s: strides %s need a copy: not in a stream", kind.what, name,
          shape_text(t.strides))
  end
  return t:contiguous()
end

local function pointer(t) return t and ffi.cast("const float *", t.ptr) or nil end

local function finished(status, ctx, results)
  local ok, message, code = status_of.check(status, ctx.handle)
  if not ok then return nil, message, code end
  return results
end

local COMPARE_OPTIONS = { outputs = true, out = true, stream = true, check = true }

function M.compare(ctx, sampled, other, opts)
  opts = call.options("compare", opts, COMPARE_OPTIONS)
  local launch = call.launch("compare", ctx, opts)
  local x, message, code = floats(COMPARE, "sampled", sampled, ctx, nil, opts)
  if not x then return nil, message, code end
  local y, why, name = floats(COMPARE, "other", other, ctx, sampled.shape, opts)
  if not y then return nil, why, name end
  local c, results, failure = outputs(COMPARE, opts, sampled.shape, ctx.device)
  if not c then return nil, results, failure end
  local status = C.sb_compare(ctx.handle, c, pointer(x), pointer(y), x:numel(), launch)
  call.hold(ctx, opts, { x, y }, results, true) -- it never waits
  return finished(status, ctx, results)
end

local SUMS_OPTIONS = {
  outputs = true, out = true, stream = true, check = true, minus = true, mask = true,
  cu_seqlens = true, per = true,
}

-- The layout of values, into the library's struct. The tensor of cu_seqlens, if there is one.
local function set_layout(c, values, opts, device)
  local shape, per = values.shape, opts.per or "sequence"
  if per ~= "sequence" and per ~= "batch" then
    raise("sums: per: expected \"sequence\" or \"batch\", got %s", tostring(per))
  end
  if opts.cu_seqlens ~= nil then
    if per == "batch" then raise "sums: cu_seqlens: a whole batch has none" end
    if #shape ~= 1 then
      raise("sums: cu_seqlens: given with values %s; packed values are [N]", shape_text(shape))
    end
    local cu_seqlens, n = batches.index_list("cu_seqlens", opts.cu_seqlens, "[B + 1]", device)
    if n < 1 then raise "sums: cu_seqlens: shape [0], expected [B + 1]" end
    c.cu_seqlens, c.batch, c.rows = cu_seqlens.ptr, n - 1, shape[1]
    c.cu_seqlens_dtype = cu_seqlens.dtype == "int64" and C.SB_I64 or C.SB_I32
    return cu_seqlens
  end
  if per == "batch" or #shape == 1 then
    c.batch, c.time = 1, values:numel()
  elseif #shape == 2 then
    c.batch, c.time = shape[1], shape[2]
  else
    raise("sums: values %s, expected [B, T] or [N]", shape_text(shape))
  end
end

-- values and what is subtracted, if anything is: tensors as the library can read them; or nil, a
-- message and a code.
local function operands(values, ctx, opts)
  local x, message, code = floats(SUMS, "values", values, ctx, nil, opts)
  if not x or opts.minus == nil then return x, message, code end
  local y, why, name = floats(SUMS, "minus", opts.minus, ctx, x.shape, opts)
  if not y then return nil, why, name end
  return x, y
end

function M.sums(ctx, values, opts)
  opts = call.options("sums", opts, SUMS_OPTIONS)
  local launch = call.launch("sums", ctx, opts)
  local x, minus, code = operands(values, ctx, opts)
  if not x then return nil, minus, code end
  local mask = opts.mask ~= nil and batches.mask_bytes("mask", opts.mask, x.shape, ctx.device) or
               nil
  local c = ffi.new "sb_values"
  c.size = ffi.sizeof "sb_values"
  c.values, c.minus = pointer(x), pointer(minus)
  c.mask = mask and ffi.cast("const uint8_t *", mask.ptr) or nil
  local cu_seqlens = set_layout(c, x, opts, ctx.device)
  local out, results, failure = outputs(SUMS, opts, { tonumber(c.batch) }, ctx.device)
  if not out then return nil, results, failure end
  local status = C.sb_sums(ctx.handle, out, c, launch)
  call.hold(ctx, opts, { x, minus, mask, cu_seqlens }, results)
  return finished(status, ctx, results)
end

return M
