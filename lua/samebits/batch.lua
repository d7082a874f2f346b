--- Batches: the input of `ctx:logprob`. This module checks everything about them, in terms of the
-- caller's own arguments, except the values of ids, temperatures and offsets, which the library
-- checks row by row.
--
-- Layouts:
--
-- * padded: logits [B, T, V], and per row [B, T];
-- * packed: logits [N, V], cu_seqlens [B + 1], and per row [N];
-- * one sequence: logits [N, V] without cu_seqlens, and per row [N].
--
-- Instead of logits, a batch may have hidden states [.., D] and a head: see `ctx:head`.
--
-- `#batch` is `batch:len()`, the number of rows.
--
-- A batch refers to the tensors it was made from and keeps them alive. It copies only tensors that
-- the library cannot read in place: logits whose vocabulary dimension is not contiguous or whose
-- rows overlap, strided per-row tensors, and integers of another width.
--
-- A batch is on one device, that of its logits. Per-row values may also be given in memory or as
-- tables, and are copied to the device; values that must be converted pass through memory. Only the
-- batch's `to` copies logits from one device to another.

local ffi = require "ffi"
local class = require "samebits.op.class"
local devices = require "samebits.device"
local fields = require "samebits.io.fields"
local kept = require "samebits.batch.kept"
local mask_values = require "samebits.batch.mask_values"
local ragged = require "samebits.batch.ragged"
local values = require "samebits.batch.values"
local printable = require "samebits.text.printable"
local tensor = require "samebits.tensor"
local misuse = require "samebits.misuse"
local objects = require "samebits.object"
local constants = require "samebits.cdef"

local raise, describe = misuse.raise, tensor.describe
local layout = tensor.layout
local shape_text = layout.text
local brought, typed, index_list = values.brought, values.typed, values.index_list
local INDEX_DTYPES = values.INDEX_DTYPES

local LOGITS_DTYPES = { float32 = 1, float16 = 2, bfloat16 = 3 }

local FIELDS = {
  logits = true, ids = true, mask = true, temperature = true, ignore_index = true, shift = true,
  rows = true, cu_seqlens = true, first = true, vocab = true, kept = true, kept_ids = true,
  kept_offsets = true, hidden = true, head = true,
}

-- Checks the logits or hidden states of rows. last: the name of their last dimension.
local function check_rows(name, value, last)
  if type(value) == "table" and not tensor.is_tensor(value) then
    local ok, made = pcall(tensor.tensor, value, { dtype = "float32" })
    if not ok then raise("%s: %s", name, tostring(made)) end
    value = made
  end
  if not tensor.is_tensor(value) then
    raise("%s: expected a tensor [B, T, %s] or [N, %s], got %s", name, last, last, describe(value))
  end
  if not LOGITS_DTYPES[value.dtype] then
    local hint = (" (%s:to \"float32\" rounds them)"):format(name)
    raise("%s: dtype %s, expected float32, float16 or bfloat16%s", name, value.dtype,
          value.dtype == "float64" and hint or "")
  end
  if value.ndim ~= 2 and value.ndim ~= 3 then
    raise("%s: shape %s, expected [B, T, %s] or [N, %s]", name, shape_text(value.shape), last, last)
  end
  return value
end

local function check_logits(value, is_shard)
  value = check_rows("logits", value, "V")
  local vocab = value.shape[value.ndim]
  if vocab < (is_shard and 0 or 1) or vocab > constants.SB_MAX_VOCAB then
    raise("logits: shape %s: a vocabulary of %d; 1 to %d can be scored", shape_text(value.shape),
          vocab, constants.SB_MAX_VOCAB)
  end
  return value
end

local function check_hidden(value, head, logits)
  if not class.is_head(head) then
    raise("head: expected a head, which ctx:head makes, got %s", describe(head))
  end
  if value == nil then raise "head: given without hidden" end
  if logits ~= nil then raise "logits: given beside hidden and head: either, not both" end
  value = check_rows("hidden", value, "D")
  if value.shape[value.ndim] ~= head.width then
    raise("hidden: shape %s, but the head's weights are [%d, %d]", shape_text(value.shape),
          head.ids, head.width)
  end
  if value.device ~= head.device then
    raise("hidden: the tensor is on %s, the head on %s", value.device, head.device)
  end
  return value
end

