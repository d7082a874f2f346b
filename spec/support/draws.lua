--- Draws of tokens, for specs: rows with everything that may be drawn from, filters of every kind,
-- and the ranks of a draw from shards, played one after another.

local ffi = require "ffi"
local backends = require "spec.support.backends"
local hex = require "spec.support.hex"
local place = require "samebits.verify.place"
local with = require "spec.support.with"

local M = {}

M.OUTPUTS = { "token", "logprob", "kept_logprob", "count", "kept" }
M.ROWS = 8

--- Filters of every kind, also more first ids than a list holds.
M.FILTERS = {
  {}, { top_k = 1 }, { top_k = 7 }, { top_k = 64, top_p = 0.9 }, { top_k = 100, min_p = 0.05 },
  { top_p = 0.5 }, { top_p = 0.999 }, { min_p = 0.01 }, { top_k = 50, top_p = 0.9, min_p = 0.2 },
  { top_k = 90, top_p = 0.8, min_p = 0.1 },
}

local function poison(logits, row, id, word)
  ffi.cast("uint32_t *", logits.ptr)[row * logits.shape[2] + id] = word
end

--- Rows of ties, of few ids, of one, of none, with a NaN; and their random bits.
function M.example(random, V)
  local R = M.ROWS
  local values = hex.values(R * V, random:integer(1, 2 ^ 20))
  for i = 1, 2 * V do values[i] = math.floor(values[i] / 4) end
  local logits, how = hex.tensor(values, { R, V }), { seed = {}, stream = {}, position = {} }
  for id = 0, V - 1 do
    if id % 37 ~= 5 then poison(logits, 3, id, 0xff800000) end
    if id ~= V - 1 then poison(logits, 4, id, 0xff800000) end
    poison(logits, 5, id, 0xff800000)
  end
  poison(logits, 6, random:integer(0, V - 1), 0x7fc00000)
  for _, name in ipairs { "seed", "stream", "position" } do
    for row = 1, R do how[name][row] = random:integer(0, 2 ^ 31 - 1) end
  end
  local temperature = {}
  for row = 1, R do temperature[row] = random:pick { 0.5, 1, 3 } end
  return { logits = logits, temperature = temperature }, how
end

--- Calls body(at) for each variant of the library on which draws from shards can differ: those of a
-- GPU differ in launches that these draws do not have, so one is enough.
function M.each_backend(body)
  local seen = {}
  backends.each(function(at)
    if at.backend == "cuda" and seen.cuda then return end
    seen[at.backend] = true
    body(at)
  end)
end

--- A cut of V ids into shards, at multiples of 16: { 0, .., V }. Some shards may be empty.
function M.cuts(random, V, shards)
  local cuts = { 0 }
  for s = 2, shards do cuts[s] = random:integer(0, math.floor(V / 16)) * 16 end
  table.sort(cuts)
  cuts[shards + 1] = V
  return cuts
end

--- The batch of the ids first .. past - 1 of one of whole rows, on a device.
function M.shard(device, spec, first, past)
  local logits = spec.logits:slice(spec.logits.ndim - 1, first, past):contiguous()
  return place.batch(device, with(spec, { logits = logits, first = first,
                                          vocab = spec.logits.shape[spec.logits.ndim] }),
                     { ids = false })
end

--- The batch of whole rows, on a device.
function M.whole(device, spec) return place.batch(device, spec, { ids = false }) end

--- Plays the ranks of a draw on a variant of the library. Returns a list of the results of each, in
-- memory, and the draw of the last. change(round, messages) may replace what ranks have sent.
function M.of_shards(at, spec, cuts, how, outputs, change)
  local ctx, draws, all, round = at.context(), {}, nil, 0
  for s = 1, #cuts - 1 do
    draws[s] = assert(ctx:draw(M.shard(ctx.device, spec, cuts[s], cuts[s + 1]), how,
                               { shard = s - 1, shards = #cuts - 1, outputs = outputs }))
  end
  while round < draws[1].rounds do
    local now = {}
    for s, draw in ipairs(draws) do now[s] = assert(ctx:draw_round(draw, all)) end
    all, round = change and change(round, now) or now, round + 1
  end
  local results = {}
  for s, draw in ipairs(draws) do
    results[s] = {}
    for name, t in pairs(assert(ctx:draw_finish(draw, all))) do
      results[s][name] = assert(t:to "cpu")
    end
  end
  return results, draws[#draws]
end

--- The words of all ranks together.
function M.words(results)
  local words = results[1].kept:clone()
  local sum = ffi.cast("uint32_t *", words.ptr)
  for s = 2, #results do
    local its = ffi.cast("const uint32_t *", results[s].kept.ptr)
    for i = 0, words:numel() - 1 do
      assert(bit.band(sum[i], its[i]) == 0)
      sum[i] = bit.bor(sum[i], its[i])
    end
  end
  return words
end

return M
