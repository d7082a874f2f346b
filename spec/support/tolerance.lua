--- Cells of the accuracy tables: a dtype, a vocabulary and a distribution; their rows, targets and
-- true values, and the results of the fp32 path for them.

local ffi = require "ffi"
local samebits = require "samebits"
local selftest = require "samebits.selftest"
local budget = require "spec.support.budget"
local fp32_softmax = require "spec.support.fp32_softmax"
local logits = require "spec.support.logits"
local oracle = require "spec.support.oracle"
local prng = require "spec.support.prng"

local M = {}

M.DTYPES = { "float32", "float16", "bfloat16" }
M.VOCABULARIES = { 300, 4099, 32000, 50257, 128256, 151936, 262144 }

--- Targets per row: the likeliest id, 8 ids drawn from the row's probabilities as a model samples,
-- and the rest drawn uniformly from all ids.
M.TARGETS = 16
local SAMPLED = 8

-- The approximate number of logits per cell, and the least and the most rows. SB_CASES multiplies
-- the rows, by up to 8: LuaJIT's memory has to hold everything that is collected.
local SIZE, FEWEST, MOST = 2 ^ 17, 2, 64
M.TIMES = math.min(8, budget.GIVEN or 1)

local function rows_for(V, times)
  return times * math.min(MOST, math.max(FEWEST, math.floor(SIZE / V)))
end

local REAL = { name = "real logits" }
M.REAL_VOCABULARY = 49152

--- The cells of one vocabulary, or all cells, in the order of the tables. times: the factor for the
-- number of rows, by default SB_CASES.
function M.cells(vocabulary, times)
  local list = {}
  for _, V in ipairs(vocabulary and { vocabulary } or M.VOCABULARIES) do
    for _, dtype in ipairs(M.DTYPES) do
      for d, distribution in ipairs(logits.distributions) do
        list[#list + 1] = {
          dtype = dtype, vocab = V, distribution = distribution,
          rows = rows_for(V, times or M.TIMES),
          seed = V * 16 + d, tau = logits.temperature(distribution),
          name = ("V = %d, %s, %s"):format(V, dtype, distribution.name),
        }
      end
    end
  end
  if not vocabulary then
    for _, cell in ipairs(M.real_cells()) do list[#list + 1] = cell end
  end
  return list
end

--- A real model's logits, in each container.
function M.real_cells()
  local list = {}
  for d, dtype in ipairs(M.DTYPES) do
    list[d] = {
      dtype = dtype, vocab = M.REAL_VOCABULARY, distribution = REAL, rows = 48, tau = 1,
      seed = M.REAL_VOCABULARY * 16,
      name = ("V = %d, %s, %s"):format(M.REAL_VOCABULARY, dtype, REAL.name),
    }
  end
  return list
end

--- A cell's logits, [rows, V].
function M.logits(cell)
  if cell.distribution ~= REAL then
    return logits.make(cell.distribution, cell.dtype, cell.rows, cell.vocab, cell.seed)
  end
  local data = assert(samebits.load(selftest.directory .. "/smollm2.safetensors"))
  return assert(data.logits:view({ -1, cell.vocab }):to(cell.dtype))
end

-- Ids drawn with the probabilities of the terms, which add up to `mass` with the largest, 1.
local function sampled(random, terms, V, mass, count)
  local thresholds, ids = {}, {}
  for k = 1, count do thresholds[k] = random:uniform() * mass end
  table.sort(thresholds)
  local k, sum = 1, 0
  for i = 0, V - 1 do
    sum = sum + terms[i]
    while k <= count and thresholds[k] < sum do
      ids[k] = i
      k = k + 1
    end
  end
  -- What rounding left over.
  for j = k, count do ids[j] = V - 1 end
  return ids
end

local function targets(random, row, terms, V)
  local ids = sampled(random, terms, V, math.exp(row.log_mass), SAMPLED)
  table.insert(ids, 1, row.best)
  while #ids < M.TARGETS do ids[#ids + 1] = random:integer(0, V - 1) end
  return ids
end

--- The truth about a cell's logits: a list of rows { ids, exact, lse, entropy }, ids and exact with
-- TARGETS entries; with `fp32`, also what the fp32 paths give: sequential and pairwise.
function M.truth(cell, t, fp32)
  local V, list = cell.vocab, {}
  local random, terms = prng.new(cell.seed + 1), ffi.new("double[?]", V)
  for r = 1, cell.rows do
    local row = t:slice(0, r - 1, r):to "float32"
    local x = ffi.cast("const float *", row.ptr)
    local truth = oracle.row(x, V, cell.tau, terms)
    local entry = { ids = targets(random, truth, terms, V), exact = {}, lse = truth.lse,
                    entropy = truth.entropy }
    for k, id in ipairs(entry.ids) do entry.exact[k] = truth.logprob(id) end
    if fp32 then entry.fp32 = fp32_softmax.logprobs(x, V, cell.tau, entry.ids) end
    list[r] = entry
  end
  return list
end

--- Scores the targets k of a list for a cell. each(got, lse, row, k) is called for every row and k
-- with the results of score, a function like at.score.
function M.score(cell, t, truth, targets_k, score, each)
  for _, k in ipairs(targets_k) do
    local ids = {}
    for r, row in ipairs(truth) do ids[r] = row.ids[k] end
    local out = score { logits = t, ids = ids, temperature = cell.tau }
    for r, row in ipairs(truth) do each(out.token[r - 1], out.lse[r - 1], row, k) end
  end
end

--- All targets.
M.ALL = {}
for k = 1, M.TARGETS do M.ALL[k] = k end

return M
