--- Hypotheses about the values alone, without logits. One side's values are the other side's
-- rounded to another container, with the sign changed, in another logarithm, or as probabilities;
-- or they are the values of other tokens, a fixed number of places away or in reverse order; or
-- they are all zeros.
--
-- Hypotheses without evidence in the probed tokens are not tried on all tokens.

local bit = require "bit"
local ffi = require "ffi"
local tally = require "samebits.drift.tally"
local tensor = require "samebits.tensor"

local half = tensor.half

local M = {}

local value_of, word_of, is_nan = tally.value, tally.word, tally.is_nan
local abs, exp, log = math.abs, math.exp, math.log

local INFINITE = 0x7f800000

-- f: one side's value as a function of the other's. left: the distance of a value from f, in nats,
-- if it is not the difference. The distance of a probability is relative, since most are close to
-- 0.
local TRANSFORMS = {
  { cause = "negated", f = function(x) return -x end,
    text = "%s is %s with the sign changed: a loss, or a negative log-likelihood" },
  { cause = "log2", f = function(x) return x / log(2) end,
    text = "%s is %s in logarithms to base 2" },
  { cause = "log10", f = function(x) return x / log(10) end,
    text = "%s is %s in logarithms to base 10" },
  { cause = "probability", f = exp,
    left = function(want, x) return want > 0 and abs(log(want) - x) or math.huge end,
    text = "%s is e to the %s: probabilities, without the logarithm" },
}

-- The largest number of transforms to try on all tokens.
local MANY = 3

-- A move must explain one in this many of all tokens that differ, because values of few digits can
-- be equal by chance.
local SHARE, COARSE_SHARE = 16, 4

local Values = {}
Values.__index = Values

local function name(side) return side.name or side.label end

local function rounded(dtype, v)
  if dtype == "bfloat16" then return half.from_bfloat16(half.to_bfloat16(v)) end
  return half.from_float16(half.to_float16(v))
end

-- How a transform of the value x agrees with `want`, where `have` is the other side's value:
-- "exactly", "nearly" or nil. Zeros are not evidence of a sign, a logarithm or a base.
local function agrees(self, transform, x, want, have)
  if is_nan(x) or is_nan(want) or value_of(x) == 0 then return nil end
  local v = value_of(x)
  local made = transform.f(v)
  if word_of(made) == want then return "exactly" end
  local left = transform.left and transform.left(value_of(want), v) or abs(value_of(want) - made)
  if left <= self.near and left <= self.left * abs(value_of(have) - value_of(want)) then
    return "nearly"
  end
end

local function whole(layout, row)
  local low, past = layout.bounds(layout.place(row))
  return low, past
end

-- The row that a move takes a row's value from; nil if there is none in the sequence.
local function moved(self, h, row)
  local low, past = whole(self.layout, row)
  if h.by then
    local from = row + h.by
    return from >= low and from < past and from or nil
  end
  if h.active then low, past = self.extent(self.layout.place(row)) end
  local from = low + past - 1 - row
  return from >= low and from < past and from ~= row and from or nil
end

-- Whether a value can distinguish tokens.
local function telling(w) return w ~= 0 and bit.band(w, 0x7fffffff) < INFINITE end

--- Makes the hypotheses for `causes`, which add(causes, hypothesis) adds to it. given: `tally`;
-- `layout`; `fetch(side, row, count)`: a side's values as fp32; `extent(sequence)`: the first row
-- that counts on both sides, and the row after the last; `left`: the share of the difference that
-- "nearly" may leave.
function M.new(causes, add, given)
  local a, b, count = causes.a, causes.b, given.tally
  local self = setmetatable({
    causes = causes, add = add, a = a, b = b, near = causes.near, left = given.left,
    layout = given.layout, fetch = given.fetch, extent = given.extent, list = {}, moves = {},
  }, Values)
  local containers = count.containers
  for _, pair in ipairs { { a, b }, { b, a } } do
    local from, to = pair[1], pair[2]
    for _, dtype in ipairs { "bfloat16", "float16" } do
      if containers[to.label:lower()][dtype] then
        self.list[#self.list + 1] = add(causes, {
          cause = "container", fitted = true, from = from, round = dtype,
          text = ("%s is %s, rounded to %s"):format(name(to), name(from), dtype) })
      end
    end
    local compared = count.compared
    if compared > 1 and count["zeros_" .. to.label:lower()] == compared and
       count["zeros_" .. from.label:lower()] < compared then
      self.zeros = add(causes, {
        cause = "zeros",
        text = ("Every logprob of %s is 0: nothing was written there"):format(name(to)) })
    end
  end
  local coarse = false
  for _, held in pairs(containers) do coarse = coarse or held.bfloat16 or held.float16 end
  self.share = coarse and COARSE_SHARE or SHARE
  for _, by in ipairs { -1, 1 } do
    self.moves[#self.moves + 1] = add(causes, {
      cause = "position", fitted = true, by = by, share = self.share,
      text = ("%s's token t is %s's token t %s 1"):format(name(b), name(a), by < 0 and "-" or "+"),
    })
  end
  return self