-- The logits or hidden states in a form that the library can read, with row and sequence strides;
-- copied only if they cannot be read in place. The library takes a stride of 0 for the dense one.
-- It is given for dimensions of length 1, whose stride has no meaning.
local function readable(logits, name)
  local n, shape, strides = logits.ndim, logits.shape, logits.strides
  local vocab = shape[n]
  if vocab == 0 then return logits, 0, 0 end
  local row = shape[n - 1] > 1 and strides[n - 1] or 0
  local sequence = n == 3 and shape[1] > 1 and strides[1] or 0
  local ok = (vocab == 1 or strides[n] == 1) and (shape[n - 1] <= 1 or row >= vocab) and
             (n == 2 or shape[1] <= 1 or sequence > 0)
  if ok then return logits, row, sequence end
  if logits.device ~= "cpu" then
    raise("%s: shape %s with strides %s cannot be read in place on %s: make them contiguous " ..
          "first", name, shape_text(shape), shape_text(strides), logits.device)
  end
  return logits:contiguous(), 0, 0
end

local Batch = {} -- methods
local prototype, metatable = objects.class("batch", Batch)
local fields_of = objects.fields_of
local OWN = { __index = Batch } -- the metatable of the tables of fields

local function new(own) return objects.new(prototype, setmetatable(own, OWN)) end

function metatable.__index(self, key) return fields_of[self][key] end

function metatable.__newindex(self, key, value) fields_of[self][key] = value end

-- The first row of sequence b, and the row after its last.
local function bounds_of(self)
  if self.cu_seqlens then
    local held = brought("cu_seqlens", self.cu_seqlens, "cpu")
    -- Offsets are not checked here (the library checks them), so they are clipped: never a row
    -- outside [0, N].
    local function clip(x) return math.max(0, math.min(tonumber(x), self.rows_total)) end
    return function(b)
      local offsets = typed(held)
      return clip(offsets[b]), clip(offsets[b + 1])
    end
  end
  local time = self.sequences > 0 and self.rows_total / self.sequences or 0
  return function(b) return b * time, (b + 1) * time end
end

-- Sets the layout, per-row shape, sequences and offsets.
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
  self.rows_total = layout.numel(self.shape)
end

-- Sets the row list as int64, and the pointer for the library, to which a null pointer means every
-- row and an empty list no row.
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
  c.vocab = self.vocab
  if self.head then
    c.logits_dtype = LOGITS_DTYPES.float32
    c.head, c.hidden_width = self.head.handle, self.head.width
    c.hidden, c.hidden_dtype = self.hidden.ptr, LOGITS_DTYPES[self.hidden.dtype]
    c.hidden_row_stride, c.hidden_batch_stride = row_stride, batch_stride
  else
    c.logits, c.logits_dtype = self.logits.ptr, LOGITS_DTYPES[self.logits.dtype]
    c.row_stride, c.batch_stride = row_stride, batch_stride
  end
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
  if self.kept_ids then kept.describe(c, self.kept_ids, self.kept_offsets) end
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

-- Sets the logits or hidden states, and the library's struct.
local function describe_rows(self, rows)
  local name = self.head and "hidden" or "logits"
  local row_stride, batch_stride
  self[name], row_stride, batch_stride = readable(rows, name)
  self.c = describe_to_c(self, row_stride, batch_stride)
end

-- Sets which ids, out of how many, have logits here: all, unless the batch is a shard.
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
  if self.head then
    if spec.first ~= nil then raise "first: given beside head, which knows its first id" end
    if self.head.first > 0 and spec.vocab == nil then
      raise "vocab: missing, the number of ids of whole rows: the head has those of a shard"
    end
    self.first, self.held, self.vocab = self.head.first, held, spec.vocab or held
    return
  end
  self.first, self.held, self.vocab = spec.first or 0, held, spec.vocab or held
end

-- How many ids per row `value` holds, if more than one is possible: the size of its last dimension,
-- which is additional to the rows' shape.
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

-- Sets the ids: one per row, or `width` of them.
local function set_ids(self, value)
  if value == nil then return end
  self.width = width_of(value, self.shape)
  if self.width == 0 then raise("ids: %s hold none", describe(value)) end
  local shape = self.width and layout.appended(self.shape, self.width) or self.shape
  self.ids = values.indices("ids", value, shape, self.device)
end

