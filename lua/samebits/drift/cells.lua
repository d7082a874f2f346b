--- Packs the tokens of a report for its page: a map of all of them, and the values of as many as
-- the page has room for, those furthest apart first.
--
-- The map has a row per sequence and a column per position; if it would have too many, a cell
-- stands for a block of them, and shows the token in it that is furthest apart. Three streams of
-- bytes:
--
-- * cells: runs { code, length } over the map, row by row. Codes: 0 no token, 1 does not count,
--   2 equal, 3 in A only, 4 in B only, and from 5 on two per cause of the report, exactly and
--   nearly; the last two are of what is unexplained.
-- * sizes: for each cell whose code is 5 or more and whose token is not among the values (for all
--   such cells of a map of blocks), how far it is apart: 0 no distance, 255 no number, otherwise
--   201 + 20 * log10 of |B - A|, from 1 to 254.
-- * values: for each token, in order of rows: the distance to the row before, the code, an index of
--   `ids` (1 is the first, 0 none), A's encoding in four bytes, and how many places B's is further.
--
-- Lengths, distances and indices are LEB128; places are zigzag, on the line of all encodings.

local bit = require "bit"
local ffi = require "ffi"
local base64 = require "samebits.text.base64"
local bytes = require "samebits.text.bytes"
local export = require "samebits.drift.export"
local stores = require "samebits.drift.store"
local tally = require "samebits.drift.tally"

local band = bit.band

local M = {}

M.MOST_ROWS, M.MOST_COLUMNS, M.MOST_CELLS = 512, 2048, 2 ^ 17

local NONE, INACTIVE, EQUAL, FIRST_CAUSE = 0, 1, 2, 5

local function encoded(stream) return base64.encode(stream.p, stream.n) end

-- The place of an encoding among all; unlike tally's, +0 and -0 have different ones.
local function place(w) return w >= 0 and w or -band(w, 0x7fffffff) - 1 end

-- How far a token that differs is apart, as a byte.
local function size_of(x, y)
  if tally.is_nan(x) or tally.is_nan(y) then return 255 end
  local size = math.abs(tally.value(y) - tally.value(x))
  if size == math.huge then return 255 end
  if size == 0 then return 0 end
  return math.max(1, math.min(254, math.floor(201 + 20 * math.log10(size))))
end

-- A row's code.
local function code_of(store, row, causes)
  local state = store.state[row]
  if state == stores.INACTIVE then return INACTIVE end
  if state ~= stores.DIFFERENT then return state + 1 end
  local kind = store:explained(row)
  return FIRST_CAUSE + 2 * ((kind.by or causes + 1) - 1) + (kind.cause_exact and 0 or 1)
end

-- The map's shape: blocks of `per_row` sequences and `per_column` positions.
local function shape_of(layout)
  local shape = { sequences = layout.sequences, longest = layout.longest }
  shape.per_row = math.max(1, math.ceil(layout.sequences / M.MOST_ROWS))
  shape.rows = math.ceil(layout.sequences / shape.per_row)
  local columns = math.max(1, math.min(M.MOST_COLUMNS,
                                       math.floor(M.MOST_CELLS / math.max(shape.rows, 1))))
  shape.per_column = math.max(1, math.ceil(layout.longest / columns))
  shape.columns = math.ceil(layout.longest / shape.per_column)
  shape.is_blocks = shape.per_row > 1 or shape.per_column > 1
  return shape
end

-- Codes and sizes of a map, by cell; and each row's size.
local function fill(report, shape)
  local store, layout, causes = report.store, report.layout, #report.causes
  local n = shape.rows * shape.columns
  local codes, sizes = ffi.new("uint8_t[?]", math.max(n, 1)), ffi.new("uint8_t[?]", math.max(n, 1))
  local own = ffi.new("uint8_t[?]", math.max(store.rows, 1))
  for sequence = 0, layout.sequences - 1 do
    local first, past = layout.bounds(sequence)
    local line = math.floor(sequence / shape.per_row) * shape.columns
    for row = first, past - 1 do
      local cell = line + math.floor((row - first) / shape.per_column)
      local code = code_of(store, row, causes)
      local differs = code >= FIRST_CAUSE
      local size = differs and size_of(store.a[row], store.b[row]) or 0
      own[row] = size
      local had = codes[cell]
      if differs and (had < FIRST_CAUSE or size > sizes[cell]) or
         not differs and had < FIRST_CAUSE and code > had then
        codes[cell], sizes[cell] = code, size
      end
    end
  end
  return codes, sizes, own
end

-- Which rows get their values: the `most` ones furthest apart; if all have room, the equal ones,
-- too.
local function choose(store, own, most, different)
  local chosen = ffi.new("uint8_t[?]", math.max(store.rows, 1))
  local counts, least, partly = ffi.new "double[256]", 0, math.huge
  for row = 0, store.rows - 1 do
    if store.state[row] == stores.DIFFERENT then counts[own[row]] = counts[own[row]] + 1 end
  end
  if different > most then
    local n = 0
    for size = 255, 0, -1 do
      if n + counts[size] > most then
        least, partly = size, most - n
        break
      end
      n = n + counts[size]
    end
  end
  local equal = store.equal_rows <= most - different
  local n = 0
  for row = 0, store.rows - 1 do
    local state = store.state[row]
    local take
    if state == stores.DIFFERENT then
      take = own[row] > least
      if own[row] == least then
        take = partly > 0
        partly = partly - 1
      end
    else
      take = equal and state == stores.EQUAL
    end
    if take then chosen[row], n = 1, n + 1 end
  end
  return chosen, n