end

-- Adds the transforms that most probed tokens support.
local function screen_transforms(self, probes)
  local count, found = self.causes.tally, {}
  for order, transform in ipairs(TRANSFORMS) do
    for _, pair in ipairs { { self.a, self.b, "a", "b" }, { self.b, self.a, "b", "a" } } do
      local from, to = pair[1], pair[2]
      local voters = 0
      for _, probe in ipairs(probes) do
        local x, want = probe[pair[3]], probe[pair[4]]
        if agrees(self, transform, x, want, x) then voters = voters + 1 end
      end
      -- Of the two signs, the wrong one is above 0.
      local wrong = transform.cause ~= "negated" or count["positive_" .. pair[4]] > 0
      if voters > 0 and wrong then
        found[#found + 1] = { voters = voters, order = order, hypothesis = {
          cause = transform.cause, fitted = true, transform = transform, from = from,
          text = transform.text:format(name(to), name(from)) } }
      end
    end
  end
  table.sort(found, function(x, y)
    if x.voters ~= y.voters then return x.voters > y.voters end
    return x.order < y.order
  end)
  for i = 1, math.min(#found, MANY) do
    self.list[#self.list + 1] = self.add(self.causes, found[i].hypothesis)
  end
end

-- Adds reversals that two probed tokens support: of the tokens that count, and of whole sequences.
local function screen_reversals(self, probes)
  for _, active in ipairs { true, false } do
    local h, found = { active = active }, 0
    for _, probe in ipairs(probes) do
      local from = telling(probe.b) and moved(self, h, probe.row)
      if from then
        local held = self.fetch(self.a, from, 1)
        if ffi.cast("const int32_t *", held.ptr)[0] == probe.b then found = found + 1 end
      end
      if found == 2 then break end
    end
    if found == 2 then
      self.moves[#self.moves + 1] = self.add(self.causes, {
        cause = "reversed", fitted = true, active = active, share = self.share,
        text = ("%s's sequences are %s's from the last token to the first"):format(name(self.b),
                                                                                  name(self.a)) })
      return
    end
  end
end

--- Call before the first chunk, with tokens that differ, { row, a, b } each.
function Values:screen(probes)
  screen_transforms(self, probes)
  screen_reversals(self, probes)
end

-- Judges the tokens of a chunk by A's values at other rows. Runs of consecutive rows, in either
-- direction, are read from the chunk or fetched, at most as many at a time as the chunk has. The
-- result does not depend on where chunks end.
local function judge_move(self, h, chunk)
  local i = 0
  local function inside(row) return row >= chunk.first and row < chunk.first + chunk.n end
  while i < chunk.n do
    local from = chunk.flag[i] ~= 0 and moved(self, h, chunk.first + i)
    if not from then
      i = i + 1
    else
      local step = h.by and 1 or -1
      local last = i
      while last + 1 < chunk.n do
        local next_from = from + (last + 1 - i) * step
        if moved(self, h, chunk.first + last + 1) ~= next_from or
           inside(next_from) ~= inside(from) then
          break
        end
        last = last + 1
      end
      local low = math.min(from, from + (last - i) * step)
      local held = not inside(from) and self.fetch(self.a, low, last - i + 1)
      self.held = held -- keeps it alive while its words are read
      local got = held and ffi.cast("const int32_t *", held.ptr) or chunk.a + (low - chunk.first)
      for j = i, last do
        local want = chunk.b[j]
        if chunk.flag[j] ~= 0 and telling(want) then
          local have = chunk.a[j]
          self.causes:judge(h, j, got[from + (j - i) * step - low], want, have, have)
        end
      end
      i = last + 1
    end
  end
end

--- Judges a chunk's tokens that differ (causes.lua).
function Values:add_chunk(chunk)
  for _, h in ipairs(self.list) do
    for i = 0, chunk.n - 1 do
      if chunk.flag[i] ~= 0 then
        local x, want = chunk.a[i], chunk.b[i]
        if h.from == self.b then x, want = want, x end
        if h.round then
          if not is_nan(x) and not is_nan(want) and
             word_of(rounded(h.round, value_of(x))) == want then
            self.causes:holds(h, i, "exactly")
          end
        else
          local how = agrees(self, h.transform, x, want, x)
          if how then self.causes:holds(h, i, how) end
        end
      end
    end
  end
  if self.zeros then
    for i = 0, chunk.n - 1 do
      if chunk.flag[i] ~= 0 then self.causes:holds(self.zeros, i, "exactly") end
    end
  end
  for _, h in ipairs(self.moves) do judge_move(self, h, chunk) end
end

return M
