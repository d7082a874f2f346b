--- Reads the two sides of a comparison from tensors, nested lists, results of `ctx:logprob`, DLPack
-- pointers or files; checks them against each other; and puts their rows in one dimension.

local ffi = require "ffi"
local align = require "samebits.drift.align"
local batches = require "samebits.batch"
local logprob = require "samebits.op.logprob"
local fields_of = require "samebits.io.fields"
local hidden = require "samebits.drift.hidden"
local inputs = require "samebits.drift.inputs"
local kept_sets = require "samebits.batch.kept"
local misuse = require "samebits.misuse"
local safetensors = require "samebits.io.safetensors"
local shapes = require "samebits.drift.shapes"
local tensor = require "samebits.tensor"
local constants = require "samebits.cdef"

local raise = misuse.raise
local shape_text, same_shape, describe = tensor.layout.text, tensor.layout.same, tensor.describe

local M = {}

local ROLES = fields_of.SIDE

local OWN = { name = true, vocab = true }
for _, role in ipairs(ROLES) do OWN[role] = true end
for _, name in ipairs(hidden.SETTINGS) do OWN[name] = true end

local RESULTS = {}
for _, name in ipairs(logprob.OP.names) do RESULTS[name] = true end

local FLOATS = { float32 = true, float16 = true, bfloat16 = true, float64 = true }
local LOGITS = { float32 = true, float16 = true, bfloat16 = true }
local INTEGERS = { int8 = true, uint8 = true, int16 = true, int32 = true, int64 = true }

-- The tensor of a file, which is added to the list `opened`; and the file as `fields` read it.
local function load_field(role, spec, opened)
  local loaded, from = fields_of.load_one(spec, role, opened)
  if not loaded then misuse.fail(from) end
  return loaded, from
end

local function is_pointer(value)
  local kind = misuse.kind(value) -- a tensor's is not "userdata", whatever its type
  return kind == "cdata" or kind == "userdata"
end

-- Copies a tensor to memory, where rows are examined.
local function in_memory(label, role, t)
  local copy, why = t:to "cpu"
  if not copy then misuse.fail(("%s: %s: %s"):format(label, role, why)) end
  return copy
end

-- Returns a given value; fails if its dtype is not supported.
local function usable(value, label)
  local why = tensor.unsupported.why(value)
  if why then misuse.fail(("%s: %s"):format(label, why)) end
  return value
end

-- Makes a tensor from any form that a field may be given in. Returns it and the file that it comes
-- from, if any.
local function as_tensor(label, role, value, opened)
  value = usable(value, label)
  if tensor.is_tensor(value) then return in_memory(label, role, value) end
  if type(value) == "string" then return load_field(role, value, opened) end
  if is_pointer(value) then
    return in_memory(label, role, require("samebits.dlpack").import(value))
  end
  if type(value) == "table" then
    local is_integer = role == "ids" or role == "cu_seqlens" or role == "mask" or
                       role:find "^kept"
    local dtype = is_integer and "int64" or "float32"
    local ok, made = pcall(tensor.tensor, value, { dtype = dtype })
    if not ok then raise("%s: %s: %s", label, role, tostring(made)) end
    return made
  end
  raise("%s: %s: expected a tensor, a list or a file's path, got %s", label, role,
        misuse.kind(value))
end

-- Reads a file as a side. Returns its fields; the requested tensor if no name tells its role; and
-- all tensors of a .safetensors file by name.
local function from_path(spec, opened)
  local source, why = fields_of.read(spec, ROLES, opened)
  if not source then misuse.fail(why) end
  local with = source.fields
  if not source.bare and not with.logprobs and not with.logits and
     not (with.hidden and with.head) then
    misuse.fail(("%s: say which is meant, as %s:NAME"):format(fields_of.lacking(source.path,
      "neither logprobs nor logits", source.tensors), source.path))
  end
  return source.fields, source.bare, source.tensors
end

-- Whether a table is nested lists and not a side's fields.
local function is_list(value)
  return type(value) == "table" and not tensor.is_tensor(value) and value[1] ~= nil
end

