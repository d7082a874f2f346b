--- Counts and sums over pairs of logprobs, token by token. They are made in the order of rows,
-- however the rows are cut into chunks, and in memory that does not grow with the number of tokens.

local ffi = require "ffi"
local bit = require "bit"
local noise = require "samebits.drift.noise"
local segments = require "samebits.drift.segments"
local tails = require "samebits.drift.tails"
local tensor = require "samebits.tensor"

local half = tensor.half
local band, tohex, abs, floor = bit.band, bit.tohex, math.abs, math.floor

local M = {}

--- The edges of the histograms. Distances in ULPs: 0, then powers of two; differences in nats: 0,
-- then decades, with no lower bound of the first.
M.ULP_BUCKETS, M.DECADES = 34, { -8, -7, -6, -5, -4, -3, -2, -1, 0, 1 }

--- Ratio bands: 1 +- each value.
M.BANDS = { 0.001, 0.01, 0.1 }

M.POSITION_BINS = 64

--- The most sequences that are kept, unless more worst ones are wanted.
M.SEQUENCES = 1000

local SAMPLE = 2048 -- the largest number of tokens for the scatter plot
local PROBE = 32    -- the number of differing tokens that explanations are tried on

local NAN_ABOVE, INFINITE = 0x7f800000, 0x7f800000
local MINUS_ZERO, MINUS_INFINITE = -0x80000000, -0x800000

-- The place of an encoding on the ordered line of fp32 numbers.
local function place(w) return w >= 0 and w or -band(w, 0x7fffffff) end
M.place = place

local function is_nan(w) return band(w, 0x7fffffff) > NAN_ABOVE end
M.is_nan = is_nan

local pun = ffi.new "union { int32_t i; float f; }"

--- Returns the value of an encoding. A NaN becomes one that LuaJIT can hold.
function M.value(w)
  if is_nan(w) then return 0 / 0 end
  pun.i = w
  return pun.f
end

--- Returns the encoding of a number rounded to fp32.
function M.word(v)
  pun.f = v
  return pun.i
end

-- Tests of whether a dtype holds an encoding's value.
local HOLDS = {
  bfloat16 = function(w) return band(w, 0xffff) == 0 end,
  float16 = function(w) return half.from_float16(half.to_float16(M.value(w))) == M.value(w) end,
}

function M.ulps(x, y)
  if is_nan(x) or is_nan(y) then return nil end
  return abs(place(x) - place(y))
end

-- The integer part of log2, exactly, for 1 <= n < 2^53.
local function octave(n)
  local e = 0
  while n >= 65536 do n, e = n / 65536, e + 16 end
  while n >= 2 do n, e = n / 2, e + 1 end
  return e
end

-- Bucket 0: no distance; bucket k: 2^(k-2) + 1 .. 2^(k-1).
local function ulp_bucket(n)
  if n <= 1 then return n end
  return octave(n - 1) + 2
end

local function decade_bucket(d)
  if d == 0 then return 0 end
  for i, e in ipairs(M.DECADES) do
    if d < 10 ^ e then return i end
  end
  return #M.DECADES + 1
end

-- A sum that keeps small terms (Neumaier), accurate to about 100 bits.
local Sum = {}
Sum.__index = Sum
local function new_sum() return setmetatable({ high = 0, low = 0 }, Sum) end
function Sum:add(x)
  local t = self.high + x
  if abs(self.high) >= abs(x) then
    self.low = self.low + ((self.high - t) + x)
  else
    self.low = self.low + ((x - t) + self.high)
  end
  self.high = t
end
function Sum:total() return self.high + self.low end

-- Keeps the k largest entries, by rank and then by row, in an ordered list.
local function put_worst(list, k, entry)
  local at = #list + 1
  while at > 1 and list[at - 1].rank < entry.rank do at = at - 1 end
  if at > k then return end
  table.insert(list, at, entry)
  list[k + 1] = nil
end

local Tally = {}
Tally.__index = Tally

