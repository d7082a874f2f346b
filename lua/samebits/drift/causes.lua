--- Why tokens differ: hypotheses. Each is computed again for every token that differs, and counted
-- by how many tokens it explains.
--
-- A hypothesis predicts one side's value. It explains a token exactly if the prediction has the
-- value's bits, and nearly if it is within `near` nats and leaves at most an eighth of the
-- difference. A hypothesis that was fitted to the data (a temperature) or could hold by chance (a
-- rounding, a move) is reported only if it explains two tokens exactly, or three tokens and half of
-- them all nearly. If logits were used for the fit, only tokens count that it moves by more than
-- four times `near`, unless all tokens that differ agree. For top-p, only tokens count that one id
-- more or less would move, since in a flat distribution some set gives any value. For top-k and
-- top-p, three of these tokens and one in sixteen of all that differ (with a temperature, one in
-- four) must be explained, unless all are.

local ffi = require "ffi"
local tally = require "samebits.drift.tally"
local rows = require "samebits.drift.rows"
local sets = require "samebits.drift.sets"
local values = require "samebits.drift.values"

local value_of, is_nan = tally.value, tally.is_nan

local M = {}

local LEFT = 1 / 8 -- the share of the difference that "nearly" may leave
local FAR = 4      -- times `near`: further than another op's rounding moves a value
local MANY = 8     -- if all tokens that differ are this many, they do not agree exactly by chance

--- The possible causes, in the order in which tokens are assigned to them.
M.ORDER = {
  "id", "temperature", "kept", "top_k", "top_p", "padding", "settings", "shift", "zeros", "mask",
  "negated", "log2", "log10", "probability", "container", "position", "reversed", "target", "lse",
  "op", "logits", "op_and_logits",
}

local Causes = {}
Causes.__index = Causes

local function name(side) return side.name or side.label end

local function number(x) return ("%.9g"):format(x) end

