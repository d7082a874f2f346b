--- Contexts: an opened backend, and the calls it serves.

local ffi = require "ffi"
local lib = require "samebits.lib"
local devices = require "samebits.device"
local status_of = require "samebits.status"
local batches = require "samebits.batch"
local call = require "samebits.op.call"
local choices = require "samebits.op.order"
local exchange = require "samebits.op.exchange"
local gradient = require "samebits.op.gradient"
local kl = require "samebits.op.kl"
local shards = require "samebits.op.shards"
local stats = require "samebits.op.stats"
local misuse = require "samebits.misuse"

local C, raise = lib.C, misuse.raise

local Context = {}
Context.__index = Context

-- "8 threads" of the cpu; of a GPU that many multiprocessors.
local function threads_text(self)
  return ("%d %s%s"):format(self.threads, self.backend == "cpu" and "thread" or "multiprocessor",
                            self.threads == 1 and "" or "s")
end

--- In a line: the instruction set and the threads.
function Context:describe() return ("%s, %s"):format(self.isa, threads_text(self)) end

function Context:__tostring()
  if not self.handle then return ("samebits context: %s, closed"):format(self.device) end
  return ("samebits context: %s, %s"):format(self.device, self:describe())
end

--- Frees the backend's threads and memory, once its calls are done. Closing again does nothing; any
-- other use is an error.
function Context:close()
  local handle = self.handle
  if not handle then return end
  self.handle = nil
  devices.settle(self.device)
  C.sb_close(ffi.gc(handle, nil))
end

local LOGPROB_OPTIONS = {
  outputs = true, split = true, threads = true, out = true, check = true, stream = true,
  workspace = true, cluster = true,
}

-- The context of a call, checked.
local function open_context(what, self)
  if getmetatable(self) ~= Context then raise("%s: call it as ctx:%s(batch)", what, what) end
  if not self.handle then raise("%s: the context is closed", what) end
end

-- The batch and the options of a call, checked.
local function arguments(what, self, batch, opts)
  open_context(what, self)
  opts = call.options(what, opts, LOGPROB_OPTIONS)
  return call.whole(what, call.batch(what, self, batch)), opts
end

-- entry: what of the library to call, with sb_logprob's arguments.
local function score(what, entry, self, batch, opts)
  batch, opts = arguments(what, self, batch, opts)
  local c, made, code = call.outputs(batch, opts)
  if not c then return nil, made, code end
  local status = C[entry](self.handle, c, batch.c, call.launch(what, self, opts))
  call.hold(self, opts, { batch }, made)
  local ok, message, name = status_of.check(status, self.handle)
  if not ok then return nil, message, name end
  return call.results(made, opts)
end

local function logprob(self, batch, opts)
  return score("logprob", "sb_logprob", self, batch, opts)
end

