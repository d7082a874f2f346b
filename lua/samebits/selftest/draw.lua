--- Checks golden vectors of draws from shards: every message of every shard, byte for byte, and the
-- results of each.

local batches = require "samebits.batch"
local kept_sets = require "samebits.batch.kept"
local tensor = require "samebits.tensor"

local M = {}

M.file = "draws.txt"

--- Whether a variant of the library can differ here: those of cuda differ in launches that these
-- draws do not have, so one is enough.
function M.has(at) return at.backend ~= "cuda" or at.name == "cuda" end

-- The bytes of a message as hex digits, from the lines of a case.
local function bytes_of(message)
  if not message.sums then return table.concat(message) end
  local bins = {}
  for bin = 0, 255 do
    local sum = message.sums[bin] or ("0"):rep(16)
    bins[bin + 1] = sum:gsub("(..)(..)(..)(..)(..)(..)(..)(..)", "%8%7%6%5%4%3%2%1")
  end
  return table.concat(bins)
end

-- How a case is drawn.
local function how_of(asked)
  local high, low = asked.bits:match "^(........)(........)$"
  return { top_k = asked.top_k, top_p = asked.top_p, min_p = asked.min_p,
           bits = { tonumber(high, 16) * 0x100000000LL + tonumber(low, 16) } }
end

-- Begins the draw of each shard. kept: the given kept set of the row, as fields of a batch.
local function begun(ctx, case, kept)
  local draws, shards = {}, #case.cuts + 1
  for s = 1, shards do
    local first, past = case.cuts[s - 1] or 0, case.cuts[s] or case.vocab
    local logits, why = case.logits:slice(1, first, past):to(ctx.device)
    if not logits then return nil, why end
    local spec = { logits = logits, first = first, vocab = case.vocab, temperature = case.tau }
    for name, t in pairs(kept) do spec[name] = t end
    local batch, lost = batches.build(spec, true):to(ctx.device)
    if not batch then return nil, lost end
    draws[s], why = ctx:draw(batch, how_of(case.asked),
                             { shard = s - 1, shards = shards, outputs = case.asked.outputs })
    if not draws[s] then return nil, why end
  end
  return draws
end

-- Compares the results of a shard.
local function results_differ(case, shard, out)
  for name, t in pairs(out) do
    local got, why = t:to "cpu"
    if not got then return why end
    local want = case.drawn[name]
    if name == "kept" then
      got, want = table.concat(got:bits()[1], " "), table.concat(case.words[shard], " ")
    elseif name:find "logprob" then
      got = got:bits()[1]
    else
      got = tonumber(got[0])
    end
    if got ~= want then
      return ("%s of shard %d: expected %s, got %s"):format(name, shard - 1, want, got)
    end
  end
end

local function draw_differs(ctx, case, kept)
  local draws, why = begun(ctx, case, kept)
  if not draws then return why end
  if draws[1].rounds ~= #case.messages then
    return ("expected %d rounds, got %d"):format(#case.messages, draws[1].rounds)
  end
  local all
  for round = 1, draws[1].rounds do
    local now = {}
    for s, draw in ipairs(draws) do
      local mine, lost = ctx:draw_round(draw, all)
      local copy = mine
      if mine then copy, lost = mine:to "cpu" end
      if not copy then return lost end
      local want, got = bytes_of(case.messages[round][s]), table.concat(copy:bits()[1])
      if got ~= want then
        local at = 1
        while got:sub(at, at) == want:sub(at, at) do at = at + 1 end
        at = math.floor((at - 1) / 16) * 16
        return ("round %d, shard %d, from byte %d on: expected %s, got %s"):format(
          round - 1, s - 1, at / 2, want:sub(at + 1, at + 16), got:sub(at + 1, at + 16))
      end
      now[s] = mine
    end
    all = now
  end
  for s, draw in ipairs(draws) do
    local out, lost = ctx:draw_finish(draw, all)
    if not out then return lost end
    local wrong = results_differ(case, s, out)
    if wrong then return wrong end
  end
end

--- Checks a case, also with its kept set as a list. Returns nothing, or a description of the
-- difference.
function M.check(ctx, case)
  if not case.kept then return draw_differs(ctx, case, {}) end
  local words = tensor.from_bits(case.kept, "int32"):view(1, #case.kept)
  local ids, offsets = kept_sets.lists(words, case.vocab)
  local wrong = draw_differs(ctx, case, { kept_ids = ids, kept_offsets = offsets })
  if wrong then return "as a list: " .. wrong end
  return draw_differs(ctx, case, { kept = words })
end

return M