end

-- The ids of the chosen rows, the most frequent first, and their places from 1 on.
local function ids_of(report, chosen)
  if not report.ids then return {}, {} end
  local times, list, id_of = {}, {}, export.id_reader(report.ids)
  for row = 0, report.store.rows - 1 do
    if chosen[row] ~= 0 then
      local id = id_of(row)
      if not times[id] then times[id], list[#list + 1] = 0, id end
      times[id] = times[id] + 1
    end
  end
  table.sort(list, function(x, y)
    if times[x] ~= times[y] then return times[x] > times[y] end
    return x < y
  end)
  local places = {}
  for i, id in ipairs(list) do places[id] = i end
  return list, places
end

local function values_of(report, chosen, places)
  local store, out, causes, before = report.store, bytes.new(), #report.causes, -1
  local id_of = report.ids and export.id_reader(report.ids)
  for row = 0, store.rows - 1 do
    if chosen[row] ~= 0 then
      local x, y = store.a[row], store.b[row]
      out:varint(row - before - 1)
      before = row
      out:byte(code_of(store, row, causes))
      out:varint(id_of and places[id_of(row)] or 0)
      out:word(x)
      local far = place(y) - place(x)
      out:varint(far >= 0 and 2 * far or -2 * far - 1)
    end
  end
  return out
end

local function runs(codes, n)
  local out, first = bytes.new(), 0
  while first < n do
    local past = first + 1
    while past < n and codes[past] == codes[first] do past = past + 1 end
    out:byte(codes[first])
    out:varint(past - first)
    first = past
  end
  return out
end

-- Sizes of the cells that no chosen token stands for.
local function rest_of(shape, layout, codes, sizes, chosen)
  local out = bytes.new()
  if shape.is_blocks then
    for cell = 0, shape.rows * shape.columns - 1 do
      if codes[cell] >= FIRST_CAUSE then out:byte(sizes[cell]) end
    end
    return out
  end
  for sequence = 0, layout.sequences - 1 do
    local first, past = layout.bounds(sequence)
    for row = first, past - 1 do
      local cell = sequence * shape.columns + row - first
      if codes[cell] >= FIRST_CAUSE and chosen[row] == 0 then out:byte(sizes[cell]) end
    end
  end
  return out
end

-- A guess of the bytes of a token's values in base64, with its id and text.
local BYTES = 14

--- Returns the packed tokens as a table of plain values: the map's `rows`, `columns`, `per_row`,
-- `per_column`, `sequences`, `longest`, `blocks`; `lengths` of packed sequences; the streams
-- `cells`, `sizes`, `values` in base64; `ids`, a stream of numbers, and `texts`, strings; `held`,
-- how many tokens have values, of `different` ones. Nil if the report does not hold its tokens, or
-- has so many sequences that there is no room.
-- @tparam table report
-- @tparam number room bytes that the result may take in the page, about
function M.pack(report, room)
  local store, layout = report.store, report.layout
  if not store or store.rows == 0 or layout.sequences == 0 then return nil end
  local shape = shape_of(layout)
  local codes, sizes, own = fill(report, shape)
  store.equal_rows = 0
  for row = 0, store.rows - 1 do
    if store.state[row] == stores.EQUAL then store.equal_rows = store.equal_rows + 1 end
  end
  -- Lengths and origins of sequences, as JSON.
  room = room - shape.sequences * ((layout.offsets and 8 or 0) + (layout.origin and 16 or 0))
  local cells = encoded(runs(codes, shape.rows * shape.columns))
  local different = report.tokens.different
  local most = math.floor(math.max(0, room - #cells) / BYTES)
  local best
  -- A few steps towards the number that fits.
  for _ = 1, 6 do
    local chosen, n = choose(store, own, most, different)
    local ids, places = ids_of(report, chosen)
    local list = bytes.new()
    for _, id in ipairs(ids) do list:varint(id >= 0 and 2 * id or -2 * id - 1) end
    local texts, written = {}, 0
    if report.texts then
      local found = report.texts:texts(ids)
      for i, id in ipairs(ids) do
        texts[i] = export.quoted(found[id] or "")
        written = written + #texts[i] + 1
      end
    end
    local made = {
      values = encoded(values_of(report, chosen, places)), ids = encoded(list), texts = texts,
      sizes = encoded(rest_of(shape, layout, codes, sizes, chosen)), held = n,
    }
    local size = #cells + #made.values + #made.ids + #made.sizes + written
    if size <= room then
      if not best or n > best.held then best = made end
      if n == different + store.equal_rows or size > 0.93 * room then break end
    end
    if n == 0 then break end
    most = math.floor(size <= room and math.max(most * 1.02, most * room / size * 0.97) or
                      math.min(most, n) * room / size * 0.97)
  end
  if not best then return nil end
  for key, value in pairs { cells = cells, rows = shape.rows, columns = shape.columns,
                            per_row = shape.per_row, per_column = shape.per_column,
                            sequences = shape.sequences, longest = shape.longest,
                            different = different } do
    best[key] = value
  end
  if layout.offsets then
    best.lengths = {}
    for b = 0, layout.sequences - 1 do
      local first, past = layout.bounds(b)
      best.lengths[b + 1] = past - first
    end
  end
  return best
end

M.NONE, M.EQUAL, M.FIRST_CAUSE = NONE, EQUAL, FIRST_CAUSE

return M
