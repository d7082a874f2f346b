--- What ranks exchange between GPUs, with NCCL: records of shards, any bytes, and integers.

local ffi = require "ffi"
local call = require "samebits.op.call"
local lib = require "samebits.lib"
local misuse = require "samebits.misuse"
local records = require "samebits.op.records"
local status_of = require "samebits.status"
local tensor = require "samebits.tensor"

local C, raise, try = lib.C, misuse.raise, misuse.try

local M = {}

-- Communicators ---------------------------------------------------------------------------------

local ID_SIZE = ffi.sizeof "sb_comm_id"

local Communicator = {}
Communicator.__index = Communicator

function Communicator:__tostring()
  local what = self.rank and ("rank %d of %d"):format(self.rank, self.ranks) or "a framework's"
  return ("samebits communicator on %s: %s%s"):format(self.device, what,
                                                      self.handle and "" or ", closed")
end

-- Frees the communicator by a function of the library, only once. what: the method's name.
local function free(what, entry, self)
  local handle = self.handle
  self.handle = nil
  if not handle or not self.rank then return true end
  if not self.context.handle then raise("%s: the communicator's context is closed", what) end
  return status_of.check(C[entry](self.context.handle, handle), self.context.handle)
end

--- Frees the communicator. All its ranks must call this, which is why the collector does not free
-- it. Closing again does nothing, and a communicator that belongs to a framework is left alone.
-- Returns true; or nil, a message and the status' name.
Communicator.close = misuse.guard(function(self) return free("close", "sb_comm_destroy", self) end)

--- Frees the communicator without waiting for the other ranks, and ends exchanges that are under
-- way. Use it when a rank has failed or an exchange has reached its timeout. Otherwise it works
-- like `close`.
Communicator.abort = misuse.guard(function(self) return free("abort", "sb_comm_abort", self) end)

local function new_id(ctx)
  local id = ffi.new "sb_comm_id"
  try(status_of.check(C.sb_comm_new_id(ctx.handle, id), ctx.handle))
  return ffi.string(id.bytes, ID_SIZE)
end

local function integer(name, value)
  if type(value) ~= "number" or value % 1 ~= 0 or math.abs(value) >= 2 ^ 31 then
    raise("communicator: %s: expected an integer, got %s", name, tostring(value))
  end
  return value
end