-- without_ids: for a call that needs none.
local function build(spec, without_ids)
  if type(spec) ~= "table" or tensor.is_tensor(spec) then
    raise("batch: expected a table { logits = ..., ids = ... }, got %s", describe(spec))
  end
  local unused
  spec, unused = fields.for_batch(spec)
  for key in pairs(spec) do
    if not FIELDS[key] then raise("batch: unknown field '%s'", tostring(key)) end
    tensor.unsupported.check(spec[key], key)
  end
  local has_hidden = spec.head ~= nil or spec.hidden ~= nil
  for _, key in ipairs { has_hidden and "head" or "logits", not without_ids and "ids" or nil } do
    if spec[key] == nil then raise("batch: %s is missing", key) end
  end

  local logits = has_hidden and check_hidden(spec.hidden, spec.head, spec.logits) or
                 check_logits(spec.logits, spec.vocab ~= nil)
  local self = new { device = logits.device, unused = unused, head = spec.head }
  set_ids_held(self, spec, has_hidden and spec.head.ids or logits.shape[logits.ndim])
  set_layout(self, logits, spec.cu_seqlens)

  set_ids(self, spec.ids)
  if spec.mask ~= nil then
    self.mask = values.mask_bytes("mask", spec.mask, self.shape, self.device, self.ids)
  end
  if spec.kept ~= nil then
    self.kept = values.kept_words(spec.kept, self.shape, self.vocab, self.device)
  end
  if spec.kept_ids ~= nil or spec.kept_offsets ~= nil then
    if spec.kept ~= nil then raise "kept: given together with kept_ids: a kept set has one form" end
    self.kept_ids, self.kept_offsets =
      kept.lists_of(spec.kept_ids, spec.kept_offsets, self.rows_total, self.device)
  end
  if spec.rows ~= nil then set_rows(self, spec.rows) end
  self.temperature = 1
  if spec.temperature ~= nil then
    self.temperature = values.temperatures(spec.temperature, self.device, self.shape,
                                           self.sequences, function() return bounds_of(self) end)
  end
  self.ignore_index = spec.ignore_index == nil and constants.SB_IGNORE_INDEX or spec.ignore_index
  if not values.is_integer(self.ignore_index) then
    raise("ignore_index: expected an integer, got %s", tostring(self.ignore_index))
  end
  self.shift = shift_of(spec.shift)

  describe_rows(self, logits)
  return self
end

--- Returns the first row of sequence `b` and the row after its last, both counted from 0.
-- @tparam number b
-- @treturn number the first row
-- @treturn number the row after the last
function Batch:bounds(b)
  return bounds_of(self)(b)
end

local MOVED = { "logits", "ids", "mask", "cu_seqlens", "rows", "row_list", "temperature",
                "kept", "kept_ids", "kept_offsets" }

local function to(self, device, opts)
  local name = devices.normal(device)
  if not name then raise("to: %s is no device, like 'cpu' and 'cuda:0'", tostring(device)) end
  if name == self.device then return self end
  if self.head then
    raise("to: the batch's head is on %s: make one there, and a batch of it", self.head.device)
  end
  local made = {}
  for key, value in pairs(fields_of[self]) do made[key] = value end
  for _, field in ipairs(MOVED) do
    if tensor.is_tensor(self[field]) then
      local copy, message, code = self[field]:to(name, opts)
      if not copy then return nil, message, code end
      made[field] = copy
    end
  end
  made.device = name
  describe_rows(made, made.logits)
  return new(made)
end

--- The batch on another device, with `opts` as for a tensor's `to`; the batch itself if it
-- is already there. Returns nil, a message and a code if a device is not available or fails.
-- @tparam string device
-- @tparam[opt] table opts
-- @treturn batch the batch there; or nil, a message and a code
Batch.to = misuse.guard(to)

--- Whether the rows have kept sets, of either form.
-- @treturn boolean
function Batch:has_kept() return self.kept ~= nil or self.kept_ids ~= nil end

--- Returns the rows' kept sets as words in memory, [.., W]; nil if the rows have none.
-- @treturn tensor int32
Batch.kept_words = misuse.guard(function(self)
  if self.kept then return brought("kept", self.kept, "cpu") end
  if not self.kept_ids then return nil end
  local words = kept.words(self.kept_ids, self.kept_offsets, self.vocab)
  return words:view(unpack(layout.appended(self.shape, words.shape[2])))
end)

--- Returns the active rows: a uint8 tensor of the per-row shape in memory, 1 where a row is scored.
-- @treturn tensor uint8
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

--- The number of rows, active or not, which is also `#batch`: B * T or N.
-- @treturn number
function Batch:len() return self.rows_total end

metatable.__len = Batch.len

