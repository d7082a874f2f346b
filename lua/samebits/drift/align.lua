--- Aligns two sides whose tokens are laid out differently, by their ids: padded against packed
-- sequences, padding on the other end, sequences in another order, or some that only one side has.
--
-- Only tokens that count on a side take part. Sequences with the same ids are paired, in order
-- where several have the same. Of the others, those are paired whose ids agree from the first one
-- on for at least half of the longer sequence; shorter agreement may be two answers to two
-- questions. Everything else counts on one side only.
--
-- The result is one packed layout. Values of a token each are copied into it; logits are not: the
-- side's `map` has the row of each token in its own layout, -1 where it has none.

local ffi = require "ffi"
local tensor = require "samebits.tensor"

local element = tensor.element

local M = {}

-- So many first ids have to agree where the whole sequence does not, and so many sequences with the
-- same ones are looked at.
local PREFIX, LOOKED_AT = 4, 64

-- A side's sequences: lists of rows that count, with their ids.
local function sequences_of(side, ignored)
  local layout, out = side.layout, {}
  local ids = side.ids:contiguous()
  local read, p = element.read[ids.dtype], ids.ptr
  local mask = side.mask and side.mask:contiguous()
  local counts = mask and element.read[mask.dtype]
  for b = 0, layout.sequences - 1 do
    local first, past = layout.bounds(b)
    local rows, n = ffi.new("int32_t[?]", math.max(past - first, 1)), 0
    local keys = ffi.new("double[?]", math.max(past - first, 1))
    for row = first, past - 1 do
      local id = tonumber(read(p, row))
      local value = counts and counts(mask.ptr, row)
      local is_masked = counts and (value == 0 or value == false)
      if id ~= ignored and not is_masked and not (side.shift == 1 and row == first) then
        rows[n], keys[n], n = row, id, n + 1
      end
    end
    out[b] = { index = b, rows = rows, ids = keys, n = n }
  end
  tensor.storage.keep(ids)
  return out
end

local function key_of(sequence, n) return ffi.string(sequence.ids, 8 * n) end

-- Lists of sequences without a partner by the key of their first n(sequence) ids.
local function by_key(sequences, n)
  local lists = {}
  for b = 0, #sequences do
    local sequence = sequences[b]
    local length = sequence and not sequence.partner and n(sequence)
    if length then
      local key = key_of(sequence, length)
      lists[key] = lists[key] or { at = 1 }
      table.insert(lists[key], sequence)
    end
  end
  return lists
end

local function all(sequence) return sequence.n > 0 and sequence.n or nil end
local function start(sequence) return sequence.n >= PREFIX and PREFIX or nil end

-- Pairs sequences with the same ids. Returns how many had more than one to choose from.
local function pair_same(from, to)
  local lists, repeated = by_key(to, all), 0
  for a = 0, #from do
    local sequence = from[a]
    local list = sequence and all(sequence) and lists[key_of(sequence, sequence.n)]
    local other = list and list[list.at]
    if other then
      if #list > 1 then repeated = repeated + 1 end
      list.at = list.at + 1
      sequence.partner, other.partner = other, sequence
    end
  end
  return repeated
end

-- How many ids of two sequences agree from the first one on.
local function common_ids(a, b)
  local n = 0
  while n < a.n and n < b.n and a.ids[n] == b.ids[n] do n = n + 1 end
  return n
end

