--- Makes one batch from sequences of different lengths: padding, packing and the masks for both.
-- Lists are ordinary Lua lists; sequences and positions in messages count from 0.

local ffi = require "ffi"
local tensor = require "samebits.tensor"
local misuse = require "samebits.misuse"
local values = require "samebits.batch.values"
local constants = require "samebits.cdef"

local raise = misuse.raise

local function is_list(value) return type(value) == "table" and not tensor.is_tensor(value) end

local function options(name, opts, known)
  if opts == nil then return {} end
  if not is_list(opts) then
    raise("%s: expected a table of options, got %s", name, misuse.kind(opts))
  end
  for key in pairs(opts) do
    if not known[key] then raise("%s: unknown option '%s'", name, tostring(key)) end
  end
  return opts
end

local function check_side(name, side)
  if side == nil then return "right" end
  if side ~= "left" and side ~= "right" then
    raise("%s: side is %s, expected \"left\" or \"right\"", name, tostring(side))
  end
  return side
end

local function check_length(name, value)
  if type(value) ~= "number" or value < 0 or value % 1 ~= 0 then
    raise("%s: expected an integer of at least 0, got %s", name, tostring(value))
  end
  return value
end

-- Lengths as a list, from a list or a one-dimensional tensor.
local function lengths_of(name, value)
  if tensor.is_tensor(value) then
    if value.ndim ~= 1 then
      raise("%s: shape %s, expected [B]", name, tensor.layout.text(value.shape))
    end
    value = value:totable()
  end
  if type(value) ~= "table" then
    raise("%s: expected a list or a tensor [B], got %s", name, misuse.kind(value))
  end
  local list = {}
  for b = 1, #value do
    local length = type(value[b]) == "cdata" and tonumber(value[b]) or value[b]
    list[b] = check_length(("%s[%d]"):format(name, b - 1), length)
  end
  return list
end

-- The sequences as contiguous tensors of one dtype, whose shapes differ only in their lengths.
local function sequences_of(name, list, dtype)
  if not is_list(list) then
    raise("%s: expected a list of sequences, got %s", name, misuse.kind(list))
  end
  for b = 1, #list do
    if not dtype and tensor.is_tensor(list[b]) then dtype = list[b].dtype end
  end
  dtype = dtype or "int64"

  local out, shape = {}, nil
  for b = 1, #list do
    local value, where = list[b], ("%s[%d]"):format(name, b - 1)
    if is_list(value) then
      if #value == 0 then
        value = tensor.zeros({ 0 }, dtype)
      else
        local ok, made = pcall(tensor.tensor, value, { dtype = dtype })
        if not ok then raise("%s: %s", where, tostring(made)) end
        value = made
      end
    elseif not tensor.is_tensor(value) then
      raise("%s: expected a table or a tensor, got %s", where, misuse.kind(value))
    end
    if value.ndim < 1 then raise("%s: a tensor without dimensions is no sequence", where) end
    if value.device ~= "cpu" then raise("%s: the tensor is on device %s", where, value.device) end
    if value.dtype ~= dtype then
      raise("%s: dtype %s, expected %s as for the sequences before it", where, value.dtype, dtype)
    end
    shape = shape or value.shape
    local same = #shape == #value.shape
    for d = 2, #shape do same = same and shape[d] == value.shape[d] end
    if not same then
      raise("%s: shape %s does not go with %s: all but the length must agree", where,
            tensor.layout.text(value.shape), tensor.layout.text(shape))
    end
    out[b] = value:contiguous()
  end
  return out, dtype, shape or { 0 }
end

-- Sets every element of a new tensor.
local function fill(t, value)
  local bytes = t:numel() * t.itemsize
  if bytes == 0 then return end
  local ok, one = pcall(tensor.tensor, { value }, { dtype = t.dtype })
  if not ok then raise("value: %s", tostring(one)) end
  ffi.copy(t.ptr, one.ptr, t.itemsize)
  local done = t.itemsize
  while done < bytes do
    local n = math.min(done, bytes - done)
    ffi.copy(t.ptr + done, t.ptr, n)
    done = done + n
  end
end

-- The number of bytes of one position.
local function position_bytes(t, shape)
  local n = t.itemsize
  for d = 2, #shape do n = n * shape[d] end
  return n
end

local function longest(lengths)
  local most = 0
  for b = 1, #lengths do most = math.max(most, lengths[b]) end
  return most
end

local PAD_OPTIONS = { side = true, value = true, length = true, dtype = true }

