--- Reads golden vectors: the files that spec/vectors/README.md defines.
--
-- It reads only the parts that the public API can be checked with: rows, generated rows, batches,
-- shards, merges, the order of ids, draws, also from shards, entropies, gradients, heads, their
-- derivatives, and refused temperatures.
-- The other files hold steps inside the arithmetic, which the C tests check.

local ffi = require "ffi"
local bit = require "bit"
local lib = require "samebits.lib"
local posix = require "samebits.io.posix"
local tensor = require "samebits.tensor"

local M = {}

local DTYPES = { f32 = "float32", f16 = "float16", bf16 = "bfloat16" }

-- By dtype: precision, smallest and largest exponent, width in bits, the encodings of -inf and of
-- the lowest finite value.
local FORMATS = {
  f32 = { P = 24, emin = -126, emax = 127, width = 32, absent = 0xff800000, lowest = 0xff7fffff },
  bf16 = { P = 8, emin = -126, emax = 127, width = 16, absent = 0xff80, lowest = 0xff7f },
  f16 = { P = 11, emin = -14, emax = 15, width = 16, absent = 0xfc00, lowest = 0xfbff },
}

local WORDS = { [32] = "uint32_t *", [16] = "uint16_t *" }

-- Generated rows ----------------------------------------------------------------------------------

local floor, frexp, max = math.floor, math.frexp, math.max

-- The encoding of n * 2^q, rounded towards zero. |n| < 2^52, so doubles hold every step.
local function encode(n, q, format)
  if n == 0 then return 0 end
  local sign = n < 0 and 2 ^ (format.width - 1) or 0
  n = math.abs(n)
  local _, length = frexp(n)
  local top = max(length - 1 + q, format.emin)
  if top > format.emax then return format.lowest - 2 ^ (format.width - 1) + sign end
  local unit = top - (format.P - 1)
  local m = floor(n * 2 ^ (q - unit))
  return sign + m + (top - format.emin) * 2 ^ (format.P - 1)
end

-- NaN or +inf.
local function is_poison(b, format)
  local sign = 2 ^ (format.width - 1)
  local infinity = format.absent - sign
  return b % sign > infinity or b == infinity
end

-- A stream of splitmix64. Each call returns the upper and the lower 32 bits of the next draw.
local function splitmix64(seed)
  local state = ffi.cast("uint64_t", tonumber(seed:sub(1, 8), 16)) * 2 ^ 32 +
                tonumber(seed:sub(9, 16), 16)
  return function()
    state = state + 0x9e3779b97f4a7c15ULL
    local u = state
    u = bit.bxor(u, bit.rshift(u, 30)) * 0xbf58476d1ce4e5b9ULL
    u = bit.bxor(u, bit.rshift(u, 27)) * 0x94d049bb133111ebULL
    u = bit.bxor(u, bit.rshift(u, 31))
    return tonumber(bit.rshift(u, 32)), tonumber(bit.band(u, 0xffffffffULL))
  end
end

local NOISE = {
  const = function() return 0 end,
  few = function(high) return floor(high / 2 ^ 30) end,
  flat = function(high) return floor(high / 2 ^ 20) - 2048 end,
  gauss = function(high, low)
    return high % 65536 + floor(high / 65536) + low % 65536 + floor(low / 65536) - 131070
  end,
}

local function generate(words, vocab, format, kind, seed, a, b, c)
  local draw = splitmix64(seed)
  if kind == "bits" then
    for i = 0, vocab - 1 do
      local high = draw()
      local word = format.width == 32 and high or floor(high / 65536)
      if a == 0 and is_poison(word, format) then word = format.absent end
      words[i] = word
    end
  elseif kind == "scatter" then
    for i = 0, vocab - 1 do
      local high, low = draw()
      local n = 2 ^ 20 + low % 2 ^ 20
      words[i] = encode(high >= 2 ^ 31 and -n or n, a + high % 65536 % b, format)
    end
  else
    local noise = NOISE[kind]
    if not noise then return nil, ("unknown generator '%s'"):format(kind) end
    for i = 0, vocab - 1 do
      words[i] = encode(b + c * floor(i / 16) + noise(draw()), a, format)
    end
  end
  return true
end

local function punch(words, vocab, seed, ids, leaves, fill)
  local draw, leaf_is_hole = splitmix64(seed), false
  for i = 0, vocab - 1 do
    local _, low = draw()
    if i % 16 == 0 then leaf_is_hole = floor(low / 1024) % 1024 < leaves end
    if leaf_is_hole or low % 1024 < ids then words[i] = fill end
  end
end

-- Blocks ------------------------------------------------------------------------------------------