--- Scores a batch, which has to be on the context's device (`batch:to(ctx.device)` moves it).
--
-- On a GPU the call waits until it is done and bad values raise errors, as on the cpu. With
-- `check = false` it returns at once instead: the results are there when the stream has got so far,
-- rows with bad values become NaN, and `ctx:check` tells. Nothing there waits or allocates if `out`
-- and `workspace` are given. What the call uses is held until the stream has been waited for, by
-- `ctx:check`, the stream's `wait`, or for the default stream anything that copies without one;
-- when 10,000 things are held, and where memory is out, the streams are waited for. A CUDA graph
-- that a call is captured into holds nothing: keep the batch (made before), the results, the
-- workspace and the context as long as the graph.
-- @param batch a batch, or the table to make one from
-- @tparam[opt] table opts `outputs`: a list of "token", "lse", "sequence", "count" (these four by
-- default), "outside" (by default with kept sets), "entropy", in nats a row, which costs more, and
-- "saved", for `backward`; `split`: pieces to cut each row into; `out`: a table from an earlier
-- call, whose tensors are written again; and on a GPU: `check`; `stream`: where to run (the default
-- stream); `workspace`: a tensor to compute in, of the bytes that `workspace_size` says; `threads`:
-- of a block; `cluster`: 1 makes a row's pieces a thread block cluster, -1 never does
-- @treturn table `token`, `lse` and `entropy`, shaped like the ids, `saved` [.., 32], uint8, in
-- front the shape of the ids, `sequence`, `count` and `outside` (the active tokens whose id is
-- outside its row's kept set, and whose logprob is -inf) [B], on the context's device; or nil, a
-- message and the status' name where the environment fails. Anything wrong with the batch is an
-- error.
Context.logprob = misuse.guard(logprob)

--- The bytes of workspace that `logprob` needs for a batch with these options; 0 where none.
Context.workspace_size = misuse.guard(function(self, batch, opts)
  batch, opts = arguments("workspace_size", self, batch, opts)
  return call.needed("workspace_size", self, opts, function(launch)
    return C.sb_logprob(self.handle, call.wanted_outputs(batch, opts), batch.c, launch)
  end)
end)

--- The logprobs of K ids a row, and their ranks: how many present ids come before each, by logit,
-- of equal ones the lower id first.
-- @param batch as for `logprob`, its ids [B, T, K] or [N, K]; each may be `ignore_index`
-- @tparam[opt] table opts `outputs`: a list of "logprob", "rank", "lse" (all by default); the rest
-- as for `logprob`
-- @treturn table `logprob` and `rank` (int32), shaped like the ids, and `lse`, one a row. What is
-- ignored has logprob +0 and rank -1; rows of NaN have rank -1. Or nil, a message and the status'
-- name. Anything wrong with the batch is an error.
Context.logprob_ids = misuse.guard(function(self, batch, opts)
  open_context("logprob_ids", self)
  return choices.logprob_ids(self, batch, opts)
end)

--- The first k ids of each row: those of the largest logits, of equal ones the lower id first.
-- `ctx:topk(batch, 1)` is the argmax.
-- @param batch as for `logprob`; it needs no ids
-- @tparam number k 1 to 64
-- @tparam[opt] table opts `outputs`: a list of "ids", "logprob", "lse" (all by default); the rest
-- as for `logprob`
-- @treturn table `ids` (int32) and `logprob`, [B, T, k] or [N, k], and `lse`, one a row. Where
-- fewer ids are present: -1 and -inf; where a row is ignored: -1 and +0; rows of NaN: -1 and NaN.
-- Or nil, a message and the status' name. Anything wrong with the batch is an error.
Context.topk = misuse.guard(function(self, batch, k, opts)
  open_context("topk", self)
  return choices.topk(self, batch, k, opts)
end)

--- The bytes of workspace that are enough for `logprob_ids` and `topk` with a batch; 0 where they
-- need none.
Context.order_workspace_size = misuse.guard(function(self, batch, opts)
  open_context("order_workspace_size", self)
  return choices.workspace_size(self, batch, opts)
end)

--- The gradient of a loss with respect to the logits, from its derivatives by the outputs: one pass
-- over the logits. Rows that are ignored, and ids whose logit is -inf, get +0.
-- @param batch the one that was scored
-- @tparam table given `saved`: that output of `logprob`; `token` and `entropy`, or one of them: the
-- loss's derivatives by these outputs, float32, of their shape (for `entropy` both outputs must
-- have been asked for together)
-- @tparam[opt] table opts `grad`: a tensor to write to, shaped like the logits or with wider rows,
-- whose ends become +0; it may be the logits themselves; or `dtype`: of a new one, by default the
-- logits' own ("float32", "float16" or "bfloat16", rounded once from float32); `split`, and on a
-- GPU `check`, `stream` and `threads`, as for `logprob`
-- @treturn tensor the gradient, which for row r of the logits stands in row r (with `shift`, too);
-- or nil, a message and the status' name. Anything wrong with what is given is an error.
Context.backward = misuse.guard(function(self, batch, given, opts)
  open_context("backward", self)
  return gradient.backward(self, batch, given, opts)
end)

