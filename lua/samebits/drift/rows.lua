--- Examines the two rows of logits behind a token that differs: whether they hold the same numbers,
-- and which of their differences alone explains the token.
--
-- It widens a group of rows at a time to fp32, makes variants of them (one side's row with the
-- other's target, with the other's absent ids, within top-k or top-p, or rounded to another dtype),
-- and scores the variants.

local ffi = require "ffi"
local scorer = require "samebits.drift.scorer"
local sets = require "samebits.drift.sets"
local tally = require "samebits.drift.tally"
local tensor = require "samebits.tensor"

local half = tensor.half

local M = {}

-- Bytes for one set of widened rows; three sets are kept.
local ROOM = 16 * 2 ^ 20

local NONE, GONE = 0xff800000, -0x800000 -- -inf, as uint32 and as int32

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

-- Hypotheses of top-k and top-p.
local function put_sets(put, source, target, list)
  for _, set in ipairs(list) do
    put { cause = set.p and "top_p" or "top_k", fitted = true, row = "set", set = set,
          source = source, target = target, temperature = set.temperature,
          text = ("%s is the logprob of %s logits "):format(name(target), source == target and
            "its own" or name(source) .. "'s") }
  end
end

--- Makes the hypotheses about rows, which add(causes, hypothesis) adds to `causes`. fits: see
-- causes.lua.
function M.new(causes, add, fits)
  local a, b = causes.a, causes.b
  local self = setmetatable({ causes = causes, list = {} }, Rows)
  local function put(h)
    h.base = h.base or h.source
    self.list[#self.list + 1] = add(causes, h)
  end
  for _, pair in ipairs { { a, b }, { b, a } } do
    local source, target = pair[1], pair[2]
    if source.logits then
      for _, to in ipairs { target, source } do
        local fit = fits[source.label .. to.label]
        put_sets(put, source, to, fit and fit.sets or {})
      end
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
          text = ("With %s's target logit in them, %s's logits give %s's value"):format(name(b),
            name(a), name(b)) }
    put { cause = "lse", row = "lse", source = b, target = b, base = a,
          text = ("With %s's target logit in them, %s's logits still give %s's value: the other " ..
                  "logits differ"):format(name(a), name(b), name(b)) }
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

-- Per-row settings of n chosen rows of the group. taus: a temperature that replaces the side's own.
local function gathered(side, rows, chosen, n, vocab, taus)
  local temperature, kept = taus or side.temperature, nil
  if tensor.is_tensor(temperature) then
    local from = word_p(temperature)
    temperature = tensor.zeros({ n }, "float32")
    local to = word_p(temperature)
    for j = 0, n - 1 do to[j] = from[rows[chosen[j]]] end
  end
  if side.kept then
    for j = 0, n - 1 do
      local row = rows[chosen[j]]
      local one = scorer.kept_of(side, row, row + 1, vocab):contiguous()
      kept = kept or tensor.zeros({ n, one.shape[2] }, one.dtype)
      kept:slice(0, j, j + 1):copy_(one)
    end
  end
  local ids = tensor.zeros({ n }, "int64")
  local to = ffi.cast("int64_t *", ids.ptr)
  for j = 0, n - 1 do to[j] = side.ids:get(rows[chosen[j]]) end
  return ids, temperature, kept
end

-- Finds, for each row, the ids that both sides have columns for and that are absent only in the
-- other side's row: whether there are any, and whether all of them are past the last id that the
-- other side has. One pass does this for both sides.
local function absences(mine, theirs, m)
  local width, other_width = mine.shape[2], theirs.shape[2]
  local vocab = math.min(width, other_width)
  local p, q, out = word_p(mine), word_p(theirs), {}
  for k = 0, m - 1 do
    local x, y = p + k * width, q + k * other_width
    local lost_x, lost_y, first_x, first_y, end_x, end_y = 0, 0, vocab, vocab, 0, 0
    for i = 0, vocab - 1 do
      local u, v = x[i], y[i]
      if u ~= NONE then end_x = i + 1 end
      if v ~= NONE then end_y = i + 1 end
      if u ~= v then
        if v == NONE then
          lost_x = lost_x + 1
          if first_x == vocab then first_x = i end
        elseif u == NONE then
          lost_y = lost_y + 1
          if first_y == vocab then first_y = i end
        end
      end
    end
    out[k] = {
      [mine] = lost_x > 0 and (first_x >= end_y and "tail" or "absent"),
      [theirs] = lost_y > 0 and (first_y >= end_x and "tail" or "absent"),
    }
  end
  return out
