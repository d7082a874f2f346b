--- Sampling: draws a token for each row, from random bits that belong to the row.

local ffi = require "ffi"
local call = require "samebits.op.call"
local misuse = require "samebits.misuse"
local tensor = require "samebits.tensor"

local raise, describe = misuse.raise, tensor.describe
local appended = tensor.layout.appended

local M = {}

-- How a row is sampled: for each key of the caller's table, the dtype of a tensor of one value per
-- row, the field of the struct for it, and, if there is one, the field for one value for all rows.
local KEYS = {
  top_k = { "int32", "top_ks", "top_k" },
  top_p = { "float32", "top_ps", "top_p" },
  min_p = { "float32", "min_ps", "min_p" },
  seed = { "int64", "seeds", "seed" },
  stream = { "int64", "streams", "stream" },
  position = { "int64", "positions", "position" },
  u = { "float64", "u" },
  bits = { "int64", "bits" },
}

local BITS = { seed = true, stream = true, position = true, bits = true }

-- One value for all rows, as C takes it.
local function common(at, key, value)
  if BITS[key] then
    if type(value) == "cdata" and tensor.element.is_integer_cdata(value) then
      return ffi.cast("uint64_t", value)
    end
    if type(value) == "number" and value % 1 == 0 and value >= 0 and value <= 2 ^ 53 then
      return value
    end
    raise("%s: %s: expected an integer from 0 to 2^53, an int64_t, a uint64_t, or one per row, " ..
          "got %s", at.what, key, describe(value))
  end
  if type(value) ~= "number" then
    raise("%s: %s: expected a number or one per row, got %s", at.what, key, describe(value))
  end
  if key == "top_k" and (value % 1 ~= 0 or math.abs(value) >= 2 ^ 31) then
    raise("%s: top_k: expected an integer, got %s", at.what, tostring(value))
  end
  return value
end

-- One value per row, from a tensor or from a table to make one from.
local function per_row(at, key, value, dtype)
  if type(value) == "table" and not tensor.is_tensor(value) then
    value = misuse.try(misuse.unguarded(tensor.tensor)(value, { dtype = dtype }):to(at.device))
  end
  return at:input(key, value, dtype, at.shape)
end

--- Returns the struct for the caller's table `how` of a call.
function M.how_of(at, given)
  local c = ffi.new "sb_sampling"
  c.size, c.top_p = ffi.sizeof "sb_sampling", 1
  for key, value in pairs(misuse.options(at.what, given, KEYS)) do
    local dtype, array, single = unpack(KEYS[key])
    if type(value) == "table" or tensor.is_tensor(value) or not single then
      c[array] = ffi.cast("void *", per_row(at, key, value, dtype).ptr)
    else
      c[single] = common(at, key, value)
    end
  end
  return c
end

--- The outputs of a draw, and those of them that are computed by default.
M.OUTPUTS = {
  { "token", "int32", call.per_row },
  { "logprob", "float32", call.per_row },
  { "kept_logprob", "float32", call.per_row },
  { "count", "int32", call.per_row },
  { "kept", "int32", function(at) return appended(at.shape, at.words) end },
}
function M.default() return { "token", "logprob", "kept_logprob" } end

local SAMPLE = call.op {
  name = "sample",
  entry = "sb_sample",
  struct = "sb_sample_out",
  outputs = M.OUTPUTS,
  default = M.default,
  launch = { "split", "threads", "check", "stream", "workspace" },
  takes = 2,
  ids = "any",
  arguments = function(at, given, how)
    local batch = at:batch(given)
    at.words = math.ceil(batch.vocab / 32)
    return batch.c, at:hold(M.how_of(at, how))
  end,
}

--- Draws a token for each row. The token is a pure function of the row's logits, temperature,
-- filters and random bits, so a sequence draws the same tokens in every batch and on every backend.
--
-- `how` has the filters, which apply in this order after the batch's kept sets: `top_k`, the first
-- k ids by logit (0, the default: all; 1: the argmax); `top_p`, the fewest first ids that have this
-- share of the mass (1: all); `min_p`, the ids that have at least this share of the first id's
-- probability (0: all). And it has the random bits: those of Philox4x32-10 for `seed`, `stream` and
-- `position` (0 by default); or `u`, numbers in [0, 1), or `bits`, u times 2^64, in their place.
-- Each value is one for all rows (not `u` and `bits`), or a tensor or table of one for each row:
-- int32 for top_k, float32 for top_p and min_p, float64 for u, otherwise int64, which is taken as
-- unsigned. If several rows are drawn, at least one of `seed`, `stream`, `position`, `u` and `bits`
-- must be per row, unless top_k is 1.
-- @param batch as for `logprob`; it needs no ids
-- @tparam[opt] table how see above
-- @tparam[opt] table opts `outputs`: a list of "token", "logprob", "kept_logprob" (these by
-- default), "count" and "kept"; `split`, `out`, and on a GPU `check`, `stream`, `workspace`
-- (`sample_workspace_size` returns its bytes) and `threads`, as for `logprob`
-- @treturn table `token` (int32), the ids that were drawn; `logprob`, theirs under the model, as
-- `logprob` gives it without kept sets; `kept_logprob`, theirs under the kept set; `count`, the
-- number of kept ids; `kept` (int32), [B, T, W] or [N, W], the kept sets, as a batch's `kept`. An
-- ignored row has -1 and +0, a row of NaN -1 and NaN. Or nil, a message and the status' name.
-- Invalid batches and values are errors.
M.sample = call.method(SAMPLE)

--- Returns the bytes of workspace that `sample` needs for a batch with these values and options; 0
-- if none.
-- @param batch as for `sample`
-- @tparam[opt] table how as for `sample`
-- @tparam[opt] table opts as for `sample`
M.sample_workspace_size = call.workspace("sample_workspace_size", SAMPLE)

return M
