--- Chooses the sequences of a batch that are verified: all of a small batch, some rows of a large
-- one.

local ffi = require "ffi"
local bit = require "bit"
local batches = require "samebits.batch"
local context = require "samebits.context"
local misuse = require "samebits.misuse"
local prng = require "samebits.verify.prng"
local tensor = require "samebits.tensor"

local raise = misuse.raise

local M = {}

--- The largest number of logits that are laid out at once, so that a verification takes seconds and
-- not hours.
M.LIMIT = 2 ^ 22

-- The largest number of sequences in a sample, and the number of rows that it always has.
local SEQUENCES, ROWS = 16, 8

-- Each sequence's rows and its active ones: { b, first, past, active = { row, .. } }. Sequences
-- without an active row are left out.
local function active_sequences(batch)
  local list, flags = {}, batch:active()
  local active = ffi.cast("const uint8_t *", flags.ptr)
  for b = 0, batch.sequences - 1 do
    local first, past = batch:bounds(b)
    local rows = {}
    for row = first, past - 1 do
      if active[row] ~= 0 then rows[#rows + 1] = row end
    end
    if #rows > 0 then list[#list + 1] = { b = b, first = first, past = past, active = rows } end
  end
  return list, active, flags
end

-- n elements drawn from a list, in their original order.
local function some(random, list, n)
  local left, taken, out = #list, 0, {}
  for _, entry in ipairs(list) do
    if random:integer(1, left) <= n - taken then
      out[#out + 1], taken = entry, taken + 1
    end
    left = left - 1
  end
  return out
end

-- A run of `length` rows of a sequence around one of its active rows.
local function window(random, sequence, length)
  local middle = random:pick(sequence.active)
  local first = math.min(math.max(sequence.first, middle - random:integer(0, length - 1)),
                         sequence.past - length)
  return { b = sequence.b, first = first, past = first + length }
end

local function rows_in(list)
  local n = 0
  for _, entry in ipairs(list) do n = n + entry.past - entry.first end
  return n
end

-- The rows to take: the whole batch if it has at most `most` rows.
local function chosen(random, list, most)
  local longest = 0
  for _, entry in ipairs(list) do longest = math.max(longest, entry.past - entry.first) end
  if rows_in(list) <= most then return list, true end
  -- At least two, so that no sequence is alone.
  local n = math.max(2, math.min(SEQUENCES, math.floor(most / math.min(longest, ROWS))))
  n = math.min(n, #list, most)
  local length, out = math.floor(most / n), {}
  for i, entry in ipairs(some(random, list, n)) do
    out[i] = window(random, entry, math.min(length, entry.past - entry.first))
  end
  return out, false
end

-- The address of each row's logits, by row.
local function addresses(batch)
  local logits = batch.logits
  local base, size, strides = logits.ptr, logits.itemsize, logits.strides
  if logits.ndim == 2 then
    return function(row) return base + row * strides[1] * size end
  end
  local time = logits.shape[2]
  return function(row)
    return base + (math.floor(row / time) * strides[1] + row % time * strides[2]) * size
  end
end

-- Removes from a row the ids outside its kept set.
local function apply_kept(batch, sets, row, logits, at)
  local kept = ffi.cast("const uint32_t *", sets.ptr) + row * sets.shape[sets.ndim]
  local held = logits:slice(0, at, at + 1)
  for id = 0, batch.vocab - 1 do
    if bit.band(bit.rshift(kept[bit.rshift(id, 5)], bit.band(id, 31)), 1) == 0 then
      held:set(-math.huge, 0, id)
    end
  end
end

-- A copy of a run of rows, in the form that layouts take. `entry` says where the run comes from.
local function copied(batch, sets, entry, active)
  local length, size = entry.past - entry.first, batch.logits.itemsize
  local address = addresses(batch)
  local ids = batch.ids and ffi.cast(batch.ids.dtype == "int64" and "const int64_t *" or
                                     "const int32_t *", batch.ids.ptr)
  local own = tensor.is_tensor(batch.temperature) and
              ffi.cast("const float *", batch.temperature.ptr)
  local first_of_all = batch:bounds(entry.b)
  local made = {
    length = length, b = entry.b, from = entry.first - first_of_all, first = entry.first,
    logits = tensor.empty({ length, batch.vocab }, batch.logits.dtype),
    ids = {}, temperatures = {}, active = {},
  }
  for t = 0, length - 1 do
    local row = entry.first + t
    -- With a shift the first row has no logits of its own and is not active.
    local from = batch.shift == 1 and math.max(row - 1, first_of_all) or row
    ffi.copy(made.logits.ptr + t * batch.vocab * size, address(from), batch.vocab * size)
    made.active[t] = active[row] ~= 0
    made.ids[t] = ids and tonumber(ids[row]) or 0
    made.temperatures[t] = own and (made.active[t] and own[row] or 1) or batch.temperature
    if sets and made.active[t] then apply_kept(batch, sets, row, made.logits, t) end
  end
  return made
end

-- Chooses each row's likeliest id, for a batch without ids; 0 for poisoned rows.
local function choose_ids(sequences)
  local ctx = assert(context.open "cpu")
  for s = 0, #sequences do
    local made = sequences[s]
    local batch = batches.new({ logits = made.logits }, { ids = false })
    local first = assert(ctx:topk(batch, 1, { outputs = { "ids" } })).ids
    for t = 0, made.length - 1 do made.ids[t] = math.max(0, first:get(t, 0)) end
  end
  ctx:close()
end

local function check(batch)
  if batch.width then
    raise("verify: the batch's ids are %s: expected one id per row",
          tensor.layout.text(batch.ids.shape))
  end
  if batch.held ~= batch.vocab then
    raise("verify: the batch has the logits of ids %d to %d of %d, a shard: expected whole rows",
          batch.first, batch.first + batch.held - 1, batch.vocab)
  end
end

--- Samples a batch in memory. Returns `sequences` from 0 on, the longest first, in the form that
-- layouts take, with `b`, the batch's sequence, and `from`, the position there; `rows` of `total`
-- rows that belong to sequences with active tokens; `whole`: whether nothing is left out. most: the
-- largest number of rows.
function M.take(batch, seed, most)
  check(batch)
  local list, active, flags = active_sequences(batch)
  if #list == 0 then raise "verify: the batch has no active tokens" end
  most = most or math.max(ROWS, math.floor(M.LIMIT / batch.vocab))
  local taken, whole = chosen(prng.new(seed), list, most)
  table.sort(taken, function(x, y)
    local m, n = x.past - x.first, y.past - y.first
    if m ~= n then return m > n end
    return x.first < y.first
  end)
  local made = { sequences = {}, whole = whole, rows = rows_in(taken), total = rows_in(list),
                 tokens = 0, flags = flags, of_sequences = #list }
  local sets = batch:kept_words()
  for s, entry in ipairs(taken) do
    local sequence = copied(batch, sets, entry, active)
    for t = 0, sequence.length - 1 do
      made.tokens = made.tokens + (sequence.active[t] and 1 or 0)
    end
    made.sequences[s - 1] = sequence
  end
  if not batch.ids then choose_ids(made.sequences) end
  return made
end

return M