--- The records of a batch's logits where they are a shard of the vocabulary: the ids `first` and on
-- of `vocab` (see `samebits.batch`). Each process or GPU that holds a shard makes such records;
-- exchanged, merged and finished they give the bits that `logprob` gives for whole rows.
-- @param batch as for `logprob`
-- @tparam[opt] table opts `entropy`: true for records that `finish` can give entropy from; `split`,
-- and on a GPU `check`, `stream`, `workspace`, `threads`, as for `logprob`
-- @treturn table `states` [.., 32] and `targets` [.., 8], uint8, in front the shape of the ids: 40
-- bytes a row, the same on every machine, which may be sent, saved and loaded. With `entropy`
-- `moments` [.., 64] instead of the states. Or nil, a message and the status' name. Anything wrong
-- with the batch is an error.
Context.partial = misuse.guard(function(self, batch, opts)
  open_context("partial", self)
  return shards.partial(self, batch, opts)
end)

--- Merges the records of shards, in any order or tree: the result is a record of their ids
-- together.
-- @tparam table records a list of records of the same rows; or as an all-gather leaves them,
-- `states` [S, .., 32] (or `moments` [S, .., 64]) and `targets` [S, .., 8]. On the context's
-- device.
-- @tparam[opt] table opts on a GPU `check` and `stream`, as for `logprob`
-- @treturn table new records; or nil, a message and the status' name. A record that no shard gives,
-- or of another temperature than the first shard's, is an error that names the row and the shard,
-- both counted from 0.
Context.merge = misuse.guard(function(self, records, opts)
  open_context("merge", self)
  return shards.merge(self, records, opts)
end)

--- From the records of whole rows to the results of `logprob`: the same bits.
-- @tparam table records the merged ones
-- @param batch the batch of any one of the shards; its logits are not read. (One with logits of no
-- ids, [.., 0], and a `vocab` will do.)
-- @tparam[opt] table opts as for `logprob`
-- @treturn table as `logprob`; or nil, a message and the status' name. Records that do not fit the
-- batch, and an id that does not lie in exactly one of the merged shards, are errors.
Context.finish = misuse.guard(function(self, records, batch, opts)
  open_context("finish", self)
  return shards.finish(self, records, batch, opts)
end)

--- The bytes of workspace that are enough for `partial` and `finish` with a batch; 0 where they
-- need none.
Context.shard_workspace_size = misuse.guard(function(self, batch, opts)
  open_context("shard_workspace_size", self)
  return shards.workspace_size(self, batch, opts)
end)

--- A new id for a communicator, a string of 128 bytes: made by one rank and sent to the others by
-- any means. Nil, a message and the status' name where there is no NCCL.
Context.comm_id = misuse.guard(function(self)
  open_context("comm_id", self)
  return exchange.new_id(self)
end)

--- A communicator of NCCL's, on the context's GPU.
-- @param given `{ id =, ranks =, rank = }`: the id that all ranks have, how many there are, and
-- which one this is, from 0; waits for all of them. Or a framework's ncclComm_t, a pointer, which
-- stays its own.
-- @return an object with `ranks` and `rank`, whose `close` frees it, or, where a rank has failed,
-- `abort` (nothing else does); or nil, a message and the status' name
Context.communicator = misuse.guard(function(self, given)
  open_context("communicator", self)
  return exchange.communicator(self, given)
end)

--- Replaces a shard's records by those of the ids of all ranks together, as `merge` of all of them:
-- between `partial` and `finish` it is all that tensor parallelism needs. Every rank calls it, with
-- the same number of rows and the same `check`.
-- @tparam table records this rank's, as `partial` gives them
-- @param comm see `communicator`
-- @tparam[opt] table opts `check`, `stream` and `workspace` (of `exchange_workspace_size` bytes),
-- as for `logprob`. With `check` a rank whose number of rows differs is an error that names it.
-- `timeout`: the seconds to wait for the other ranks with `check`, and for NCCL with a communicator
-- made not to block; 600 by default, math.huge for no limit. What comes to it has failed: abort the
-- communicator.
-- @treturn table the same records; or nil, a message and the status' name
Context.exchange = misuse.guard(function(self, records, comm, opts)
  open_context("exchange", self)
  return exchange.exchange(self, records, comm, opts)
end)

