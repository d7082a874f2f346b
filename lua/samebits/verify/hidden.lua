--- Batches of hidden states and a head. They are laid out like logits of D ids, because the layouts
-- of a verification only move rows; the library then scores them as hidden states.

local batches = require "samebits.batch"
local class = require "samebits.op.class"
local misuse = require "samebits.misuse"
local tensor = require "samebits.tensor"

local raise = misuse.raise

local M = {}

local SETTINGS = { "format", "bias", "scale", "softcap" }
local FIELDS = { "ids", "mask", "temperature", "ignore_index", "shift", "cu_seqlens", "rows" }

-- A function of a context that makes the head there, once for each device.
local function maker(head, settings)
  local known = {}
  return function(ctx)
    if class.is_head(head) then return head end
    if not known[ctx.device] then
      local options = { keep_bad = true }
      for name, value in pairs(settings) do
        options[name] = tensor.is_tensor(value) and assert(value:to(ctx.device)) or value
      end
      known[ctx.device] = assert(ctx:head(assert(head:to(ctx.device)), options))
    end
    return known[ctx.device]
  end
end

--- Returns a table to make a batch from, whose logits are the hidden states of `value`, a batch or
-- the table of one, and a function that scores such a batch; nil if it has no hidden states. Its
-- head is one that `ctx:head` made, or weights [V, D].
function M.take(value)
  if not (type(value) == "table" or batches.is_batch(value)) or value.hidden == nil then
    return nil
  end
  if value.kept ~= nil or value.kept_ids ~= nil then
    raise "verify: kept sets cannot be verified with hidden states"
  end
  if value.ids == nil then raise "verify: ids: missing beside hidden states" end
  local head, settings = value.head, {}
  if not class.is_head(head) and not (tensor.is_tensor(head) and head.ndim == 2) then
    raise("verify: head: expected a head or weights [V, D], got %s", tensor.describe(head))
  end
  if not batches.is_batch(value) then
    for _, name in ipairs(SETTINGS) do settings[name] = rawget(value, name) end
  end
  local spec = { logits = value.hidden }
  for _, name in ipairs(FIELDS) do spec[name] = value[name] end
  local head_on = maker(head, settings)
  return spec, function(ctx, batch, opts)
    local made = { hidden = batch.logits, head = head_on(ctx) }
    for _, name in ipairs(FIELDS) do made[name] = batch[name] end
    return ctx:logprob(made, opts)
  end
end

return M
