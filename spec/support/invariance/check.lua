--- Scores a case's calls and compares every bit with what each sequence gives alone, on one thread
-- of the scalar cpu path.

local ffi = require "ffi"
local bit = require "bit"
local samebits = require "samebits"
local data = require "spec.support.invariance.data"
local transforms = require "spec.support.invariance.transforms"

local M = {}

local reference = assert(samebits.open("cpu", { isa = "scalar", threads = 1, split = 1 }))

-- What a sequence gives alone: encodings by position from 0 on, and of its sum.
local function alone(made)
  local ids, mask, temperature = {}, {}, {}
  for t = 0, made.length - 1 do
    ids[t + 1], mask[t + 1] = made.ids[t], made.active[t]
    temperature[t + 1] = made.temperatures[t]
  end
  local out = assert(reference:logprob {
    logits = made.logits, mask = mask,
    ids = samebits.tensor(ids, { dtype = "int64", shape = { made.length } }),
    temperature = samebits.tensor(temperature, { shape = { made.length } }),
  })
  return { out = out, token = ffi.cast("uint32_t *", out.token.ptr),
           lse = ffi.cast("uint32_t *", out.lse.ptr),
           sum = ffi.cast("uint32_t *", out.sequence.ptr)[0] }
end

-- The sequences of the last few cases, and what they give.
local KEPT = 4
local kept = {}

local function prepared(case)
  local key = data.key(case)
  for i, entry in ipairs(kept) do
    if entry.key == key then
      table.insert(kept, 1, table.remove(kept, i))
      return entry
    end
  end
  local entry = { key = key, sequences = data.sequences(case), expected = {} }
  for s = 0, case.n - 1 do entry.expected[s] = alone(entry.sequences[s]) end
  table.insert(kept, 1, entry)
  kept[KEPT + 1] = nil
  return entry
end

--- Scores a call: the variant's own way, unless the transform has another.
local function score_call(at, call, case, transform)
  if transform.score then return transform.score(at, call, case) end
  return at.score(call.spec, transform.opts and transform.opts(case, at))
end

local Found = {}
Found.__index = Found

-- Compares one output of one call: the words of `got` with want(i), from 0 on.
local function compare(found, what, got, n, want, where)
  for i = 0, n - 1 do
    local expected = want(i)
    if expected and got[i] ~= expected then
      found.count = found.count + 1
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

local function compare_call(found, call, number, out, entry)
  local rows, sums = call.rows, call.sums
  local function row_at(i)
    local slot = rows[i + 1]
    if not slot then return { call = number, row = i } end
    return { call = number, row = i, s = slot.s, t = slot.t,
             id = entry.sequences[slot.s].ids[slot.t] }
  end
  for _, name in ipairs { "token", "lse" } do
    if out[name] then
      assert(out[name]:numel() == #rows)
      compare(found, name, ffi.cast("uint32_t *", out[name].ptr), #rows, function(i)
        local slot = rows[i + 1]
        return slot and entry.expected[slot.s][name][slot.t] or 0
      end, row_at)
    end
  end
  local function sum_at(i) return { call = number, b = i, s = sums[i + 1].whole } end
  if out.sequence then
    assert(out.sequence:numel() == #sums)
    compare(found, "sequence", ffi.cast("uint32_t *", out.sequence.ptr), #sums, function(i)
      local sum = sums[i + 1]
      if sum.whole then return entry.expected[sum.whole].sum end
      return sum.count == 0 and 0 or nil
    end, sum_at)
  end
  if out.count then
    compare(found, "count", ffi.cast("int64_t *", out.count.ptr), #sums, function(i)
      return sums[i + 1].count
    end, sum_at)
  end
end

M.score = score_call

--- Runs a case on a variant. Nil; or what was found: `first`, the first difference, and how many
-- there are (`count`), or the `message` of an error. score(at, call, case, transform) takes
-- the place of M.score.
function M.run(case, at, score)
  local transform = assert(transforms.named[case.transform])
  local entry = prepared(case)
  local found = setmetatable({ count = 0 }, Found)
  for number, call in ipairs(transform.calls(case, entry.sequences)) do
    local ok, out = pcall(score or score_call, at, call, case, transform)
    if not ok then
      found.message = ("call %d: %s"):format(number - 1, tostring(out))
      return found
    end
    compare_call(found, call, number - 1, out, entry)
  end
  return found.count > 0 and found or nil
end

-- The distance of two encodings, in words.
local function distance(want, got)
  local pair = {}
  for i, digits in ipairs { want, got } do
    pair[i] = samebits.zeros({ 1 }, "float32")
    ffi.cast("uint32_t *", pair[i].ptr)[0] = tonumber(digits, 16)
  end
  local _, report = samebits.same_bits(pair[1], pair[2])
  local first = report.first
  return ("%.9g and %.9g, %s"):format(first.a, first.b, first.ulps and
    ("%d ULP%s"):format(first.ulps, first.ulps == 1 and "" or "s") or "no distance (NaN)")
end

--- The first difference in a line.
function Found:__tostring()
  if self.message then return self.message end
  local first = self.first
  local where = ("call %d, "):format(first.call)
  if first.row then
    where = where .. ("row %d: "):format(first.row) ..
            (first.s and ("sequence %d, position %d, id %d"):format(first.s, first.t, first.id) or
             "not active")
  else
    where = where .. ("sequence %d of the batch"):format(first.b) ..
            (first.s and (": sequence %d"):format(first.s) or "")
  end
  local values = first.output == "count" and "" or
                 (" (%s)"):format(distance(first.want, first.got))
  return ("%s differs at %s: %s alone, %s here%s; %d difference%s in all"):format(
    first.output, where, first.want, first.got, values, self.count,
    self.count == 1 and "" or "s")
end

return M
