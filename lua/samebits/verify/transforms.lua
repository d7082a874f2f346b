--- Changes that must not affect any bit: each transform lays the sequences of a case out in another
-- way.
--
-- `draws` names the fields that a transform draws in addition to the common ones; `calls(case,
-- sequences)` lists the calls that must return the results that each sequence gives alone.
-- Optional:
--
-- * `about`, for people;
-- * `plain`: any function of a batch that respects the mask can take the transform's batches;
-- * `logits`: it changes which ids there are, which hidden states do not show;
-- * `contract`: only implementations that keep the contract support the transform;
-- * `least`, `most`: bounds on the number of sequences; `long`: they have several positions;
--   `cost`: how many times logits are laid out;
-- * `settle(case, random)` sets fields that depend on each other;
-- * `only(at)`: whether the transform applies to a variant;
-- * `opts(case, at)`: options of at.score; or `score(at, call, case)`, in place of at.score.

local context = require "samebits.context"
local prng = require "samebits.verify.prng"
local assemble = require "samebits.verify.assemble"
local cases = require "samebits.verify.case"
local shards = require "samebits.verify.shards"

local M = {}

-- Grids -------------------------------------------------------------------------------------------

-- A sequence's slots for positions from .. past - 1.
local function slots(sequences, s, from, past)
  local list = {}
  for t = from or 0, (past or sequences[s].length) - 1 do list[#list + 1] = { s = s, t = t } end
  return list
end

local function whole(case, sequences)
  local grid = {}
  for s = 0, case.n - 1 do grid[s + 1] = slots(sequences, s) end
  return grid
end

local function shuffled(list, seed)
  if seed == 0 then return list end
  local random, out = prng.new(seed), {}
  for i = 1, #list do out[i] = list[i] end
  for i = #out, 2, -1 do
    local j = random:integer(1, i)
    out[i], out[j] = out[j], out[i]
  end
  return out
end

-- Inserts positions without a token among a sequence's own.
local function interleaved(list, pad, seed)
  local random, out, left = prng.new(seed), {}, pad
  for _, slot in ipairs(list) do
    while left > 0 and random:integer(0, 1) == 1 do
      out[#out + 1], left = false, left - 1
    end
    out[#out + 1] = slot
  end
  for _ = 1, left do out[#out + 1] = false end
  return out
end

-- Extends the padding of a side by `pad` beyond the longest sequence.
local function widened(case, sequences, layout)
  local grid, longest = whole(case, sequences), 0
  for _, list in ipairs(grid) do longest = math.max(longest, #list) end
  for _, list in ipairs(grid) do
    local missing = longest + case.pad - #list
    for _ = 1, missing do
      if layout == "left" then table.insert(list, 1, false) else list[#list + 1] = false end
    end
  end
  return grid
end

-- Makes some tokens inactive, including whole sequences.
local function masked(grid, case)
  if case.masked == "none" then return grid end
  local random = prng.new(case.seed + 17)
  for _, list in ipairs(grid) do
    local often = random:pick { 0, 2, 5, 10 }
    for i, slot in ipairs(list) do
      if slot and random:integer(1, 10) <= often then
        list[i] = { s = slot.s, t = slot.t, off = true }
      end
    end
  end
  return grid
end

-- Arranges sequences in the layout of a case, which may also be interleaved padding.
local function arranged(case, sequences)
  if case.layout == "left" or case.layout == "right" then
    return widened(case, sequences, case.layout)
  end
  local grid = whole(case, sequences)
  if case.layout == "interleaved" then
    for b, list in ipairs(grid) do grid[b] = interleaved(list, case.pad, case.seed + b) end
  else
    for i = 1, case.pad do table.insert(grid, i * 7 % (#grid + 1) + 1, {}) end
  end
  return grid
end

-- Interleaved padding comes from the grid; the remaining padding goes to the right.
local function layout_of(case) return case.layout == "interleaved" and "right" or case.layout end

local function one(case, sequences, grid, opts)
  return { assemble.call(case, sequences, grid, opts) }
end

-- One batch of the sequences in the case's layout, for transforms that only change fields.
local function batch(case, sequences)
  return one(case, sequences, arranged(case, sequences), { layout = layout_of(case) })
end

-- Scoring -----------------------------------------------------------------------------------------

-- Scores on the cpu in a separate context with the case's number of threads.
local function with_threads(at, call, case)
  local ctx = assert(context.open("cpu", { isa = at.context().isa, threads = case.threads }))
  local out = assert((at.logprob or ctx.logprob)(ctx, call.spec, { split = case.split }))
  ctx:close()
  return out
end

local function launch_options(case, at)
  if at.backend == "cpu" then return { split = case.split } end
  return { split = case.split, threads = case.block, cluster = case.cluster, table = case.table,
           one_read = case.one_read }
end

-- Scores in shards of the vocabulary, which are merged and finished.
local function in_shards(at, call, case)
  local spec, list = call.spec, {}
  local opts = launch_options(case, at)
  for s, cut in ipairs(cases.shards(case, spec.logits.shape[spec.logits.ndim])) do
    list[s] = shards.record(at, spec, cut[1], cut[2], opts)
  end
  local merged = case.tree == 0 and shards.merged(at, list) or
                 shards.merged_randomly(prng.new(case.tree), at, list)
  return shards.finished(at, merged, spec)
end

-- The transforms ----------------------------------------------------------------------------------

M.list = {
  { name = "alone", about = "each sequence by itself", plain = true,
    calls = function(case, sequences)
    local calls = {}
    for s = 0, case.n - 1 do
      calls[s + 1] = assemble.call(case, sequences, { slots(sequences, s) }, { layout = "single" })
    end
    return calls
  end },

  { name = "batch", about = "all sequences in one batch, laid out anew",
    draws = { "layout" }, most = 64, calls = batch },

  -- Each sequence at each place of the batch.
  { name = "places", about = "each sequence at each place of the batch", plain = true,
    draws = { "layout" }, most = 6, cost = 3, calls = function(case, sequences)
    local calls, grid = {}, arranged(case, sequences)
    for i = 1, #grid do
      calls[i] = assemble.call(case, sequences, grid, { layout = layout_of(case) })
      local first = table.remove(grid, 1) -- by itself: #grid is asked for before a value is
      grid[#grid + 1] = first
    end
    return calls
  end },

  { name = "shuffled", about = "the sequences in another order", plain = true,
    draws = { "layout", "order" }, calls = function(case, sequences)
    return one(case, sequences, shuffled(arranged(case, sequences), case.order),
               { layout = layout_of(case) })
  end },

  { name = "neighbours", about = "beside sequences of NaN, inf, -inf or huge logits", plain = true,
    draws = { "layout", "wild", "order" }, least = 4,
    calls = function(case, sequences)
    return one(case, sequences, shuffled(arranged(case, sequences), case.order),
               { layout = layout_of(case) })
  end },

  { name = "copies", about = "each sequence several times in a larger batch", plain = true,
    draws = { "layout", "copies" }, cost = 2, calls = function(case, sequences)
    local grid = {}
    for _ = 1, case.copies do
      for _, list in ipairs(whole(case, sequences)) do grid[#grid + 1] = list end
    end
    return one(case, sequences, grid, { layout = layout_of(case) })
  end },

  { name = "right", about = "padded on the right", plain = true,
    draws = { "pad" }, calls = function(case, sequences)
    return one(case, sequences, widened(case, sequences, "right"), { layout = "right" })
  end },

  { name = "left", about = "padded on the left", plain = true,
    draws = { "pad" }, calls = function(case, sequences)
    return one(case, sequences, widened(case, sequences, "left"), { layout = "left" })
  end },

  { name = "interleaved", about = "padding between the tokens",
    draws = { "pad", "layout" }, calls = function(case, sequences)
    local grid = whole(case, sequences)
    for b, list in ipairs(grid) do grid[b] = interleaved(list, case.pad, case.seed + b) end
    return one(case, sequences, grid, { layout = layout_of(case) })
  end },

  { name = "masks", about = "other tokens masked out", plain = true,
    draws = { "layout", "masked" }, calls = function(case, sequences)
    return one(case, sequences, masked(arranged(case, sequences), case),
               { layout = layout_of(case) })
  end },

  -- With empty sequences between.
  { name = "packed", about = "packed with cu_seqlens, empty sequences between",
    draws = { "pad" }, calls = function(case, sequences)
    local grid = whole(case, sequences)
    for i = 1, case.pad do table.insert(grid, i * 7 % (#grid + 1) + 1, {}) end
    return one(case, sequences, grid, { layout = "packed" })
  end },

  -- The same batch, once for each of several row lists.
  { name = "lists", about = "some rows at a time, by row lists",
    long = true, draws = { "layout", "parts" }, calls = function(case, sequences)
    local calls = {}
    for part = 0, case.parts - 1 do
      calls[#calls + 1] = assemble.call(case, sequences, arranged(case, sequences), {
        layout = layout_of(case),
        rows = function(row) return (row * 7 + case.seed) % case.parts == part end,
      })
    end
    return calls
  end },

  -- Each sequence in pieces, one call per piece. With a shift, a piece begins one row early, with
  -- the logits that score its first token.
  { name = "chunks", about = "each sequence in pieces, a call each", plain = true,
    long = true, draws = { "piece" }, most = 4, calls = function(case, sequences)
    local calls = {}
    for s = 0, case.n - 1 do
      for from = 0, sequences[s].length - 1, case.piece do
        local past = math.min(from + case.piece, sequences[s].length)
        calls[#calls + 1] = assemble.call(case, sequences, { slots(sequences, s, from, past) },
                                          { layout = "single" })
      end
    end
    return calls
  end },

  -- All sequences advance together, one call per step; those that have ended are empty.
  { name = "steps", about = "all sequences a few positions at a time", plain = true, long = true,
    draws = { "piece", "layout" }, calls = function(case, sequences)
    local calls = {}
    for from = 0, case.T - 1, case.piece do
      local grid = {}
      for s = 0, case.n - 1 do
        grid[s + 1] = slots(sequences, s, from, math.min(from + case.piece, sequences[s].length))
      end
      calls[#calls + 1] = assemble.call(case, sequences, grid, { layout = layout_of(case) })
    end
    return calls
  end },

  -- Tokens of a sequence in another order. Its sum is exact and therefore does not depend on the
  -- order.
  { name = "reordered", about = "the tokens of a sequence in another order",
    long = true, draws = { "layout", "order" },
    calls = function(case, sequences)
    local grid = whole(case, sequences)
    for b, list in ipairs(grid) do grid[b] = shuffled(list, case.order) end
    return one(case, sequences, grid, { layout = layout_of(case) })
  end },

  { name = "strides", about = "gaps between rows and sequences",
    draws = { "layout", "gap", "between" }, calls = batch },

  -- Sequences that overlap in memory: each begins one row after the previous one.
  { name = "windows", about = "overlapping windows of one sequence",
    long = true, draws = { "gap", "piece" }, most = 1,
    calls = function(case, sequences)
    local grid, length = {}, math.min(case.piece, case.T)
    for from = 0, case.T - length do
      grid[from + 1] = slots(sequences, 0, from, from + length)
    end
    return one(case, sequences, grid, { layout = "right", windows = true })
  end },

  { name = "offset", about = "logits at an odd address",
    draws = { "layout", "offset", "gap" }, calls = batch },

  { name = "vocabulary", about = "the vocabulary padded with -inf", logits = true,
    draws = { "layout", "extra", "gap" }, calls = batch },

  { name = "containers", about = "the same logits in another dtype",
    draws = { "layout", "container" }, calls = batch,
    settle = function(case, random)
      if case.dtype == "float32" then case.kind = random:pick { "ties", "eighths" } end
      case.container = random:pick { "float32", "bfloat16", "float16" }
      if case.kind ~= "ties" and case.kind ~= "eighths" then case.container = "float32" end
    end },

  { name = "arguments", about = "ids, temperatures and offsets in other types",
    draws = { "layout", "held", "ignore", "index" }, calls = batch },

  { name = "outputs", about = "fewer outputs asked for",
    draws = { "layout", "outputs" }, calls = batch,
    opts = function(case)
      return { outputs = case.outputs ~= "all" and { case.outputs } or nil }
    end },

  { name = "threads", about = "other numbers of threads and pieces",
    draws = { "layout", "threads", "split" }, calls = batch,
    score = with_threads,
    only = function(at) return at.backend == "cpu" and at.context().device == "cpu" end },

  { name = "geometry", about = "other numbers of pieces, blocks and clusters, other kernels",
    draws = { "layout", "split", "block", "cluster", "table", "one_read" }, calls = batch,
    opts = launch_options },

  { name = "shards", about = "the vocabulary cut into shards, merged in any order",
    cost = 2, calls = batch, score = in_shards, contract = true, logits = true,
    draws = { "layout", "extra", "cuts", "tree", "split", "block", "offset", "gap" } },

  -- Everything together.
  { name = "everything", about = "many of these at once", logits = true,
    calls = function(case, sequences)
    return one(case, sequences, shuffled(masked(arranged(case, sequences), case), case.order),
               { layout = layout_of(case) })
  end,
    opts = launch_options,
    draws = { "layout", "wild", "pad", "masked", "order", "gap", "between", "offset", "extra",
              "held", "ignore", "index", "split", "block", "cluster", "table", "one_read" } },
}

M.named = {}
for _, transform in ipairs(M.list) do M.named[transform.name] = transform end

return M
