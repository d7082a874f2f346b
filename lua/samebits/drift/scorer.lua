--- Computes logprobs of a side's rows by the contract, as they are or under a hypothesis: another
-- temperature, another kept set, fewer ids, other logits.

local ffi = require "ffi"
local batches = require "samebits.batch"
local call = require "samebits.op.call"
local logprob = require "samebits.op.logprob"
local misuse = require "samebits.misuse"
local posix = require "samebits.io.posix"
local source = require "samebits.io.source"
local tensor = require "samebits.tensor"

local convert, layout = tensor.convert, tensor.layout

local M = {}

local Scorer = {}
Scorer.__index = Scorer

--- Makes a scorer for a context. shift: 1 if the logits of row r - 1 score id r, otherwise 0.
function M.new(ctx, ignore_index, shift)
  return setmetatable({ ctx = ctx, ignore_index = ignore_index, shift = shift }, Scorer)
end

local function run(self, spec)
  local batch = misuse.try(batches.build(spec):to(self.ctx.device))
  local out = call.run(logprob.OP, "drift", self.ctx, { outputs = { "token" } }, batch)
  return misuse.try(out.token:to "cpu")
end

-- Converts integers to a form that the library takes.
local function indices(t)
  if t.dtype == "int32" or t.dtype == "int64" then return t end
  return t:to "int32"
end

--- Returns a side's kept sets of rows first .. past - 1, cut to a vocabulary.
function M.kept_of(side, first, past, vocab)
  local width = side.kept_is_words and math.ceil(vocab / 32) or vocab
  return side.kept:slice(0, first, past):slice(1, 0, width)
end

--- Returns 1 if the logits of row r - 1 of a side score id r, otherwise 0.
function M.shift_of(scorer, side) return side.shift or scorer.shift end

-- A copy of the logits of aligned rows (align.lua); zeros for rows that are not flagged, and where
-- the side has none.
local function gathered(side, first, n, shift, flags)
  local out = tensor.zeros({ n, side.vocab }, side.logits_dtype)
  local p, size = ffi.cast("uint8_t *", flags.ptr), side.vocab * side.logits.itemsize
  local step = side.logits.strides[1] * side.logits.itemsize
  for i = 0, n - 1 do
    local from = side.map[first + i] - shift
    if p[i] ~= 0 and from >= 0 then
      ffi.copy(out.ptr + i * size, side.logits.ptr + from * step, size)
    end
  end
  return out
end

--- Returns the logprobs of rows first .. first + n - 1 of a side as fp32 [n], with +0 where `flags`
-- (uint8 [n]) is 0. suppose replaces the side's own settings: `temperature` (a number, or fp32, one
-- per row of the whole), `kept` (the side whose sets to use; false: none), `vocab` (only the ids
-- below it), `shift`.
function Scorer:rows(side, first, n, flags, suppose)
  suppose = suppose or {}
  local past, shift = first + n, suppose.shift or M.shift_of(self, side)
  local low = side.map and first or math.max(first, shift)
  if low >= past then return tensor.zeros({ n }, "float32") end
  local vocab = suppose.vocab or side.vocab
  local temperature = suppose.temperature or side.temperature
  if tensor.is_tensor(temperature) then temperature = temperature:slice(0, low, past) end
  local kept = suppose.kept
  if kept == nil then kept = side.kept and side end
  local logits = side.map and gathered(side, first, n, shift, flags) or
                 side.logits:slice(0, low - shift, past - shift)
  local token = run(self, {
    logits = logits:slice(1, 0, vocab),
    ids = indices(side.ids:slice(0, low, past)),
    mask = flags:slice(0, low - first, n),
    temperature = temperature,
    kept = kept and M.kept_of(kept, low, past, vocab) or nil,
    ignore_index = self.ignore_index,
  })
  if low == first then return token end
  local out = tensor.zeros({ n }, "float32")
  out:slice(0, low - first, n):copy_(token)
  return out
end

--- Returns the logprob of a row at a temperature, as a number.
function Scorer:at(side, row, temperature)
  self.one = self.one or tensor.tensor({ 1 }, { dtype = "uint8" })
  return self:rows(side, row, 1, self.one, { temperature = temperature }):get(0)
end

--- Returns the logprobs of logits that the caller constructed: fp32 [m, V], with ids, temperatures
-- and, unless nil, kept sets of as many rows.
function Scorer:made(logits, ids, temperatures, kept)
  return run(self, { logits = logits, ids = ids, temperature = temperatures, kept = kept,
                     ignore_index = self.ignore_index })
end

--- Returns the address of a row's logits.
function Scorer:pointer(side, row)
  local at = (side.map and side.map[row] or row) - M.shift_of(self, side)
  return side.logits.ptr + at * side.logits.strides[1] * side.logits.itemsize
end

--- Copies a row's first n logits as fp32 to memory.
function Scorer:copy(side, row, to, n)
  convert.array("float32", to, side.logits_dtype, self:pointer(side, row), n)
end

--- Whether two sides' logits of a row are the same numbers, for the ids that both have.
function Scorer:same_logits(a, b, row)
  local n = math.min(a.vocab, b.vocab)
  local p, q = self:pointer(a, row), self:pointer(b, row)
  if a.logits_dtype == b.logits_dtype then
    if ffi.C.samebits_libc_memcmp(p, q, n * a.logits.itemsize) == 0 then return true end
  end
  if not self.left or self.room < n then
    self.left, self.right, self.room = ffi.new("float[?]", n), ffi.new("float[?]", n), n
  end
  self:copy(a, row, self.left, n)
  self:copy(b, row, self.right, n)
  if ffi.C.samebits_libc_memcmp(self.left, self.right, n * 4) == 0 then return true end
  -- +0 and -0 are the same number.
  local x, y = ffi.cast("const int32_t *", self.left), ffi.cast("const int32_t *", self.right)
  for i = 0, n - 1 do
    local u, v = x[i], y[i]
    if u ~= v and not (u * 2 % 2 ^ 32 == 0 and v * 2 % 2 ^ 32 == 0) then return false end
  end
  return true
end

--- Gives back the pages of files that rows first .. first + n - 1 of a side occupy.
function Scorer:forget(side, first, n)
  if side.map then return end -- its rows lie anywhere
  for field in pairs(side.mapped) do
    local from = field == "logits" and math.max(first - self.shift, 0) or first
    local t = side[field]:slice(0, from, from + n)
    local low, high = layout.extent(t.shape, t.strides)
    posix.forget(t.ptr + low * t.itemsize, (high + 1 - low) * t.itemsize)
  end
end

--- Fails if a file has changed since it was opened: data read before the change and data read after
-- it do not belong together.
function M.check_files(opened)
  local why = source.changed(opened)
  if why then misuse.fail(why) end
end

--- Raises unless the ids of active rows are ids in the side's logits.
function M.check_ids(side, first, n, flags, places)
  local ids, active = indices(side.ids:slice(0, first, first + n)):contiguous(),
                      ffi.cast("const uint8_t *", flags.ptr)
  local p = ffi.cast(ids.dtype == "int64" and "const int64_t *" or "const int32_t *", ids.ptr)
  for i = 0, n - 1 do
    if active[i] ~= 0 and (p[i] < 0 or p[i] >= side.vocab) then
      local sequence, position = places.place(first + i)
      misuse.raise("%s: id %s at sequence %d, position %d is outside [0, %d)", side.label,
                   (tostring(p[i]):gsub("LL", "")), sequence, position, side.vocab)
    end
  end
end

return M