-- Reads one side as given. Returns its fields; one tensor whose role is not known yet; and all
-- tensors of its file.
local function given(label, value, extra, opened)
  local fields, bare, held
  if type(value) == "string" then
    value, bare, held = from_path(value, opened)
    if bare then value, fields = bare, value end
  elseif is_list(usable(value, label)) or is_pointer(value) then
    value = as_tensor(label, "logprobs", value, opened)
  end
  if tensor.is_tensor(value) then
    fields, bare = fields or {}, in_memory(label, "values", value)
  elseif type(value) == "table" then
    fields = fields_of.by_role(value, label, ROLES)
    for key, field in pairs(value) do
      -- Other tensors in a file are not errors, and neither are other outputs of ctx:logprob.
      local is_beside = safetensors.is_loaded(value) and fields_of.is_held(field)
      if not (is_beside or OWN[key] or RESULTS[key] or fields_of.is_named(key, ROLES)) then
        raise("%s: unknown field '%s'", label, tostring(key))
      end
      local is_role = fields_of.is_named(key, ROLES)
      if OWN[key] and not is_role and not is_beside then fields[key] = field end
    end
  else
    raise("%s: expected logprobs or logits (a tensor, a list, a table of them, a file's path), " ..
          "got %s", label, value == nil and "nothing" or misuse.kind(value))
  end
  for key, field in pairs(extra or {}) do
    if not OWN[key] then raise("%s: unknown field '%s'", label, tostring(key)) end
    fields[key] = field
  end
  return fields, bare, held
end

