--- Batches: what `ctx:logprob` scores. Everything about them is checked here, in words of the
-- caller's own arguments, except the values of ids, temperatures and offsets, which the library
-- checks row by row.
--
-- Layouts:
--
-- * padded: logits [B, T, V], and per row [B, T];
-- * packed: logits [N, V], cu_seqlens [B + 1], and per row [N];
-- * one sequence: logits [N, V] without cu_seqlens, and per row [N].
--
-- A batch refers to the tensors it was made from and keeps them alive. It copies only what the
-- library cannot read in place: logits whose vocabulary dimension is not contiguous or whose rows
-- overlap, strided per-row tensors, and integers of another width.
--
-- A batch is on one device, its logits'. What is per row may be given in memory or in tables as
-- well, and is copied there; on a device, what has to be converted goes through memory. Logits are
-- never copied from one place to another but by the batch's `to`.

local bit = require "bit"
local ffi = require "ffi"
local devices = require "samebits.device"
local fields = require "samebits.fields"
local mask_values = require "samebits.mask_values"
local printable = require "samebits.printable"
local tensor = require "samebits.tensor"
local misuse = require "samebits.misuse"
local unsupported = require "samebits.unsupported"
local constants = require "samebits.cdef"

local raise = misuse.raise

local LOGITS_DTYPES = { float32 = 1, float16 = 2, bfloat16 = 3 }
local INDEX_DTYPES = { int32 = 4, int64 = 5 }
local INTEGERS = { int8 = true, uint8 = true, int16 = true, int32 = true, int64 = true }
local FLOATS = { float64 = true, float32 = true, float16 = true, bfloat16 = true }

local POINTERS = {
  bool = "const uint8_t *", uint8 = "const uint8_t *", int8 = "const int8_t *",
  int16 = "const int16_t *", int32 = "const int32_t *", int64 = "const int64_t *",
  float32 = "const float *",
}

local FIELDS = {
  logits = true, ids = true, mask = true, temperature = true, ignore_index = true, shift = true,
  rows = true, cu_seqlens = true, first = true, vocab = true, kept = true,
}

local function shape_text(shape) return "[" .. table.concat(shape, ", ") .. "]" end

local function describe(value)
  if tensor.is_tensor(value) then return ("%s %s"):format(value.dtype, shape_text(value.shape)) end
  return type(value)
end

-- A tensor on a device, or the device's failure as an error.
local function brought(name, t, device)
  local out, message = t:to(device)
  if not out then raise("%s: %s", name, message) end
  return out
end

local function same_shape(a, b)
  if #a ~= #b then return false end
  for i = 1, #a do if a[i] ~= b[i] then return false end end
  return true
end

local function product(shape)
  local n = 1
  for i = 1, #shape do n = n * shape[i] end
  return n
end

