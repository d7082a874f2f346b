--- What the specs of sb_sample and of draws from shards have in common: three rows of 40 ids for
-- the C functions, and a context and a tensor of the Lua front end.

local busted = require "busted"
local ffi = require "ffi"
local samebits = require "samebits"
local c_calls = require "spec.support.c_calls"
local hex = require "spec.support.hex"
local C = require("samebits.lib").C

local M = {}

M.ROWS, M.VOCAB = 3, 40

function M.logits() return hex.tensor(hex.values(M.ROWS * M.VOCAB, 4), { M.ROWS, M.VOCAB }) end

--- Structs for all rows and ids, and the arrays that they point to. outputs: the names of the
-- outputs, to which nothing has been written.
function M.arrays(outputs)
  local R, V = M.ROWS, M.VOCAB
  local a = { values = M.logits(), numbers = ffi.new("uint64_t[?]", R, { 1, 2, 3 }),
              mask = ffi.new("uint8_t[?]", R, { 1, 1, 1 }),
              token = c_calls.filled("int32_t", R), logprob = c_calls.filled("float", R),
              kept_logprob = c_calls.filled("float", R), count = c_calls.filled("int32_t", R),
              kept = c_calls.filled("uint32_t", R * 2), batch = c_calls.sized "sb_batch",
              out = c_calls.sized "sb_sample_out", how = c_calls.sized "sb_sampling" }
  local b = a.batch
  b.logits_dtype, b.ids_dtype, b.logits, b.mask = C.SB_F32, C.SB_I32, a.values.ptr, a.mask
  b.batch, b.time, b.vocab, b.temperature, b.ignore_index = 1, R, V, 1, -100
  for _, name in ipairs(outputs) do a.out[name] = a[name] end
  a.how.top_p, a.how.positions = 1, a.numbers
  return a
end

--- Gives every test of a block a context and its logits. set: is called with both.
function M.with_context(set)
  local context
  busted.setup(function()
    context = assert(samebits.open "cpu")
    set(context, M.logits())
  end)
  busted.teardown(function() context:close() end)
end

return M
