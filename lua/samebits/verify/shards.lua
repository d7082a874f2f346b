--- Cuts batches into shards of the vocabulary and joins them again. `at` is a variant: its
-- `context()`, and `batch(spec)`, which makes a batch on the variant's device.

local M = {}

--- Returns a copy of a batch's description with only the logits of the ids from first to past - 1.
function M.shard(spec, first, past)
  local copy = {}
  for key, value in pairs(spec) do copy[key] = value end
  local vocab = spec.logits.shape[spec.logits.ndim]
  copy.logits = spec.logits:slice(spec.logits.ndim - 1, first, past)
  copy.first, copy.vocab = first, vocab
  return copy
end

-- Moves records to a device.
local function moved(records, device)
  local out = {}
  for name, t in pairs(records) do out[name] = assert(t:to(device)) end
  return out
end

--- Returns the records of the ids from first to past - 1, computed by a variant, in memory.
function M.record(at, spec, first, past, opts)
  return moved(assert(at.context():partial(at.batch(M.shard(spec, first, past)), opts)), "cpu")
end

--- Returns records on a variant's device.
function M.placed(at, records) return moved(records, at.context().device) end

--- Merges a list of records by a variant. Returns the result in memory.
function M.merged(at, list)
  local there = {}
  for s, records in ipairs(list) do there[s] = M.placed(at, records) end
  return moved(assert(at.context():merge(there)), "cpu")
end

--- Merges a list of records two or three at a time, in a random order and a random tree.
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

--- Finishes records on a variant and returns the results in memory. The batch has no logits.
function M.finished(at, records, spec, opts)
  local out = assert(at.context():finish(M.placed(at, records),
                                         at.batch(M.shard(spec, 0, 0)), opts))
  local results = {}
  for name, t in pairs(out) do results[name] = assert(t:to "cpu") end
  return results
end

return M