local function pad(list, opts)
  opts = options("pad", opts, PAD_OPTIONS)
  local side = check_side("pad", opts.side)
  local sequences, dtype, shape = sequences_of("sequences", list, opts.dtype)

  local lengths = {}
  for b = 1, #sequences do lengths[b] = sequences[b].shape[1] end
  local time = longest(lengths)
  if opts.length ~= nil then
    check_length("length", opts.length)
    if opts.length < time then
      raise("pad: length %d, but a sequence has %d positions", opts.length, time)
    end
    time = opts.length
  end

  local padded = { #sequences, time }
  for d = 2, #shape do padded[d + 1] = shape[d] end
  local out = tensor.zeros(padded, dtype)
  local value = opts.value
  if value == nil and (dtype == "int32" or dtype == "int64") then
    value = constants.SB_IGNORE_INDEX
  end
  if value ~= nil and value ~= 0 and value ~= false then fill(out, value) end

  local step = position_bytes(out, shape)
  for b = 1, #sequences do
    local skip = side == "left" and time - lengths[b] or 0
    ffi.copy(out.ptr + ((b - 1) * time + skip) * step, sequences[b].ptr, lengths[b] * step)
  end
  return out, lengths
end

local function pack(list, opts)
  opts = options("pack", opts, { dtype = true })
  local sequences, dtype, shape = sequences_of("sequences", list, opts.dtype)
  local offsets = tensor.zeros({ #sequences + 1 }, "int64")
  local cu, total = ffi.cast("int64_t *", offsets.ptr), 0
  for b = 1, #sequences do
    total = total + sequences[b].shape[1]
    cu[b] = total
  end

  local packed = { total }
  for d = 2, #shape do packed[d] = shape[d] end
  local out = tensor.zeros(packed, dtype)
  local step = position_bytes(out, shape)
  for b = 1, #sequences do
    ffi.copy(out.ptr + tonumber(cu[b - 1]) * step, sequences[b].ptr, sequences[b].shape[1] * step)
  end
  return out, offsets
end

-- A mask [B, T] with ones at the positions first[b] .. past[b] - 1 of each sequence's own count.
local function mask_of(name, first, past, time, side)
  side = check_side(name, side)
  local most = longest(past)
  if time == nil then time = most end
  check_length(name .. ": T", time)
  if time < most then raise("%s: T is %d, but a sequence has %d positions", name, time, most) end
  local out = tensor.zeros({ #past, time }, "uint8")
  local bytes = ffi.cast("uint8_t *", out.ptr)
  for b = 1, #past do
    local skip = (b - 1) * time + (side == "left" and time - past[b] or 0)
    for t = first[b], past[b] - 1 do bytes[skip + t] = 1 end
  end
  return out
end

local function mask_from_lengths(lengths, time, side)
  lengths = lengths_of("lengths", lengths)
  local first = {}
  for b = 1, #lengths do first[b] = 0 end
  return mask_of("mask_from_lengths", first, lengths, time, side)
end

local function check_splits(prompts, totals)
  if #prompts ~= #totals then
    raise("mask_from_splits: %d prompt lengths, but %d total lengths", #prompts, #totals)
  end
  for b = 1, #prompts do
    if prompts[b] > totals[b] then
      raise("mask_from_splits: prompt_lengths[%d] is %d, but total_lengths[%d] is %d", b - 1,
            prompts[b], b - 1, totals[b])
    end
  end
end

local function mask_from_splits(prompts, totals, time, side)
  prompts = lengths_of("prompt_lengths", prompts)
  totals = lengths_of("total_lengths", totals)
  check_splits(prompts, totals)
  return mask_of("mask_from_splits", prompts, totals, time, side)
end

local FROM_FIELDS = {
  sequences = true, layout = true, length = true, shift = true, temperature = true,
  ignore_index = true,
}
local SEQUENCE_FIELDS = { logits = true, ids = true, mask = true, prompt = true }

-- One sequence's mask as a uint8 tensor [t]: its own mask without the prompt and, with shift,
-- without the first token, which no logits of its sequence score. The library ignores a padded
-- sequence's first *row*. With left padding the first token is in a later row, behind logits that
-- are padding, so it has to be masked.
local function sequence_mask(where, entry, length, shift)
  local mask = tensor.zeros({ length }, "uint8")
  local bytes = ffi.cast("uint8_t *", mask.ptr)
  local first = 0
  if entry.prompt ~= nil then
    first = check_length(where .. ".prompt", entry.prompt)
    if first > length then
      raise("%s.prompt is %d, but the sequence has %d positions", where, first, length)
    end
  end
  if shift and first == 0 then first = 1 end
  if entry.mask == nil then
    for t = first, length - 1 do bytes[t] = 1 end
  else
    local given = values.mask_bytes(where .. ".mask", entry.mask, { length })
    local flags = ffi.cast("const uint8_t *", given.ptr)
    for t = first, length - 1 do bytes[t] = flags[t] ~= 0 and 1 or 0 end
  end
  return mask
end

local function from_sequences(spec)
  if not is_list(spec) then raise("from_sequences: expected a table, got %s", misuse.kind(spec)) end
  for key in pairs(spec) do
    if not FROM_FIELDS[key] then raise("from_sequences: unknown field '%s'", tostring(key)) end
  end
  local layout = spec.layout == nil and "right" or spec.layout
  if layout ~= "right" and layout ~= "left" and layout ~= "packed" then
    raise("layout is %s, expected \"right\", \"left\" or \"packed\"", tostring(spec.layout))
  end
  if layout == "packed" and spec.length ~= nil then raise("length: given with a packed layout") end
  if not is_list(spec.sequences) then
    raise("sequences: expected a list of { logits = ..., ids = ... }, got %s",
          misuse.kind(spec.sequences))
  end
  if #spec.sequences == 0 then
    raise("sequences: the list is empty, so the vocabulary is not known")
  end

  local shift = spec.shift == true or spec.shift == 1
  local logits, ids, masks = {}, {}, {}
  for b, entry in ipairs(spec.sequences) do
    local where = ("sequences[%d]"):format(b - 1)
    if not is_list(entry) then raise("%s: expected a table, got %s", where, misuse.kind(entry)) end
    for key in pairs(entry) do
      if not SEQUENCE_FIELDS[key] then raise("%s: unknown field '%s'", where, tostring(key)) end
    end
    if not tensor.is_tensor(entry.logits) or entry.logits.ndim ~= 2 then
      raise("%s.logits: expected a tensor [t, V], got %s", where, tensor.describe(entry.logits))
    end
    local length = entry.logits.shape[1]
    logits[b] = entry.logits
    ids[b] = values.indices(where .. ".ids", entry.ids, { length })
    if ids[b].dtype ~= "int64" then ids[b] = ids[b]:to "int64" end
    masks[b] = sequence_mask(where, entry, length, shift)
  end

  local made = { temperature = spec.temperature, ignore_index = spec.ignore_index,
                 shift = spec.shift }
  if layout == "packed" then
    made.logits, made.cu_seqlens = pack(logits)
    made.ids = pack(ids)
    made.mask = pack(masks)
  else
    local opts = { side = layout, length = spec.length }
    made.logits = pad(logits, opts)
    made.ids = pad(ids, opts)
    made.mask = pad(masks, opts)
  end
  return made
end

local M = {}

--- Pads sequences to one length.
-- @tparam table list of tensors [t, ...] of one dtype, or of tables of numbers
-- @tparam[opt] table opts `side`: where the padding goes, "right" (the default) or "left"; `value`:
-- the padding's value, by default -100 for int32 and int64 and otherwise 0; `length`: T, by default
-- the length of the longest sequence; `dtype`: the dtype of tables, by default int64
-- @treturn tensor [B, T, ...]
-- @treturn table the list of lengths
M.pad = misuse.guard(pad)

--- Joins sequences end to end.
-- @tparam table list as for `pad`
-- @tparam[opt] table opts `dtype`: the dtype of tables
-- @treturn tensor [N, ...]
-- @treturn tensor cu_seqlens, int64 [B + 1]
M.pack = misuse.guard(pack)

--- Makes a mask [B, T] that is 1 on each sequence's positions and 0 on padding. With a shift and
-- left padding, the mask leaves each sequence's first token active, whereas `batch_from` would mask
-- it.
-- @tparam table|tensor lengths
-- @tparam[opt] number time T; by default that of the longest sequence
-- @tparam[opt] string side where the padding is: "right" (the default) or "left"
-- @treturn tensor uint8 [B, T]
M.mask_from_lengths = misuse.guard(mask_from_lengths)

--- Makes a mask [B, T] that is 1 only on completion tokens, the tokens after the prompt.
-- @tparam table|tensor prompt_lengths the number of tokens of each prompt
-- @tparam table|tensor total_lengths the number of tokens of each prompt and completion together
-- @tparam[opt] number time T; by default that of the longest sequence
-- @tparam[opt] string side where the padding is: "right" (the default) or "left"
-- @treturn tensor uint8 [B, T]
M.mask_from_splits = misuse.guard(mask_from_splits)

--- Converts the table that `samebits.batch_from` takes to the table that a batch is made from.
M.spec = from_sequences

return M
