--- Scores a case's calls and compares every bit with what each sequence gives alone, on one thread
-- of the scalar cpu path.

local ffi = require "ffi"
local samebits = require "samebits"
local data = require "spec.support.invariance.data"
local compare = require "samebits.verify.compare"
local transforms = require "samebits.verify.transforms"

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

M.score = score_call

--- Runs a case on a variant. Nil; or what was found: `first`, the first difference, and how many
-- there are (`count`), or the `message` of an error. score(at, call, case, transform) takes
-- the place of M.score.
function M.run(case, at, score)
  local transform = assert(transforms.named[case.transform])
  local entry = prepared(case)
  local found = compare.new "alone"
  for number, call in ipairs(transform.calls(case, entry.sequences)) do
    local ok, out = pcall(score or score_call, at, call, case, transform)
    if not ok then
      found.message = ("call %d: %s"):format(number - 1, tostring(out))
      return found
    end
    compare.call(found, call, number - 1, out, entry)
  end
  return found.count > 0 and found or nil
end

return M
