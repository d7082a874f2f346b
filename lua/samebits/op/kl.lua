--- The divergence of two sets of logits: the calls behind `ctx:kl`.

local ffi = require "ffi"
local batches = require "samebits.batch"
local call = require "samebits.op.call"
local lib = require "samebits.lib"
local misuse = require "samebits.misuse"
local status_of = require "samebits.status"
local tensor = require "samebits.tensor"

local C, raise = lib.C, misuse.raise

local M = {}

local OPTIONS = { outputs = true, out = true, split = true, threads = true, check = true,
                  stream = true, workspace = true }
local DTYPES = { token = "float32", sequence = "float32" }
local KNOWN = { "token", "sequence" }

-- The shapes of the outputs asked for.
local function wanted(batch, opts)
  local shapes = { token = batch.shape, sequence = { batch.sequences } }
  if opts.outputs == nil then return shapes end
  if type(opts.outputs) ~= "table" then
    raise("outputs: expected a list of names, got %s", type(opts.outputs))
  end
  local some = {}
  for _, name in ipairs(opts.outputs) do
    if not shapes[name] then
      raise("outputs: unknown output '%s'; known: %s", tostring(name), table.concat(KNOWN, ", "))
    end
    some[name] = shapes[name]
  end
  return some
end

-- q's struct. Where q is [N, V] and p packed, q is packed as p is.
local function beside(p, q)
  if not (p.cu_seqlens and q.layout == "one sequence") then return q.c end
  local c = ffi.new("sb_batch", q.c)
  c.batch, c.time, c.rows = p.c.batch, 0, q.shape[1]
  c.cu_seqlens, c.cu_seqlens_dtype = p.c.cu_seqlens, p.c.cu_seqlens_dtype
  return c
end

-- One of the two; what is wrong with it is said of `name`.
local function batch_of(what, name, ctx, batch)
  if not batches.is_batch(batch) then
    local ok, made = pcall(batches.build, batch, true)
    if not ok then raise("%s: %s: %s", what, name, tostring(made)) end
    batch = made
  end
  what = ("%s: %s"):format(what, name)
  return call.whole(what, call.batch(what, ctx, batch, "any"))
end

-- Both batches, q's struct, and the options, checked.
local function arguments(what, ctx, p, q, opts)
  opts = call.options(what, opts, OPTIONS)
  p, q = batch_of(what, "p", ctx, p), batch_of(what, "q", ctx, q)
  if not tensor.layout.same(p.shape, q.shape) or p.vocab ~= q.vocab then
    raise("%s: q's logits are %s, p's %s", what, tensor.layout.text(q.logits.shape),
          tensor.layout.text(p.logits.shape))
  end
  return p, q, beside(p, q), opts
end

function M.kl(ctx, p_batch, q_batch, opts)
  local p, q, other, options = arguments("kl", ctx, p_batch, q_batch, opts)
  local c = ffi.new "sb_kl_out"
  c.size = ffi.sizeof "sb_kl_out"
  local made, message, code = call.fill(c, options, wanted(p, options), DTYPES, p.device)
  if not made then return nil, message, code end
  local status = C.sb_kl(ctx.handle, c, p.c, other, call.launch("kl", ctx, options))
  call.hold(ctx, options, { p, q }, made)
  local ok
  ok, message, code = status_of.check(status, ctx.handle)
  if not ok then return nil, message, code end
  return call.results(made, options)
end

function M.workspace_size(ctx, p_batch, q_batch, opts)
  local p, _, other, options = arguments("kl_workspace_size", ctx, p_batch, q_batch, opts)
  local c = ffi.new "sb_kl_out"
  c.size = ffi.sizeof "sb_kl_out"
  for name in pairs(wanted(p, options)) do c[name] = ffi.cast("float *", call.ANYWHERE) end
  return call.needed("kl_workspace_size", ctx, options, function(launch)
    return C.sb_kl(ctx.handle, c, p.c, other, launch)
  end)
end

return M
