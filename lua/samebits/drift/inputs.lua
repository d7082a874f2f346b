--- Compares the inputs that both sides gave and that determine the tokens and their scoring: ids,
-- masks, cu_seqlens, temperatures and kept sets. An input that only one side gave applies to both
-- and is not compared; neither are the inputs of tokens that count on neither side.
--
-- finish() lists the fields that differ: `field`, `different` and `of` (tokens; entries of
-- cu_seqlens), and `first`: the place of the first difference, with the values of A and B there.

local ffi = require "ffi"
local bit = require "bit"
local tensor = require "samebits.tensor"

local element = tensor.element

local M = {}

--- The fields that are compared, in the order in which they are reported.
M.FIELDS = { "ids", "mask", "cu_seqlens", "temperature", "kept" }

local Inputs = {}
Inputs.__index = Inputs

-- An integer as a Lua number, or as its digits if it is beyond 2^53.
local function plain(x)
  return type(x) == "cdata" and (tostring(x):gsub("U?LL$", "")) or x
end

-- A function of i: element first + i of a column.
local function reader(t, first, n)
  local part = t:slice(0, first, first + n):contiguous()
  local read, p = element.read[part.dtype], part.ptr
  return function(i) return read(p, i) end
end

local function same_number(x, y) return x == y end

local COLUMNS = {
  ids = { read = function(side, first, n) return reader(side.ids, first, n) end },
  mask = {
    read = function(side, first, n)
      local read = reader(side.mask, first, n)
      return function(i)
        local x = read(i)
        return x ~= false and x ~= 0
      end
    end,
  },
  temperature = {
    read = function(side, first, n)
      if type(side.temperature) == "number" then return function() return side.temperature end end
      return reader(side.temperature, first, n)
    end,
    -- The arithmetic uses them as fp32.
    same = function(x, y)
      local pair = ffi.new("float[2]", x, y)
      return pair[0] == pair[1]
    end,
  },
}

-- Writes one flag per id of a row's kept set to memory: n ids, none of them past the end of a
-- narrower set.
local function flags_of(side, row, to, n)
  local kept = side.kept:slice(0, row, row + 1):contiguous()
  local read, p, held = element.read[kept.dtype], kept.ptr, side.kept_vocab
  ffi.fill(to, n)
  if side.kept_is_words then
    local words = ffi.cast("const int32_t *", p)
    for id = 0, held - 1 do
      to[id] = bit.band(bit.rshift(words[bit.rshift(id, 5)], bit.band(id, 31)), 1)
    end
  else
    for id = 0, held - 1 do
      local x = read(p, id)
      to[id] = (x and x ~= 0) and 1 or 0
    end
  end
end

-- The first id that only one side keeps in a row; nil if there is none.
local function kept_differs(self, row)
  local a, b = self.a, self.b
  local n = math.max(a.kept_vocab, b.kept_vocab)
  self.left = self.left or ffi.new("uint8_t[?]", n)
  self.right = self.right or ffi.new("uint8_t[?]", n)
  flags_of(a, row, self.left, n)
  flags_of(b, row, self.right, n)
  for id = 0, n - 1 do
    if self.left[id] ~= self.right[id] then return id, self.left[id] == 1, self.right[id] == 1 end
  end
end

local function place(self, row)
  local sequence, position = self.layout.place(row)
  return { row = row, sequence = sequence, position = position }
end

-- cu_seqlens are kept whole, not by chunks.
local function compare_offsets(self, found)
  local p, q = self.a.layout.offsets, self.b.layout.offsets
  found.of = math.max(#p, #q) + 1 -- their indices count from 0
  for i = 0, found.of - 1 do
    if p[i] ~= q[i] then
      found.different = found.different + 1
      found.first = found.first or { index = i, a = p[i], b = q[i] }
    end
  end
end

--- Makes a comparison for two sides and their layout, which says which inputs both gave
-- (sides.lua).
function M.new(a, b, layout)
  local self = setmetatable({ a = a, b = b, layout = layout, found = {}, active = 0 }, Inputs)
  for _, field in ipairs(M.FIELDS) do
    if layout.twice[field] then
      self.found[field] = { field = field, different = 0 }
      if field == "cu_seqlens" then compare_offsets(self, self.found[field]) end
    end
  end
  return self
end

--- Adds rows first .. first + n - 1, with flags for the rows that count on each side (uint8 [n]
-- each).
function Inputs:add(first, n, active_a, active_b)
  for i = 0, n - 1 do
    if active_a[i] ~= 0 or active_b[i] ~= 0 then self.active = self.active + 1 end
  end
  for field, column in pairs(COLUMNS) do
    local found = self.found[field]
    if found then
      local p, q = column.read(self.a, first, n), column.read(self.b, first, n)
      local same = column.same or same_number
      for i = 0, n - 1 do
        if active_a[i] ~= 0 or active_b[i] ~= 0 then
          local x, y = p(i), q(i)
          if not same(x, y) then
            found.different = found.different + 1
            if not found.first then
              found.first = place(self, first + i)
              found.first.a, found.first.b = plain(x), plain(y)
            end
          end
        end
      end
    end
  end
  local found = self.found.kept
  if not found then return end
  for i = 0, n - 1 do
    if active_a[i] ~= 0 or active_b[i] ~= 0 then
      local id, x, y = kept_differs(self, first + i)
      if id then
        found.different = found.different + 1
        if not found.first then
          found.first = place(self, first + i)
          found.first.id, found.first.a, found.first.b = id, x, y
        end
      end
    end
  end
end

--- Returns the fields that differ, in the order of FIELDS.
function Inputs:finish()
  local out = {}
  for _, field in ipairs(M.FIELDS) do
    local found = self.found[field]
    if found and found.different > 0 then
      found.of = found.of or self.active
      out[#out + 1] = found
    end
  end
  return out
end

return M