end

-- Makes a hypothesis's row from both sides' rows (theirs: nil if the other side has no logits,
-- otherwise `shared` columns of its row).
local function make(h, row, mine, theirs, vocab, shared, id)
  ffi.copy(row, mine, vocab * 4)
  if h.row == "round" then
    ROUND[h.dtype](ffi.cast("float *", row), vocab)
  elseif h.row == "target" or h.row == "lse" then
    row[id] = theirs[id]
  elseif h.row ~= "set" then
    for i = 0, shared - 1 do if theirs[i] == NONE then row[i] = NONE end end
  end
end

-- Makes the sets of n rows. Returns, for each row, its set; and, if the hypothesis has its own
-- temperature, the values that the rows give without the set, as words.
local function make_sets(self, h, made, n, ids, temperature, want)
  local causes, vocab, plain, out = self.causes, h.source.vocab, nil, {}
  if h.temperature then plain = causes.scorer:made(made, ids, temperature) end
  local row = ffi.cast("uint32_t *", made.ptr)
  for j = 0, n - 1 do
    local tau = tensor.is_tensor(temperature) and temperature:get(j) or temperature
    out[j] = sets.cut(h.set, row + j * vocab, vocab, ids:get(j), tau, want(j) ~= GONE, causes.near)
  end
  return out, plain
end

-- Notes the evidence that a token explained by its set gives for the hypothesis. It is evidence if
-- the set is sharp, holds more than the target, and moves the value by more than another op might.
-- base: the value from the whole vocabulary.
local function note_set(causes, h, set, how, got, base)
  if set.sharp and got ~= 0 and got ~= GONE and causes:far(got, base) then
    h.evidence[how] = h.evidence[how] + 1
  end
  if set.tied then h.set.tied = true end
  for _, over in ipairs { how, "all" } do
    local bounds = h.set[over] or { low = 0, high = 1 }
    bounds.low, bounds.high = math.max(bounds.low, set.low), math.min(bounds.high, set.high)
    h.set[over] = bounds
  end
end

-- Judges the hypotheses about a group of rows: indices into the chunk.
local function judge_group(self, chunk, list, m)
  local causes = self.causes
  local a, b = causes.a, causes.b
  local rows, widened = {}, {}
  for k = 0, m - 1 do rows[k] = chunk.first + list[k] end
  local both = a.logits and b.logits
  local shared = both and math.min(a.vocab, b.vocab)
  for _, side in ipairs { a, b } do
    if side.logits then
      widened[side] = view(self[side.label], m, side.vocab)
      widen(self, side, rows, m, side.vocab, widened[side])
    end
  end
  local lost = both and absences(widened[a], widened[b], m)
  for _, h in ipairs(self.list) do
    local source, vocab = h.source, h.source.vocab
    local other = source == a and b or a
    local mine, theirs = widened[source], widened[other]
    local chosen, n = {}, 0
    for k = 0, m - 1 do
      local applies = h.row == "round" or h.row == "set"
      if not applies and both and chunk.same[list[k]] == 0 then
        applies = h.row == "target" or h.row == "lse" or lost[k][mine] == h.row
      end
      if applies then
        chosen[n] = k
        n = n + 1
      end
    end
    if n > 0 then
      local ids, temperature, kept = gathered(source, rows, chosen, n, vocab, h.temperature)
      local made = view(self.made, n, vocab)
      local values = h.target == a and chunk.a or chunk.b
      local id = ffi.cast("int64_t *", ids.ptr)
      for j = 0, n - 1 do
        make(h, word_p(made) + j * vocab, word_p(mine) + chosen[j] * vocab,
             theirs and word_p(theirs) + chosen[j] * other.vocab, vocab, shared, tonumber(id[j]))
      end
      local cut, plain
      if h.set then
        cut, plain = make_sets(self, h, made, n, ids, temperature, function(j)
          return values[list[chosen[j]]]
        end)
        self.plain = plain -- keeps it alive while its words are read
        plain = plain and ffi.cast("const int32_t *", plain.ptr)
      end
      local token = causes.scorer:made(made, ids, temperature, kept)
      local got = ffi.cast("const int32_t *", token.ptr)
      for j = 0, n - 1 do
        local i = list[chosen[j]]
        local want, have = chunk.b[i], chunk.a[i]
        if h.target == a then want, have = have, want end
        -- A value that the temperature alone gives is not evidence for a set.
        if not h.set or cut[j] and not (plain and plain[j] == got[j]) then
          local how = causes:judge(h, i, got[j], want, have, chunk.own[h.base.label][i])
          if h.set and how then
            note_set(causes, h, cut[j], how, got[j],
                     plain and plain[j] or chunk.own[source.label][i])
          end
        end
      end
    end
  end