-- The fields given with the logprobs or logits, and the names of the tensors in the file that are
-- not used.
local function account(fields, held)
  local with, taken, unused = {}, {}, {}
  for _, role in ipairs { "ids", "mask", "cu_seqlens" } do
    if fields[role] then with[#with + 1] = role end
  end
  for _, t in pairs(fields) do taken[t] = true end
  for name, t in pairs(held or {}) do
    if not taken[t] then unused[#unused + 1] = name end
  end
  table.sort(unused)
  return with, unused
end

-- Distinguishes logprobs from logits by their dimensions.
local function place_bare(fields, bare, ids, cu_seqlens)
  local role = "logprobs"
  if bare.ndim == 3 then
    role = "logits"
  elseif bare.ndim == 2 then
    if cu_seqlens ~= nil or tensor.is_tensor(ids) and ids.ndim == 1 then role = "logits" end
  end
  if fields[role] ~= nil then role = role == "logits" and "logprobs" or "logits" end
  fields[role] = bare
end

local function product(shape)
  local n = 1
  for i = 1, #shape do n = n * shape[i] end
  return n
end

local function without_last(shape)
  local out = {}
  for i = 1, #shape - 1 do out[i] = shape[i] end
  return out
end

-- Puts rows in one dimension, and copies only if the strides require it.
local function flat(t, ...)
  local list = { ... }
  local ok, view = pcall(t.view, t, list)
  if ok then return view end
  return t:contiguous():view(list)
end

-- Returns logits as rows whose elements follow each other, because they are read through pointers.
-- Other logits (of a file in Fortran order, of a transposed tensor) are copied whole.
local function logit_rows(t, rows, width)
  local made = flat(t, rows, width)
  return width > 1 and made.strides[2] ~= 1 and made:contiguous() or made
end

local function per_row(label, role, t, shape, kinds, wanted)
  if not kinds[t.dtype] then
    raise("%s: %s: dtype %s, expected %s", label, role, t.dtype, wanted)
  end
  if not same_shape(t.shape, shape) then
    raise("%s: %s: shape %s, expected %s%s", label, role, shape_text(t.shape), shape_text(shape),
          shapes.hint(t.shape, shape))
  end
  return flat(t, product(shape))
end

-- A temperature for each row, unless there is one for all rows.
local function temperature_of(label, value, layout, opened)
  if value == nil then return 1 end
  if type(value) == "number" then
    if not (value >= 2 ^ -10 and value <= 2 ^ 10) then
      raise("%s: temperature %g is outside [2^-10, 2^10]", label, value)
    end
    return value
  end
  local t = as_tensor(label, "temperature", value, opened)
  if not FLOATS[t.dtype] then
    raise("%s: temperature: dtype %s, expected float32", label, t.dtype)
  end
  if t:numel() == 1 then
    return temperature_of(label, t:reshape(1):get(0), layout, opened)
  end
  t = shapes.brought(t, layout, 1)
  local made = tensor.zeros({ layout.rows }, "float32")
  local to = ffi.cast("float *", made.ptr)
  if same_shape(t.shape, layout.shape) then
    made = flat(t, layout.rows):to "cpu":to "float32":contiguous()
    to = ffi.cast("float *", made.ptr)
  elseif t.ndim == 1 and t.shape[1] == layout.sequences then
    for b = 0, layout.sequences - 1 do
      local tau, first, past = t:get(b), layout.bounds(b)
      for row = first, past - 1 do to[row] = tau end
    end
  else
    raise("%s: temperature: shape %s, expected %s (one per token) or [%d] (one per sequence)",
          label, shape_text(t.shape), shape_text(layout.shape), layout.sequences)
  end
  for row = 0, layout.rows - 1 do
    if not (to[row] >= 2 ^ -10 and to[row] <= 2 ^ 10) then
      local b, position = layout.place(row)
      raise("%s: temperature %g at sequence %d, position %d is outside [2^-10, 2^10]", label,
            to[row], b, position)
    end
  end
  return made
end

-- The rows at which a side's sequences begin and end.
local function layout_of(label, shape, cu_seqlens)
  local layout = { shape = shape, rows = product(shape) }
  if #shape == 2 then
    if cu_seqlens ~= nil then
      raise("%s: cu_seqlens: given with tokens %s; packed ones are [N]", label, shape_text(shape))
    end
    local time = shape[2]
    layout.sequences, layout.longest = shape[1], time
    function layout.bounds(b) return b * time, (b + 1) * time end
    function layout.place(row)
      local b = math.floor(row / time)
      return b, row - b * time
    end
    return layout
  end
  if cu_seqlens == nil then
    layout.sequences, layout.longest = 1, shape[1]
    function layout.bounds() return 0, layout.rows end
    function layout.place(row) return 0, row end
    return layout
  end
  if cu_seqlens.ndim ~= 1 or cu_seqlens.shape[1] < 1 or not INTEGERS[cu_seqlens.dtype] then
    raise("%s: cu_seqlens: %s, expected integers [B + 1]", label, describe(cu_seqlens))
  end
  local offsets, n = {}, cu_seqlens.shape[1]
  layout.longest = 0
  for i = 0, n - 1 do
    offsets[i] = tonumber(cu_seqlens:get(i))
    if offsets[i] < (i == 0 and 0 or offsets[i - 1]) or i == 0 and offsets[0] ~= 0 then
      raise("%s: cu_seqlens[%d] is %d: they start at 0 and never fall", label, i, offsets[i])
    end
    if i > 0 then layout.longest = math.max(layout.longest, offsets[i] - offsets[i - 1]) end
  end
  if offsets[n - 1] ~= layout.rows then
    raise("%s: cu_seqlens end at %d, there are %d tokens", label, offsets[n - 1], layout.rows)
  end
  layout.sequences, layout.offsets = n - 1, offsets
  function layout.bounds(b) return offsets[b], offsets[b + 1] end
  function layout.place(row)
    local low, high = 0, n - 1 -- offsets[low] <= row < offsets[high]
    while high - low > 1 do
      local middle = math.floor((low + high) / 2)
      if offsets[middle] <= row then low = middle else high = middle end
    end
    return low, row - offsets[low]
  end
  return layout
end

-- The shape of one side's tokens.
local function rows_of(label, fields)
  local shape
  shapes.check_logits(label, fields)
  if fields.logits then
    local t = fields.logits
    if not LOGITS[t.dtype] then
      raise("%s: logits: dtype %s, expected float32, float16 or bfloat16", label, t.dtype)
    end
    if t.ndim ~= 2 and t.ndim ~= 3 or t.shape[t.ndim] < 1 then
      raise("%s: logits: shape %s, expected [B, T, V] or [N, V]", label, shape_text(t.shape))
    end
    shape = without_last(t.shape)
  end
  if fields.logprobs then
    local t = fields.logprobs
    if not FLOATS[t.dtype] then
      raise("%s: logprobs: dtype %s, expected a float", label, t.dtype)
    end
    if t.ndim ~= 1 and t.ndim ~= 2 then
      raise("%s: logprobs: shape %s, expected [B, T] or [N]%s", label, shape_text(t.shape),
            t.ndim == 3 and ": one value per id; give log_softmax as logits" or "")
    end
    if shape and not same_shape(shape, t.shape) then
      raise("%s: logprobs %s beside logits %s", label, shape_text(t.shape),
            shape_text(fields.logits.shape))
    end
    shape = t.shape
  end
  return shape
end

-- Returns a token's kept set in one row, whether it consists of words of 32 ids, and of how many
-- ids. Without logits (vocab: nil), int32 values are read as words.
local function kept_of(label, kept, layout, vocab)
  if not vocab then
    local width = kept.shape[kept.ndim] or 1
    vocab = kept.dtype == "int32" and 32 * width or width
  end
  local words = math.ceil(vocab / 32)
  for _, width in ipairs { vocab, words } do
    local wanted = {}
    for i, n in ipairs(layout.shape) do wanted[i] = n end
    wanted[#wanted + 1] = width
    if same_shape(kept.shape, wanted) and (width == vocab or kept.dtype == "int32") then
      return flat(kept, layout.rows, width), width ~= vocab, vocab
    end
  end
  local dims = table.concat(layout.shape, ", ")
  raise("%s: kept: %s, expected a kept set a token, [%s, %d] flags or [%s, %d] int32 words", label,
        describe(kept), dims, vocab, dims, words)
end

local SHARED = { "ids", "mask", "cu_seqlens", "temperature", "kept", "kept_ids", "kept_offsets",
                 "vocab" }

local function vocab_of(label, value, held)
  if value == nil then return held end
  if type(value) ~= "number" or value % 1 ~= 0 or value < 1 or value > held then
    raise("%s: vocab is %s, expected an integer from 1 to the logits' %d", label, tostring(value),
          held)
  end
  return value
end

-- Whether a tensor's elements are pages of a file, which may then be given back. The pages of a
-- copy made in between must not be given back.
local function is_mapped(opened, t)
  for _, source in ipairs(opened) do
    if source:holds(t) then return true end
  end
  return false
end

-- Checks a side's per-token fields against its layout. others: the other side's fields.
local function finish(side, fields, others, layout, opened)
  local label = side.label
  side.layout = layout
  side.mapped = {}
  if fields.logprobs then
    side.dtype = fields.logprobs.dtype
    side.logprobs = flat(fields.logprobs, layout.rows)
  end
  if fields.logits then
    local t = fields.logits
    side.width = t.shape[t.ndim]
    side.logits_dtype = t.dtype
    side.vocab = vocab_of(label, fields.vocab, side.width)
    side.logits = logit_rows(t, layout.rows, side.width):slice(1, 0, side.vocab)
  end
  if fields.ids then
    side.ids = per_row(label, "ids", fields.ids, layout.shape, INTEGERS, "integers")
  end
  if fields.mask then
    local kinds = { bool = true }
    for name in pairs(INTEGERS) do kinds[name] = true end
    side.mask = per_row(label, "mask", fields.mask, layout.shape, kinds, "bool or integers")
  end
  if side.logits and not side.ids then raise("%s: logits are given, but no ids", label) end
  side.temperature = temperature_of(label, fields.temperature, layout, opened)
  local logits = fields.logits or others.logits
  if fields.kept then
    side.kept, side.kept_is_words, side.kept_vocab =
      kept_of(label, fields.kept, layout, logits and logits.shape[logits.ndim])
  end
  if fields.name ~= nil and type(fields.name) ~= "string" then
    raise("%s: name: expected a string, got %s", label, misuse.kind(fields.name))
  end
  side.name = fields.name
  side.shape = layout.shape
  for _, role in ipairs { "logprobs", "logits", "ids", "mask", "kept" } do
    side.mapped[role] = side[role] and is_mapped(opened, side[role]) or nil
  end
end

-- The dimensions of a side's tokens, of the field that is there.
local function dims_of(fields)
  if fields.logprobs then return fields.logprobs.shape end
  return without_last(fields.logits.shape)
end

-- One more than the largest id.
local function ids_up_to(ids)
  local read, dense, most = tensor.element.read[ids.dtype], ids:contiguous(), 0
  for i = 0, ids:numel() - 1 do most = math.max(most, tonumber(read(dense.ptr, i))) end
  return most + 1
end

-- Lists of kept ids become words, in the dimensions of the side's tokens: the comparison takes one
-- form. logits: of either side, for V; without any, V is taken from the ids.
local function words_of_lists(label, fields, logits)
  local ids, offsets = fields.kept_ids, fields.kept_offsets
  if ids == nil and offsets == nil then return end
  if fields.kept ~= nil then raise("%s: kept: given together with kept_ids", label) end
  for name, other in pairs { kept_ids = "kept_offsets", kept_offsets = "kept_ids" } do
    if fields[name] == nil then raise("%s: %s: missing beside %s", label, name, other) end
    if fields[name].ndim ~= 1 or not INTEGERS[fields[name].dtype] then
      raise("%s: %s: %s, expected integers [%s]", label, name, describe(fields[name]),
            name == "kept_ids" and "K" or "tokens + 1")
    end
  end
  local vocab = logits and logits.shape[logits.ndim] or ids_up_to(ids)
  local ok, words = pcall(kept_sets.words, ids, offsets, vocab)
  if not ok then raise("%s: %s", label, (tostring(words):gsub("^.-kept_words: ", ""))) end
  local rows = offsets.shape[1] - 1
  for _, shape in ipairs { fields.logits and without_last(fields.logits.shape) or {},
                           fields.logprobs and fields.logprobs.shape or {},
                           fields.ids and fields.ids.shape or {} } do
    if #shape > 0 and product(shape) == rows then
      fields.kept = words:view(tensor.layout.appended(shape, words.shape[2]))
      return
    end
  end
  raise("%s: kept_offsets: %d kept sets, expected one per token, %s", label, rows,
        shape_text(dims_of(fields)))
end

-- Reads each side by its own shapes, and aligns them by their ids.
local function aligned(sides, meta, wanted, opened)
  for _, side in ipairs(sides) do
    local fields = side.fields
    if fields.ids == nil then
      raise("%s: tokens are aligned by their ids, which are not given", side.label)
    end
    -- A side without logits has nothing to shift.
    local asked = fields.logits and wanted
    local shift, notes, other_length = shapes.align({ fields }, asked)
    local layout = layout_of(side.label, rows_of(side.label, fields), fields.cu_seqlens)
    layout.other_length, layout.notes = other_length, notes
    side.shift = (asked or shift) and 1 or 0
    finish(side, fields, {}, layout, opened)
  end
  local a, b = sides[1], sides[2]
  local notes = { unpack(a.layout.notes) }
  for _, note in ipairs(b.layout.notes) do notes[#notes + 1] = note end
  local ignored = meta.ignore_index or constants.SB_IGNORE_INDEX
  local layout, found = align.join(a, b, ignored, function(shape, offsets)
    return layout_of("aligned", shape, offsets)
  end)
  for _, note in ipairs(align.notes(found)) do notes[#notes + 1] = note end
  a.layout, b.layout = layout, layout
  layout.notes, layout.alignment = notes, found
  return layout
end

local function read(a, b, meta, wanted)
  local opened = {}
  local sides, told = {}, {}
  for i = 1, 2 do
    local label, value = "A", a
    if i == 2 then label, value = "B", b end
    local extra = meta[label:lower()]
    if extra ~= nil and type(extra) ~= "table" then
      raise("%s: expected a table, got %s", label:lower(), misuse.kind(extra))
    end
    local fields, bare, held = given(label, value, extra, opened)
    local from_file = type(value) == "string" or safetensors.is_loaded(value)
    for _, key in ipairs(SHARED) do
      -- Fields given for both sides override those of files, but not those given for one side.
      local is_held = from_file and (type(value) == "string" or fields_of.is_held(fields[key]))
      local said = not is_held and fields[key] or extra and extra[key]
      if said == nil and meta[key] ~= nil then fields[key] = meta[key] end
    end
    local named = {} -- the files that are given for one role
    for _, role in ipairs(ROLES) do
      if fields[role] ~= nil and not (role == "temperature" and type(fields[role]) == "number") then
        fields[role], named[#named + 1] = as_tensor(label, role, fields[role], opened)
      end
    end
    for _, source in ipairs(named) do
      for role, t in pairs(fields_of.along(source, fields)) do
        fields[role] = usable(t, label)
      end
    end
    if bare then place_bare(fields, bare, fields.ids, fields.cu_seqlens) end
    hidden.screen(fields)
    local with, unused = account(fields, held)
    told[#told + 1] = hidden.resolve(label, fields)
    if not fields.logprobs and not fields.logits then
      raise("%s: neither logprobs nor logits are given", label)
    end
    sides[i] = { label = label, fields = fields, with = with, unused = unused,
                 source = type(value) == "string" and value or nil }
  end

  local of_a, of_b = sides[1].fields, sides[2].fields
  -- The same lists for both sides are the same kept sets.
  local alike = of_a.kept_ids ~= nil and of_a.kept_ids == of_b.kept_ids and
                of_a.kept_offsets == of_b.kept_offsets
  words_of_lists("A", of_a, of_a.logits or of_b.logits)
  if alike and same_shape(dims_of(of_a), dims_of(of_b)) then of_b.kept = of_a.kept
  else words_of_lists("B", of_b, of_b.logits or of_a.logits) end

  -- Fields that both sides gave, unless they are the same object.
  local twice = {}
  for _, key in ipairs(inputs.FIELDS) do
    local mine, other = sides[1].fields[key], sides[2].fields[key]
    twice[key] = mine ~= nil and other ~= nil and mine ~= other
  end

  local is_apart = sides[1].fields.ids ~= nil and sides[2].fields.ids ~= nil and
                   align.is_needed(dims_of(sides[1].fields), dims_of(sides[2].fields))
  if meta.align == true or meta.align == nil and is_apart then
    for _, side in ipairs(sides) do
      local fields = side.fields
      if fields.mask then batches.check_mask(side.label .. ": mask", fields.mask, fields.ids) end
    end
    local layout = aligned(sides, meta, wanted, opened)
    for _, note in ipairs(told) do table.insert(layout.notes, 1, note) end
    -- Ids are equal where tokens are aligned; what one side does not count is the other's alone.
    twice.ids, twice.mask, twice.cu_seqlens = false, false, false
    layout.twice, layout.shift = twice, false
    for i = 1, 2 do sides[i].fields = nil end
    return sides[1], sides[2], layout, opened
  end

  -- A field that one side lacks is taken from the other side, because the tokens are the same.
  for i = 1, 2 do
    local mine, other = sides[i].fields, sides[3 - i].fields
    for _, key in ipairs { "ids", "mask", "cu_seqlens" } do
      if mine[key] == nil and other[key] ~= nil then mine[key] = other[key] end
    end
  end
  -- Checked before positions are added in front, which would move the place that an error names.
  for _, side in ipairs(sides) do
    local fields = side.fields
    if fields.mask then batches.check_mask(side.label .. ": mask", fields.mask, fields.ids) end
  end
  local shift, notes, other_length = shapes.align({ sides[1].fields, sides[2].fields }, wanted)
  for _, note in ipairs(told) do notes[#notes + 1] = note end
  local shape_a, shape_b = rows_of("A", sides[1].fields), rows_of("B", sides[2].fields)
  if not same_shape(shape_a, shape_b) then shapes.mismatch(shape_a, shape_b) end
  for i = 1, 2 do
    local side, fields = sides[i], sides[i].fields
    local layout = layout_of(side.label, shape_a, fields.cu_seqlens)
    layout.other_length = other_length
    finish(side, fields, sides[3 - i].fields, layout, opened)
  end
  for i = 1, 2 do sides[i].fields = nil end
  local layout = sides[1].layout
  layout.twice, layout.notes, layout.shift = twice, notes, shift
  return sides[1], sides[2], layout, opened
end

--- Returns both sides, each with its `layout`; the layout of A is the report's: `twice` has the
-- fields that both sides gave, `notes` has sentences on how shapes were read, and `shift` is true
-- if the logits of row t score id t + 1. Also returns the files that were opened (io/source.lua).
-- Fails if a file cannot be used, and raises misuse if inputs do not fit together. shift: true,
-- false, or nil if it was not given.
--
-- Sides in different layouts that both give ids are aligned by these (align.lua; `meta.align`: true
-- forces this, false forbids it). The layout then has `alignment`, and each side its `shift`.
M.read = read

return M
