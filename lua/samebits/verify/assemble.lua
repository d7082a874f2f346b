--- Lays sequences out in memory as a case says, and records which result is expected in which
-- place.
--
-- A grid is a list of the sequences to make. Each is a list of slots: { s = 2, t = 5 } for a token
-- of the case's sequences, { s = 2, t = 5, off = true } for the same token made inactive, or false
-- for a position without a token. Every slot becomes a row. With a shift one row is put before
-- them, and each row holds the logits that score the next row's id.

local ffi = require "ffi"
local prng = require "samebits.verify.prng"
local tensor = require "samebits.tensor"

local M = {}

local function is_active(sequences, slot)
  return slot and not slot.off and sequences[slot.s].active[slot.t]
end

-- Rows --------------------------------------------------------------------------------------------

local NOTHING = { token = false, logits = false }
local FIRST = { s = 0, t = 0 }

-- Each sequence's rows: the slot of each, and whose logits it holds.
local function rows_of(case, slots)
  local rows = {}
  local before = case.shift == 1 and #slots > 0 and 1 or 0
  for r = 1, #slots + before do
    rows[r] = { token = slots[r - before] or false, logits = slots[r] or false }
  end
  return rows
end

local function padded(rows, time, side)
  local missing, out = side == "left" and time - #rows or 0, {}
  for r = 1, time do out[r] = rows[r - missing] or NOTHING end
  return out
end

