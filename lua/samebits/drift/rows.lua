--- What a pair of logits rows says about a token that differs: whether the rows are the same
-- numbers, and which part of what differs between them is enough to explain the token.
--
-- A group of rows at a time is widened to fp32 and made up anew: one side's row with the other's
-- target, with the other's absent ids, rounded to another dtype; then scored.

local ffi = require "ffi"
local half = require "samebits.half"
local scorer = require "samebits.drift.scorer"
local tensor = require "samebits.tensor"

local M = {}

-- Bytes for one set of widened rows; three are held.
local ROOM = 16 * 2 ^ 20

local NONE = 0xff800000 -- -inf

local Rows = {}
Rows.__index = Rows

local function name(side) return side.name or side.label end

local WIDER = { float32 = { "bfloat16", "float16" }, float16 = { "bfloat16" },
                bfloat16 = { "float16" } }

local ROUND = {
  bfloat16 = function(p, n)
    local to, from = half.to_bfloat16, half.from_bfloat16
    for i = 0, n - 1 do if p[i] == p[i] then p[i] = from(to(p[i])) end end
  end,
  float16 = function(p, n)
    local to, from = half.to_float16, half.from_float16
    for i = 0, n - 1 do if p[i] == p[i] then p[i] = from(to(p[i])) end end
  end,
}

