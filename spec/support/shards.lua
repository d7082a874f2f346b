--- Batches cut into shards of the vocabulary, and put together again.

local samebits = require "samebits"

local M = {}

--- Random places to cut [0, vocab) at: multiples of 16, rising from 0 to vocab; a few are equal, so
-- that shards are empty.
function M.cuts(random, vocab, shards)
  local cuts = { 0 }
  for _ = 2, shards do cuts[#cuts + 1] = 16 * random:integer(0, math.floor(vocab / 16)) end
  table.sort(cuts)
  cuts[#cuts + 1] = vocab
  return cuts
end

--- A copy of a batch's description with the logits of the ids from first to past - 1 alone.
function M.shard(spec, first, past)
  local copy = {}
  for key, value in pairs(spec) do copy[key] = value end
  local vocab = spec.logits.shape[spec.logits.ndim]
  copy.logits = spec.logits:slice(spec.logits.ndim - 1, first, past)
  copy.first, copy.vocab = first, vocab
  return copy
end

-- Records moved to a device.
local function moved(records, device)
  local out = {}
  for name, t in pairs(records) do out[name] = assert(t:to(device)) end
  return out
end

--- The records of the ids from first to past - 1, by a variant, in memory.
function M.record(at, spec, first, past, opts)
  return moved(assert(at.context():partial(at.batch(M.shard(spec, first, past)), opts)), "cpu")
end

--- The records of each shard, by the variants that pick(s) gives, in memory.
function M.records(pick, spec, cuts, opts)
  local list = {}
  for s = 1, #cuts - 1 do list[s] = M.record(pick(s), spec, cuts[s], cuts[s + 1], opts) end
  return list
end

--- Asserts the same bytes of records.
function M.assert_same_records(want, got, what)
  local names = 0
  for name, t in pairs(want) do
    names = names + 1
    local same, report = samebits.same_bits(t, got[name])
    if not same then error(("%s: %s: %s"):format(what, name, tostring(report)), 2) end
  end
  assert(names == 2, "a sum and a target")
end

--- Records on a variant's device.
function M.placed(at, records) return moved(records, at.context().device) end

--- Merges a list by a variant, in memory.
function M.merged(at, list)
  local there = {}
  for s, records in ipairs(list) do there[s] = M.placed(at, records) end
  return moved(assert(at.context():merge(there)), "cpu")
end

--- Merges a list two or three at a time, in a random order and a random tree.
function M.merged_randomly(random, at, list)
  local left = {}
  for s = 1, #list do left[s] = list[s] end
  while #left > 1 do
    local few = {}
    for _ = 1, math.min(#left, random:integer(2, 3)) do
      few[#few + 1] = table.remove(left, random:integer(1, #left))
    end
    left[#left + 1] = M.merged(at, few)
  end
  return left[1]
end

--- What a variant finishes records to, in memory. The batch has no logits.
function M.finished(at, records, spec, opts)
  local out = assert(at.context():finish(M.placed(at, records),
                                         at.batch(M.shard(spec, 0, 0)), opts))
  local results = {}
  for name, t in pairs(out) do results[name] = assert(t:to "cpu") end
  return results
end

M.OUTPUTS = { "token", "lse", "sequence", "count" }
M.ALL_OUTPUTS = { "token", "lse", "sequence", "count", "entropy", "saved" }

--- Asserts the same bits of all outputs that are wanted, of OUTPUTS at least.
function M.assert_same(want, got, what)
  local names = want.entropy and M.ALL_OUTPUTS or M.OUTPUTS
  for _, name in ipairs(names) do
    local same, report = samebits.same_bits(want[name], got[name])
    if not same then error(("%s: %s: %s"):format(what, name, tostring(report)), 2) end
  end
end

return M
