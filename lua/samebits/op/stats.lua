--- Statistics of tokens: ratios and KL estimates of two sets of logprobs, and exact sums and means.

local ffi = require "ffi"
local batches = require "samebits.batch"
local call = require "samebits.op.call"
local lib = require "samebits.lib"
local misuse = require "samebits.misuse"
local tensor = require "samebits.tensor"

local C, raise = lib.C, misuse.raise
local shape_text = tensor.layout.text

local M = {}

local function floats(t) return ffi.cast("const float *", t.ptr) end

local COMPARE = call.op {
  name = "compare",
  entry = "sb_compare",
  struct = "sb_compare_out",
  outputs = {
    { "ratio", "float32", call.per_row },
    { "k1", "float32", call.per_row },
    { "k2", "float32", call.per_row },
    { "k3", "float32", call.per_row },
  },
  launch = { "check", "stream" },
  takes = 2,
  unchecked = true, -- no value is wrong
  arguments = function(at, sampled, other)
    local x = at:input("sampled", sampled, "float32")
    local y = at:input("other", other, "float32", sampled.shape)
    at.shape = sampled.shape
    return floats(x), floats(y), x:numel()
  end,
}

-- Writes the layout of values into the library's struct.
local function set_layout(at, c, values)
  local shape, opts = values.shape, at.opts
  local per = opts.per or "sequence"
  if per ~= "sequence" and per ~= "batch" then
    raise("sums: per: expected \"sequence\" or \"batch\", got %s", tostring(per))
  end
  if opts.cu_seqlens ~= nil then
    if per == "batch" then raise "sums: cu_seqlens: a whole batch has none" end
    if #shape ~= 1 then
      raise("sums: cu_seqlens: given with values %s; packed values are [N]", shape_text(shape))
    end
    local cu_seqlens, n = batches.index_list("cu_seqlens", opts.cu_seqlens, "[B + 1]", at.device)
    if n < 1 then raise "sums: cu_seqlens: shape [0], expected [B + 1]" end
    c.cu_seqlens, c.batch, c.rows = at:hold(cu_seqlens).ptr, n - 1, shape[1]
    c.cu_seqlens_dtype = cu_seqlens.dtype == "int64" and C.SB_I64 or C.SB_I32
  elseif per == "batch" or #shape == 1 then
    c.batch, c.time = 1, values:numel()
  elseif #shape == 2 then
    c.batch, c.time = shape[1], shape[2]
  else
    raise("sums: values %s, expected [B, T] or [N]", shape_text(shape))
  end
end

local SUMS = call.op {
  name = "sums",
  entry = "sb_sums",
  struct = "sb_sums_out",
  outputs = {
    { "sum", "float32", call.per_sequence },
    { "mean", "float32", call.per_sequence },
    { "exp_mean", "float32", call.per_sequence },
    { "count", "int64", call.per_sequence },
  },
  launch = { "check", "stream" },
  options = { "minus", "mask", "cu_seqlens", "per" },
  arguments = function(at, values)
    local opts, c = at.opts, ffi.new "sb_values"
    c.size = ffi.sizeof "sb_values"
    local x = at:input("values", values, "float32")
    c.values = floats(x)
    if opts.minus ~= nil then
      c.minus = floats(at:input("minus", opts.minus, "float32", x.shape))
    end
    if opts.mask ~= nil then
      local mask = at:hold(batches.mask_bytes("mask", opts.mask, x.shape, at.device))
      c.mask = ffi.cast("const uint8_t *", mask.ptr)
    end
    set_layout(at, c, x)
    at.sequences = tonumber(c.batch)
    return c
  end,
}

--- Compares two sets of logprobs of the same tokens, one by one: with d = other - sampled,
-- importance ratios e^d and the estimators k1 = -d, k2 = d^2 / 2, k3 = e^d - 1 - d of KL(sampled ||
-- other). Where the bits are equal the ratio is exactly 1 and the estimates are 0.
-- @tparam tensor sampled float32, on the context's device: logprobs by the policy that the tokens
-- were drawn from
-- @tparam tensor other float32, like `sampled`, of the same shape: logprobs by the other policy
-- @tparam[opt] table opts `outputs`: a list of "ratio", "k1", "k2", "k3" (all by default); `out`: a
-- table from an earlier call; and on a GPU `stream`
-- @treturn table the outputs, shaped as given; or nil, a message and the status' name
M.compare = call.method(COMPARE)

--- Computes exact sums and means of one number per token, rounded once. Order, padding and packing
-- change no bit.
-- @tparam tensor values float32 on the context's device: [B, T], or [N] (one sequence, or packed)
-- @tparam[opt] table opts `mask`: the same shape, non-zero where active; `cu_seqlens`: [B + 1], for
-- packed values; `minus`: a tensor to subtract, exactly (with logprobs of two policies `exp_mean`
-- is the sequence's ratio); `per`: "sequence", or "batch" for all together; `outputs`: a list of
-- "sum", "mean", "exp_mean", "count" (all by default); `out`: a table from an earlier call; and on
-- a GPU `check` and `stream`, as for `logprob`
-- @treturn table the outputs [B], or [1] for a whole batch; or nil, a message and the status' name
M.sums = call.method(SUMS)

return M