local function split(text)
  local words = {}
  for word in text:gmatch "%S+" do words[#words + 1] = word end
  return words
end

local function numbers(text)
  local list = {}
  for word in text:gmatch "%S+" do list[#list + 1] = tonumber(word) end
  return list
end

-- The fp32 number of an encoding.
local function fp32(hex)
  local word = ffi.new("uint32_t[1]", tonumber(hex, 16))
  return tonumber(ffi.cast("float *", word)[0])
end

-- A true value: a number, or nil if the file has none.
local function exact(word)
  return word ~= "-" and assert(tonumber(word)) or nil
end

local function append(list, more)
  for i = 1, #more do list[#list + 1] = more[i] end
end

-- Stores hex words into logits, from element `at` on. Returns the next place, or nil if they do not
-- fit.
local function store(case, at, words)
  if at + #words > case.logits:numel() then return nil end
  local p = ffi.cast(WORDS[FORMATS[case.dtype].width], case.logits.ptr)
  for i = 1, #words do p[at + i - 1] = tonumber(words[i], 16) end
  return at + #words
end

-- For every key: a function that adds its line to the case. It returns nothing, or an error.
local KEYS = {}

local function make_logits(case, rows)
  if not case.dtype or not case.vocab then return "no dtype or vocab before the row" end
  case.logits = tensor.zeros({ rows, case.vocab }, DTYPES[case.dtype])
end

function KEYS.dtype(case, text)
  if not DTYPES[text] then return "unknown dtype" end
  case.dtype = text
end
function KEYS.tau(case, text) case.tau = fp32(text) end
function KEYS.vocab(case, text) case.vocab = tonumber(text) end

function KEYS.x(case, text)
  if not case.logits then
    local wrong = make_logits(case, 1)
    if wrong then return wrong end
  end
  case.filled = store(case, case.filled or 0, split(text))
  if not case.filled then return "more logits than the shape holds" end
end

function KEYS.gen(case, text)
  local wrong = make_logits(case, 1)
  if wrong then return wrong end
  local format, words = FORMATS[case.dtype], split(text)
  local p = ffi.cast(WORDS[format.width], case.logits.ptr)
  local ok, why = generate(p, case.vocab, format, words[1], words[2], tonumber(words[3]),
                           tonumber(words[4]), tonumber(words[5]))
  if not ok then return why end
  case.filled = case.vocab
end

function KEYS.holes(case, text)
  local words = split(text)
  punch(ffi.cast(WORDS[FORMATS[case.dtype].width], case.logits.ptr), case.vocab, words[1],
        tonumber(words[2]), tonumber(words[3]), tonumber(words[4], 16))
end

function KEYS.put(case, text)
  local words = split(text)
  if not store(case, tonumber(words[1]), { words[2] }) then return "an id past the vocabulary" end
end

function KEYS.target(case, text)
  local words = split(text)
  case.targets = case.targets or {}
  case.targets[#case.targets + 1] = { id = tonumber(words[1]), bits = words[2],
                                      exact = exact(words[3]) }
end

-- The row's in rows.txt, one per row in batches.txt.
function KEYS.lse(case, text)
  local words = split(text)
  if case.row_shape then
    case.lse = case.lse or {}
    append(case.lse, words)
  else
    case.lse, case.exact_lse = words[1], exact(words[2])
  end
end

function KEYS.entropy(case, text) case.entropy = exact(text) end
function KEYS.entropy_bits(case, text) case.entropy_bits = text end
function KEYS.moments(case, text) case.moments = text end
function KEYS.id(case, text) case.id = tonumber(text) end
function KEYS.up_token(case, text) case.up_token = text end
function KEYS.up_entropy(case, text) case.up_entropy = text end
function KEYS.saved(case, text) case.saved = text end
function KEYS.to(case, text) case.to = assert(DTYPES[text]) end
function KEYS.grad(case, text) case.grad = case.grad or {}; append(case.grad, split(text)) end
function KEYS.state(case, text) case.state = text end
function KEYS.kl(case, text) case.kl = text end
function KEYS.true_kl(case, text) case.exact_kl = exact(text) end

-- The row that a row is compared with, in keys that begin with "q_".
for _, key in ipairs { "dtype", "tau", "x", "gen" } do
  KEYS["q_" .. key] = function(case, text)
    case.other = case.other or { vocab = case.vocab }
    return KEYS[key](case.other, text)
  end
end

-- A head: hidden, in keys that begin with "h_", weights, in one row of V * D elements, and
-- derivatives by logits.
local MATRICES = {
  h_ = { name = "hidden", dtype = "dtype", rows = "rows", columns = "depth" },
  w_ = { name = "weights", dtype = "dtype", rows = "vocab", columns = "depth" },
  g_ = { name = "by_logits", dtype = "grad_dtype", rows = "rows", columns = "vocab" },
}
for prefix, of in pairs(MATRICES) do
  for _, key in ipairs { "x", "gen", "holes", "put" } do
    KEYS[prefix .. key] = function(case, text)
      case[of.name] = case[of.name] or {
        dtype = case[of.dtype], vocab = (case[of.rows] or 1) * case[of.columns],
      }
      return KEYS[key](case[of.name], text)
    end
  end
end

function KEYS.grad_dtype(case, text)
  if not DTYPES[text] then return "unknown dtype" end
  case.grad_dtype = text
end

function KEYS.format(case, text) case.format = text end
function KEYS.rows(case, text) case.rows = tonumber(text) end
function KEYS.depth(case, text) case.depth = tonumber(text) end
function KEYS.bias(case, text) case.bias = case.bias or {}; append(case.bias, split(text)) end
function KEYS.scale(case, text) case.scale = fp32(text) end
function KEYS.cap(case, text) case.cap = fp32(text) end
function KEYS.bound(case, text) case.bound = text end

-- The expected logits.
function KEYS.logits(case, text)
  case.expected = case.expected or {}
  append(case.expected, split(text))
end

-- Sums in fp64 before and after the derivatives of a head are added.
for _, name in ipairs { "hidden", "weights", "bias" } do
  for _, key in ipairs { "before_" .. name, "by_" .. name } do
    KEYS[key] = function(case, text)
      case[key] = case[key] or {}
      append(case[key], split(text))
    end
  end
end

function KEYS.shard(case, text)
  local words = split(text)
  case.shards = case.shards or {}
  case.shards[#case.shards + 1] = { first = tonumber(words[1]), n = tonumber(words[2]),
                                    state = words[3] }
end

function KEYS.record(case, text)
  local words = split(text)
  case.records = case.records or {}
  case.records[#case.records + 1] = { id = tonumber(words[1]), x = words[2], bits = words[3] }
end

function KEYS.limit(case, text)
  local words = split(text)
  case.limit = { x = words[1], bits = words[2], refused = words[3] }
end

function KEYS.kept(case, text) case.kept = case.kept or {}; append(case.kept, split(text)) end

function KEYS.entry(case, text)
  local words = split(text)
  case.entries = case.entries or {}
  case.entries[#case.entries + 1] = { id = tonumber(words[1]), bits = words[2],
                                      rank = tonumber(words[3]) }
end

function KEYS.first(case, text)
  local words = split(text)
  case.first = case.first or {}
  case.first[#case.first + 1] = { id = tonumber(words[1]), bits = words[2] }
end

function KEYS.seeded(case, text)
  local words = split(text)
  case.seeded = case.seeded or {}
  case.seeded[#case.seeded + 1] = { seed = words[1], stream = words[2], position = words[3],
                                    bits = words[4] }
end

function KEYS.draw(case, text)
  local words = split(text)
  case.draws = case.draws or {}
  case.draws[#case.draws + 1] = {
    top_k = tonumber(words[1]), top_p = fp32(words[2]), min_p = fp32(words[3]), bits = words[4],
    token = tonumber(words[5]), logprob = words[6], kept_logprob = words[7],
    count = tonumber(words[8]),
  }
end

-- Draws from shards. A message of sums over keys is written as those that are not zero.
function KEYS.cuts(case, text) case.cuts = numbers(text) end

function KEYS.asked(case, text)
  local words = split(text)
  case.asked = { top_k = tonumber(words[1]), top_p = fp32(words[2]), min_p = fp32(words[3]),
                 bits = words[4], outputs = { unpack(words, 5) } }
end

-- The lines of a shard's message in a round, which are lists of words.
local function message_of(case, round, shard)
  round, shard = tonumber(round) + 1, tonumber(shard) + 1
  case.messages = case.messages or {}
  case.messages[round] = case.messages[round] or {}
  case.messages[round][shard] = case.messages[round][shard] or {}
  return case.messages[round][shard]
end

function KEYS.message(case, text)
  local words = split(text)
  append(message_of(case, words[1], words[2]), { words[3] })
end

function KEYS.sums(case, text)
  local words = split(text)
  local its = message_of(case, words[1], words[2])
  its.sums = its.sums or {}
  for i = 3, #words do
    local bin, sum = words[i]:match "^(%d+):(%x+)$"
    its.sums[tonumber(bin)] = sum
  end
end

function KEYS.drawn(case, text)
  local words = split(text)
  case.drawn = { token = tonumber(words[1]), logprob = words[2], kept_logprob = words[3],
                 count = tonumber(words[4]) }
end

-- The words of each shard's kept ids.
function KEYS.words(case, text)
  local words = split(text)
  local shard = tonumber(words[1]) + 1
  case.words = case.words or {}
  case.words[shard] = case.words[shard] or {}
  append(case.words[shard], { unpack(words, 2) })
end

function KEYS.leaf(case, text)
  local pair = numbers(text)
  case.leaves = case.leaves or {}
  case.leaves[#case.leaves + 1] = { A = pair[1], M = pair[2] }
end

function KEYS.tree(case, text)
  case.trees = case.trees or {}
  case.trees[#case.trees + 1] = split(text)
end

function KEYS.padded(case, text)
  case.padded = numbers(text)
  case.row_shape = case.padded
end

function KEYS.cu_seqlens(case, text)
  case.cu_seqlens = numbers(text)
  case.row_shape = { case.cu_seqlens[#case.cu_seqlens] }
end

function KEYS.shift(case, text) case.shift = tonumber(text) end
function KEYS.ignore_index(case, text) case.ignore_index = tonumber(text) end
function KEYS.temperature(case, text) case.temperature = fp32(text) end

function KEYS.temperatures(case, text)
  case.temperatures = case.temperatures or {}
  append(case.temperatures, split(text))
end

function KEYS.ids(case, text) case.ids = case.ids or {}; append(case.ids, numbers(text)) end
function KEYS.mask(case, text) case.mask = case.mask or {}; append(case.mask, numbers(text)) end

function KEYS.row_list(case, text)
  case.row_list = case.row_list or {}
  append(case.row_list, numbers(text))
end

function KEYS.row(case, text)
  if not case.logits then
    local rows = case.row_shape[1] * (case.row_shape[2] or 1)
    local wrong = make_logits(case, rows)
    if wrong then return wrong end
  end
  if tonumber(text) * case.vocab ~= (case.filled or 0) then return "rows are not in order" end
end

function KEYS.token(case, text) case.token = case.token or {}; append(case.token, split(text)) end
function KEYS.sequence(case, text) case.sequence = split(text) end
function KEYS.count(case, text) case.count = numbers(text) end
function KEYS.bad_id(case, text) case.bad_id = numbers(text) end

-- Lines that are cases of their own. Those of other files are not read.
local function one_line(path, at, key, value)
  if key == "refused" then
    return { name = "refused temperature " .. value, path = path, line = at, refused = fp32(value) }
  end
end

-- Files whose cases are blocks.
local BLOCKS = { rows = true, generated = true, batches = true, shards = true, merge = true,
                 order = true, sample = true, draws = true, entropy = true, gradient = true,
                 kl = true, heads = true, head_backward = true }

--- Returns the cases of a file. True values (`exact` of a target, `exact_lse` and `entropy` of a
-- row) are numbers if the file has them.
-- @treturn table a list of { name, path, line, ... }, or nil and a message
function M.read(path)
  local what = posix.kind_of_path(path)
  if what and what ~= "file" then return nil, ("%s: not a regular file"):format(path) end
  local file, why = io.open(path, "rb")
  if not file then return nil, why end

  local head = file:read "*l" or ""
  local format, kind, numerics = head:match "^samebits%-vectors (%d+) (%S+) numerics (%d+) "
  if not format then
    file:close()
    return nil, ("%s:1: no head line of golden vectors"):format(path)
  elseif format ~= "1" or tonumber(numerics) ~= lib.numerics then
    file:close()
    return nil, ("%s:1: format %s of numerics %s; format 1 of numerics %d can be checked"):format(
      path, format, numerics, lib.numerics)
  end

  local blocks = BLOCKS[kind]
  local cases, case, at, wrong = {}, nil, 1, nil
  for line in file:lines() do
    at = at + 1
    if line:sub(1, 1) ~= "#" then
      local key, value = line:match "^(%S+) ?(.*)$"
      if not key then
        wrong = "an empty line"
      elseif not blocks then
        cases[#cases + 1] = one_line(path, at, key, value)
      elseif key == "case" then
        case = { name = value, path = path, line = at }
      elseif not case then
        wrong = ("'%s' outside a case"):format(key)
      elseif key == "end" then
        for _, row in pairs { case, case.other, case.hidden, case.weights } do
          if row.logits and (row.filled or 0) ~= row.logits:numel() then
            wrong = "logits are missing"
          end
        end
        cases[#cases + 1], case = case, nil
      elseif KEYS[key] then
        local ok, problem = pcall(KEYS[key], case, value)
        wrong = ok and problem or not ok and "a malformed line" or nil
      else
        wrong = ("unknown key '%s'"):format(key)
      end
      if wrong then break end
    end
  end
  file:close()
  if case and not wrong then wrong = "the last case has no end" end
  if wrong then return nil, ("%s:%d: %s"):format(path, at, wrong) end
  return cases
end

return M
