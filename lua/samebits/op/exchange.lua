--- Exchanging the records of shards between GPUs, with NCCL. The calls behind `ctx:comm_id`,
-- `ctx:communicator`, `ctx:exchange` and `ctx:exchange_workspace_size`.

local ffi = require "ffi"
local call = require "samebits.op.call"
local lib = require "samebits.lib"
local misuse = require "samebits.misuse"
local shards = require "samebits.op.shards"
local status_of = require "samebits.status"
local tensor = require "samebits.tensor"

local C, raise = lib.C, misuse.raise

local M = {}

local ID_SIZE = ffi.sizeof "sb_comm_id"

local Communicator = {}
Communicator.__index = Communicator

function Communicator:__tostring()
  local what = self.rank and ("rank %d of %d"):format(self.rank, self.ranks) or "a framework's"
  return ("samebits communicator on %s: %s%s"):format(self.device, what,
                                                      self.handle and "" or ", closed")
end

-- Frees it by a function of the library, and only once; what: the method's name.
local function free(what, entry, self)
  local handle = self.handle
  self.handle = nil
  if not handle or not self.rank then return true end
  if not self.context.handle then raise("%s: the communicator's context is closed", what) end
  return status_of.check(C[entry](self.context.handle, handle), self.context.handle)
end

--- Frees it. All its ranks have to; that is why no collector does. Closing again does nothing, and
-- a framework's own is left alone. True; or nil, a message and the status' name.
Communicator.close = misuse.guard(function(self) return free("close", "sb_comm_destroy", self) end)

--- Frees it without waiting for the other ranks, and ends exchanges that are under way: when a rank
-- has failed, or an exchange has come to its timeout. Otherwise as `close`.
Communicator.abort = misuse.guard(function(self) return free("abort", "sb_comm_abort", self) end)

-- Seconds as the library's milliseconds; 0 for its default, -1 for no limit.
local function milliseconds(value)
  if value == nil then return 0 end
  if value == math.huge then return -1 end
  if type(value) ~= "number" or value ~= value or value <= 0 or value > 2 ^ 31 / 1000 - 1 then
    raise("exchange: timeout: expected seconds above 0, or math.huge, got %s", tostring(value))
  end
  return math.ceil(value * 1000)
end

function M.new_id(ctx)
  local id = ffi.new "sb_comm_id"
  local ok, message, code = status_of.check(C.sb_comm_new_id(ctx.handle, id), ctx.handle)
  if not ok then return nil, message, code end
  return ffi.string(id.bytes, ID_SIZE)
end

local function integer(name, value)
  if type(value) ~= "number" or value % 1 ~= 0 or math.abs(value) >= 2 ^ 31 then
    raise("communicator: %s: expected an integer, got %s", name, tostring(value))
  end
  return value
end

local function created(ctx, opts)
  opts = call.options("communicator", opts, { id = true, ranks = true, rank = true })
  if type(opts.id) ~= "string" or #opts.id ~= ID_SIZE then
    raise("communicator: id: expected a string of %d bytes, as ctx:comm_id gives it, got %s",
          ID_SIZE, type(opts.id) == "string" and ("one of %d"):format(#opts.id) or type(opts.id))
  end
  local ranks, rank = integer("ranks", opts.ranks), integer("rank", opts.rank)
  local id, comm = ffi.new "sb_comm_id", ffi.new "void *[1]"
  ffi.copy(id.bytes, opts.id, ID_SIZE)
  local ok, message, code = status_of.check(C.sb_comm_create(ctx.handle, comm, id, ranks, rank),
                                            ctx.handle)
  if not ok then return nil, message, code end
  return { handle = comm[0], ranks = ranks, rank = rank }
end

function M.communicator(ctx, given)
  local self, message, code
  if type(given) == "table" then
    self, message, code = created(ctx, given)
    if not self then return nil, message, code end
  elseif type(given) == "userdata" or
         type(given) == "cdata" and tostring(ffi.typeof(given)):find("*", 1, true) then
    self = { handle = ffi.cast("void *", given) }
  else
    raise("communicator: expected { id =, ranks =, rank = } or a pointer (an ncclComm_t), got %s",
          type(given))
  end
  self.context, self.device = ctx, ctx.device
  return setmetatable(self, Communicator)
end

local function check_communicator(what, ctx, comm)
  if getmetatable(comm) ~= Communicator then
    raise("%s: expected a communicator (see ctx:communicator), got %s", what, type(comm))
  end
  if not comm.handle then raise("%s: the communicator is closed", what) end
  if comm.device ~= ctx.device then
    raise("%s: the communicator is on %s, the context is on %s", what, comm.device, ctx.device)
  end
  return comm.handle
end

function M.exchange(ctx, records, comm, opts)
  opts = call.options("exchange", opts, { check = true, stream = true, workspace = true,
                                          timeout = true })
  comm = check_communicator("exchange", ctx, comm)
  local launch = call.launch("exchange", ctx, opts)
  launch.timeout = milliseconds(opts.timeout)
  local ok, message, code = shards.exchange(ctx, records, comm, opts, launch)
  if not ok then return nil, message, code end
  return records
end

function M.workspace_size(ctx, rows, comm)
  comm = check_communicator("exchange_workspace_size", ctx, comm)
  if type(rows) ~= "table" and (type(rows) ~= "number" or rows < 0 or rows % 1 ~= 0) then
    raise("exchange_workspace_size: expected records or a number of rows, got %s",
          tensor.describe(rows))
  end
  return shards.exchange_needs(ctx, "exchange_workspace_size", rows, comm)
end

return M
