--- Compares what calls give with what is expected of each sequence, and keeps account of it.

local ffi = require "ffi"
local bit = require "bit"
local bits = require "samebits.bits"
local element = require "samebits.element"

local M = {}

local Found = {}
Found.__index = Found

--- What is found in calls: `count` differences; of `tokens` that were compared `mismatches` differ
-- in their logprob or lse, by at most `max_ulps` (nil where none has a distance); likewise of
-- `sums`, the sequences' logprobs, `sum_mismatches`; the `first` difference; or the `message` of an
-- error. reference: what is compared with, in a word or two, for messages.
function M.new(reference)
  return setmetatable({ reference = reference, count = 0, tokens = 0, mismatches = 0, sums = 0,
                        sum_mismatches = 0 }, Found)
end

local function is_nan(word) return bit.band(word, 0x7fffffff) > 0x7f800000 end

local pair = ffi.new "uint32_t[2]"
local function value_of(word)
  pair[0] = word
  return element.read.float32(pair, 0)
end

local function distance(want, got) return bits.ulp(value_of(want), value_of(got)) end

-- Compares one output of one call: the words of `got` with want(i), from 0 on; nil: anything will
-- do. differs(i) hears of each difference.
local function compare(found, what, got, n, want, where, differs, nans_alike)
  for i = 0, n - 1 do
    local expected = want(i)
    if expected and got[i] ~= expected and
       not (nans_alike and is_nan(expected) and is_nan(got[i])) then
      found.count = found.count + 1
      if what ~= "count" then
        local ulps = distance(expected, got[i])
        if ulps and ulps > (found.max_ulps or -1) then found.max_ulps = ulps end
      end
      if differs then differs(i) end
      if not found.first then
        local first = where(i)
        first.output = what
        if what == "count" then
          first.want, first.got = tostring(expected), tostring(tonumber(got[i]))
        else
          first.want, first.got = bit.tohex(expected), bit.tohex(got[i])
        end
        found.first = first
      end
    end
  end
end

local function words(t) return ffi.cast("const uint32_t *", t.ptr) end

-- Tokens and lses, one a row.
local function compare_rows(found, call, number, out, entry)
  local rows, odd = call.rows, {}
  local function row_at(i)
    local slot = rows[i + 1]
    if not slot then return { call = number, row = i } end
    return { call = number, row = i, s = slot.s, t = slot.t,
             id = entry.sequences[slot.s].ids[slot.t] }
  end
  local compared = false
  for _, name in ipairs { "token", "lse" } do
    if out[name] then
      assert(out[name]:numel() == #rows)
      compared = true
      compare(found, name, words(out[name]), #rows, function(i)
        local slot = rows[i + 1]
        if not slot then return not entry.active_only and 0 or nil end
        local expected = entry.expected[slot.s]
        return expected and expected[name][slot.t]
      end, row_at, function(i) odd[i + 1] = true end, entry.nans_alike)
    end
  end
  if not compared then return end
  for row, slot in ipairs(rows) do
    if slot and entry.expected[slot.s] then found.tokens = found.tokens + 1 end
    if odd[row] then found.mismatches = found.mismatches + 1 end
  end
end

-- What is one a sequence.
local function compare_sums(found, call, number, out, entry)
  local sums = call.sums
  local function sum_at(i) return { call = number, b = i, s = sums[i + 1].whole } end
  if out.sequence then
    assert(out.sequence:numel() == #sums)
    compare(found, "sequence", words(out.sequence), #sums, function(i)
      local sum = sums[i + 1]
      if not sum.whole then return sum.count == 0 and 0 or nil end
      local expected = entry.expected[sum.whole]
      found.sums = found.sums + (expected and 1 or 0)
      return expected and expected.sum
    end, sum_at, function() found.sum_mismatches = found.sum_mismatches + 1 end, entry.nans_alike)
  end
  if out.count then
    compare(found, "count", ffi.cast("const int64_t *", out.count.ptr), #sums, function(i)
      return sums[i + 1].count
    end, sum_at)
  end
end

--- Compares the results of one call, as `assemble.call` describes it.
-- @tparam table entry `sequences`; `expected`: by sequence, the words of `token` and `lse` by
-- position, and the word `sum`; a sequence without is not compared; `nans_alike`: NaNs of other
-- bits are no difference; `active_only`: what is not active may be anything
function M.call(found, call, number, out, entry)
  compare_rows(found, call, number, out, entry)
  if not entry.active_only then compare_sums(found, call, number, out, entry) end
end

local function ulps_text(ulps)
  if not ulps then return "no distance (NaN)" end
  return ("%d ULP%s"):format(ulps, ulps == 1 and "" or "s")
end

--- Where the first difference is: "sequence 0, position 3, id 42".
function Found:place()
  local first = self.first
  if first.row then
    return first.s and ("sequence %d, position %d, id %d"):format(first.s, first.t, first.id) or
           "not active"
  end
  return first.s and ("sequence %d"):format(first.s)
end

--- The first difference's encodings, values and distance.
function Found:bits_text()
  local first = self.first
  local text = ("%s %s, %s here"):format(first.want, self.reference, first.got)
  if first.output == "count" then return text end
  local want, got = tonumber(first.want, 16), tonumber(first.got, 16)
  return ("%s (%.9g and %.9g, %s)"):format(text, value_of(want), value_of(got),
                                           ulps_text(distance(want, got)))
end

--- The first difference in a line.
function Found:__tostring()
  if self.message then return self.message end
  local first, place = self.first, self:place()
  local where = first.row and ("row %d: %s"):format(first.row, place) or
                ("sequence %d of the batch"):format(first.b) .. (place and ": " .. place or "")
  return ("%s differs at call %d, %s: %s; %d difference%s in all"):format(
    first.output, first.call, where, self:bits_text(), self.count, self.count == 1 and "" or "s")
end

return M
