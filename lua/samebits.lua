--- samebits: token and sequence logprobs from logits, the same bits every time.
--
--     local samebits = require "samebits"
--     local ctx   = samebits.open()
--     local data  = samebits.load("logits.safetensors")
--     local batch = samebits.batch { logits = data.logits, ids = data.ids, mask = data.mask }
--     local out   = ctx:logprob(batch:to(ctx.device))
--                                                -- out.token, out.lse, out.sequence, out.count
--
-- Rows, positions, sequences, dimensions and ids count from 0, as in dumps of numpy and torch.
-- Lists that are Lua tables, such as a shape, count from 1, as usual in Lua.
--
-- Misuse is an error. A failure of the environment (a file, a backend) is nil, a message and, from
-- the library, the name of its status.
-- @module samebits

require "samebits.luajit"

local lib = require "samebits.lib"
local bits = require "samebits.bits"
local tensor = require "samebits.tensor"
local batches = require "samebits.batch"
local context = require "samebits.context"
local kept = require "samebits.batch.kept"
local formats = require "samebits.io.formats"
local drift = require "samebits.drift"

return {
  --- The library's release.
  version = lib.version,
  --- The version of its arithmetic, which changes when any bit may change. Record it with
  -- experiments.
  numerics = lib.numerics,
  --- The number of its ABI, which is also the soname's.
  abi = lib.abi,

  open = context.open,
  backends = context.backends,
  logprob = context.logprob,

  tensor = tensor.tensor,
  zeros = tensor.zeros,
  empty = tensor.empty,
  pinned = tensor.pinned,
  is_tensor = tensor.is_tensor,

  batch = batches.new,
  batch_from = batches.from_sequences,
  pad = batches.pad,
  pack = batches.pack,
  mask_from_lengths = batches.mask_from_lengths,
  mask_from_splits = batches.mask_from_splits,
  kept_words = kept.words,
  kept_lists = kept.lists,

  load = formats.load,
  save = formats.save,

  --- Shows which changes around a token change its bits: see samebits.verify, which is loaded,
  -- together with the control group, when this is called.
  verify = function(...) return require("samebits.verify").verify(...) end,

  --- The module samebits.bits: encodings of Lua values.
  bits = bits,
  same_bits = bits.same_bits,
  within_ulps = bits.within_ulps,
  ulp = bits.ulp,

  drift = drift.drift,
  --- Opens the prompt inside a script: see samebits.repl, which is loaded when this is called.
  debug = function(...) return require("samebits.repl").debug(...) end,
}
