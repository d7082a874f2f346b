--- Draws from shards of the vocabulary: several ranks, each with the logits of some ids of every
-- row, draw the tokens that `sample` draws from whole rows, in rounds of small messages.

local ffi = require "ffi"
local call = require "samebits.op.call"
local lib = require "samebits.lib"
local misuse = require "samebits.misuse"
local sample = require "samebits.op.sample"
local status_of = require "samebits.status"
local tensor = require "samebits.tensor"

local C, raise, try = lib.C, misuse.raise, misuse.try
local layout, describe = tensor.layout, tensor.describe
local appended = layout.appended

local M = {}

local Draw = {}
Draw.__index = Draw

function Draw:__tostring()
  return ("samebits draw of shard %d of %d: %d of %d rounds done"):format(self.shard, self.shards,
                                                                        self.round, self.rounds)
end

local function check_draw(at, draw)
  if getmetatable(draw) ~= Draw then
    raise("%s: expected a draw (see ctx:draw), got %s", at.what, describe(draw))
  end
  if draw.device ~= at.device then
    raise("%s: the draw is on %s, the context is on %s", at.what, draw.device, at.device)
  end
  at:hold(draw.progress)
  return draw
end

-- The messages of all ranks, [S, .., bytes], from one tensor or a list of them.
local function gathered(at, draw, all)
  local bytes = draw.bytes[draw.round]
  local one = appended(draw.batch.shape, bytes)
  local shape = { draw.shards, unpack(one) }
  if tensor.is_tensor(all) then return at:input("messages", all, "uint8", shape, 8).ptr end
  if type(all) ~= "table" or #all ~= draw.shards then
    raise("%s: expected the messages of %d shards, a tensor %s or a list, got %s", at.what,
          draw.shards, layout.text(shape), describe(all))
  end
  local together = at:hold(try(tensor.empty(shape, "uint8", at.device)))
  local opts = at.device ~= "cpu" and at.opts.stream and { stream = at.opts.stream } or nil
  for s, its in ipairs(all) do
    if not tensor.is_tensor(its) or its.dtype ~= "uint8" or not layout.same(its.shape, one) then
      raise("%s: shard %d: expected messages %s of uint8, got %s", at.what, s - 1,
            layout.text(one), describe(its))
    end
    try(together[s - 1]:copy_(at:hold(its), opts))
  end
  return together.ptr
end

-- Beginning -------------------------------------------------------------------------------------

local function integer(name, value)
  if type(value) ~= "number" or value % 1 ~= 0 or math.abs(value) >= 2 ^ 31 then
    raise("draw: %s: expected an integer, got %s", name, describe(value))
  end
  return value
end

-- The outputs that the last call will write, with addresses that are not used.
local function wanted(at)
  local out, names = ffi.new "sb_sample_out", at.opts.outputs or sample.default()
  out.size = ffi.sizeof "sb_sample_out"
  if type(names) ~= "table" then
    raise("draw: outputs: expected a list of names, got %s", misuse.kind(names))
  end
  for _, name in ipairs(names) do
    if not at.op.output[name] then raise("draw: outputs: unknown output '%s'", tostring(name)) end
    out[name] = ffi.cast("void *", call.ANYWHERE)
  end
  return out, names
end

local BEGIN = call.op {
  name = "draw", ids = "any", shards = true, outputs = sample.OUTPUTS,
  options = { "shard", "shards", "outputs" },
}

--- Begins a draw from shards. Each rank has the logits of the ids from `first` on of `vocab` (see
-- `samebits.batch`), above those of all ranks in front of it. All ranks draw in rounds:
--
--     local draw = ctx:draw(batch, how, { shard = rank, shards = ranks })
--     local all
--     while draw.round < draw.rounds do
--       all = ctx:all_gather(ctx:draw_round(draw, all), comm)   -- or gathered by any means
--     end
--     local out = ctx:draw_finish(draw, all)
--
-- The tokens and their logprobs have the bits of `sample` for whole rows. A draw without filters
-- takes 2 rounds, one with top_k of 1 .. 64 for all rows takes 1, one with min_p 3; any other top_k
-- and top_p take 4 more each. Messages are from 8 to 2048 bytes per row.
-- @tparam batch batch as for `sample`, of a shard; not of hidden states
-- @tparam[opt] table how as for `sample`
-- @tparam table opts `shard`, this rank's number, from 0, and `shards`, their number; `outputs`,
-- the names of the results, as for `sample`
-- @treturn table a draw: `rounds`, `round` (the next one), and `bytes`, by round from 0, of the
-- message of a row; or nil, a message and the status' name
M.draw = call.plain_method(function(self, given, how, opts)
  local at = call.begin(BEGIN, "draw", self, opts)
  local batch = at:batch(given)
  local out, names = wanted(at)
  local c = ffi.new "sb_draw"
  c.size, c.first, c.n = ffi.sizeof "sb_draw", batch.first, batch.held
  c.shard, c.shards = integer("shard", at.opts.shard), integer("shards", at.opts.shards)
  local plan = C.sb_draw_plan(self.handle, c, out, batch.c, at:hold(sample.how_of(at, how)))
  try(status_of.check(plan, self.handle))
  local progress = try(tensor.empty(appended(batch.shape, lib.constants.SB_DRAW_PROGRESS), "uint8",
                                    self.device))
  c.progress = progress.ptr
  local draw = { c = c, batch = batch, how = how, outputs = names, progress = progress,
                 device = self.device, shard = c.shard, shards = c.shards, rounds = c.rounds,
                 round = 0, bytes = {} }
  for round = 0, c.rounds - 1 do draw.bytes[round + 1] = tonumber(c.bytes[round]) end
  return setmetatable(draw, Draw)
end)

