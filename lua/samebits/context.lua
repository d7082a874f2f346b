--- Contexts: an opened backend. Its methods are the ops, each in a file of samebits.op.

local ffi = require "ffi"
local batches = require "samebits.batch"
local call = require "samebits.op.call"
local class = require "samebits.op.class"
local devices = require "samebits.device"
local lib = require "samebits.lib"
local logprob = require "samebits.op.logprob"
local misuse = require "samebits.misuse"
local status_of = require "samebits.status"

local C, raise = lib.C, misuse.raise
local Context = class.Context

-- "8 threads" for the cpu; for a GPU, the number of multiprocessors.
local function threads_text(self)
  return ("%d %s%s"):format(self.threads, self.backend == "cpu" and "thread" or "multiprocessor",
                            self.threads == 1 and "" or "s")
end

--- Describes the context in one line: the instruction set and the threads.
-- @treturn string
function Context:describe() return ("%s, %s"):format(self.isa, threads_text(self)) end

function Context:__tostring()
  if not self.handle then return ("samebits context: %s, closed"):format(self.device) end
  return ("samebits context: %s, %s"):format(self.device, self:describe())
end

--- Frees the backend's threads and memory, after its calls are done; if heads of the context are
-- left, when the last of them is freed. Closing again does nothing; any other use of a closed
-- context is an error.
function Context:close()
  local handle = self.handle
  if not handle then return end
  self.handle = nil
  ffi.gc(handle, nil)
  devices.settle(self.device)
  call.close(self.alive)
end

--- One line about how the context's last operation was divided: the kernels that it launched or, on
-- the cpu, how it cut up rows, such as "logprob_bf16 3960 x 512, 32768 B; logprob_finish 17 x 256"
-- (blocks x threads per block, bytes of shared memory per block). "" before the first operation,
-- and if it launched nothing. No result depends on it.
-- @treturn string
Context.plan = misuse.guard(function(self)
  if not self.handle then raise "plan: the context is closed" end
  return ffi.string(C.sb_last_plan(self.handle))
end)

local OPS = {
  logprob,
  require "samebits.op.order",
  require "samebits.op.sample",
  require "samebits.op.draw",
  require "samebits.op.gradient",
  require "samebits.op.kl",
  require "samebits.op.shards",
  require "samebits.op.stats",
  require "samebits.op.policy",
  require "samebits.op.exchange",
  require "samebits.op.head",
}
for _, op in ipairs(OPS) do
  for name, value in pairs(op) do
    if call.is_method(value) then Context[name] = value end
  end
end

--- Waits for a stream (the default one if none is given), and raises an error if a call with `check
-- = false` in that stream has met a bad id, temperature, row list, cu_seqlens or record since the
-- stream's last check. The error names one such row. Each stream has one report, and each CUDA
-- graph has one, for the calls captured into it. A check raises one of these reports: the stream's
-- first, then a graph's, and, if no stream is given, then any other stream's. Returns true if there
-- is none; or nil, a message and the status' name if the device fails. Calls with a check raise
-- their own errors and leave reports unchanged.
-- @tparam[opt] stream stream
-- @treturn boolean true; or nil, a message and the status' name
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
    local at = misuse.try(devices.of(self.device))
    return at[name](at, ...)
  end)
end

--- A stream on the context's device, which does not wait for the default one: an object
-- whose `wait` waits until all work in it is done. Given a pointer (a framework's CUstream or
-- cudaStream_t), wraps that stream, which must live until it has been waited for here. Returns nil,
-- a message and a code if the device fails.
-- @tparam[opt] any pointer of a framework's stream
-- @treturn stream
Context.stream = on_device "stream"

local OPEN_OPTIONS = { threads = true, isa = true, split = true, block = true, cluster = true,
                       table = true, one_read = true }

local function open(backend, opts)
  if backend == nil then backend = "auto" end
  if type(backend) ~= "string" then
    raise("open: expected a backend's name, got %s", misuse.kind(backend))
  end
  opts = misuse.options("open", opts, OPEN_OPTIONS)
  if opts.isa ~= nil and type(opts.isa) ~= "string" then
    raise("isa: expected a name, got %s", misuse.kind(opts.isa))
  end

  local c = ffi.new "sb_open_options"
  c.size = ffi.sizeof "sb_open_options"
  c.threads = call.small_integer("threads", opts.threads)
  c.isa = opts.isa
  local split = call.small_integer("split", opts.split)
  local block = call.small_integer("block", opts.block)
  local cluster = call.small_integer("cluster", opts.cluster)
  local by_table = call.small_integer("table", opts.table)
  local one_read = call.small_integer("one_read", opts.one_read)
  local why, handle = ffi.new "char[512]", ffi.new "sb_context *[1]"
  local status = C.sb_open(handle, lib.constants.SB_ABI, devices.backend(backend), c, why, 512)
  if status ~= 0 then return status_of.failure(status, ffi.string(why)) end

  local name = ffi.string(C.sb_context_backend(handle[0]))
  local device = devices.normal(backend == "auto" and name or backend)
  -- The closure keeps the library loaded as long as the context may still have to be freed.
  -- For heads, which may be finalised after the context. raw: the context, but not the pointer with
  -- the finalizer; heads: how many are not freed; unused: those that nothing refers to.
  local alive = { open = true, raw = handle[0], heads = 0, unused = {} }
  local owned = ffi.gc(handle[0], function()
    devices.finish(device, function()
      devices.settle(device)
      call.close(alive)
    end)
  end)
  return setmetatable({
    handle = owned,
    alive = alive,
    backend = name,
    device = device,
    isa = ffi.string(C.sb_context_isa(owned)),
    threads = C.sb_context_threads(owned),
    split = split,
    block = block,
    cluster = cluster,
    table = by_table,
    one_read = one_read,
  }, Context)
end

local M = {}

--- Opens a backend.
-- @tparam[opt] string backend its name ("cuda:1" is the second GPU); "auto", the default, is the
-- best one on this machine
-- @tparam[opt] table opts on the cpu `threads`: the number of threads that work on a call;
-- `isa`: "scalar", "avx2" or "avx512"; `split`, and on a GPU `block`, `cluster`, `table` and
-- `one_read`: the defaults of `ctx:logprob`'s options `split`, `threads`, `cluster`, `table` and
-- `one_read`. None of them affects any bit.
-- @treturn context with the fields `backend`, `device`, `isa` ("avx2", "sm_90") and `threads`
-- (on a GPU, its multiprocessors); or nil, a message and the status' name
M.open = misuse.guard(open)

-- Methods by class, for samebits.repl.sources.
M.classes = { Context = Context }

M.is_context = class.is_context

--- Returns every known backend, best first: a list of { name, available, why }, where `why` is the
-- reason why a backend cannot be opened here.
-- @treturn table
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

--- For code inside the library: the context of a device that `logprob` uses, opened at the first
-- call; nil, a message and a code if it cannot be.
function M.shared(name)
  if not defaults[name] then
    local ctx, message, code = open(name)
    if not ctx then return nil, message, code end
    defaults[name] = ctx
  end
  return defaults[name]
end

--- Scores a batch on a context of the batch's device. The context is opened at the first call and
-- kept.
-- @tparam batch batch a batch, or the table to make one from
-- @tparam[opt] table opts as for `ctx:logprob`
-- @treturn table as `ctx:logprob`; or nil, a message and the status' name
M.logprob = misuse.guard(function(batch, opts)
  if not batches.is_batch(batch) then batch = batches.build(batch) end
  return call.run(logprob.OP, "logprob", misuse.try(M.shared(batch.device)), opts, batch)
end)

return M