--- The suppositions about rows, added to `causes` by add(causes, hypothesis).
function M.new(causes, add)
  local a, b = causes.a, causes.b
  local self = setmetatable({ causes = causes, list = {} }, Rows)
  local function put(h)
    h.base = h.base or h.source
    self.list[#self.list + 1] = add(causes, h)
  end
  for _, pair in ipairs { { a, b }, { b, a } } do
    local source, target = pair[1], pair[2]
    if source.logits then
      for _, dtype in ipairs(WIDER[source.logits_dtype]) do
        put { cause = "container", fitted = true, row = "round", source = source, target = target,
              dtype = dtype,
              text = ("%s is the logprob of %s's logits, rounded to %s"):format(
                name(target), name(source), dtype) }
      end
      if target.logits then
        put { cause = "kept", row = "absent", source = source, target = target,
              text = ("%s is the logprob of %s's logits without the ids that are -inf in %s")
                :format(name(target), name(source), name(target)) }
        put { cause = "padding", row = "tail", source = source, target = target,
              text = ("%s is the logprob of %s's logits without the last ids: padding, -inf in %s")
                :format(name(target), name(source), name(target)) }
      end
    end
  end
  if a.logits and b.logits then
    put { cause = "target", row = "target", source = a, target = b,
          text = ("%s is the logprob of %s's logits but for the target's, which is %s's"):format(
            name(b), name(a), name(b)) }
    put { cause = "lse", row = "lse", source = b, target = b, base = a,
          text = ("%s is the logprob of its logits, whatever the target's: the others differ")
            :format(name(b)) }
  end
  return self
end

local function float_p(t) return ffi.cast("float *", t.ptr) end
local function word_p(t) return ffi.cast("uint32_t *", t.ptr) end

-- The widened rows of a side, ids [m, V].
local function widen(self, side, rows, m, vocab, to)
  for k = 0, m - 1 do self.causes.scorer:copy(side, rows[k], float_p(to) + k * vocab, vocab) end
end

local function view(t, m, vocab) return t:slice(0, 0, m * vocab):view(m, vocab) end

-- Per-row settings of the rows at hand.
local function gathered(side, rows, m, vocab)
  local temperature = side.temperature
  if tensor.is_tensor(temperature) then
    local made = tensor.zeros({ m }, "float32")
    local from, to = word_p(temperature), word_p(made)
    for k = 0, m - 1 do to[k] = from[rows[k]] end
    temperature = made
  end
  local kept
  if side.kept then
    local first = scorer.kept_of(side, rows[0], rows[0] + 1, vocab)
    kept = tensor.zeros({ m, first.shape[2] }, first.dtype)
    for k = 0, m - 1 do
      kept:slice(0, k, k + 1):copy_(scorer.kept_of(side, rows[k], rows[k] + 1, vocab):contiguous())
    end
  end
  local ids = tensor.zeros({ m }, "int64")
  local to = ffi.cast("int64_t *", ids.ptr)
  for k = 0, m - 1 do to[k] = side.ids:get(rows[k]) end
  return ids, temperature, kept
end

-- Makes the rows of a supposition in `made` from both sides' (null where a side has no logits).
-- Says for each whether it applies.
local function make(h, made, mine, theirs, m, vocab, ids, applies)
  local to, from = word_p(made), word_p(mine)
  local other = theirs and word_p(theirs)
  ffi.copy(to, from, m * vocab * 4)
  local id = ffi.cast("int64_t *", ids.ptr)
  for k = 0, m - 1 do
    local row, their = to + k * vocab, other and other + k * vocab
    applies[k] = true
    if h.row == "round" then
      ROUND[h.dtype](ffi.cast("float *", row), vocab)
    elseif h.row == "target" then
      row[id[k]] = their[id[k]]
    elseif h.row == "lse" then
      row[id[k]] = their[id[k]]
    else
      -- Absent ids: those at the end alone are padding.
      local removed, first, tail = 0, nil, vocab
      while tail > 0 and their[tail - 1] == NONE do tail = tail - 1 end
      for i = 0, vocab - 1 do
        if their[i] == NONE and row[i] ~= NONE then
          removed, first = removed + 1, first or i
          row[i] = NONE
        end
      end
      local padding = first ~= nil and first >= tail
      applies[k] = removed > 0 and padding == (h.row == "tail")
    end
  end
end

-- Suppositions about a group of rows: indices into the chunk.
local function judge_group(self, chunk, list, m)
  local causes = self.causes
  local a, b = causes.a, causes.b
  local rows = {}
  for k = 0, m - 1 do rows[k] = chunk.first + list[k] end
  local widened, vocabs = {}, {}
  local both = a.logits and b.logits
  for _, side in ipairs { a, b } do
    if side.logits then
      local vocab = both and math.min(a.vocab, b.vocab) or side.vocab
      vocabs[side] = vocab
      widened[side] = view(self[side.label], m, vocab)
      widen(self, side, rows, m, vocab, widened[side])
    end
  end
  local applies = {}
  for _, h in ipairs(self.list) do
    local source = h.source
    local vocab = vocabs[source]
    local other = source == a and b or a
    -- Rows of unequal length are told by their settings.
    if not both or a.vocab == b.vocab or h.row == "round" and vocab == source.vocab then
      local ids, temperature, kept = gathered(source, rows, m, vocab)
      local made = view(self.made, m, vocab)
      make(h, made, widened[source], widened[other], m, vocab, ids, applies)
      local got = ffi.cast("const int32_t *", causes.scorer:made(made, ids, temperature, kept).ptr)
      for k = 0, m - 1 do
        local i = list[k]
        if applies[k] and (chunk.same[i] == 0 or h.row == "round") then
          local want, have = chunk.b[i], chunk.a[i]
          if h.target == a then want, have = have, want end
          causes:judge(h, i, got[k], want, have, chunk.own[h.base.label][i])
        end
      end
    end
  end
end

--- Sets chunk.same, and judges the suppositions for its tokens that differ.
function Rows:add(chunk)
  local causes = self.causes
  local a, b = causes.a, causes.b
  local both = a.logits and b.logits
  local vocab = math.max(a.vocab or 0, b.vocab or 0)
  local room = math.max(1, math.floor(ROOM / (4 * vocab)))
  if not self.made then
    for _, key in ipairs { "A", "B", "made" } do
      self[key] = tensor.zeros({ room * vocab }, "float32")
    end
  end
  local list, m = {}, 0
  for i = 0, chunk.n - 1 do
    if chunk.flag[i] ~= 0 then
      if both and a.vocab == b.vocab and
         causes.scorer:same_logits(a, b, chunk.first + i) then
        chunk.same[i] = 1
      end
      list[m] = i
      m = m + 1
      if m == room then
        judge_group(self, chunk, list, m)
        m = 0
      end
    end
  end
  if m > 0 then judge_group(self, chunk, list, m) end
end

return M
