--- Several ids a row, their ranks, and the first ids of each row: the calls behind
-- `ctx:logprob_ids` and `ctx:topk`.

local ffi = require "ffi"
local batches = require "samebits.batch"
local call = require "samebits.op.call"
local constants = require "samebits.cdef"
local lib = require "samebits.lib"
local misuse = require "samebits.misuse"
local status_of = require "samebits.status"
local tensor = require "samebits.tensor"

local C, raise = lib.C, misuse.raise

local M = {}

local appended = tensor.layout.appended

local OPTIONS = { outputs = true, split = true, threads = true, out = true, check = true,
                  stream = true, workspace = true, cluster = true }

-- The shapes of the outputs asked for, out of those there are.
local function chosen(opts, shapes)
  if opts.outputs == nil then return shapes end
  if type(opts.outputs) ~= "table" then
    raise("outputs: expected a list of names, got %s", type(opts.outputs))
  end
  local out = {}
  for _, name in ipairs(opts.outputs) do
    if not shapes[name] then raise("outputs: unknown output '%s'", tostring(name)) end
    out[name] = shapes[name]
  end
  return out
end

-- Runs what(ctx, out, batch, k, launch) of the library. kind: of the struct of its outputs.
local function run(what, entry, kind, ctx, batch, k, opts, shapes, dtypes)
  local c = ffi.new(kind)
  c.size = ffi.sizeof(kind)
  local made, message, code = call.fill(c, opts, chosen(opts, shapes), dtypes, batch.device)
  if not made then return nil, message, code end
  local status = C[entry](ctx.handle, c, batch.c, k, call.launch(what, ctx, opts))
  call.hold(ctx, opts, { batch }, made)
  local ok
  ok, message, code = status_of.check(status, ctx.handle)
  if not ok then return nil, message, code end
  return call.results(made, opts)
end

local IDS_DTYPES = { logprob = "float32", rank = "int32", lse = "float32" }

function M.logprob_ids(ctx, batch, opts)
  opts = call.options("logprob_ids", opts, OPTIONS)
  batch = call.whole("logprob_ids", call.batch("logprob_ids", ctx, batch, "several"))
  if not batch.width then
    raise("logprob_ids: ids: shape %s, expected %s", tensor.layout.text(batch.ids.shape),
          tensor.layout.text(appended(batch.shape, "K")))
  end
  local shape = appended(batch.shape, batch.width)
  return run("logprob_ids", "sb_logprob_ids", "sb_ids_out", ctx, batch, batch.width, opts,
             { logprob = shape, rank = shape, lse = batch.shape }, IDS_DTYPES)
end

local WORKSPACE_OPTIONS = { split = true, threads = true, cluster = true }

function M.workspace_size(ctx, batch, opts)
  opts = call.options("order_workspace_size", opts, WORKSPACE_OPTIONS)
  local ids = batches.is_batch(batch) and batch.width and "several" or "any"
  batch = call.whole("order_workspace_size", call.batch("order_workspace_size", ctx, batch, ids))
  -- topk needs the most, whatever its k; no ids of the batch are looked at
  local c = ffi.new "sb_topk_out"
  c.size = ffi.sizeof "sb_topk_out"
  return call.needed("order_workspace_size", ctx, opts, function(launch)
    return C.sb_topk(ctx.handle, c, batch.c, 1, launch)
  end)
end

local TOPK_DTYPES = { ids = "int32", logprob = "float32", lse = "float32" }

function M.topk(ctx, batch, k, opts)
  opts = call.options("topk", opts, OPTIONS)
  batch = call.whole("topk", call.batch("topk", ctx, batch, "any"))
  if type(k) ~= "number" or k % 1 ~= 0 or k < 1 or k > constants.SB_MAX_TOPK then
    raise("topk: k: expected an integer from 1 to %d, got %s", constants.SB_MAX_TOPK, tostring(k))
  end
  local shape = appended(batch.shape, k)
  return run("topk", "sb_topk", "sb_topk_out", ctx, batch, k, opts,
             { ids = shape, logprob = shape, lse = batch.shape }, TOPK_DTYPES)
end

return M
