--- Cases of the invariance suite: which sequences are scored, and how they are laid out.
--
-- A case is a flat table: `transform`, `on` (a variant's name), and the fields below. As text it is
-- one line, which leaves out what is as simple as can be:
--
--     chunks seed=71 n=3 T=9 V=50257 dtype=bfloat16 piece=4 on cpu avx2, 3 threads, split 7

local prng = require "spec.support.prng"

local M = {}

--- The vocabularies of real models, and sizes about a leaf, a vector and a block.
M.REAL = { 32000, 49152, 50257, 50304, 128256, 151936, 152064, 201088, 256000, 262144 }
M.ODD = { 1, 15, 16, 17, 31, 33, 47, 64, 70, 255, 257, 300, 1023, 1025, 4095, 4099 }

--- The logits that one call may have, so that sequences of large vocabularies are few and short.
M.LIMIT = 2 ^ 21

-- Field by field: `simplest`, of numbers with a `lowest`; or `values`, the simplest first; or, with
-- a `unit`, a rising list of its multiples as text: "16,48", or "none". In the order in which a
-- failing case is made simpler.
M.FIELDS = {
  { name = "n", lowest = 1 },                     -- sequences
  { name = "T", lowest = 1 },                     -- tokens of the longest sequence
  { name = "V", lowest = 1 },
  { name = "copies", lowest = 1 },                -- how often a sequence is in the batch
  { name = "wild", values = { "none", "nan", "inf", "absent", "huge" } }, -- every other sequence
  { name = "kind", values = { "ties", "eighths", "flat", "normal3", "normal24", "peaked", "masked",
                              "wide", "real" } }, -- of logits
  { name = "dtype", values = { "float32", "bfloat16", "float16" } },
  { name = "container", values = { "same", "float32", "bfloat16", "float16" } },
  { name = "tau", values = { 1, 2, 0.5, 0.7, 1024, 2 ^ -10, "own" } }, -- own: one a token
  { name = "held", values = { "number", "row" } },  -- how one temperature is handed over
  { name = "off", values = { "none", "some" } },    -- tokens that are not active
  { name = "masked", values = { "none", "some" } }, -- tokens masked by the transform alone
  { name = "by", values = { "mask", "ignore", "list", "mixed" } }, -- what makes a row inactive
  { name = "fill", values = { "zero", "data", "inf", "nan" } },    -- logits that are never read
  { name = "shift", lowest = 0 },
  { name = "layout", values = { "right", "left", "interleaved", "packed" } },
  { name = "pad", lowest = 0 },                   -- positions, or empty sequences, to add
  { name = "order", lowest = 0 },                 -- the seed of a permutation; 0: as they are
  { name = "piece", lowest = 1 },                 -- tokens of a sequence in one call
  { name = "parts", lowest = 1 },                 -- row lists
  { name = "gap", lowest = 0 },                   -- elements between rows
  { name = "between", lowest = 0 },               -- elements between sequences
  { name = "offset", lowest = 0 },                -- bytes from a multiple of 64 to the first logit
  { name = "extra", lowest = 0 },                 -- ids to add, all -inf
  { name = "index", values = { "int64", "int32" } },
  { name = "ignore", values = { -100, -1, 2147483647 } },
  { name = "outputs", values = { "all", "token", "lse", "sequence", "count" } },
  { name = "cuts", unit = 16 },                   -- ids at which shards begin, but for the first
  { name = "tree", lowest = 0 },                  -- the seed of a tree of merges; 0: all at once
  { name = "threads", lowest = 1 },               -- of the cpu
  { name = "split", lowest = 0 },                 -- pieces of a row; 0: chosen
  { name = "block", lowest = 0 },                 -- threads of a block; 0: chosen
  { name = "cluster", values = { 0, 1, -1 } },
}

local NONE = "none"

local field_of = {}
for _, field in ipairs(M.FIELDS) do
  field.simplest = field.unit and NONE or field.values and field.values[1] or field.lowest
  field_of[field.name] = field
end

local function hash(text)
  local h = 0
  for i = 1, #text do h = (h * 31 + text:byte(i)) % 2 ^ 31 end
  return h
end

-- Lists ------------------------------------------------------------------------------------------

local function list_text(list)
  if #list == 0 then return NONE end
  local copy = {}
  for i = 1, #list do copy[i] = list[i] end
  table.sort(copy)
  return table.concat(copy, ",")
end

-- The numbers that a text says; nil where it says none such.
local function list_of(text, unit)
  local list = {}
  if text == NONE then return list end
  for digits in text:gmatch "[^,]+" do
    list[#list + 1] = digits:find "^%d+$" and tonumber(digits)
    if not list[#list] or list[#list] % unit ~= 0 then return nil end
  end
  return list_text(list) == text and list or nil
end

--- The shards of a case's cuts: { first, past } each, rising from 0 to vocab. A cut beyond the
-- vocabulary makes an empty shard at its end.
function M.shards(case, vocab)
  local list, first = {}, 0
  for _, cut in ipairs(list_of(case.cuts, field_of.cuts.unit)) do
    local past = math.min(cut, vocab)
    list[#list + 1] = { first, past }
    first = past
  end
  list[#list + 1] = { first, vocab }
  return list
end

--- A case with every field as simple as can be, but for those given.
function M.new(fields)
  local case = { seed = 1 }
  for _, field in ipairs(M.FIELDS) do case[field.name] = field.simplest end
  for name, value in pairs(fields) do case[name] = value end
  return case
end

-- Drawing -----------------------------------------------------------------------------------------

-- How the fields that only some transforms have are drawn, where not evenly from their values.
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
  -- Now and then twice at the same id, or at either end: empty shards.
  cuts = function(random, case)
    local list, last = {}, math.floor((case.V + case.extra) / 16)
    for i = 1, random:pick { 1, 2, 3, 7 } do
      local any = 16 * random:integer(0, last)
      list[i] = random:pick { 0, 16 * last, list[i - 1] or 0, any, any, any, any, any }
    end
    return list_text(list)
  end,
  tree = function(random) return random:pick { 0, random:integer(1, 1e6) } end,
  threads = function(random) return random:pick { 2, 3, 5, 8, 17 } end,
  split = function(random) return random:pick { 0, 1, 2, 3, 5, 7, 11, 13, 16, 64, 65536 } end,
  block = function(random) return random:pick { 0, 32, 96, 256, 512 } end,
  wild = function(random) return random:pick { "nan", "inf", "absent", "huge" } end,
  masked = function() return "some" end,
  held = function() return "row" end,
}

local function draw_field(random, case, name)
  local field = field_of[name]
  return DRAW[name] and DRAW[name](random, case) or random:pick(field.values)
end

-- Sequences and tokens for so many rows: of small vocabularies many.
local function draw_sizes(random, case, transform)
  local rows = math.max(2, math.floor(M.LIMIT / case.V / (transform.cost or 1)))
  local most = math.min(rows, transform.most or random:pick { 4, 8, 33 })
  -- Where positions matter, three of them at least; elsewhere two sequences.
  if transform.long then most = math.max(1, math.min(most, math.floor(rows / 3))) end
  case.n = random:integer(transform.long and 1 or math.min(transform.least or 2, most), most)
  local longest = math.max(1, math.min(24, math.floor(rows / case.n)))
  case.T = random:integer(transform.long and math.min(3, longest) or 1, longest)
  -- How many rows more a sequence may get.
  case.room = math.floor(rows / case.n / case.T)
end

--- Draws case number i of a transform, from a seed. Vocabularies and dtypes take turns.
function M.draw(transform, i, seed)
  local start = hash(transform.name)
  local random = prng.new(seed * 7919 + start % 1e6 + i * 131)
  local turn = start + seed + i
  local case = M.new { transform = transform.name, seed = random:integer(1, 999999) }
  case.V = turn % 2 == 0 and M.REAL[math.floor(turn / 2) % #M.REAL + 1] or random:pick(M.ODD)
  case.dtype = field_of.dtype.values[turn % 3 + 1]
  draw_sizes(random, case, transform)

  for _, name in ipairs { "kind", "tau", "off", "by", "fill", "index" } do
    case[name] = draw_field(random, case, name)
  end
  case.shift = random:integer(1, 3) == 1 and 1 or 0
  for _, name in ipairs(transform.draws or {}) do case[name] = draw_field(random, case, name) end
  if transform.settle then transform.settle(case, random) end
  case.room = nil
  assert(M.is_valid(case))
  return case
end

-- Logits that every dtype holds.
local COMMON = { ties = true, eighths = true }

--- Whether the container holds the case's logits.
function M.is_valid(case)
  return case.container == "same" or case.container == "float32" or
         case.container == case.dtype or COMMON[case.kind] or false
end

-- Text --------------------------------------------------------------------------------------------

--- A case in one line.
function M.text(case)
  local words = { case.transform, ("seed=%d"):format(case.seed) }
  for _, field in ipairs(M.FIELDS) do
    local value = case[field.name]
    if value ~= field.simplest or field.name == "n" or field.name == "T" or field.name == "V" then
      words[#words + 1] = ("%s=%s"):format(field.name, type(value) == "number" and
                                           ("%.14g"):format(value) or value)
    end
  end
  return table.concat(words, " ") .. " on " .. case.on
end

--- The case that a line says; or nil and what is wrong with it.
function M.parse(text)
  local head, on = text:match "^(.-) on (.+)$"
  if not head then return nil, "no variant: expected '... on VARIANT'" end
  local transform, rest = head:match "^(%S+)(.*)$"
  local fields = { transform = transform, on = on }
  for word in rest:gmatch "%S+" do
    local name, value = word:match "^(%a+)=(%S+)$"
    if not name then return nil, ("'%s' is not NAME=VALUE"):format(word) end
    local field = field_of[name]
    -- Not "nan" and "inf", which LuaJIT reads as numbers.
    if not (field and field.unit) and value:find "^%-?%d" then value = tonumber(value) or value end
    if field and field.unit then
      if not list_of(value, field.unit) then return nil, ("%s is %s"):format(name, value) end
    elseif field and field.values then
      local known = false
      for _, candidate in ipairs(field.values) do known = known or candidate == value end
      if not known then return nil, ("%s is %s"):format(name, value) end
    elseif not field and name ~= "seed" or type(value) ~= "number" or value % 1 ~= 0 or
           value < (field and field.lowest or 1) then
      return nil, ("%s is %s"):format(name, value)
    end
    fields[name] = value
  end
  local case = M.new(fields)
  if not M.is_valid(case) then return nil, "the container does not hold the logits" end
  return case
end

-- Simpler cases -----------------------------------------------------------------------------------

local function with(case, name, value)
  local copy = {}
  for key, old in pairs(case) do copy[key] = old end
  copy[name] = value
  return copy
end

-- Calls try(value) for values from the lowest on, then halves of what is left: the largest step
-- that still fails is found, and steps of a unit end the search at a value whose neighbour below
-- passes.
local function each_lower(value, lowest, unit, try)
  local step = (value - lowest) / unit
  while step >= 1 do
    try(value - step * unit)
    step = math.floor(step / 2)
  end
end

-- Calls try(list) for lists that are simpler: without some of their numbers, many first, then with
-- one that is lower.
local function each_simpler_list(list, unit, try)
  local size = #list
  while size >= 1 do
    for first = 1, #list - size + 1, size do
      local left = {}
      for i = 1, #list do
        if i < first or i >= first + size then left[#left + 1] = list[i] end
      end
      try(left)
    end
    size = math.floor(size / 2)
  end
  for i = 1, #list do
    each_lower(list[i], 0, unit, function(value)
      local lower = {}
      for k = 1, #list do lower[k] = k == i and value or list[k] end
      try(lower)
    end)
  end
end

--- Cases that are simpler in one field each, the simplest first.
function M.simpler(case)
  local list = {}
  local function add(name, value)
    local candidate = with(case, name, value)
    if M.is_valid(candidate) then list[#list + 1] = candidate end
  end
  if case.transform ~= "alone" then add("transform", "alone") end
  for _, field in ipairs(M.FIELDS) do
    local value = case[field.name]
    if field.values then
      for _, candidate in ipairs(field.values) do
        if candidate == value then break end
        add(field.name, candidate)
      end
    elseif field.unit then
      each_simpler_list(list_of(value, field.unit), field.unit, function(simpler)
        add(field.name, list_text(simpler))
      end)
    else
      each_lower(value, field.lowest, 1, function(lower) add(field.name, lower) end)
    end
  end
  return list
end

return M