-- The rows of each sequence, and T if all have the same number. With a shift the first row, which
-- has no token, is ignored because it is the first.
local function laid_out(case, grid, layout)
  local list, time = {}, 0
  for b, slots in ipairs(grid) do
    list[b] = rows_of(case, slots)
    time = math.max(time, #list[b])
  end
  local is_padded = layout == "right" or layout == "left"
  for b = 1, #list do
    if is_padded then list[b] = padded(list[b], time, layout) end
    local first = list[b][1]
    if first and case.shift == 1 then
      list[b][1] = { token = first.token, logits = first.logits, ignored = true }
    end
  end
  return list, is_padded and time or nil
end

-- Logits ------------------------------------------------------------------------------------------

local function encoded(number, dtype)
  local one = tensor.tensor({ number }, { dtype = dtype })
  return ffi.string(one.ptr, one.itemsize)
end

-- Memory of all ones (NaN in every dtype), which begins `offset` bytes past a multiple of 64.
local function memory(bytes, offset)
  local held = tensor.zeros({ bytes + offset + 64 }, "uint8")
  ffi.fill(held.ptr, held:numel(), 0xff)
  local past = tonumber(ffi.cast("uintptr_t", held.ptr) % 64)
  return held.ptr + (64 - past) % 64 + offset, held
end

-- A sequence's logits in a container dtype, made once.
local function logits_in(made, dtype)
  made.containers = made.containers or {}
  if not made.containers[dtype] then made.containers[dtype] = made.logits:to(dtype) end
  return made.containers[dtype]
end

-- The logits as a view of memory in which all other elements are NaN. An inactive row's logits are
-- as `fill` says, because no call may read them.
local function logits_of(case, sequences, list, time, opts)
  local container = case.container == "same" and case.dtype or case.container
  local V, size = case.V, container == "float32" and 4 or 2
  local width = V + case.extra
  local row_stride = width + case.gap
  local batch_stride = opts.windows and row_stride or (time or 0) * row_stride + case.between
  local rows = 0
  for b = 1, #list do rows = rows + #list[b] end
  local elements = time and math.max(0, #list - 1) * batch_stride + time * row_stride or
                   rows * row_stride
  local base, held = memory(elements * size, case.offset)
  local absent = encoded(-math.huge, container):rep(case.extra)
  local fill = case.fill == "zero" and encoded(0, container):rep(V) or
               case.fill == "inf" and encoded(math.huge, container):rep(V)

  local row = 0
  for b = 1, #list do
    for r, entry in ipairs(list[b]) do
      local at = time and (b - 1) * batch_stride + (r - 1) * row_stride or row * row_stride
      local p = base + at * size
      row = row + 1
      local slot = entry.logits
      if case.fill == "data" then
        slot = slot or FIRST
      elseif not is_active(sequences, slot) then
        slot = nil
      end
      if slot then
        local from = logits_in(sequences[slot.s], container)
        ffi.copy(p, from.ptr + slot.t * V * size, V * size)
        ffi.copy(p + V * size, absent, #absent)
      elseif fill then
        ffi.copy(p, fill, V * size)
      end
    end
  end

  return tensor.tensor(base, {
    dtype = container, owner = held,
    shape = time and { #list, time, width } or { rows, width },
    strides = time and { batch_stride, row_stride, 1 } or { row_stride, 1 },
  })
end

-- Per-row values ----------------------------------------------------------------------------------

-- Values that are not ids.
local function bad_id(random, V) return random:pick { V, -7, V + 5, 2147483646 } end

local POINTERS = { int64 = "int64_t *", int32 = "int32_t *", uint8 = "uint8_t *",
                   float32 = "uint32_t *" }

local function vector(n, dtype)
  local t = tensor.zeros({ n }, dtype)
  return t, ffi.cast(POINTERS[dtype], t.ptr)
end

local ONE_NAN = 0x7fc00000

-- Sets ids, mask, temperature and rows of a call's spec. In a plain case inactive rows are masked
-- and otherwise as harmless as possible: id 0, temperature 1. A row that the shift adds looks like
-- any other.
local function per_row(case, sequences, flat, spec, opts)
  local random = prng.new(case.seed * 31 + #flat)
  local width = case.V + case.extra
  local ids, id = vector(#flat, case.index)
  local mask, flag = vector(#flat, "uint8")
  local own, word = vector(#flat, "float32")
  local temperature = ffi.cast("float *", word)
  local rows = {}
  for row = 0, #flat - 1 do
    local slot, how = flat[row + 1].token, flat[row + 1].ignored and "shift" or case.by
    if is_active(sequences, slot) then
      local made = sequences[slot.s]
      id[row], flag[row] = made.ids[slot.t], case.plain and 1 or random:integer(1, 255)
      temperature[row] = made.temperatures[slot.t]
      rows[#rows + 1] = row
    elseif case.plain then
      temperature[row] = 1
      rows[#rows + 1] = row
    else
      if how == "mixed" then how = random:pick { "mask", "ignore", "list" } end
      id[row] = how == "ignore" and case.ignore or
                how == "shift" and random:integer(0, 1) == 1 and random:integer(0, case.V - 1) or
                bad_id(random, width)
      flag[row] = how == "mask" and 0 or 1
      word[row] = ONE_NAN
      if how ~= "list" then rows[#rows + 1] = row end
    end
  end
  spec.ids, spec.ignore_index = ids, case.ignore
  if case.by == "mask" or case.by == "mixed" then spec.mask = mask end
  if case.by == "list" or case.by == "mixed" then spec.rows = rows end
  if case.tau ~= "own" and case.held == "number" then
    spec.temperature = case.tau
  else
    spec.temperature = own
  end
  -- If there are several row lists: this list's rows, out of those that are left.
  if opts.rows then
    local listed = {}
    for _, row in ipairs(spec.rows or rows) do
      if opts.rows(row) then listed[#listed + 1] = row end
    end
    spec.rows = listed
  end
end

-- Expected results --------------------------------------------------------------------------------

-- Per sequence of the batch: { count = active tokens }, with `whole`, the sequence that has exactly
-- these active tokens, each of them once.
local function sums_of(sequences, list, opts)
  local sums, row = {}, 0
  for b, rows in ipairs(list) do
    local seen, count, of, mixed = {}, 0, nil, false
    for _, entry in ipairs(rows) do
      local slot = entry.token
      if is_active(sequences, slot) and not (opts.rows and not opts.rows(row)) then
        mixed = mixed or of ~= nil and of ~= slot.s or seen[slot.t]
        count, of, seen[slot.t] = count + 1, slot.s, true
      end
      row = row + 1
    end
    local sum = { count = count }
    if of and not mixed then
      local all = 0
      for t = 0, sequences[of].length - 1 do
        if sequences[of].active[t] then all = all + 1 end
      end
      if all == count then sum.whole = of end
    end
    sums[b] = sum
  end
  return sums
end

--- Makes a call: `spec`, the table to make a batch from; `rows`, for each row from 1 on, the token
-- whose result is expected there, or false for +0; `sums`, by sequence from 1 on.
--
-- opts: `layout` in place of the case's ("single" for one sequence without offsets), unless the
-- case is plain; `windows`: each sequence begins one row after the previous one, in the same
-- memory; `rows`: a function that says which rows to list.
function M.call(case, sequences, grid, opts)
  opts = opts or {}
  local layout = case.plain and case.layout or opts.layout or case.layout
  local list, time = laid_out(case, grid, layout)
  local flat = {}
  for b = 1, #list do
    for _, entry in ipairs(list[b]) do flat[#flat + 1] = entry end
  end

  local spec = { logits = logits_of(case, sequences, list, time, opts), shift = case.shift }
  per_row(case, sequences, flat, spec, opts)
  if time then
    for _, name in ipairs { "ids", "mask", "temperature" } do
      if tensor.is_tensor(spec[name]) then spec[name] = spec[name]:view(#list, time) end
    end
  elseif layout ~= "single" then
    local offsets, p = vector(#list + 1, case.index)
    for b = 1, #list do p[b] = p[b - 1] + #list[b] end
    spec.cu_seqlens = offsets
  end

  local rows = {}
  for row, entry in ipairs(flat) do
    local listed = not opts.rows or opts.rows(row - 1)
    rows[row] = listed and is_active(sequences, entry.token) and entry.token
  end
  return { spec = spec, rows = rows, sums = sums_of(sequences, list, opts) }
end

return M