--- Makes a tally of the tokens in a layout; `worst` is the number of worst tokens and sequences to
-- keep.
function M.new(layout, worst)
  local self = {
    layout = layout, keep = worst, keep_sequences = math.max(worst, M.SEQUENCES),
    compared = 0, equal = 0, different = 0, inactive = 0, only_a = 0, only_b = 0,
    -- The numbers of values that are zero, and that are zero or -inf.
    zeros_a = 0, zeros_b = 0, certain_a = 0, certain_b = 0,
    nan_a = 0, nan_b = 0, zero_a = 0, zero_b = 0, positive_a = 0, positive_b = 0,
    infinite = 0, not_finite = 0, nan_both = 0,
    minus_infinite_a = 0, minus_infinite_b = 0, plus_infinite_a = 0, plus_infinite_b = 0,
    tails = tails.new(), noise = noise.new(), segments = segments.new(),
    finite = 0, max_ulps = 0, max_difference = 0,
    ulp_counts = ffi.new("double[?]", M.ULP_BUCKETS + 1),
    decade_counts = ffi.new("double[?]", #M.DECADES + 2),
    bands = { 0, 0, 0 }, min_ratio = math.huge, max_ratio = -math.huge,
    sums = {}, worst = {}, sequences = {}, probe = {}, sample = {}, stride = 1,
    probe_stride = 1, position_width = math.max(1, math.ceil(layout.longest / M.POSITION_BINS)),
    position_compared = ffi.new("double[?]", M.POSITION_BINS),
    position_different = ffi.new("double[?]", M.POSITION_BINS),
    position_sum = ffi.new("double[?]", M.POSITION_BINS),
    position_max = ffi.new("double[?]", M.POSITION_BINS),
    sequence = -1, first_row = 0, past_row = 0,
    -- Dtypes that hold all of a side's values so far.
    containers = { a = { bfloat16 = true, float16 = true },
                   b = { bfloat16 = true, float16 = true } },
  }
  for _, name in ipairs { "difference", "absolute", "ratio", "k1", "k2", "k3" } do
    self.sums[name] = new_sum()
  end
  return setmetatable(self, Tally)
end

-- Every stride-th entry of a list that has become too long.
local function thinned(list)
  local out = {}
  for i = 1, #list, 2 do out[#out + 1] = list[i] end
  return out
end

-- Ends a sequence, after all of its tokens have been added.
local function end_sequence(self)
  if self.sequence >= 0 and self.sequence_different > 0 then
    local total = self.sequence_sum:total()
    put_worst(self.sequences, self.keep_sequences, {
      sequence = self.sequence, tokens = self.sequence_tokens,
      different = self.sequence_different, sum = total,
      rank = self.sequence_odd > 0 and math.huge or abs(total), not_finite = self.sequence_odd,
    })
  end
end

local function begin_sequence(self, row)
  end_sequence(self)
  self.sequence = self.layout.place(row)
  self.first_row, self.past_row = self.layout.bounds(self.sequence)
  self.sequence_tokens, self.sequence_different, self.sequence_odd = 0, 0, 0
  self.sequence_sum = new_sum()
  self.segments:begin()
end

-- Counts the infinite values of a token.
local function infinite(self, x, y)
  if x == MINUS_INFINITE then self.minus_infinite_a = self.minus_infinite_a + 1 end
  if y == MINUS_INFINITE then self.minus_infinite_b = self.minus_infinite_b + 1 end
  if x == INFINITE then self.plus_infinite_a = self.plus_infinite_a + 1 end
  if y == INFINITE then self.plus_infinite_b = self.plus_infinite_b + 1 end
end

-- Counts a token whose encodings differ.
local function differs(self, row, x, y, bin)
  self.different = self.different + 1
  self.sequence_different = self.sequence_different + 1
  self.position_different[bin] = self.position_different[bin] + 1
  local rank = math.huge
  if not is_nan(x) and not is_nan(y) then
    local ulps = abs(place(x) - place(y))
    local bucket = ulp_bucket(ulps)
    self.ulp_counts[bucket] = self.ulp_counts[bucket] + 1
    if ulps > self.max_ulps then self.max_ulps = ulps end
    rank = abs(M.value(y) - M.value(x))
  end
  local least = self.worst[self.keep]
  local probed = (self.different - 1) % self.probe_stride == 0
  if not (probed or not least or rank > least.rank) then return end
  local entry = { row = row, a = x, b = y, rank = rank }
  if not self.first then self.first = entry end
  put_worst(self.worst, self.keep, entry)
  if probed then
    self.probe[#self.probe + 1] = entry
    if #self.probe > 2 * PROBE then
      self.probe, self.probe_stride = thinned(self.probe), self.probe_stride * 2
    end
  end
end

-- Removes the dtypes that do not hold an encoding's value.
local function narrow(holds, w)
  for dtype, still in pairs(holds) do
    if still and not is_nan(w) and not HOLDS[dtype](w) then holds[dtype] = false end
  end
end

--- Adds rows first .. first + n - 1: words a and b, flags for the rows that are active on each side
-- (uint8), and the outputs of ctx:compare (ratio, k1, k2, k3: floats). Sets each of `flags` to 1 if
-- the encodings of an active token differ; returns how many do.
function Tally:add(first, n, a, b, active_a, active_b, each, flags)
  local before = self.different
  local fa, fb = ffi.cast("const float *", a), ffi.cast("const float *", b)
  local sums = self.sums
  for i = 0, n - 1 do
    local row = first + i
    flags[i] = 0
    if row >= self.past_row then begin_sequence(self, row) end
    if active_a[i] == 0 or active_b[i] == 0 then
      if active_a[i] ~= 0 then
        self.only_a = self.only_a + 1
      elseif active_b[i] ~= 0 then
        self.only_b = self.only_b + 1
      else
        self.inactive = self.inactive + 1
      end
      self.segments:gap()
    else
      local x, y = a[i], b[i]
      local bin = floor((row - self.first_row) / self.position_width)
      self.compared = self.compared + 1
      self.sequence_tokens = self.sequence_tokens + 1
      self.position_compared[bin] = self.position_compared[bin] + 1
      local holds = self.containers
      if holds.a.bfloat16 or holds.a.float16 then narrow(holds.a, x) end
      if holds.b.bfloat16 or holds.b.float16 then narrow(holds.b, y) end
      if x == y then
        self.equal = self.equal + 1
      else
        flags[i] = 1
        differs(self, row, x, y, bin)
      end
      local nan_x, nan_y = is_nan(x), is_nan(y)
      if nan_x then self.nan_a = self.nan_a + 1 end
      if nan_y then self.nan_b = self.nan_b + 1 end
      if nan_x and nan_y then self.nan_both = self.nan_both + 1 end
      if not nan_x and x > 0 then self.positive_a = self.positive_a + 1 end
      if not nan_y and y > 0 then self.positive_b = self.positive_b + 1 end
      if x == 0 or x == MINUS_ZERO then self.zeros_a = self.zeros_a + 1 end
      if y == 0 or y == MINUS_ZERO then self.zeros_b = self.zeros_b + 1 end
      if x == 0 or x == MINUS_INFINITE then self.certain_a = self.certain_a + 1 end
      if y == 0 or y == MINUS_INFINITE then self.certain_b = self.certain_b + 1 end
      if x == 0 and y ~= 0 then self.zero_a = self.zero_a + 1 end
      if y == 0 and x ~= 0 then self.zero_b = self.zero_b + 1 end
      if band(x, 0x7fffffff) >= INFINITE or band(y, 0x7fffffff) >= INFINITE then
        if not nan_x and not nan_y then self.infinite = self.infinite + 1 end
        infinite(self, x, y)
        self.segments:add(x ~= y)
        if x ~= y then
          self.sequence_odd = self.sequence_odd + 1
          self.not_finite = self.not_finite + 1
        end
      else
        local d = fb[i] - fa[i]
        local size = abs(d)
        self.finite = self.finite + 1
        local bucket = x == y and 0 or decade_bucket(size)
        self.decade_counts[bucket] = self.decade_counts[bucket] + 1
        if size > self.max_difference then self.max_difference = size end
        if size > self.position_max[bin] then self.position_max[bin] = size end
        local ratio = each.ratio[i]
        if ratio < self.min_ratio then self.min_ratio = ratio end
        if ratio > self.max_ratio then self.max_ratio = ratio end
        for k = 1, 3 do
          if abs(ratio - 1) <= M.BANDS[k] then self.bands[k] = self.bands[k] + 1 end
        end
        self.tails:add(d, ratio)
        self.noise:add(x, y, size)
        self.segments:add(x ~= y, d, abs(ratio - 1) > 0.1)
        if x ~= y then
          self.position_sum[bin] = self.position_sum[bin] + size
          self.sequence_sum:add(d)
          sums.difference:add(d)
          sums.absolute:add(size)
          sums.k1:add(each.k1[i])
          sums.k2:add(each.k2[i])
          sums.k3:add(each.k3[i])
        end
        sums.ratio:add(ratio)
        if (self.finite - 1) % self.stride == 0 then
          self.sample[#self.sample + 1] = { row, fa[i], fb[i] }
          if #self.sample > SAMPLE then
            self.sample, self.stride = thinned(self.sample), self.stride * 2
          end
        end
      end
    end
  end
  return self.different - before
end

--- Ends the tally. Call it after the last row.
function Tally:finish()
  if self.sequence >= 0 then end_sequence(self) end
  self.ulp_counts[0] = self.equal
end

--- Returns the histogram of ULPs: { low, high, count } each, up to the last bucket with tokens.
function Tally:ulps()
  local out, last = {}, 0
  for k = 0, M.ULP_BUCKETS do if self.ulp_counts[k] > 0 then last = k end end
  for k = 0, last do
    local low = k == 0 and 0 or k == 1 and 1 or 2 ^ (k - 2) + 1
    local high = k == 0 and 0 or 2 ^ (k - 1)
    out[#out + 1] = { low = low, high = high, count = self.ulp_counts[k] }
  end
  return out
end

--- Returns the histogram of |difference| in the same form; a bucket is from `low` to below `high`.
function Tally:differences()
  local out = { { low = 0, high = 0, count = self.decade_counts[0] } }
  for i = 1, #M.DECADES do
    out[i + 1] = { low = i == 1 and 0 or 10 ^ M.DECADES[i - 1], high = 10 ^ M.DECADES[i],
                   count = self.decade_counts[i] }
  end
  local last = #M.DECADES + 1
  out[last + 1] = { low = 10, high = math.huge, count = self.decade_counts[last] }
  return out
end

--- Returns the values by position: { first, last, compared, different, mean, max } of each bin that
-- holds tokens.
function Tally:positions()
  local out = {}
  for bin = 0, M.POSITION_BINS - 1 do
    local n = self.position_compared[bin]
    if n > 0 then
      local first = bin * self.position_width
      out[#out + 1] = {
        first = first, last = math.min(first + self.position_width, self.layout.longest) - 1,
        compared = n, different = self.position_different[bin],
        mean = self.position_sum[bin] / n, max = self.position_max[bin],
      }
    end
  end
  return out
end

M.hex = function(w) return tohex(w) end
M.PROBE = PROBE

return M