end

-- Whether a rounding of a side's logits gives the other side's value at any of the probed tokens. A
-- rounding is slow to try, so one that no probe supports is not tried on all tokens.
local function screened(self, h, probes)
  local source, score, near = h.source, self.causes.scorer, self.causes.near
  local vocab = source.vocab
  local target = h.target == self.causes.a and "a" or "b"
  local row, made = view(self[source.label], 1, vocab), view(self.made, 1, vocab)
  for _, probe in ipairs(probes) do
    score:copy(source, probe.row, float_p(row), vocab)
    make(h, word_p(made), word_p(row), nil, vocab)
    local ids, temperature, kept = gathered(source, { [0] = probe.row }, { [0] = 0 }, 1, vocab)
    local token = score:made(made, ids, temperature, kept)
    local got = ffi.cast("const int32_t *", token.ptr)[0]
    local want = probe[target]
    if got == want then return true end
    if not tally.is_nan(got) and not tally.is_nan(want) and
       math.abs(tally.value(got) - tally.value(want)) <= near then
      return true
    end
  end
  return false
end

local function allocate(self)
  local a, b = self.causes.a, self.causes.b
  local vocab = math.max(a.vocab or 0, b.vocab or 0)
  self.room = math.max(1, math.floor(ROOM / (4 * vocab)))
  for _, key in ipairs { "A", "B", "made" } do
    self[key] = tensor.zeros({ self.room * vocab }, "float32")
  end
end

--- Drops hypotheses without evidence in the probed tokens (words `a` and `b` of a `row`).
function Rows:screen(probes)
  if #self.list == 0 then return end
  allocate(self)
  local list = {}
  for _, h in ipairs(self.list) do
    if h.row ~= "round" or screened(self, h, probes) then
      list[#list + 1] = h
      self.every_row = self.every_row or h.row == "round" or h.row == "set"
    end
  end
  self.list = list
end

--- Sets chunk.same, and judges the hypotheses for the chunk's tokens that differ.
function Rows:add(chunk)
  local a, b = self.causes.a, self.causes.b
  local both = a.logits and b.logits
  local list, m = {}, 0
  for i = 0, chunk.n - 1 do
    if chunk.flag[i] ~= 0 then
      if both and self.causes.scorer:same_logits(a, b, chunk.first + i) then chunk.same[i] = 1 end
      if self.every_row or both and chunk.same[i] == 0 then
        list[m] = i
        m = m + 1
      end
      if m == self.room then
        judge_group(self, chunk, list, m)
        m = 0
      end
    end
  end
  if m > 0 then judge_group(self, chunk, list, m) end
end

return M