--- The bytes of workspace that `exchange` needs for records, or a number of rows.
Context.exchange_workspace_size = misuse.guard(function(self, rows, comm)
  open_context("exchange_workspace_size", self)
  return exchange.workspace_size(self, rows, comm)
end)

--- Compares two sets of logprobs of the same tokens, one by one: with d = other - sampled,
-- importance ratios e^d and the estimators k1 = -d, k2 = d^2 / 2, k3 = e^d - 1 - d of
-- KL(sampled || other). Where the bits are equal the ratio is exactly 1 and the estimates are 0.
-- @param sampled a float32 tensor on the context's device: by the policy the tokens were drawn from
-- @param other likewise, of the same shape: by the other policy
-- @tparam[opt] table opts `outputs`: a list of "ratio", "k1", "k2", "k3" (all by default); `out`: a
-- table from an earlier call; and on a GPU `stream`
-- @treturn table the outputs, shaped as given; or nil, a message and the status' name
Context.compare = misuse.guard(function(self, sampled, other, opts)
  open_context("compare", self)
  return stats.compare(self, sampled, other, opts)
end)

--- Exact sums and means of a number a token, rounded once: order, padding and packing cannot reach
-- a bit.
-- @param values a float32 tensor on the context's device: [B, T], or [N] (one sequence, or packed)
-- @tparam[opt] table opts `mask`: the same shape, non-zero where active; `cu_seqlens`: [B + 1], for
-- packed values; `minus`: a tensor to subtract, exactly (with logprobs of two policies `exp_mean`
-- is the sequence's ratio); `per`: "sequence", or "batch" for all together; `outputs`: a list of
-- "sum", "mean", "exp_mean", "count" (all by default); `out`: a table from an earlier call; and on
-- a GPU `check` and `stream`, as for `logprob`
-- @treturn table the outputs [B], or [1] for a whole batch; or nil, a message and the status' name
Context.sums = misuse.guard(function(self, values, opts)
  open_context("sums", self)
  return stats.sums(self, values, opts)
end)

--- The divergence KL(p || q) of two sets of logits, in nats: of row r of p from row r of q.
-- @param p as for `logprob`; it needs no ids. It alone says which rows are active.
-- @param q likewise, its logits shaped as p's, of any dtype, with its own `temperature` and `kept`
-- and the same `shift`. Its `ids`, `mask`, `rows` and `cu_seqlens` have no effect.
-- @tparam[opt] table opts `outputs`: a list of "token", "sequence" (both by default); `split`,
-- `out`, and on a GPU `check`, `stream`, `workspace` (`kl_workspace_size` says of how many bytes)
-- and `threads`, as for `logprob`
-- @treturn table `token`, one a row: exactly +0 where the rows are the same, +inf where an id is
-- present in p and absent in q, NaN where a row of either is poisoned or empty, +0 where ignored;
-- and `sequence` [B], their exact sums. Or nil, a message and the status' name. Anything wrong with
-- the batches is an error.
Context.kl = misuse.guard(function(self, p, q, opts)
  open_context("kl", self)
  return kl.kl(self, p, q, opts)
end)

--- The bytes of workspace that `kl` needs for two batches with these options; 0 where none.
Context.kl_workspace_size = misuse.guard(function(self, p, q, opts)
  open_context("kl_workspace_size", self)
  return kl.workspace_size(self, p, q, opts)
end)

--- Waits for a stream (the default one if none is given), and raises an error if a call with
-- `check = false` in that stream has met a bad id, temperature, row list, cu_seqlens or record
-- since the stream's last check: it names one such row. Each stream has one report, and each CUDA
-- graph has one, of the calls captured into it; a check tells one of them, the stream's first, then
-- a graph's, and without a stream then any other stream's. True when there is none; or nil, a
-- message and the status' name where the device fails. Calls with a check raise their own errors,
-- and leave reports as they are.
Context.check = misuse.guard(function(self, stream)
  if not self.handle then raise "check: the context is closed" end
  local handle = stream ~= nil and devices.check_stream("check", stream, self.device).handle or nil
  local at = devices.opened(self.device)
  if at then
    local ok, message, code = at:wait(stream)
    if not ok then return nil, message, code end
  end
  return status_of.check(C.sb_check(self.handle, handle), self.handle)
end)

local function on_device(name)
  return misuse.guard(function(self, ...)
    local at, message, code = devices.of(self.device)
    if not at then return nil, message, code end
    return at[name](at, ...)
  end)
end

--- A stream on the context's device, which does not wait for the default one: an object whose
-- `wait` waits until all work in it is done. Given a pointer (a framework's CUstream or
-- cudaStream_t), that stream, which has to live until it has been waited for here. Nil, a message
-- and a code where the device fails.
Context.stream = on_device "stream"

local OPEN_OPTIONS = { threads = true, isa = true, split = true, block = true, cluster = true }

local function open(backend, opts)
  if backend == nil then backend = "auto" end
  if type(backend) ~= "string" then
    raise("open: expected a backend's name, got %s", type(backend))
  end
  opts = call.options("open", opts, OPEN_OPTIONS)
  if opts.isa ~= nil and type(opts.isa) ~= "string" then
    raise("isa: expected a name, got %s", type(opts.isa))
  end

  local c = ffi.new "sb_open_options"
  c.size = ffi.sizeof "sb_open_options"
  c.threads = call.small_integer("threads", opts.threads)
  c.isa = opts.isa
  local split = call.small_integer("split", opts.split)
  local block = call.small_integer("block", opts.block)
  local cluster = call.small_integer("cluster", opts.cluster)
  local why, handle = ffi.new "char[512]", ffi.new "sb_context *[1]"
  local status = C.sb_open(handle, lib.constants.SB_ABI, devices.backend(backend), c, why, 512)
  if status ~= 0 then return status_of.failure(status, ffi.string(why)) end

  local name = ffi.string(C.sb_context_backend(handle[0]))
  local device = devices.normal(backend == "auto" and name or backend)
  -- The closure keeps the library loaded for as long as the context may have to be freed.
  local owned = ffi.gc(handle[0], function(p)
    devices.settle(device)
    C.sb_close(p)
  end)
  return setmetatable({
    handle = owned,
    backend = name,
    device = device,
    isa = ffi.string(C.sb_context_isa(owned)),
    threads = C.sb_context_threads(owned),
    split = split,
    block = block,
    cluster = cluster,
  }, Context)
end

local M = {}

--- Opens a backend.
-- @tparam[opt] string backend its name ("cuda:1" is the second GPU); "auto", the default, is the
-- best one here
-- @tparam[opt] table opts on the cpu `threads`: how many work on a call, and `isa`: "scalar",
-- "avx2" or "avx512"; `split`, and on a GPU `block` and `cluster`: the defaults of `ctx:logprob`'s
-- options `split`, `threads` and `cluster`. None of them can reach a bit.
-- @return the context, with the fields `backend`, `device`, `isa` ("avx2", "sm_90") and `threads`
-- (of a GPU: its multiprocessors); or nil, a message and the status' name
M.open = misuse.guard(open)

-- For modules beside this one: Context.logprob by another entry of the library.
M.score = score

-- Methods by class: see samebits.repl.sources.
M.classes = { Context = Context }

function M.is_context(value) return getmetatable(value) == Context end

--- Every backend known, best first: a list of { name, available, why }, `why` saying why one cannot
-- be opened here.
function M.backends()
  local list, why = {}, ffi.new "char[512]"
  for index = 0, math.huge do
    local name = C.sb_backend_name(index)
    if name == nil then return list end
    local entry = { name = ffi.string(name) }
    entry.available = C.sb_probe(name, why, 512) == 0
    if not entry.available then entry.why = ffi.string(why) end
    list[#list + 1] = entry
  end
end

local defaults = {}

--- Scores a batch on a context of its device, which is opened at the first call and kept.
M.logprob = misuse.guard(function(batch, opts)
  if not batches.is_batch(batch) then batch = batches.build(batch) end
  local name = batch.device
  if not defaults[name] then
    local context, message, code = open(name)
    if not context then return nil, message, code end
    defaults[name] = context
  end
  return logprob(defaults[name], batch, opts)
end)

return M
