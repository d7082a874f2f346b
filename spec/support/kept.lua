--- Kept sets, and the same logits with -inf for the ids that are not kept.

local ffi = require "ffi"
local samebits = require "samebits"
local hex = require "spec.support.hex"

local M = {}

local function row_count(shape)
  local n = 1
  for i = 1, #shape - 1 do n = n * shape[i] end
  return n
end

--- Random flags for the rows of logits [.., V]. Each row keeps about one id in `odds`, a number
-- drawn for each row; a few rows keep all ids, and the first `none` rows keep none.
function M.flags(random, shape, none)
  local V, rows = shape[#shape], row_count(shape)
  local t = samebits.zeros(shape, "bool")
  local flags = ffi.cast("uint8_t *", t.ptr)
  for row = 0, rows - 1 do
    local odds = row < (none or 0) and 0 or random:pick { 1, 2, 3, 16, 100 }
    for id = 0, V - 1 do
      flags[row * V + id] = odds > 0 and random:integer(1, odds) == 1 and 1 or 0
    end
  end
  return t
end

--- fp32 logits in memory with -inf where flags are 0. With shift, the flags of row t apply to the
-- logits of row t - 1 of its sequence; time: rows of a sequence.
function M.masked(logits, flags, shift, time)
  local out = logits:contiguous():clone()
  local words, kept = ffi.cast("uint32_t *", out.ptr), ffi.cast("const uint8_t *", flags.ptr)
  local V, rows = logits.shape[logits.ndim], row_count(logits.shape)
  for row = 0, rows - 1 do
    local from = row + (shift or 0)
    if not (shift == 1 and from % time == 0) then
      for id = 0, V - 1 do
        if kept[from * V + id] == 0 then words[row * V + id] = 0xff800000 end
      end
    end
  end
  return out
end

--- Puts NaN and +inf into a tensor of any row where it is not kept: nothing may see them.
function M.poisoned_outside(logits, flags)
  local out = logits:contiguous():clone()
  local words, kept = ffi.cast("uint32_t *", out.ptr), ffi.cast("const uint8_t *", flags.ptr)
  for i = 0, out:numel() - 1 do
    if kept[i] == 0 then words[i] = i % 2 == 0 and 0x7fc00001 or 0x7f800000 end
  end
  return out
end

--- The lists of flags [.., V]: kept_ids and kept_offsets, of the given dtypes.
function M.lists(flags, ids_dtype, offsets_dtype)
  local V = flags.shape[flags.ndim]
  local kept, ids, offsets = ffi.cast("const uint8_t *", flags.ptr), {}, { 0 }
  for row = 0, row_count(flags.shape) - 1 do
    for id = 0, V - 1 do
      if kept[row * V + id] ~= 0 then ids[#ids + 1] = id end
    end
    offsets[#offsets + 1] = #ids
  end
  if #ids == 0 then return samebits.zeros({ 0 }, ids_dtype or "int32"),
                           samebits.tensor(offsets, { dtype = offsets_dtype or "int64" }) end
  return samebits.tensor(ids, { dtype = ids_dtype or "int32" }),
         samebits.tensor(offsets, { dtype = offsets_dtype or "int64" })
end

--- A batch's fields and its flags: rows of V ids with targets (some outside their sets), masks and
-- temperatures; some rows keep nothing, and some are poisoned where they are kept.
function M.example(random, V)
  local B, T = 3, 4
  local logits = hex.tensor(hex.values(B * T * V, random:integer(1, 2 ^ 20)), { B, T, V })
  local flags = M.flags(random, { B, T, V }, 2)
  local ids, mask, temperature = {}, {}, {}
  for b = 1, B do
    ids[b], mask[b], temperature[b] = {}, {}, {}
    for t = 1, T do
      ids[b][t], mask[b][t] = random:integer(0, V - 1), random:integer(0, 4) > 0
      temperature[b][t] = random:pick { 0.5, 0.7, 1, 3 }
    end
  end
  local words, bytes = ffi.cast("uint32_t *", logits.ptr), ffi.cast("uint8_t *", flags.ptr)
  local id = random:integer(0, V - 1)
  words[5 * V + id], bytes[5 * V + id] = random:pick { 0x7fc00000, 0x7f800000 }, 1
  words[7 * V + id] = random:pick { 0x7149f2ca, 0xf149f2ca, 0xff7fffff, 0x80000000 }
  return { logits = logits, ids = ids, mask = mask, temperature = temperature }, flags
end

return M
