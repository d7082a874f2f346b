--- The divergence KL(p || q) of two sets of logits, row by row.

local ffi = require "ffi"
local call = require "samebits.op.call"
local misuse = require "samebits.misuse"
local tensor = require "samebits.tensor"

local layout = tensor.layout

local M = {}

-- q's struct. If q is [N, V] and p is packed, q is packed like p.
local function beside(p, q)
  if not (p.cu_seqlens and q.layout == "one sequence") then return q.c end
  local c = ffi.new("sb_batch", q.c)
  c.batch, c.time, c.rows = p.c.batch, 0, q.shape[1]
  c.cu_seqlens, c.cu_seqlens_dtype = p.c.cu_seqlens, p.c.cu_seqlens_dtype
  return c
end

local KL = call.op {
  name = "kl",
  entry = "sb_kl",
  struct = "sb_kl_out",
  outputs = {
    { "token", "float32", call.per_row },
    { "sequence", "float32", call.per_sequence },
  },
  launch = { "split", "threads", "table", "check", "stream", "workspace" },
  takes = 2,
  ids = "any",
  arguments = function(at, p, q)
    p, q = at:batch(p, "p"), at:batch(q, "q")
    if not layout.same(p.shape, q.shape) or p.vocab ~= q.vocab then
      misuse.raise("%s: q's logits are %s, p's %s", at.what,
                   layout.text(layout.appended(q.shape, q.vocab)),
                   layout.text(layout.appended(p.shape, p.vocab)))
    end
    return p.c, beside(p, q)
  end,
}

--- Computes the divergence KL(p || q) of two sets of logits, in nats: of row r of p from row r of
-- q.
-- @tparam batch p as for `logprob`; it needs no ids. p alone determines which rows are active.
-- @tparam batch q as for p, with logits of p's shape and any dtype, its own `temperature` and
-- `kept`, and the same `shift`. Its `ids`, `mask`, `rows` and `cu_seqlens` have no effect.
-- @tparam[opt] table opts `outputs`: a list of "token", "sequence" (both by default); `split`,
-- `out`, and on a GPU `check`, `stream`, `workspace` (`kl_workspace_size` returns its bytes),
-- `threads` and `table`, as for `logprob`
-- @treturn table `token`, one per row: exactly +0 where the rows are the same, +inf where an id is
-- present in p and absent in q, NaN where a row of either is poisoned or empty, +0 where ignored;
-- and `sequence` [B], their exact sums. Or nil, a message and the status' name. Invalid batches are
-- errors.
M.kl = call.method(KL)

--- Returns the bytes of workspace that `kl` needs for two batches with these options; 0 if none.
-- @tparam batch p as for `kl`
-- @tparam batch q as for `kl`
-- @tparam[opt] table opts as for `kl`
M.kl_workspace_size = call.workspace("kl_workspace_size", KL)

return M