-- Pairs each sequence that is left with the one that agrees for longest.
local function pair_starts(from, to)
  local lists = by_key(to, start)
  for a = 0, #from do
    local sequence = from[a]
    local list = sequence and not sequence.partner and start(sequence) and
                 lists[key_of(sequence, PREFIX)]
    local best, most = nil, 0
    for i = 1, list and math.min(#list, LOOKED_AT) or 0 do
      local other = list[i]
      local n = not other.partner and common_ids(sequence, other) or 0
      if n > most and 2 * n >= math.max(sequence.n, other.n) then best, most = other, n end
    end
    if best then sequence.partner, best.partner = best, sequence end
  end
end

-- Adds the tokens of a pair to the lists of rows; a side may be nil.
local function join(rows_a, rows_b, a, b)
  local n_a, n_b = a and a.n or 0, b and b.n or 0
  local common = a and b and common_ids(a, b) or 0
  for i = 0, common - 1 do
    rows_a[#rows_a + 1], rows_b[#rows_b + 1] = a.rows[i], b.rows[i]
  end
  for i = common, n_a - 1 do rows_a[#rows_a + 1], rows_b[#rows_b + 1] = a.rows[i], -1 end
  for i = common, n_b - 1 do rows_a[#rows_a + 1], rows_b[#rows_b + 1] = -1, b.rows[i] end
end

-- A copy of the rows of a tensor that a map names: [rows] or [rows, width]; zeros for -1.
local function gathered(t, map, n)
  local shape = { n }
  if t.ndim == 2 then shape[2] = t.shape[2] end
  local out = tensor.zeros(shape, t.dtype)
  if t.ndim == 2 and t.shape[2] > 1 and t.strides[2] ~= 1 then t = t:contiguous() end
  local size = t.itemsize * (shape[2] or 1)
  local step = t.strides[1] * t.itemsize
  for i = 0, n - 1 do
    if map[i] >= 0 then ffi.copy(out.ptr + i * size, t.ptr + map[i] * step, size) end
  end
  return out
end

-- Puts a side's fields into the joined layout. ids: those of every token of it.
local function move(side, map, n, ids)
  side.map = map
  for _, field in ipairs { "logprobs", "kept" } do
    if side[field] then side[field] = gathered(side[field], map, n) end
  end
  if tensor.is_tensor(side.temperature) then
    side.temperature = gathered(side.temperature, map, n)
    local p = ffi.cast("float *", side.temperature.ptr)
    for i = 0, n - 1 do if map[i] < 0 then p[i] = 1 end end
  end
  side.ids = ids
  side.mask = tensor.zeros({ n }, "uint8")
  local flags = ffi.cast("uint8_t *", side.mask.ptr)
  for i = 0, n - 1 do flags[i] = map[i] >= 0 and 1 or 0 end
  side.mapped = {}
end

local function ids_of(a, b, map_a, map_b, n)
  local out = tensor.zeros({ n }, "int64")
  local p = ffi.cast("int64_t *", out.ptr)
  for i = 0, n - 1 do
    local side, row = a, map_a[i]
    if row < 0 then side, row = b, map_b[i] end
    p[i] = tonumber(side.ids:get(row))
  end
  return out
end

local function int_array(list)
  return ffi.new("int32_t[?]", math.max(#list, 1), list)
end

--- Aligns two sides in place. Each has its own `layout`, `ids`, `shift` (1 if the logits of row
-- r - 1 score id r) and fields of one row per token of it. make(shape, offsets) returns a packed
-- layout. Returns the joined layout, whose `origin(row)` gives the sequence and the position in A,
-- then in B, nil where a side lacks the token; and a table: `sequences` of `a` and `b`, `paired`
-- ones, of which `partly` have a rest, `only_a` and `only_b`, and `repeated`: pairs that could have
-- been others.
function M.join(a, b, ignored, make)
  local from, to = sequences_of(a, ignored), sequences_of(b, ignored)
  local repeated = pair_same(from, to)
  pair_starts(from, to)
  local found = { a = a.layout.sequences, b = b.layout.sequences, paired = 0, partly = 0,
                  only_a = 0, only_b = 0, repeated = repeated }
  local rows_a, rows_b, offsets = {}, {}, { 0 }
  for i = 0, a.layout.sequences - 1 do
    local sequence = from[i]
    local other = sequence.partner
    join(rows_a, rows_b, sequence, other)
    offsets[#offsets + 1] = #rows_a
    if other then
      found.paired = found.paired + 1
      local longest = math.max(sequence.n, other.n)
      if #rows_a - offsets[#offsets - 1] > longest or sequence.n ~= other.n then
        found.partly = found.partly + 1
      end
    elseif sequence.n > 0 then
      found.only_a = found.only_a + 1
    end
  end
  for i = 0, b.layout.sequences - 1 do
    if not to[i].partner and to[i].n > 0 then
      join(rows_a, rows_b, nil, to[i])
      offsets[#offsets + 1] = #rows_a
      found.only_b = found.only_b + 1
    end
  end
  local n = #rows_a
  local map_a, map_b = int_array(rows_a), int_array(rows_b)
  local place_a, place_b = a.layout.place, b.layout.place
  local layout = make({ n }, tensor.tensor(offsets, { dtype = "int64" }))
  function layout.origin(row)
    local s, p, u, v
    if map_a[row] >= 0 then s, p = place_a(map_a[row]) end
    if map_b[row] >= 0 then u, v = place_b(map_b[row]) end
    return s, p, u, v
  end
  local ids = ids_of(a, b, map_a, map_b, n)
  move(a, map_a, n, ids)
  move(b, map_b, n, ids)
  return layout, found
end

--- Whether two sides that both gave ids have tokens in layouts that cannot be the same. dims: the
-- dimensions of each side's tokens.
function M.is_needed(dims_a, dims_b)
  if #dims_a ~= #dims_b then return true end
  local last = #dims_a
  -- One less per sequence is the layout of a model's logprobs (shapes.lua).
  if last == 2 and dims_a[1] ~= dims_b[1] then
    -- Transposed tokens are a mistake, not a layout.
    return not (dims_a[1] == dims_b[2] and dims_a[2] == dims_b[1])
  end
  return math.abs(dims_a[last] - dims_b[last]) > 1
end

local function some(n, word) return ("%d %s%s"):format(n, word, n == 1 and "" or "s") end

--- Returns sentences about an alignment.
function M.notes(found)
  local out = { ("Tokens are aligned by their ids: %s of A and %d of B make %s."):format(
    some(found.a, "sequence"), found.b, some(found.paired, "pair")) }
  local function note(n, format)
    if n > 0 then out[#out + 1] = format:format(some(n, "pair")) end
  end
  note(found.partly, "In %s the ids agree only up to a point.")
  note(found.repeated, "For %s several sequences have the same ids; they are taken in order.")
  for _, label in ipairs { "A", "B" } do
    local alone = found["only_" .. label:lower()]
    if alone > 0 then
      out[#out + 1] = ("%s %s in %s only."):format(some(alone, "sequence"),
                                                  alone == 1 and "is" or "are", label)
    end
  end
  return out
end

return M
