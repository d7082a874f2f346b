--- Cases of the invariance suite: which sequences are scored, and how they are laid out.
--
-- A case is a flat table: `transform`, `on` (a variant's name), and the fields below. As text it is
-- one line, which leaves out what is as simple as can be:
--
--     chunks seed=71 n=3 T=9 V=50257 dtype=bfloat16 piece=4 on cpu avx2, 3 threads, split 7

local layouts = require "samebits.verify.case"
local prng = require "spec.support.prng"

local M = {}

M.FIELDS, M.new, M.shards = layouts.FIELDS, layouts.new, layouts.shards

local draw_field, field_of = layouts.draw, layouts.field_of
local list_text, list_of = layouts.list_text, layouts.list_of

--- The vocabularies of real models, and sizes about a leaf, a vector and a block.
M.REAL = { 32000, 49152, 50257, 50304, 128256, 151936, 152064, 201088, 256000, 262144 }
M.ODD = { 1, 15, 16, 17, 31, 33, 47, 64, 70, 255, 257, 300, 1023, 1025, 4095, 4099 }

--- The logits that one call may have, so that sequences of large vocabularies are few and short.
M.LIMIT = 2 ^ 21

local function hash(text)
  local h = 0
  for i = 1, #text do h = (h * 31 + text:byte(i)) % 2 ^ 31 end
  return h
end

-- Drawing -----------------------------------------------------------------------------------------

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
    local name, value = word:match "^([%a_]+)=(%S+)$"
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