-- Rounds ----------------------------------------------------------------------------------------

local ROUND = call.op {
  name = "draw_round",
  entry = "sb_draw_round",
  launch = { "check", "stream", "workspace" },
  takes = 2,
  ids = "any",
  shards = true,
  arguments = function(at, draw, all)
    check_draw(at, draw)
    local batch = at:batch(draw.batch)
    if draw.round >= draw.rounds then
      raise("draw_round: all %d rounds are done: see ctx:draw_finish", draw.rounds)
    end
    local from = draw.round > 0 and ffi.cast("const void *", gathered(at, draw, all)) or nil
    local shape = appended(batch.shape, draw.bytes[draw.round + 1])
    local mine = at:hold(try(tensor.empty(shape, "uint8", at.device)))
    at.result = mine
    return ffi.cast("void *", mine.ptr), from, draw.c, draw.round, batch.c,
           at:hold(sample.how_of(at, draw.how))
  end,
}

--- Computes this shard's messages of the next round of a draw.
-- @tparam table draw see `draw`
-- @param all the messages of all shards in the round before: a tensor [S, .., bytes] as an
-- all-gather leaves it, or a list of tensors, in the order of shards; not used in the first round
-- @tparam[opt] table opts on a GPU `check`, `stream` and `workspace` (`draw_workspace_size`
-- returns its bytes), as for `logprob`
-- @treturn tensor uint8 [.., bytes], after the dimensions of the rows; or nil, a message and the
-- status' name. A message that no shard can give is an error that names the row and the shard.
M.draw_round = call.plain_method(function(self, draw, all, opts)
  local mine = call.run(ROUND, "draw_round", self, opts, draw, all)
  draw.round = draw.round + 1
  return mine
end)

local FINISH = call.op {
  name = "draw_finish",
  entry = "sb_draw_finish",
  struct = "sb_sample_out",
  outputs = sample.OUTPUTS,
  default = function(at) return at.drawn end,
  launch = { "check", "stream", "workspace" },
  takes = 2,
  ids = "any",
  shards = true,
  arguments = function(at, draw, all)
    check_draw(at, draw)
    local batch = at:batch(draw.batch)
    if draw.round < draw.rounds then
      raise("draw_finish: %d of %d rounds are done", draw.round, draw.rounds)
    end
    at.words = math.ceil(batch.vocab / 32)
    at.drawn = draw.outputs
    return ffi.cast("const void *", gathered(at, draw, all)), draw.c, batch.c,
           at:hold(sample.how_of(at, draw.how))
  end,
}

--- Computes the results of a draw from the messages of the last round. Every shard has the same.
-- @tparam table draw see `draw`
-- @param all the messages of all shards in the last round, as for `draw_round`
-- @tparam[opt] table opts `out`, and `outputs` (some of those of `draw`); on a GPU as for
-- `draw_round`
-- @treturn table as `sample`, but that `kept` has the bits of this shard's ids alone: the sum of
-- all shards' words is the set. Or nil, a message and the status' name.
M.draw_finish = call.method(FINISH)

local SIZE = call.op {
  name = "draw_workspace_size",
  entry = "sb_draw_round",
  launch = { "stream" },
  ids = "any",
  shards = true,
  arguments = function(at, draw)
    check_draw(at, draw)
    return call.ANYWHERE, nil, draw.c, 0, at:batch(draw.batch).c,
           at:hold(sample.how_of(at, draw.how))
  end,
}

--- Returns the bytes of workspace that are enough for each round of a draw; 0 if it needs none.
-- @tparam table draw see `draw`
M.draw_workspace_size = call.workspace("draw_workspace_size", SIZE)

return M
