-- The code under test: this project's scoring of the tokens that its policy sampled. Put your own
-- code in its place.

local ffi = require "ffi"
local samebits = require "samebits"

local M = {}

--- The logprobs of a batch, at the temperature that it was sampled with, by samebits.
function M.logprobs(batch)
  return assert(samebits.logprob(batch)).token
end

-- The logprob of a row in plain Lua, which adds up its logits in order.
local function score(row, V, id, tau)
  local most, sum = -math.huge, 0
  for i = 0, V - 1 do most = math.max(most, row[i]) end
  for i = 0, V - 1 do sum = sum + math.exp((row[i] - most) / tau) end
  return (row[id] - most) / tau - math.log(sum)
end

local function each_row(batch, f)
  local logits = batch.logits:to("float32"):contiguous()
  local x, V = ffi.cast("const float *", logits.ptr), batch.vocab
  local ids, mask, out = batch.ids:view(-1), batch.mask:view(-1), samebits.zeros(batch.shape)
  local to = ffi.cast("float *", out.ptr)
  for row = 0, batch.rows_total - 1 do
    if mask:get(row) ~= 0 then to[row] = f(x + row * V, V, tonumber(ids:get(row))) end
  end
  return out
end

--- The same in plain Lua. The bits differ from those of samebits, but do not depend on the batch.
function M.plain(batch)
  return each_row(batch, function(row, V, id) return score(row, V, id, batch.temperature) end)
end

--- An easy mistake: centring the logits by the mean of the whole batch, "for stability". In exact
-- arithmetic the mean cancels; in floats, each batch is rounded differently.
function M.centred(batch)
  local sum, n = 0, 0
  each_row(batch, function(row, V)
    for i = 0, V - 1 do sum = sum + row[i] end
    n = n + V
    return 0
  end)
  local mean, centred = sum / n, ffi.new("float[?]", batch.vocab)
  return each_row(batch, function(row, V, id)
    for i = 0, V - 1 do centred[i] = row[i] - mean end
    return score(centred, V, id, batch.temperature)
  end)
end

return M
