--- Cuts batches into shards of the vocabulary at random, and merges the shards again.

local samebits = require "samebits"
local library = require "samebits.verify.shards"

local M = {}

for name, f in pairs(library) do M[name] = f end

--- Random places to cut [0, vocab) at: multiples of 16, rising from 0 to vocab; a few are equal, so
-- that shards are empty.
function M.cuts(random, vocab, shards)
  local cuts = { 0 }
  for _ = 2, shards do cuts[#cuts + 1] = 16 * random:integer(0, math.floor(vocab / 16)) end
  table.sort(cuts)
  cuts[#cuts + 1] = vocab
  return cuts
end

--- The records of each shard, by the variants that pick(s) gives, in memory.
function M.records(pick, spec, cuts, opts)
  local list = {}
  for s = 1, #cuts - 1 do list[s] = M.record(pick(s), spec, cuts[s], cuts[s + 1], opts) end
  return list
end

--- Asserts that the records have the same bytes.
function M.assert_same_records(want, got, what)
  local names = 0
  for name, t in pairs(want) do
    names = names + 1
    local same, report = samebits.same_bits(t, got[name])
    if not same then error(("%s: %s: %s"):format(what, name, tostring(report)), 2) end
  end
  assert(names == 2, "a sum and a target")
end

M.OUTPUTS = { "token", "lse", "sequence", "count" }
M.ALL_OUTPUTS = { "token", "lse", "sequence", "count", "entropy", "saved" }

--- Asserts that all wanted outputs, and at least OUTPUTS, have the same bits.
function M.assert_same(want, got, what)
  local names = want.entropy and M.ALL_OUTPUTS or M.OUTPUTS
  for _, name in ipairs(names) do
    local same, report = samebits.same_bits(want[name], got[name])
    if not same then error(("%s: %s: %s"):format(what, name, tostring(report)), 2) end
  end
end

return M
