--- The sequences of a case: every row's logits, id and temperature, and whether it is active.
--
-- Each token is drawn from a seed of its own, (seed, sequence, position), and logit i does not
-- depend on V: a case that is made smaller keeps what it keeps.

local ffi = require "ffi"
local bit = require "bit"
local samebits = require "samebits"
local prng = require "spec.support.prng"

local M = {}

local band, huge = bit.band, math.huge

-- Standard normal numbers; rows walk through them in odd steps.
local NOISE = 65536
local noise = ffi.new("float[?]", NOISE)
do
  local random = prng.new(20)
  for i = 0, NOISE - 1 do noise[i] = random:normal() end
end

local FINITE = { float32 = 0x1.fffffep127, bfloat16 = 0x1.fep127, float16 = 65504 }

local model
-- The logits of spec/vectors/smollm2.safetensors: rows of 49152.
local function real_logits()
  if not model then
    local logits = assert(samebits.load "spec/vectors/smollm2.safetensors").logits
    model = { t = logits:to "float32", rows = logits.shape[1] * logits.shape[2],
              vocab = logits.shape[3] }
    model.p = ffi.cast("const float *", model.t.ptr)
  end
  return model
end

-- p[i] = scale * noise.
local function scaled(p, V, random, scale)
  local k, step = random:integer(0, NOISE - 1), random:integer(0, NOISE / 2 - 1) * 2 + 1
  for i = 0, V - 1 do
    p[i] = scale * noise[k]
    k = band(k + step, NOISE - 1)
  end
end

-- p[i] = clip(floor(scale * noise)) / unit.
local function rounded(p, V, random, scale, unit, most)
  scaled(p, V, random, scale)
  for i = 0, V - 1 do
    p[i] = math.max(-most, math.min(most, math.floor(p[i]))) / unit
  end
end

-- Most leaves absent, and half of the ids of the others. The target stays, but for one row in four.
local function punch(p, V, random, id)
  local kept = p[id]
  for first = 0, V - 1, 16 do
    local word = random:integer(1, 10) <= 7 and 0 or random:bits()
    for i = first, math.min(first + 15, V - 1) do
      if band(bit.rshift(word, i - first), 1) == 0 then p[i] = -huge end
    end
  end
  if random:integer(1, 4) > 1 then p[id] = kept end
end

-- Fill a row for target id; `finite` is the dtype's largest number.
local KINDS = {
  ties = function(p, V, random) rounded(p, V, random, 1, 1, 3) end,
  eighths = function(p, V, random) rounded(p, V, random, 24, 8, 127) end,
  flat = function(p, V, random) scaled(p, V, random, 0.01) end,
  normal3 = function(p, V, random) scaled(p, V, random, 3) end,
  normal24 = function(p, V, random) scaled(p, V, random, 24) end,
  peaked = function(p, V, random, id)
    scaled(p, V, random, 1)
    local peak = random:integer(0, 1) == 1 and id or random:integer(0, V - 1)
    p[peak] = 30
  end,
  masked = function(p, V, random, id)
    scaled(p, V, random, 3)
    punch(p, V, random, id)
  end,
  -- Beyond where a leaf is wide, and beyond where logits saturate; as large as the dtype goes.
  wide = function(p, V, random, _, finite)
    local scale = math.min(finite / 8, 10 ^ random:integer(3, 36))
    scaled(p, V, random, scale)
    p[random:integer(0, V - 1)] = random:pick { finite, -finite, 0, scale }
  end,
  real = function(p, V, random)
    local m = real_logits()
    local row, first = m.p + random:integer(0, m.rows - 1) * m.vocab, 0
    while first < V do
      local n = math.min(m.vocab, V - first)
      ffi.copy(p + first, row, n * 4)
      first = first + n
    end
  end,
  -- Rows that are meant to spread to their neighbours.
  nan = function(p, V, random)
    scaled(p, V, random, 3)
    ffi.cast("uint32_t *", p)[random:integer(0, V - 1)] = random:pick { 0x7fc00000, 0xffc12345 }
  end,
  inf = function(p, V, random)
    scaled(p, V, random, 3)
    p[random:integer(0, V - 1)] = huge
  end,
  absent = function(p, V) for i = 0, V - 1 do p[i] = -huge end end,
  huge = function(p, V, random, _, finite)
    for i = 0, V - 1 do p[i] = finite end
    p[random:integer(0, V - 1)] = -finite
  end,
}

local TEMPERATURES = { 0.5, 0.7, 1, 1.3, 2, 16, 1 / 3 }

local function sequence(case, s)
  local V, kind = case.V, case.kind
  if s % 2 == 1 and case.wild ~= "none" then kind = case.wild end
  local random = prng.new(case.seed * 1009 + s)
  -- The first is of full length; others may be empty.
  local length = s == 0 and case.T or math.floor(random:uniform() * (case.T + 1))
  local values = samebits.zeros({ length, V }, "float32")
  local p = ffi.cast("float *", values.ptr)
  local made = { length = length, ids = {}, temperatures = {}, active = {} }
  for t = 0, length - 1 do
    random = prng.new(case.seed * 1009 + s * 65537 + (t + 1) * 257)
    local id = random:pick { 0, V - 1, random:integer(0, V - 1), random:integer(0, V - 1) }
    local own = random:pick(TEMPERATURES)
    made.active[t] = not (random:integer(1, 4) == 1 and case.off == "some")
    made.ids[t], made.temperatures[t] = id, case.tau == "own" and own or case.tau
    KINDS[kind](p + t * V, V, random, id, FINITE[case.dtype])
  end
  made.logits = values:to(case.dtype)
  return made
end

--- The case's sequences, from 0 on: `length`, `logits` [length, V], and by position, from 0 on,
-- `ids`, `temperatures` and `active`.
function M.sequences(case)
  local list = {}
  for s = 0, case.n - 1 do list[s] = sequence(case, s) end
  return list
end

-- The fields that sequences depend on.
local KEY = { "seed", "n", "T", "V", "kind", "wild", "dtype", "tau", "off" }

--- What cases of the same sequences have in common.
function M.key(case)
  local words = {}
  for i, name in ipairs(KEY) do words[i] = tostring(case[name]) end
  return table.concat(words, " ")
end

return M