-- A shape with one dimension more.
local function appended(shape, n)
  local out = {}
  for i = 1, #shape do out[i] = shape[i] end
  out[#out + 1] = n
  return out
end

local function typed(t) return ffi.cast(POINTERS[t.dtype], t.ptr) end

local function is_int64(x)
  return type(x) == "cdata" and (ffi.istype("int64_t", x) or ffi.istype("uint64_t", x))
end

local function is_integer(x)
  return is_int64(x) or type(x) == "number" and x % 1 == 0 and math.abs(x) < 2 ^ 63
end

-- What a table's elements may be, and how they are stored.
local function to_index(x) return is_integer(x) and x or nil end
local function to_flag(x)
  if type(x) == "boolean" then return x and 1 or 0 end
  return is_integer(x) and x or nil
end
local function to_float(x) return type(x) == "number" and x or nil end

-- Nested tables to a tensor of a known shape; every level must have exactly the length it should.
local function from_table(name, value, shape, dtype, convert)
  local out = tensor.zeros(shape, dtype)
  local kind = dtype == "float32" and "float *" or dtype == "uint8" and "uint8_t *" or "int64_t *"
  local data, at = ffi.cast(kind, out.ptr), 0
  local function copy(level, depth, where)
    if type(level) ~= "table" or tensor.is_tensor(level) then
      raise("%s%s: expected a table, got %s", name, where, describe(level))
    end
    if #level ~= shape[depth] then
      raise("%s%s has %d entries, expected %d (shape %s)", name, where, #level,
            shape[depth], shape_text(shape))
    end
    for i = 1, #level do
      local here = ("%s[%d]"):format(where, i - 1)
      if depth < #shape then
        copy(level[i], depth + 1, here)
      else
        local x = convert(level[i])
        if x == nil then
          raise("%s%s is %s, expected %s", name, here, tostring(level[i]),
                convert == to_index and "an integer" or convert == to_flag and
                "an integer or a boolean" or "a number")
        end
        data[at] = x
        at = at + 1
      end
    end
  end
  copy(value, 1, "")
  return out
end

-- A tensor that is per row, on the batch's device or in memory.
local function check_tensor(name, value, wanted, device)
  if not tensor.is_tensor(value) then
    raise("%s: expected %s, got %s", name, wanted, describe(value))
  end
  if value.device ~= "cpu" and value.device ~= device then
    raise("%s: the tensor is on %s, the logits are on %s", name, value.device, device)
  end
end

local function check_shape(name, value, shape)
  if not same_shape(value.shape, shape) then
    raise("%s: shape %s, expected %s", name, shape_text(value.shape), shape_text(shape))
  end
end

-- Contiguous and aligned to its elements, as the library wants whatever is per row; files may hold
-- tensors at odd offsets.
local function is_in_place(t)
  return t:is_contiguous() and tonumber(ffi.cast("uintptr_t", t.ptr) % t.itemsize) == 0
end

local function in_place(t)
  t = t:contiguous()
  return is_in_place(t) and t or t:clone()
end

-- What is per row, as the library can read it: as it stands, or else converted in memory; then on
-- the batch's device.
local function prepared(name, value, device, ready, convert)
  if not (ready and is_in_place(value)) then
    value = in_place(convert(brought(name, value, "cpu")))
  end
  return brought(name, value, device)
end

-- Integers [shape] as a contiguous int32 or int64 tensor.
local function indices(name, value, shape, device)
  device = device or "cpu"
  if type(value) == "table" and not tensor.is_tensor(value) then
    return brought(name, from_table(name, value, shape, "int64", to_index), device)
  end
  check_tensor(name, value, "a tensor of integers or a table", device)
  if not INTEGERS[value.dtype] then
    raise("%s: dtype %s, expected int32 or int64", name, value.dtype)
  end
  check_shape(name, value, shape)
  local ready = INDEX_DTYPES[value.dtype]
  return prepared(name, value, device, ready, function(t) return ready and t or t:to "int32" end)
end

-- Not t:to "uint8": it would take 256 to 0, which is active here.
local function to_bytes(t)
  if t.itemsize == 1 then return t end
  t = in_place(t)
  local out = tensor.zeros(t.shape, "uint8")
  local from, to = typed(t), ffi.cast("uint8_t *", out.ptr)
  for i = 0, t:numel() - 1 do to[i] = from[i] ~= 0 and 1 or 0 end
  return out
end

-- A mask as bytes, non-zero where active. ids: those that it goes with.
local function mask_bytes(name, value, shape, device, ids)
  device = device or "cpu"
  if type(value) == "table" and not tensor.is_tensor(value) then
    value = from_table(name, value, shape, "int64", to_flag)
  end
  check_tensor(name, value, "a tensor of bool or integers, or a table", device)
  if value.dtype ~= "bool" and not INTEGERS[value.dtype] then
    raise("%s: dtype %s, expected bool or an integer (non-zero: active)", name, value.dtype)
  end
  check_shape(name, value, shape)
  if value.itemsize > 1 then
    mask_values.check(name, in_place(brought(name, value, "cpu")),
                      ids and brought("ids", ids, "cpu"))
  end
  return prepared(name, value, device, value.itemsize == 1, to_bytes)
end

-- Flags [.., V] in memory as words [.., W] of 32: bit i % 32 of word i / 32 is id i's.
local function packed_flags(flags, shape, vocab)
  local words = shape[#shape]
  local out = tensor.zeros(shape, "int32")
  local from, to = ffi.cast("const uint8_t *", flags.ptr), ffi.cast("uint32_t *", out.ptr)
  for row = 0, product(shape) / words - 1 do
    local bytes, bits = from + row * vocab, to + row * words
    for id = 0, vocab - 1 do
      if bytes[id] ~= 0 then
        local at = bit.rshift(id, 5)
        bits[at] = bit.bor(bits[at], bit.lshift(1, bit.band(id, 31)))
      end
    end
  end
  return out
end

-- Kept sets as the library reads them, and the words from one row's to the next one's.
local function kept_words(value, row_shape, vocab, device)
  local bits, flags = appended(row_shape, math.ceil(vocab / 32)), appended(row_shape, vocab)
  if tensor.is_tensor(value) then
    check_tensor("kept", value, "a tensor", device)
    if value.dtype == "int32" and same_shape(value.shape, bits) then
      return prepared("kept", value, device, true, function(t) return t end)
    elseif not same_shape(value.shape, flags) then
      raise("kept: %s, expected int32 %s (bits of 32 ids a word) or flags %s", describe(value),
            shape_text(bits), shape_text(flags))
    end
    value = brought("kept", value, "cpu") -- to be packed
  end
  return brought("kept", packed_flags(mask_bytes("kept", value, flags), bits, vocab), device)
end

-- One value a sequence [B] to one a row. bounds(b) gives the sequence's first row and the one past
-- its last.
local function expand(values, row_shape, sequences, bounds)
  local out = tensor.zeros(row_shape, "float32")
  -- As words: a NaN must not pass through a Lua number, where LuaJIT may misread it.
  local from, to = ffi.cast("const uint32_t *", values.ptr), ffi.cast("uint32_t *", out.ptr)
  for b = 0, sequences - 1 do
    local first, past = bounds(b)
    for row = first, past - 1 do to[row] = from[b] end
  end
  return out
end

-- Temperatures as a number, or as fp32 one a row.
local function temperatures(value, device, row_shape, sequences, bounds)
  if type(value) == "number" then return value end
  local per_sequence = { sequences }
  if type(value) == "table" and not tensor.is_tensor(value) then
    local nested = type(value[1]) == "table"
    local shape = row_shape
    if not nested and not (#row_shape == 1 and #value == row_shape[1]) then shape = per_sequence end
    value = from_table("temperature", value, shape, "float32", to_float)
  end
  check_tensor("temperature", value, "a number, a tensor or a table", device)
  if not FLOATS[value.dtype] and not INTEGERS[value.dtype] then
    raise("temperature: dtype %s, expected float32", value.dtype)
  end
  local function single(t) return t.dtype == "float32" and t or t:to "float32" end
  -- Where both fit (N = B), one a row is meant.
  if same_shape(value.shape, row_shape) then
    return prepared("temperature", value, device, value.dtype == "float32", single)
  elseif same_shape(value.shape, per_sequence) then
    return prepared("temperature", value, device, false, function(t)
      return expand(in_place(single(t)), row_shape, sequences, bounds())
    end)
  end
  raise("temperature: shape %s, expected %s (one a row) or %s (one a sequence)",
        shape_text(value.shape), shape_text(row_shape), shape_text(per_sequence))
end

local function check_logits(value, is_shard)
  if type(value) == "table" and not tensor.is_tensor(value) then
    local ok, made = pcall(tensor.tensor, value, { dtype = "float32" })
    if not ok then raise("logits: %s", tostring(made)) end
    value = made
  end
  if not tensor.is_tensor(value) then
    raise("logits: expected a tensor [B, T, V] or [N, V], got %s", describe(value))
  end
  if not LOGITS_DTYPES[value.dtype] then
    raise("logits: dtype %s, expected float32, float16 or bfloat16%s", value.dtype,
          value.dtype == "float64" and " (logits:to \"float32\" rounds them)" or "")
  end
  if value.ndim ~= 2 and value.ndim ~= 3 then
    raise("logits: shape %s, expected [B, T, V] or [N, V]", shape_text(value.shape))
  end
  local vocab = value.shape[value.ndim]
  if vocab < (is_shard and 0 or 1) or vocab > constants.SB_MAX_VOCAB then
    raise("logits: shape %s: a vocabulary of %d; 1 to %d can be scored", shape_text(value.shape),
          vocab, constants.SB_MAX_VOCAB)
  end
  return value
end

-- The logits as the library can read them, with row and sequence strides; a copy only where they
-- cannot be read in place. A stride of 0 means the dense one there, and is given for dimensions of
-- length 1, whose stride means nothing.
local function readable(logits)
  local n, shape, strides = logits.ndim, logits.shape, logits.strides
  local vocab = shape[n]
  if vocab == 0 then return logits, 0, 0 end
  local row = shape[n - 1] > 1 and strides[n - 1] or 0
  local sequence = n == 3 and shape[1] > 1 and strides[1] or 0
  local ok = (vocab == 1 or strides[n] == 1) and (shape[n - 1] <= 1 or row >= vocab) and
             (n == 2 or shape[1] <= 1 or sequence > 0)
  if ok then return logits, row, sequence end
  if logits.device ~= "cpu" then
    raise("logits: shape %s with strides %s cannot be read in place on %s: make them contiguous " ..
          "first", shape_text(shape), shape_text(strides), logits.device)
  end
  return logits:contiguous(), 0, 0
end

local Batch = {}
Batch.__index = Batch

-- The first row of sequence b, and the one past its last.
local function bounds_of(self)
  if self.cu_seqlens then
    local held = brought("cu_seqlens", self.cu_seqlens, "cpu")
    -- Unchecked offsets (the library checks them) are clipped: never a row outside [0, N].
    local function clip(x) return math.max(0, math.min(tonumber(x), self.rows_total)) end
    return function(b)
      local offsets = typed(held)
      return clip(offsets[b]), clip(offsets[b + 1])
    end
  end
  local time = self.sequences > 0 and self.rows_total / self.sequences or 0
  return function(b) return b * time, (b + 1) * time end
end

-- A list of integers of any length: its tensor.
local function index_list(name, value, wanted, device)
  local n
  if tensor.is_tensor(value) then
    n = value.ndim == 1 and value.shape[1]
  else
    n = type(value) == "table" and #value
  end
  if not n then
    raise("%s: expected a tensor %s or a table, got %s", name, wanted, describe(value))
  end
  return indices(name, value, { n }, device), n
end

-- Layout, per-row shape, sequences and offsets.
local function set_layout(self, logits, cu_seqlens)
  if logits.ndim == 3 then
    if cu_seqlens ~= nil then
      raise("cu_seqlens: given with logits %s; packed logits are [N, V]", shape_text(logits.shape))
    end
    self.layout, self.sequences = "padded", logits.shape[1]
    self.shape = { logits.shape[1], logits.shape[2] }
  elseif cu_seqlens == nil then
    self.layout, self.sequences = "one sequence", 1
    self.shape = { logits.shape[1] }
  else
    local n
    self.cu_seqlens, n = index_list("cu_seqlens", cu_seqlens, "[B + 1]", self.device)
    if n < 1 then raise "cu_seqlens: shape [0], expected [B + 1]" end
    self.layout, self.sequences = "packed", n - 1
    self.shape = { logits.shape[1] }
  end
  self.rows_total = product(self.shape)
end

-- The row list as int64; beside it what the library gets: there a null pointer means every row,
-- and an empty list none.
local function set_rows(self, rows)
  local list, n = index_list("rows", rows, "[R]", self.device)
  self.rows = list.dtype == "int64" and list or list:to "int64"
  self.row_list = n > 0 and self.rows or
                  brought("rows", tensor.zeros({ 1 }, "int64"), self.device)
end

local function shift_of(value)
  if value == nil or value == false or value == 0 then return 0 end
  if value == true or value == 1 then return 1 end
  raise("shift: expected 0, 1 or a boolean, got %s", tostring(value))
end

-- The library's struct, which points into this batch's tensors.
local function describe_to_c(self, row_stride, batch_stride)
  local c = ffi.new "sb_batch"
  c.size = ffi.sizeof "sb_batch"
  c.logits, c.logits_dtype = self.logits.ptr, LOGITS_DTYPES[self.logits.dtype]
  c.vocab, c.row_stride, c.batch_stride = self.vocab, row_stride, batch_stride
  c.batch = self.sequences
  if self.cu_seqlens then
    c.rows = self.shape[1]
    c.cu_seqlens, c.cu_seqlens_dtype = self.cu_seqlens.ptr, INDEX_DTYPES[self.cu_seqlens.dtype]
  else
    c.time = self.shape[#self.shape]
  end
  c.ids_dtype = INDEX_DTYPES.int32
  if self.ids then c.ids, c.ids_dtype = self.ids.ptr, INDEX_DTYPES[self.ids.dtype] end
  if self.mask then c.mask = self.mask.ptr end
  if self.kept then c.kept = ffi.cast("const uint32_t *", self.kept.ptr) end
  if self.rows then
    c.row_list = ffi.cast("const int64_t *", self.row_list.ptr)
    c.row_count = self.rows.shape[1]
  end
  if type(self.temperature) == "number" then
    c.temperature = self.temperature
  else
    c.temperature = 1
    c.temperatures = ffi.cast("const float *", self.temperature.ptr)
  end
  c.ignore_index, c.shift = self.ignore_index, self.shift
  return c
end

-- Which ids of how many have logits here: all, unless the batch is a shard.
local function set_ids_held(self, spec, held)
  for _, name in ipairs { "first", "vocab" } do
    local value = spec[name]
    if value ~= nil and (type(value) ~= "number" or value % 1 ~= 0 or math.abs(value) > 2 ^ 53) then
      raise("%s: expected an integer, got %s", name, tostring(value))
    end
  end
  if spec.first ~= nil and spec.vocab == nil then
    raise "first: given without vocab, the number of ids of whole rows"
  end
  self.first, self.held, self.vocab = spec.first or 0, held, spec.vocab or held
end

-- How many ids a row `value` holds where that is not one: its last dimension, one more than rows
-- have.
local function width_of(value, row_shape)
  if tensor.is_tensor(value) then
    return value.ndim == #row_shape + 1 and value.shape[value.ndim] or nil
  end
  for _ = 1, #row_shape do
    if type(value) ~= "table" then return nil end
    value = value[1]
  end
  return type(value) == "table" and #value or nil
end

-- Ids: one a row, or `width` of them.
local function set_ids(self, value)
  if value == nil then return end
  self.width = width_of(value, self.shape)
  if self.width == 0 then raise("ids: %s hold none", describe(value)) end
  self.ids = indices("ids", value, self.width and appended(self.shape, self.width) or self.shape,
                     self.device)
end

-- without_ids: a batch for a call that needs none.
local function build(spec, without_ids)
  if type(spec) ~= "table" or tensor.is_tensor(spec) then
    raise("batch: expected a table { logits = ..., ids = ... }, got %s", describe(spec))
  end
  local unused
  spec, unused = fields.for_batch(spec)
  for key in pairs(spec) do
    if not FIELDS[key] then raise("batch: unknown field '%s'", tostring(key)) end
    unsupported.check(spec[key], key)
  end
  for _, key in ipairs { "logits", not without_ids and "ids" or nil } do
    if spec[key] == nil then raise("batch: %s is missing", key) end
  end

  local logits = check_logits(spec.logits, spec.vocab ~= nil)
  local self = setmetatable({ device = logits.device, unused = unused }, Batch)
  set_ids_held(self, spec, logits.shape[logits.ndim])
  set_layout(self, logits, spec.cu_seqlens)

  set_ids(self, spec.ids)
  if spec.mask ~= nil then
    self.mask = mask_bytes("mask", spec.mask, self.shape, self.device, self.ids)
  end
  if spec.kept ~= nil then
    self.kept = kept_words(spec.kept, self.shape, self.vocab, self.device)
  end
  if spec.rows ~= nil then set_rows(self, spec.rows) end
  self.temperature = 1
  if spec.temperature ~= nil then
    self.temperature = temperatures(spec.temperature, self.device, self.shape, self.sequences,
                                    function() return bounds_of(self) end)
  end
  self.ignore_index = spec.ignore_index == nil and constants.SB_IGNORE_INDEX or spec.ignore_index
  if not is_integer(self.ignore_index) then
    raise("ignore_index: expected an integer, got %s", tostring(self.ignore_index))
  end
  self.shift = shift_of(spec.shift)

  local row_stride, batch_stride
  self.logits, row_stride, batch_stride = readable(logits)
  self.c = describe_to_c(self, row_stride, batch_stride)
  return self
end

--- The first row of sequence `b` and the one past its last, both counted from 0.
function Batch:bounds(b)
  return bounds_of(self)(b)
end

local MOVED = { "logits", "ids", "mask", "cu_seqlens", "rows", "row_list", "temperature",
                "kept" }

local function to(self, device, opts)
  local name = devices.normal(device)
  if not name then raise("to: %s is no device, like 'cpu' and 'cuda:0'", tostring(device)) end
  if name == self.device then return self end
  local made = {}
  for key, value in pairs(self) do made[key] = value end
  for _, field in ipairs(MOVED) do
    if tensor.is_tensor(self[field]) then
      local copy, message, code = self[field]:to(name, opts)
      if not copy then return nil, message, code end
      made[field] = copy
    end
  end
  made.device = name
  local row_stride, batch_stride
  made.logits, row_stride, batch_stride = readable(made.logits)
  made.c = describe_to_c(made, row_stride, batch_stride)
  return setmetatable(made, Batch)
end

--- The batch on another device, `opts` as for a tensor's `to`; itself where it is already. Nil, a
-- message and a code where a device cannot be had, or fails.
Batch.to = misuse.guard(to)

--- Which rows are active: a uint8 tensor of the per-row shape in memory, 1 where a row is scored.
function Batch:active()
  local out = tensor.zeros(self.shape, "uint8")
  local flags = ffi.cast("uint8_t *", out.ptr)
  local width = self.width or 1
  local held = { ids = self.ids and brought("ids", self.ids, "cpu"),
                 mask = self.mask and brought("mask", self.mask, "cpu"),
                 rows = self.rows and brought("rows", self.rows, "cpu") }
  local ids = held.ids and typed(held.ids)
  local mask = held.mask and ffi.cast("const uint8_t *", held.mask.ptr)
  local ignored = ffi.cast("int64_t", self.ignore_index)
  local bounds = bounds_of(self)

  local function has_ids(row)
    for i = row * width, row * width + width - 1 do
      if ids[i] ~= ignored then return true end
    end
    return false
  end
  local function visit(row)
    if (not ids or has_ids(row)) and (not mask or mask[row] ~= 0) then flags[row] = 1 end
  end
  if self.rows then
    local rows = typed(held.rows)
    for i = 0, self.rows.shape[1] - 1 do
      local row = tonumber(rows[i])
      if row >= 0 and row < self.rows_total then visit(row) end
    end
  else
    for row = 0, self.rows_total - 1 do visit(row) end
  end
  if self.shift == 1 then
    for b = 0, self.sequences - 1 do
      local first, past = bounds(b)
      if first < past then flags[first] = 0 end
    end
  end
  return out
end

function Batch:__tostring()
  local active, flags = 0, self:active()
  local bytes = ffi.cast("const uint8_t *", flags.ptr)
  for row = 0, self.rows_total - 1 do active = active + bytes[row] end
  local lines = { ("samebits.batch, %s"):format(self.layout) }
  local function add(name, value)
    if tensor.is_tensor(value) then value = describe(value) end
    lines[#lines + 1] = ("  %-13s%s"):format(name, tostring(value))
  end
  add("logits", self.logits)
  if self.held ~= self.vocab then
    add("shard", ("%d ids from %d on, of %d"):format(self.held, self.first, self.vocab))
  end
  if self.device ~= "cpu" then add("device", self.device) end
  if self.cu_seqlens then add("cu_seqlens", self.cu_seqlens) end
  if self.ids then add("ids", self.ids) end
  if self.mask then add("mask", self.mask) end
  if self.kept then add("kept", self.kept) end
  if self.rows then add("rows", self.rows) end
  add("temperature", self.temperature)
  if self.ignore_index ~= constants.SB_IGNORE_INDEX then add("ignore_index", self.ignore_index) end
  if self.shift == 1 then add("shift", "1 (logits of row t score id t + 1)") end
  if #self.unused > 0 then add("not used", printable.text(table.concat(self.unused, ", "))) end
  add("active", ("%d of %d tokens, %d sequence%s"):format(active, self.rows_total, self.sequences,
                                                          self.sequences == 1 and "" or "s"))
  return table.concat(lines, "\n")
end

local M = {}

--- Makes a batch.
-- @tparam table spec
--
-- * `logits`: a tensor [B, T, V] or [N, V] of float32, float16 or bfloat16;
-- * `ids`: the target ids, integers [B, T] or [N], a tensor or nested tables; for `ctx:logprob_ids`
--   [B, T, K] or [N, K];
-- * `mask`: the same shape, bool or integers, non-zero where active; all are by default. What looks
--   like ids, since it has more than two different values beside 0 and 1, is refused
--   (bytes are not looked at);
-- * `kept`: which ids of each row take part, the others counting as -inf: int32 [.., W] words,
--   W = ceil(V / 32), bit i % 32 of word i / 32 being id i's; or flags [.., V], bool or integers,
--   a tensor or nested tables, which are made such words in memory; all ids are by default;
-- * `temperature`: a number, or one a row, or one a sequence [B]; 1 by default;
-- * `cu_seqlens`: [B + 1], for packed logits;
-- * `rows`: the rows to score, strictly rising; all by default;
-- * `ignore_index`: the id of tokens not to score; -100 by default;
-- * `vocab` and `first` (0 by default): the logits are a shard's, of the ids from `first` on of
--   `vocab`; see `ctx:partial`;
-- * `shift`: 1 or true if the logits of row t score id t + 1 of the same sequence.
--
-- What `load` gives for a .safetensors file may stand in for the table: of its tensors those are
-- used whose names say what they are for, as docs/drift.md lists them; tostring tells the others.
--
-- The batch is on the logits' device; the others may be there or in memory. For `ctx:topk` alone a
-- batch may be made without ids: `samebits.batch(spec, { ids = false })`.
M.new = misuse.guard(function(spec, opts)
  return build(spec, type(opts) == "table" and opts.ids == false)
end)

-- For code inside the library: raises what misuse.guard understands.
M.build = build

-- Methods by class: see samebits.repl.sources.
M.classes = { Batch = Batch }

function M.is_batch(value) return getmetatable(value) == Batch end

M.describe, M.shape_text, M.same_shape = describe, shape_text, same_shape
M.indices, M.index_list, M.mask_bytes = indices, index_list, mask_bytes
M.appended = appended

return M
