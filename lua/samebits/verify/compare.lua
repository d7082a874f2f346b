--- Compares the results of calls with the results expected of each sequence, and counts the
-- differences.

local ffi = require "ffi"
local bits = require "samebits.bits"
local tensor = require "samebits.tensor"

local dtype, element = tensor.dtype, tensor.element

local M = {}

local Found = {}
Found.__index = Found

--- Makes the findings about calls: `count` differences; `mismatches` of the `tokens` that were
-- compared differ in their logprob or lse; likewise `sum_mismatches` of the `sums`, the sequences'
-- logprobs; they differ by at most `max_ulps`, and by `max_apart` as numbers (nil if there is no
-- distance); the `first` difference, and the `worst`, the first that is `max_ulps` away; or the
-- `message` of an error. reference: a word or two for messages that say what results are compared
-- with.
function M.new(reference)
  return setmetatable({ reference = reference, count = 0, tokens = 0, mismatches = 0, sums = 0,
                        sum_mismatches = 0 }, Found)
end

local held = ffi.new "int64_t[1]"

-- Predicates on an encoding of a dtype.
local function value_of(name, word)
  ffi.cast(element.word[dtype.of[name].size], held)[0] = word
  return element.read[name](held, 0)
end

local function hex_of(name, word)
  local size = dtype.of[name].size
  ffi.cast(element.word[size], held)[0] = word
  return element.hex[size](held, 0)
end

local function distance(name, want, got)
  return bits.ulp(value_of(name, want), value_of(name, got), name)
end

local function both_nan(name, want, got)
  local x, y = value_of(name, want), value_of(name, got)
  return x ~= x and y ~= y
end

-- A tensor's encodings, one after the other.
local function words(t) return ffi.cast(element.word[t.itemsize], t.ptr) end

-- Counts a difference, and remembers the first one and the worst.
local function note(found, what, name, expected, got, place)
  found.count = found.count + 1
  local ulps, worst
  if what ~= "count" then
    ulps = distance(name, expected, got)
    worst = ulps and ulps > (found.max_ulps or -1)
    if worst then found.max_ulps = ulps end
    local apart = math.abs(value_of(name, expected) - value_of(name, got))
    if apart > (found.max_apart or -1) then found.max_apart = apart end
  end
  if found.first and not worst then return end
  place.output, place.dtype = what, name
  if what == "count" then
    place.want, place.got = tostring(tonumber(expected)), tostring(tonumber(got))
  else
    place.want, place.got, place.ulps = hex_of(name, expected), hex_of(name, got), ulps
    place.want_value, place.got_value = value_of(name, expected), value_of(name, got)
  end
  found.first = found.first or place
  if worst then found.worst = place end
end

-- Compares one output of one call with want(i), an encoding, from 0 on; nil accepts any value.
-- differs(i) is called for each difference.
local function compare(found, what, t, want, where, nans_alike, differs)
  local got, name = words(t), t.dtype
  for i = 0, t:numel() - 1 do
    local expected = want(i)
    if expected and got[i] ~= expected and
       not (nans_alike and both_nan(name, expected, got[i])) then
      note(found, what, name, expected, got[i], where(i))
      if differs then differs(i) end
    end
  end
end

-- Compares logprobs of tokens and lses, one per row.
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
      compare(found, name, out[name], function(i)
        local slot = rows[i + 1]
        if not slot then return not entry.active_only and 0 or nil end
        local expected = entry.expected[slot.s]
        return expected and expected[name][slot.t]
      end, row_at, entry.nans_alike, function(i) odd[i + 1] = true end)
    end
  end
  if not compared then return end
  for row, slot in ipairs(rows) do
    if slot and entry.expected[slot.s] then found.tokens = found.tokens + 1 end
    if odd[row] then found.mismatches = found.mismatches + 1 end
  end
end

-- Compares results with one value per sequence.
local function compare_sums(found, call, number, out, entry)
  local sums = call.sums
  local function sum_at(i) return { call = number, b = i, s = sums[i + 1].whole } end
  if out.sequence then
    assert(out.sequence:numel() == #sums)
    compare(found, "sequence", out.sequence, function(i)
      local sum = sums[i + 1]
      if not sum.whole then return sum.count == 0 and 0 or nil end
      local expected = entry.expected[sum.whole]
      found.sums = found.sums + (expected and 1 or 0)
      return expected and expected.sum
    end, sum_at, entry.nans_alike, function()
      found.sum_mismatches = found.sum_mismatches + 1
    end)
  end
  if out.count then
    assert(out.count:numel() == #sums)
    compare(found, "count", out.count, function(i) return sums[i + 1].count end, sum_at)
  end
end

--- Compares the results of one call, as `assemble.call` describes it. entry: `sequences`;
-- `expected`: by sequence, the words of `token` and `lse` by position, and the word `sum`; a
-- sequence without an entry is not compared; `nans_alike`: NaNs of other bits are not a difference;
-- `active_only`: inactive values may be anything.
function M.call(found, call, number, out, entry)
  compare_rows(found, call, number, out, entry)
  if not entry.active_only then compare_sums(found, call, number, out, entry) end
end

local function ulps_text(ulps)
  if not ulps then return "no distance (NaN)" end
  return ("%s ULP%s"):format(element.text(ulps), ulps == 1 and "" or "s")
end

--- Returns the place of the first difference: "sequence 0, position 3, id 42".
function Found:place()
  local first = self.first
  if first.row then
    return first.s and ("sequence %d, position %d, id %d"):format(first.s, first.t, first.id) or
           "not active"
  end
  return first.s and ("sequence %d"):format(first.s)
end

--- Returns a difference's encodings, values and distance: of the first, or of `worst`.
function Found:bits_text(which)
  local at = which or self.first
  local text = ("%s %s, %s here"):format(at.want, self.reference, at.got)
  if at.output == "count" then return text end
  return ("%s (%s and %s, %s)"):format(text, element.value_text(at.dtype, at.want_value),
                                       element.value_text(at.dtype, at.got_value),
                                       ulps_text(at.ulps))
end

--- Returns the first difference in one line.
function Found:__tostring()
  if self.message then return self.message end
  local first, place = self.first, self:place()
  local where = first.row and ("row %d: %s"):format(first.row, place) or
                ("sequence %d of the batch"):format(first.b) .. (place and ": " .. place or "")
  return ("%s differs at call %d, %s: %s; %d difference%s in all"):format(
    first.output, first.call, where, self:bits_text(), self.count, self.count == 1 and "" or "s")
end

M.words = words

return M
