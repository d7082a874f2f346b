--- Cases: a case says which sequences are scored and how they are laid out. It is a flat table of
-- the fields below.

local M = {}

-- A field is a number from `lowest` on; or one of `values`, the simplest first; or, with a `unit`,
-- a rising list of its multiples as text: "16,48", or "none". The fields are in the order in which
-- a failing case is simplified.
M.FIELDS = {
  { name = "n", lowest = 1 },                     -- sequences
  { name = "T", lowest = 1 },                     -- tokens of the longest sequence
  { name = "V", lowest = 1 },
  { name = "copies", lowest = 1 },                -- how many times a sequence is in the batch
  { name = "wild", values = { "none", "nan", "inf", "absent", "huge" } }, -- every other sequence
  { name = "kind", values = { "ties", "eighths", "flat", "normal3", "normal24", "peaked", "masked",
                              "wide", "real" } }, -- of logits
  { name = "dtype", values = { "float32", "bfloat16", "float16" } },
  { name = "container", values = { "same", "float32", "bfloat16", "float16" } },
  { name = "tau", values = { 1, 2, 0.5, 0.7, 1024, 2 ^ -10, "own" } }, -- own: one per token
  { name = "held", values = { "number", "row" } },  -- the form in which one temperature is given
  { name = "off", values = { "none", "some" } },    -- tokens that are not active
  { name = "masked", values = { "none", "some" } }, -- tokens masked by the transform alone
  { name = "by", values = { "mask", "ignore", "list", "mixed" } }, -- what makes a row inactive
  { name = "fill", values = { "zero", "data", "inf", "nan" } },    -- logits that are never read
  { name = "shift", lowest = 0 },
  { name = "layout", values = { "right", "left", "interleaved", "packed" } },
  { name = "pad", lowest = 0 },                   -- positions, or empty sequences, to add
  { name = "order", lowest = 0 },                 -- the seed of a permutation; 0: unchanged
  { name = "piece", lowest = 1 },                 -- tokens of a sequence in one call
  { name = "parts", lowest = 1 },                 -- row lists
  { name = "gap", lowest = 0 },                   -- elements between rows
  { name = "between", lowest = 0 },               -- elements between sequences
  { name = "offset", lowest = 0 },                -- bytes from a multiple of 64 to the first logit
  { name = "extra", lowest = 0 },                 -- ids to add, all -inf
  { name = "index", values = { "int64", "int32" } },
  { name = "ignore", values = { -100, -1, 2147483647 } },
  { name = "outputs", values = { "all", "token", "lse", "sequence", "count" } },
  { name = "cuts", unit = 16 },                   -- ids at which shards begin, except the first
  { name = "tree", lowest = 0 },                  -- the seed of a tree of merges; 0: all at once
  { name = "threads", lowest = 1 },               -- of the cpu
  { name = "split", lowest = 0 },                 -- pieces of a row; 0: chosen
  { name = "block", lowest = 0 },                 -- threads of a block; 0: chosen
  { name = "cluster", values = { 0, 1, -1 } },
  { name = "table", values = { 0, 1, -1 } },
  { name = "one_read", values = { 0, 1, -1 } },
}

local NONE = "none"

local field_of = {}
for _, field in ipairs(M.FIELDS) do
  field.simplest = field.unit and NONE or field.values and field.values[1] or field.lowest
  field_of[field.name] = field
end

M.field_of = field_of

-- Lists ------------------------------------------------------------------------------------------

function M.list_text(list)
  if #list == 0 then return NONE end
  local copy = {}
  for i = 1, #list do copy[i] = list[i] end
  table.sort(copy)
  return table.concat(copy, ",")
end

-- Returns the numbers in a text; nil if they are not such numbers.
function M.list_of(text, unit)
  local list = {}
  if text == NONE then return list end
  for digits in text:gmatch "[^,]+" do
    list[#list + 1] = digits:find "^%d+$" and tonumber(digits)
    if not list[#list] or list[#list] % unit ~= 0 then return nil end
  end
  return M.list_text(list) == text and list or nil
end

--- Returns the shards of a case's cuts: { first, past } each, rising from 0 to vocab. A cut beyond
-- the vocabulary makes an empty shard at its end.
function M.shards(case, vocab)
  local list, first = {}, 0
  for _, cut in ipairs(M.list_of(case.cuts, field_of.cuts.unit)) do
    local past = math.min(cut, vocab)
    list[#list + 1] = { first, past }
    first = past
  end
  list[#list + 1] = { first, vocab }
  return list
end

--- Makes a case with the given fields and all other fields as simple as possible.
function M.new(fields)
  local case = { seed = 1 }
  for _, field in ipairs(M.FIELDS) do case[field.name] = field.simplest end
  for name, value in pairs(fields) do case[name] = value end
  return case
end

-- Drawing -----------------------------------------------------------------------------------------

-- How to draw the fields that only some transforms have and that are not drawn evenly from their
-- values.
local DRAW = {
  pad = function(random, case) return random:integer(0, math.min(9, 1 + case.room)) end,
  order = function(random) return random:integer(1, 1e6) end,
  piece = function(random, case) return random:integer(1, math.max(1, case.T)) end,
  parts = function(random) return random:pick { 1, 2, 3, 5 } end,
  copies = function(random, case) return random:integer(2, 2 + math.min(7, case.room)) end,
  gap = function(random) return random:pick { 1, 7, 8, 16, 63, 4096 } end,
  between = function(random) return random:pick { 0, 1, 5, 16, 1000 } end,
  offset = function(random) return random:integer(1, 63) end,
  extra = function(random) return random:pick { 1, 5, 15, 16, 47, 1000 } end,
  -- Sometimes twice at the same id, or at either end: empty shards.
  cuts = function(random, case)
    local list, last = {}, math.floor((case.V + case.extra) / 16)
    for i = 1, random:pick { 1, 2, 3, 7 } do
      local any = 16 * random:integer(0, last)
      list[i] = random:pick { 0, 16 * last, list[i - 1] or 0, any, any, any, any, any }
    end
    return M.list_text(list)
  end,
  tree = function(random) return random:pick { 0, random:integer(1, 1e6) } end,
  threads = function(random) return random:pick { 2, 3, 5, 8, 17 } end,
  split = function(random) return random:pick { 0, 1, 2, 3, 5, 7, 11, 13, 16, 64, 65536 } end,
  block = function(random) return random:pick { 0, 32, 96, 256, 512 } end,
  wild = function(random) return random:pick { "nan", "inf", "absent", "huge" } end,
  masked = function() return "some" end,
  held = function() return "row" end,
}

--- Draws a field at random. `case.room` is the number of additional rows that a sequence may get.
function M.draw(random, case, name)
  local field = field_of[name]
  return DRAW[name] and DRAW[name](random, case) or random:pick(field.values)
end

return M
