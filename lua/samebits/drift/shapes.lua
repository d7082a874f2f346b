--- Shapes of a comparison: recognizes the layout of dumps of Hugging Face models, and explains
-- shapes that do not fit.
--
-- A model's logits [B, T, V] and ids [B, T] come with logprobs [B, T - 1]: the logits of position t
-- score id t + 1, and the first id has no logprob. Here a token's place is its id's. If logits have
-- length T, tensors of length T - 1 therefore get a position 0 in front, which does not count
-- (shift); without logits, ids and masks of length T lose their position 0.

local ffi = require "ffi"
local misuse = require "samebits.misuse"
local tensor = require "samebits.tensor"

local raise, shape_text = misuse.raise, tensor.layout.text

local M = {}

local ROLES = { "logprobs", "logits", "ids", "mask" }

-- The dimensions of tokens: { B, T } or { T }; nil if the tensor has other dimensions.
local function tokens_of(role, t)
  local dims = role == "logits" and t.ndim - 1 or t.ndim
  if dims == 1 then return { t.shape[1] } end
  if dims == 2 then return { t.shape[1], t.shape[2] } end
end

--- Returns a copy with a position 0, which holds `value` (0), in front of each sequence.
function M.lengthened(t, value)
  local batch, n = t.ndim == 2 and t.shape[1] or 1, t.shape[t.ndim]
  local out, from = tensor.zeros({ batch, n + 1 }, t.dtype), t:contiguous()
  for b = 0, batch - 1 do
    if value then out:set(value, b, 0) end
    ffi.copy(out.ptr + (b * (n + 1) + 1) * t.itemsize, from.ptr + b * n * t.itemsize,
             n * t.itemsize)
  end
  return t.ndim == 2 and out or out:view(n + 1)
end

--- Returns a copy without each sequence's position 0.
function M.shortened(t)
  return t:slice(t.ndim - 1, 1, t.shape[t.ndim]):contiguous()
end

-- Whether two shapes [B, T] are transposes of each other, with one possibly a position shorter.
local function transposed(x, y)
  if #x ~= 2 or #y ~= 2 or x[1] == y[1] then return false end
  return x[1] == y[2] and math.abs(x[2] - y[1]) <= 1 or
         x[2] == y[1] and math.abs(x[1] - y[2]) <= 1
end