local function created(ctx, opts)
  opts = misuse.options("communicator", opts, { id = true, ranks = true, rank = true })
  if type(opts.id) ~= "string" or #opts.id ~= ID_SIZE then
    raise("communicator: id: expected a string of %d bytes, as ctx:comm_id gives it, got %s",
          ID_SIZE, type(opts.id) == "string" and ("one of %d"):format(#opts.id) or type(opts.id))
  end
  local ranks, rank = integer("ranks", opts.ranks), integer("rank", opts.rank)
  local id, comm = ffi.new "sb_comm_id", ffi.new "void *[1]"
  ffi.copy(id.bytes, opts.id, ID_SIZE)
  try(status_of.check(C.sb_comm_create(ctx.handle, comm, id, ranks, rank), ctx.handle))
  return { handle = comm[0], ranks = ranks, rank = rank }
end

local function communicator(ctx, given)
  local self
  if type(given) == "table" then
    self = created(ctx, given)
  elseif misuse.kind(given) == "userdata" or
         type(given) == "cdata" and tostring(ffi.typeof(given)):find("*", 1, true) then
    self = { handle = ffi.cast("void *", given) }
  else
    raise("communicator: expected { id =, ranks =, rank = } or a pointer (an ncclComm_t), got %s",
          misuse.kind(given))
  end
  self.context, self.device = ctx, ctx.device
  return setmetatable(self, Communicator)
end

local function handle_of(at, comm)
  if getmetatable(comm) ~= Communicator then
    raise("%s: expected a communicator (see ctx:communicator), got %s", at.what, misuse.kind(comm))
  end
  if not comm.handle then raise("%s: the communicator is closed", at.what) end
  if comm.device ~= at.device then
    raise("%s: the communicator is on %s, the context is on %s", at.what, comm.device, at.device)
  end
  return comm.handle
end

--- Makes a new id for a communicator, a string of 128 bytes. One rank makes it and sends it to the
-- others by any means. Returns nil, a message and the status' name if there is no NCCL.
-- @treturn string
M.comm_id = call.plain("comm_id", new_id)

--- Makes an NCCL communicator on the context's GPU.
-- @param given `{ id =, ranks =, rank = }`: the id that all ranks have, the number of ranks, and
-- this rank's number, from 0; the call waits for all ranks. Or a framework's ncclComm_t, a pointer,
-- which the framework still owns.
-- @return an object with `ranks` and `rank`, whose `close` frees it, or `abort` if a rank has
-- failed (nothing else frees it); or nil, a message and the status' name
M.communicator = call.plain("communicator", communicator)

-- The op ----------------------------------------------------------------------------------------

local EXCHANGE = call.op {
  name = "exchange",
  entry = "sb_exchange",
  launch = { "check", "stream", "workspace", "timeout" },
  takes = 2,
  arguments = function(at, given, comm)
    local handle, rows = handle_of(at, comm), records.check_writable(at, given)
    at.result = given
    return records.struct(given), rows, handle
  end,
}

-- The op that tells the workspace of an exchange, for records or for a number of rows of the larger
-- kind.
local SIZE = call.like(EXCHANGE, {
  launch = {},
  arguments = function(at, rows, comm)
    local handle, kind = handle_of(at, comm), records.MOMENTS
    if type(rows) == "table" then
      rows, kind = records.check_writable(at, rows), records.kind_of(rows)
    elseif type(rows) ~= "number" or rows < 0 or rows % 1 ~= 0 then
      raise("%s: expected records or a number of rows, got %s", at.what, tensor.describe(rows))
    end
    return records.untouched(kind), rows, handle
  end,
})

--- Replaces a shard's records by those of the ids of all ranks together, as `merge` of all of them
-- would give. Tensor parallelism needs nothing else between `partial` and `finish`. Every rank
-- calls it, with the same number of rows and the same `check`.
-- @tparam table records this rank's records, as `partial` returns them
-- @param comm see `communicator`
-- @tparam[opt] table opts `check`, `stream` and `workspace` (of `exchange_workspace_size` bytes),
-- as for `logprob`. With `check`, a different number of rows on a rank is an error that names the
-- rank. `timeout`: the seconds to wait for the other ranks with `check`, and for NCCL with a
-- non-blocking communicator; 600 by default, math.huge for no limit. An exchange that reaches the
-- timeout has failed: abort the communicator.
-- @treturn table the same records; or nil, a message and the status' name
M.exchange = call.method(EXCHANGE)

--- Returns the bytes of workspace that `exchange` needs for records, or for a number of rows.
-- @param records as for `exchange`, or their number of rows
-- @param comm see `communicator`
M.exchange_workspace_size = call.workspace("exchange_workspace_size", SIZE)

-- Bytes, and integers ---------------------------------------------------------------------------

local ALL_GATHER = call.op {
  name = "all_gather",
  entry = "sb_all_gather",
  launch = { "check", "stream", "workspace", "timeout" },
  takes = 2,
  arguments = function(at, given, comm)
    local handle = handle_of(at, comm)
    if not comm.ranks then
      raise "all_gather: a framework's communicator: let the framework gather"
    end
    if not tensor.is_tensor(given) then
      raise("all_gather: expected a tensor, got %s", tensor.describe(given))
    end
    local mine = at:input("tensor", given, given.dtype)
    at.result = at:hold(try(tensor.empty({ comm.ranks, unpack(mine.shape) }, mine.dtype,
                                         at.device)))
    return ffi.cast("void *", at.result.ptr), ffi.cast("const void *", mine.ptr),
           mine:numel() * mine.itemsize, handle
  end,
}

--- Gathers a tensor of every rank: the records of `policy_loss` for `policy_merge`, those of
-- `group_advantages`, or anything else. Every rank calls it, with the same shape, dtype and
-- `check`.
-- @tparam tensor tensor this rank's
-- @param comm see `communicator`; not a framework's
-- @tparam[opt] table opts `check`, `stream`, `workspace` and `timeout`, as for `exchange`
-- @treturn tensor [ranks, ..]; or nil, a message and the status' name
M.all_gather = call.method(ALL_GATHER)

local DTYPES = { int32 = C.SB_I32, int64 = C.SB_I64 }
local REDUCTIONS = { add = C.SB_ADD, max = C.SB_MAX }

local ALL_REDUCE = call.op {
  name = "all_reduce",
  entry = "sb_all_reduce",
  launch = { "check", "stream", "workspace", "timeout" },
  takes = 3,
  arguments = function(at, values, reduction, comm)
    local handle = handle_of(at, comm)
    if not tensor.is_tensor(values) or not DTYPES[values.dtype] then
      raise("all_reduce: expected a tensor of int32 or int64, got %s: sums of floats would " ..
            "depend on their order", tensor.describe(values))
    end
    if not REDUCTIONS[reduction] then
      raise("all_reduce: expected \"add\" or \"max\", got %s", tostring(reduction))
    end
    if values.device ~= at.device then
      raise("all_reduce: the tensor is on %s, the context is on %s", values.device, at.device)
    end
    if not call.is_in_place(values, values.itemsize) then
      raise("all_reduce: strides %s: values are replaced where they are, and must be contiguous",
            tensor.layout.text(values.strides))
    end
    at.result = at:hold(values)
    return ffi.cast("void *", values.ptr), DTYPES[values.dtype], values:numel(),
           REDUCTIONS[reduction], handle
  end,
}

--- Replaces the elements of a tensor of every rank by their sums or maxima over all ranks. With D
-- cut over ranks, `scales` need the maximum and `products` the sum. Every rank calls it, with the
-- same shape, dtype, reduction and `check`.
-- @tparam tensor values int32 or int64, contiguous
-- @tparam string reduction "add" or "max"
-- @param comm see `communicator`
-- @tparam[opt] table opts `check`, `stream`, `workspace` and `timeout`, as for `exchange`
-- @treturn tensor the same; or nil, a message and the status' name
M.all_reduce = call.method(ALL_REDUCE)

return M
