--- Converts kept sets between their two forms: words, with one bit for each id, and lists of the
-- kept ids. Lists are two tensors: the ids of all rows, row after row, which rise within a row; and
-- the offsets, one more than there are rows, at which the rows' ids begin. Both forms give the same
-- bits in every result.

local ffi = require "ffi"
local constants = require "samebits.cdef"
local lib = require "samebits.lib"
local misuse = require "samebits.misuse"
local tensor = require "samebits.tensor"
local values = require "samebits.batch.values"

local C, raise, describe = lib.C, misuse.raise, tensor.describe
local layout, INDEX_DTYPES = tensor.layout, values.INDEX_DTYPES

local M = {}

-- Calls a conversion of the library with a context of its own; raises its failure as misuse.
local function convert(name, f)
  local holder, why = ffi.new "sb_context *[1]", ffi.new("char[?]", 256)
  local options = ffi.new("sb_open_options", { ffi.sizeof "sb_open_options", 1 })
  if C.sb_open(holder, constants.SB_ABI, "cpu", options, why, 256) ~= 0 then
    misuse.fail(ffi.string(why))
  end
  local status = f(holder[0])
  local message = ffi.string(C.sb_last_error(holder[0]))
  C.sb_close(holder[0])
  if status ~= 0 then raise("%s: %s", name, message) end
end

local function rows_of(n, vocab)
  local c = ffi.new "sb_batch"
  c.size, c.batch, c.time, c.vocab, c.temperature = ffi.sizeof "sb_batch", 1, n, vocab, 1
  c.logits_dtype, c.ids_dtype = C.SB_F32, C.SB_I32
  return c
end

local function check_vocab(name, vocab)
  if type(vocab) ~= "number" or vocab % 1 ~= 0 or vocab < 1 or vocab > constants.SB_MAX_VOCAB then
    raise("%s: vocab is %s, expected an integer from 1 to %d", name, tostring(vocab),
          constants.SB_MAX_VOCAB)
  end
end

--- Puts lists into the library's struct.
function M.describe(c, ids, offsets)
  c.kept_ids, c.kept_ids_dtype = ids.ptr, INDEX_DTYPES[ids.dtype]
  c.kept_offsets, c.kept_offsets_dtype = offsets.ptr, INDEX_DTYPES[offsets.dtype]
  c.kept_count = ids.shape[1]
end

--- Checks lists and returns them as the library reads them. rows: how many rows there are; nil: as
-- many as there are offsets for, the third result.
function M.lists_of(ids, offsets, rows, device)
  if ids == nil or offsets == nil then
    raise("%s: missing beside %s", ids == nil and "kept_ids" or "kept_offsets",
          ids == nil and "kept_offsets" or "kept_ids")
  end
  local n
  ids = values.index_list("kept_ids", ids, "[K]", device)
  offsets, n = values.index_list("kept_offsets", offsets, "[rows + 1]", device)
  if n < 1 or rows and n ~= rows + 1 then
    raise("kept_offsets: shape [%d], expected %s, one more than there are rows", n,
          rows and ("[%d]"):format(rows + 1) or "[rows + 1]")
  end
  return ids, offsets, n - 1
end

--- Returns the words of lists, int32 [rows, W] in memory: bit i % 32 of word i / 32 belongs to id
-- i.
-- @tparam tensor|table ids the kept ids of all rows, [K] integers, a tensor or a table
-- @tparam tensor|table offsets where each row's ids begin, and K: [rows + 1]
-- @tparam number vocab V
M.words = misuse.guard(function(ids, offsets, vocab)
  check_vocab("kept_words", vocab)
  local rows
  if tensor.is_tensor(ids) then ids = values.brought("kept_ids", ids, "cpu") end
  if tensor.is_tensor(offsets) then offsets = values.brought("kept_offsets", offsets, "cpu") end
  ids, offsets, rows = M.lists_of(ids, offsets)
  local c, out = rows_of(rows, vocab), tensor.zeros({ rows, math.ceil(vocab / 32) }, "int32")
  M.describe(c, ids, offsets)
  convert("kept_words", function(ctx)
    return C.sb_kept_words(ctx, ffi.cast("uint32_t *", out.ptr), 0, c)
  end)
  return out
end)

--- Returns the lists of kept sets, in memory: int32 ids [K], and int64 offsets [rows + 1].
-- @tparam tensor kept as the field of a batch: int32 words [.., W], or flags [.., V]
-- @tparam number vocab V
M.lists = misuse.guard(function(kept, vocab)
  check_vocab("kept_lists", vocab)
  local shape = {}
  if tensor.is_tensor(kept) then
    for i = 1, kept.ndim - 1 do shape[i] = kept.shape[i] end
  else
    local level = kept
    while type(level) == "table" and type(level[1]) == "table" do
      shape[#shape + 1], level = #level, level[1]
    end
  end
  if #shape == 0 then raise("kept_lists: %s, expected [.., W] or [.., V]", describe(kept)) end
  local rows, words = layout.numel(shape), values.kept_words(kept, shape, vocab, "cpu")
  local c, offsets = rows_of(rows, vocab), tensor.zeros({ rows + 1 }, "int64")
  c.kept = ffi.cast("const uint32_t *", words.ptr)
  local ids
  convert("kept_lists", function(ctx)
    local status = C.sb_kept_lists(ctx, offsets.ptr, C.SB_I64, nil, C.SB_I32, 0, c)
    if status ~= 0 then return status end
    local n = tonumber(offsets:get(rows))
    ids = tensor.zeros({ n }, "int32")
    return C.sb_kept_lists(ctx, offsets.ptr, C.SB_I64, ids.ptr, C.SB_I32, n, c)
  end)
  return ids, offsets
end)

return M