-- Raises if two tensors look transposed relative to each other.
local function check_transposed(sides)
  local known = {}
  for i, fields in ipairs(sides) do
    for _, role in ipairs(ROLES) do
      local t = fields[role]
      local dims = t and tokens_of(role, t)
      if dims then
        local title = ("%s: %s %s"):format(i == 1 and "A" or "B", role, shape_text(t.shape))
        for _, other in ipairs(known) do
          if transposed(dims, other.dims) then
            raise("%s and %s: one of them looks transposed; tokens are [B, T], logits [B, T, V]",
                  other.title, title)
          end
        end
        known[#known + 1] = { dims = dims, title = title }
      end
    end
  end
end

-- The lengths of all tensors of both sides if there are two that differ by one, otherwise nil:
-- long, short, and a set with the length of each role ("logits long").
local function lengths(sides)
  local first, found, long, short = nil, {}, nil, nil
  for _, fields in ipairs(sides) do
    if fields.cu_seqlens ~= nil then return nil end
    for _, role in ipairs(ROLES) do
      local dims = fields[role] and tokens_of(role, fields[role])
      if fields[role] and not dims then return nil end
      if dims then
        first = first or dims
        if #dims ~= #first or #dims == 2 and dims[1] ~= first[1] then return nil end
        local n = dims[#dims]
        long, short = math.max(long or n, n), math.min(short or n, n)
        found[#found + 1] = { role = role, n = n }
      end
    end
  end
  if not long or long ~= short + 1 then return nil end
  local has = {}
  for _, one in ipairs(found) do
    if one.n ~= long and one.n ~= short then return nil end
    has[one.role .. (one.n == long and " long" or " short")] = true
  end
  return long, short, has
end

-- Applies f to the tensors of a length, except logits, and once to a tensor that occurs twice.
-- Returns the names of the changed tensors, by role, such as "logprobs [3, 7]".
local function change(sides, length, f)
  local known, names = {}, {}
  for _, role in ipairs { "logprobs", "ids", "mask" } do
    for _, fields in ipairs(sides) do
      local t = fields[role]
      local dims = t and tokens_of(role, t)
      if dims and dims[#dims] == length then
        if not known[t] then known[t] = f(t) end
        fields[role] = known[t]
        names[role] = ("%s %s"):format(role, shape_text(t.shape))
      end
    end
  end
  return names
end

--- Brings the tensors of two sides, tables of fields, to one length. shift: true, false, or nil if
-- it was not given. Returns whether the logits of position t score id t + 1; sentences that
-- describe the changes; and the length that the others had. Raises if tensors look transposed.
function M.align(sides, shift)
  check_transposed(sides)
  local long, short, has = lengths(sides)
  if not long then return false, {} end
  local said = shift == true
  local model = has["logits long"] and not has["logits short"]
  if has["logprobs long"] or model and not (has["logprobs short"] or has["ids short"]) then
    -- The position of these is known only if the caller gives shift.
    if not said or has["logits short"] then return false, {} end
  elseif model and shift == false then
    raise("logits of %d positions beside logprobs of %d: the logits of position t score id t + 1" ..
          ", but shift is off", long, short)
  elseif said and has["logits short"] then
    raise("logits of %d positions beside ids of %d are cut already: without --shift", short, long)
  end
  if model or said then
    local names = change(sides, short, M.lengthened)
    local what = names.logprobs or names.ids or names.mask
    return true, {
      ("The %s are those of positions 1 to %d: the logits of position t score id t + 1 (--shift).")
        :format(what, short),
    }, short
  end
  if has["logits long"] then return false, {} end
  local names, notes = change(sides, long, M.shortened), {}
  if names.ids then notes[1] = ("The %s are taken from position 1 on."):format(names.ids) end
  if names.mask then
    notes[#notes + 1] = ("The %s is taken from position 1 on."):format(names.mask)
  end
  return false, notes, long
end

--- Brings a tensor of one value per token from the length that the others had to the layout's
-- length. Position 0 gets `value`. Other tensors stay unchanged.
function M.brought(t, layout, value)
  local shape, length = layout.shape, layout.other_length
  if not length or t.ndim ~= #shape or t.shape[t.ndim] ~= length or
     #shape == 2 and t.shape[1] ~= shape[1] then
    return t
  end
  return length < shape[#shape] and M.lengthened(t, value) or M.shortened(t)
end

--- Returns a description of a field's unexpected shape: ": one less per sequence ...", or "".
function M.hint(got, wanted)
  if #got == #wanted and got[#got] == wanted[#wanted] - 1 and
     (#got == 1 or got[1] == wanted[1]) then
    return ": one less per sequence, as where position 0 is left out; that is taken with --shift"
  end
  return ""
end

--- Returns the error for tokens of two sides that are not the same.
function M.mismatch(a, b)
  local both = ("A has tokens %s, B has tokens %s: "):format(shape_text(a), shape_text(b))
  if #a ~= #b and (#a == 2 and a[1] == 1 and a[2] == b[1] or
                   #b == 2 and b[1] == 1 and b[2] == a[1]) then
    raise("%sthe same tokens, with and without the batch's dimension; give both the same way", both)
  end
  if #a == #b and math.abs(a[#a] - b[#b]) == 1 and (#a == 1 or a[1] == b[1]) then
    local name, long, short = "A", a, b
    if b[#b] > a[#a] then name, long, short = "B", b, a end
    raise("%sone less per sequence; give the ids %s and shift (--shift), if %s's are at their " ..
          "ids' positions, or cut %s's to %s", both, shape_text(long), name, name,
          shape_text(short))
  end
  raise("%sthe same ones are needed, in the same layout", both)
end

--- Raises if a side's logits look like [B, V, T] compared with its logprobs or ids.
function M.check_logits(label, fields)
  local logits = fields.logits
  for _, role in ipairs { "logprobs", "ids" } do
    local other = fields[role]
    if logits and logits.ndim == 3 and other and other.ndim == 2 then
      local batch, time, shape = other.shape[1], other.shape[2], logits.shape
      if shape[1] == batch and shape[3] == time and math.abs(shape[2] - time) > 1 then
        raise("%s: logits %s beside %s %s: the logits look transposed, [B, V, T]; they are " ..
              "[B, T, V]", label, shape_text(shape), role, shape_text(other.shape))
      end
    end
  end
end

return M