function metatable.__tostring(self)
  local active, flags = 0, self:active()
  local bytes = ffi.cast("const uint8_t *", flags.ptr)
  for row = 0, self.rows_total - 1 do active = active + bytes[row] end
  local lines = { ("samebits.batch, %s"):format(self.layout) }
  local function add(name, value)
    if tensor.is_tensor(value) then value = describe(value) end
    lines[#lines + 1] = ("  %-13s%s"):format(name, tostring(value))
  end
  if self.head then
    add("hidden", self.hidden)
    add("head", self.head)
  else
    add("logits", self.logits)
  end
  if self.held ~= self.vocab then
    add("shard", ("%d ids from %d on, of %d"):format(self.held, self.first, self.vocab))
  end
  if self.device ~= "cpu" then add("device", self.device) end
  if self.cu_seqlens then add("cu_seqlens", self.cu_seqlens) end
  if self.ids then add("ids", self.ids) end
  if self.mask then add("mask", self.mask) end
  for _, name in ipairs { "kept", "kept_ids", "kept_offsets" } do
    if self[name] then add(name, self[name]) end
  end
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
-- * `hidden` and `head`, instead of `logits`: hidden states [B, T, D] or [N, D] of the same dtypes,
--   and the head that computes their logits, from `ctx:head`;
-- * `ids`: the target ids, integers [B, T] or [N], a tensor or nested tables; for `ctx:logprob_ids`
--   [B, T, K] or [N, K];
-- * `mask`: the same shape, bool or integers, non-zero where active; by default all are active. A
--   mask that looks like ids, because it has more than two different values besides 0 and 1, is
--   refused (bytes are not examined);
-- * `kept`: the ids of each row that take part; the others count as -inf. int32 [.., W] words, W =
--   ceil(V / 32), where bit i % 32 of word i / 32 belongs to id i; or flags [.., V], bool or
--   integers, a tensor or nested tables, which are converted to such words in memory; by default
--   all ids take part;
-- * `kept_ids` and `kept_offsets`, in place of `kept`: the same as lists. Row r keeps the ids
--   kept_ids[kept_offsets[r]] .. kept_ids[kept_offsets[r + 1] - 1], which rise; int32 or int64, [K]
--   and [rows + 1]. A row costs its kept ids then, and not V;
-- * `temperature`: a number, or one per row, or one per sequence [B]; 1 by default;
-- * `cu_seqlens`: [B + 1], for packed logits;
-- * `rows`: the rows to score, strictly rising; all by default;
-- * `ignore_index`: the id of tokens not to score; -100 by default;
-- * `vocab` and `first` (0 by default): the logits are those of a shard, of the ids from `first` on
--   out of `vocab`; see `ctx:partial`;
-- * `shift`: 1 or true if the logits of row t score id t + 1 of the same sequence.
--
-- The result of `load` for a .safetensors file may be given as the table. Tensors are then used by
-- their names, which docs/drift.md lists; tostring lists the tensors that are not used.
--
-- The batch is on the logits' device; the other tensors may be there or in memory. For `ctx:topk`
-- alone a batch may be made without ids: `samebits.batch(spec, { ids = false })`.
-- @tparam[opt] table opts `ids`: false for a batch without ids
-- @treturn batch
M.new = misuse.guard(function(spec, opts)
  return build(spec, type(opts) == "table" and opts.ids == false)
end)

-- For code inside the library: raises errors that misuse.guard handles.
M.build = build

-- Methods by class, for samebits.repl.sources.
M.classes = { Batch = Batch }

function M.is_batch(value) return getmetatable(value) == metatable end

M.indices, M.index_list, M.mask_bytes = values.indices, values.index_list, values.mask_bytes

--- Raises misuse if a tensor in memory cannot be a mask.
M.check_mask = mask_values.check

M.pad, M.pack = ragged.pad, ragged.pack
M.mask_from_lengths, M.mask_from_splits = ragged.mask_from_lengths, ragged.mask_from_splits

--- Builds a batch from sequences.
-- @tparam table spec `sequences`: a list of { logits = [t, V], ids = [t], mask = [t], prompt = n },
-- where the latter two are optional and the first `prompt` tokens are not scored; `layout`:
-- "right", "left" (where the padding goes) or "packed"; `length`: T of a padded layout;
-- `temperature`, `shift` and `ignore_index` as for `batch`
-- @treturn batch
M.from_sequences = misuse.guard(function(spec) return build(ragged.spec(spec)) end)

return M