local function add(self, hypothesis)
  hypothesis.exactly, hypothesis.nearly, hypothesis.index = 0, 0, #self.list
  -- A token's causes are a set of bits in a double.
  assert(hypothesis.index < 53, "too many suppositions")
  hypothesis.evidence = { exactly = 0, nearly = 0 }
  self.list[#self.list + 1] = hypothesis
  return hypothesis
end

-- Hypotheses about a side's settings: its logits, scored as if other settings had been given.
local function settings(self, source, other)
  local of, to = name(source), name(other)
  local all, several = {}, 0
  local function suppose(cause, suppositions, ...)
    add(self, { cause = cause, source = source, target = other, base = source,
                suppose = suppositions,
                text = ("%s is the logprob of %s's logits %s"):format(to, of, (...)) })
    for key, value in pairs(suppositions) do all[key] = value end
    several = several + 1
  end
  if source.temperature ~= other.temperature then
    local tau = other.temperature
    suppose("temperature", { temperature = tau }, type(tau) == "number" and
            ("at temperature %s, %s's setting"):format(number(tau), to) or
            ("at %s's temperatures"):format(to))
  end
  local narrower = other.vocab and other.vocab < source.vocab
  if source.kept ~= other.kept and not (other.kept and narrower) then
    suppose("kept", { kept = other.kept and other or false },
            other.kept and ("within %s's kept sets"):format(to) or "without kept sets")
  end
  if narrower then
    suppose("padding", { vocab = other.vocab },
            ("below id %d; the %d behind them are padding"):format(other.vocab,
                                                                   source.vocab - other.vocab))
  end
  if source.kept and source.logprobs and not other.logits then
    add(self, { cause = "kept", source = source, target = source, base = source,
                suppose = { kept = false },
                text = ("%s is the logprob of its own logits without its kept sets"):format(of) })
  end
  if other.logprobs then
    local now = source.shift or self.scorer.shift
    add(self, { cause = "shift", fitted = true, source = source, target = other, base = source,
                suppose = { shift = 1 - now },
                text = ("%s is the logprob of %s's logits of the %s: %s"):format(to, of,
                  now == 0 and "position before" or "same position",
                  now == 0 and "give shift (--shift)" or "without shift (--shift)") })
  end
  if several > 1 then
    suppose("settings", all, ("with all of %s's settings"):format(to))
  end
end

-- Temperatures that were fitted to a side's logits and the values of `target`.
local function fitted(self, source, target, taus)
  local of, to = name(source), name(target)
  for _, tau in ipairs(taus or {}) do
    add(self, { cause = "temperature", source = source, target = target, base = source,
                fitted = true, suppose = { temperature = tau }, temperature = tau,
                text = ("%s is the logprob of %s logits at temperature %s (%s was given %s)")
                  :format(to, source == target and "its own" or of .. "'s", number(tau), of,
                          type(source.temperature) == "number" and
                          "with " .. number(source.temperature) or "with others") })
  end
end

--- Makes the causes for two sides. given: `scorer` computes logprobs; `near` is a number of nats;
-- `fits`: fitted temperatures (`taus`) and top-k and top-p (`sets`, of sets.lua), keyed by the
-- labels of the side whose logits and of the side whose values they were fitted to ("AB");
-- `layout`; `tally`; `fetch` and `extent`: see values.lua; `store`: where tokens are held one by
-- one, if they are (store.lua).
function M.new(a, b, given)
  local layout, fits = given.layout, given.fits
  local self = setmetatable({
    a = a, b = b, scorer = given.scorer, near = given.near, tally = given.tally,
    list = {}, combinations = {}, numbered = {}, store = given.store,
    total = 0, op = { A = { checked = 0, different = 0, max_ulps = 0 },
                      B = { checked = 0, different = 0, max_ulps = 0 } },
  }, Causes)
  if layout.twice.ids then
    self.id = add(self, { cause = "id", text = "The target ids differ" })
  end
  for _, side in ipairs { a, b } do
    if a.logits or b.logits then
      self["zero " .. side.label] = add(self, {
        cause = "mask",
        text = ("%s is exactly 0, as masked tokens are; their logprobs are not"):format(name(side)),
      })
    end
  end
  for _, pair in ipairs { { a, b }, { b, a } } do
    local side, other = pair[1], pair[2]
    if side.logits then
      settings(self, side, other)
      for _, target in ipairs { other, side } do
        local fit = fits[side.label .. target.label]
        fitted(self, side, target, fit and fit.taus)
      end
    end
  end
  self.small = add(self, { cause = "small", hidden = true })
  given.left = LEFT
  self.values = values.new(self, add, given)
  self.rows = rows.new(self, add, fits)
  if a.logits and b.logits then
    self.by_op = add(self, { cause = "op", fact = true,
      text = "Both sides' logits are the same, and the contract gives them one value: the op " ..
             "differs" })
    self.by_logits = add(self, { cause = "logits", fact = true,
      text = "The logits already differ, at the target and elsewhere" })
    self.by_both = add(self, { cause = "op_and_logits", fact = true,
      text = "The logits already differ, and the op differs as well" })
  end
  return self
end

-- Whether two encodings are the same value, or within `near` of each other.
local function close(self, x, y)
  if x == y then return true end
  return not is_nan(x) and not is_nan(y) and math.abs(value_of(x) - value_of(y)) <= self.near
end

--- Whether two encodings are further apart than another op might move a value.
function Causes:far(x, y)
  return math.abs(value_of(x) - value_of(y)) > FAR * self.near
end

-- Notes the evidence for a hypothesis that was fitted to logits. The evidence for a set is noted in
-- rows.lua.
local function told(self, hypothesis, how, got, base)
  if hypothesis.source and hypothesis.fitted and not hypothesis.set and self:far(got, base) then
    hypothesis.evidence[how] = hypothesis.evidence[how] + 1
  end
  return how
end

--- Notes that a hypothesis predicts `got` for token i of the chunk. `want` is the value there and
-- `have` the other side's value (all words). `base` is the contract's value without the hypothesis:
-- a hypothesis that changes nothing explains nothing. A side's values from its own logits explain a
-- difference only if the other side has the contract's values for them. Returns "exactly", "nearly"
-- or nil.
function Causes:judge(hypothesis, i, got, want, have, base)
  if got == base then return end
  if hypothesis.source == hypothesis.target and hypothesis.base == hypothesis.source and
     not close(self, base, have) then
    return
  end
  local key = 2 ^ hypothesis.index
  if got == want then
    self.exact[i] = self.exact[i] + key
    return told(self, hypothesis, "exactly", got, base)
  end
  if is_nan(got) or is_nan(want) or is_nan(have) then return end
  local left = math.abs(value_of(got) - value_of(want))
  if left <= self.near and left <= LEFT * math.abs(value_of(have) - value_of(want)) then
    self.nearly[i] = self.nearly[i] + key
    return told(self, hypothesis, "nearly", got, base)
  end
end

--- Call before the first chunk, with a sample of the tokens that differ, { row, a, b } each, evenly
-- chosen.
function Causes:screen(probes)
  self.rows:screen(probes)
  self.values:screen(probes)
end

--- Notes that a hypothesis explains token i of the chunk, exactly unless `how` is "nearly".
function Causes:holds(hypothesis, i, how)
  local to = how == "nearly" and self.nearly or self.exact
  to[i] = to[i] + 2 ^ hypothesis.index
end

local function words(t) return ffi.cast("const int32_t *", t.ptr) end

local function id_reader(ids)
  local element = require("samebits.tensor").element
  local read, p, step = element.read[ids.dtype], ids.ptr, ids.strides[1]
  return function(row) return read(p, row * step) end
end

-- Computes both sides' logprobs by the contract, and separates differences of the op from
-- differences of the logits.
local function judge_op(self, chunk, own)
  local flags = chunk.flag
  for _, side in ipairs { self.a, self.b } do
    local want = side == self.a and chunk.a or chunk.b
    local got = own[side.label]
    local zero = self["zero " .. side.label]
    if got and side.logprobs then
      local op = self.op[side.label]
      for i = 0, chunk.n - 1 do
        if flags[i] ~= 0 then
          op.checked = op.checked + 1
          if got[i] ~= want[i] then
            op.different = op.different + 1
            local ulps = tally.ulps(got[i], want[i])
            if ulps and ulps > op.max_ulps then op.max_ulps = ulps end
          end
        end
      end
    end
    local other = own[side == self.a and "B" or "A"]
    if zero then
      for i = 0, chunk.n - 1 do
        local truth = got or other
        if flags[i] ~= 0 and want[i] == 0 and truth[i] ~= 0 then self:holds(zero, i) end
      end
    end
  end
  if not self.by_op then return end
  local p, q = own.A, own.B
  for i = 0, chunk.n - 1 do
    if flags[i] ~= 0 then
      local x, y = chunk.a[i], chunk.b[i]
      if p[i] == q[i] then
        if chunk.same[i] ~= 0 then self:holds(self.by_op, i) end
      elseif p[i] == x and q[i] == y then
        if chunk.same[i] == 0 then self:holds(self.by_logits, i) end
      elseif chunk.same[i] == 0 then
        local bad = is_nan(p[i]) or is_nan(q[i]) or is_nan(x) or is_nan(y)
        local given = not bad and value_of(y) - value_of(x)
        local left = not bad and math.abs(value_of(q[i]) - value_of(p[i]) - given)
        if not bad and left <= self.near and left <= LEFT * math.abs(given) then
          self.nearly[i] = self.nearly[i] + 2 ^ self.by_logits.index
        else
          self:holds(self.by_both, i)
        end
      end
    end
  end
end

-- How many tokens each set of hypotheses explains. The sets are numbered, for tokens that are held
-- one by one.
local function collect(self, chunk)
  local store = self.store
  for i = 0, chunk.n - 1 do
    if chunk.flag[i] ~= 0 then
      self.total = self.total + 1
      local exact, nearly = self.exact[i], self.nearly[i]
      local by = self.combinations[exact]
      if not by then
        by = {}
        self.combinations[exact] = by
      end
      local held = by[nearly]
      if not held then
        held = { exact = exact, nearly = nearly, count = 0, index = #self.numbered + 1 }
        by[nearly], self.numbered[held.index] = held, held
      end
      held.count = held.count + 1
      if store then store:explain(chunk.first + i, held.index) end
      local rank = chunk.wanted[chunk.first + i]
      if rank then rank.exact, rank.nearly = exact, nearly end
    end
  end
end

--- Adds a chunk: `first`, `n`, words `a` and `b`, `flags` (uint8 [n]: tokens that differ) and
-- `wanted`: entries by row whose causes are to be found.
function Causes:add(chunk)
  local n = chunk.n
  self.exact, self.nearly = ffi.new("double[?]", n), ffi.new("double[?]", n)
  chunk.flag = ffi.cast("const uint8_t *", chunk.flags.ptr)
  local flags, scorer = chunk.flag, self.scorer
  local own, held = {}, {}
  for _, side in ipairs { self.a, self.b } do
    if side.logits then
      held[side.label] = scorer:rows(side, chunk.first, n, chunk.flags)
      own[side.label] = words(held[side.label])
    end
  end
  if self.id then
    local left, right = id_reader(self.a.ids), id_reader(self.b.ids)
    for i = 0, n - 1 do
      if flags[i] ~= 0 and left(chunk.first + i) ~= right(chunk.first + i) then
        self:holds(self.id, i)
      end
    end
  end
  for i = 0, n - 1 do
    if flags[i] ~= 0 and close(self, chunk.a[i], chunk.b[i]) then self:holds(self.small, i) end
  end
  self.values:add_chunk(chunk)
  for _, h in ipairs(self.list) do
    if h.suppose then
      local token = scorer:rows(h.source, chunk.first, n, chunk.flags, h.suppose)
      local got = words(token)
      local want, have = chunk.b, chunk.a
      if h.target == self.a then want, have = have, want end
      for i = 0, n - 1 do
        if flags[i] ~= 0 then
          self:judge(h, i, got[i], want[i], have[i], own[h.base.label][i])
        end
      end
    end
  end
  if own.A or own.B then
    chunk.same, chunk.own = ffi.new("uint8_t[?]", n), own
    self.rows:add(chunk)
    judge_op(self, chunk, own)
  end
  collect(self, chunk)
end

local function bit_of(set, index) return math.floor(set / 2 ^ index) % 2 == 1 end

local RANK = {}
for i, cause in ipairs(M.ORDER) do RANK[cause] = i end
RANK.top_p = RANK.top_k -- whichever explains more

-- Whether a hypothesis explains enough tokens to be reported.
local function enough(self, h)
  local all = h.exactly + h.nearly
  if not h.fitted then return all > 0 end
  if h.share and h.share * all < self.total then return false end
  local found = h.source and h.evidence or h
  local with_p = h.set and h.set.p
  if not with_p and h.exactly >= MANY and h.exactly == self.total then return true end
  if not h.set then
    return found.exactly >= 2 or found.nearly >= 3 and 2 * h.nearly >= self.total
  end
  if h.set.every then return h.exactly >= 2 and h.exactly == self.total end
  if found.exactly >= 2 and all == self.total or
     found.exactly + found.nearly >= 3 and 2 * all >= self.total then
    return true
  end
  return found.exactly >= 3 and (h.temperature and 4 or 16) * all >= self.total
end

-- The hypotheses that may be reported, in order.
local function accepted(self)
  local out = {}
  for _, h in ipairs(self.list) do
    h.exactly, h.nearly = 0, 0
    for _, held in ipairs(self.numbered) do
      if bit_of(held.exact, h.index) then
        h.exactly = h.exactly + held.count
      elseif bit_of(held.nearly, h.index) then
        h.nearly = h.nearly + held.count
      end
    end
    if enough(self, h) and not h.hidden then out[#out + 1] = h end
  end
  table.sort(out, function(x, y)
    if (x.fact or false) ~= (y.fact or false) then return not x.fact end
    if RANK[x.cause] ~= RANK[y.cause] then return RANK[x.cause] < RANK[y.cause] end
    if x.exactly ~= y.exactly then return x.exactly > y.exactly end
    return x.index < y.index
  end)
  return out
end

-- The hypothesis that a token is assigned to, and whether it explains the token exactly.
local function assigned(list, exact, nearly)
  for _, fact in ipairs { false, true } do
    for _, h in ipairs(list) do
      if (h.fact or false) == fact and bit_of(exact, h.index) then return h, true end
    end
    for _, h in ipairs(list) do
      if (h.fact or false) == fact and bit_of(nearly, h.index) then return h, false end
    end
  end
end

--- Returns how many tokens each cause explains: a list of { cause, text, exactly, nearly, tokens,
-- temperature }, where `tokens` counts each token once; the number of tokens that nothing explains;
-- and how many of those differ by `near` or less. Entries get their `cause` and `cause_exact`, and
-- `by`, the cause's place in the list; the kinds of the store do, too.
function Causes:finish(entries)
  local list, unexplained, small = accepted(self), 0, 0
  for _, h in ipairs(list) do h.tokens, h.tokens_exactly = 0, 0 end
  for _, held in ipairs(self.numbered) do
    local h, exactly = assigned(list, held.exact, held.nearly)
    held.hypothesis, held.exactly = h, exactly or false
    if h then
      h.tokens = h.tokens + held.count
      if exactly then h.tokens_exactly = h.tokens_exactly + held.count end
    else
      unexplained = unexplained + held.count
      if bit_of(held.exact, self.small.index) then small = small + held.count end
    end
  end
  for _, entry in pairs(entries) do
    local h, exactly = assigned(list, entry.exact or 0, entry.nearly or 0)
    entry.cause, entry.cause_exact = h and h.cause or "unexplained", exactly or false
    entry.hypothesis = h
  end
  local out = {}
  for _, h in ipairs(list) do
    if h.tokens > 0 then
      out[#out + 1] = { hypothesis = h, cause = h.cause, text = h.text, tokens = h.tokens,
                        tokens_exactly = h.tokens_exactly, exactly = h.exactly, nearly = h.nearly,
                        temperature = h.temperature }
      if h.set then sets.tell(out[#out], h.set) end
    end
  end
  table.sort(out, function(x, y)
    if x.tokens ~= y.tokens then return x.tokens > y.tokens end
    return x.text < y.text
  end)
  local place = {}
  for i, cause in ipairs(out) do place[cause.hypothesis], cause.hypothesis = i, nil end
  for _, entry in pairs(entries) do
    entry.by, entry.hypothesis = place[entry.hypothesis], nil
  end
  for i, held in ipairs(self.store and self.numbered or {}) do
    local h = held.hypothesis
    self.store.kinds[i] = { cause = h and h.cause or "unexplained", cause_exact = held.exactly,
                            by = h and place[h] }
  end
  return out, unexplained, small
end

return M
