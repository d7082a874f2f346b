--- Contexts: an opened backend, and the calls it serves.

local ffi = require "ffi"
local lib = require "samebits.lib"
local devices = require "samebits.device"
local status_of = require "samebits.status"
local tensor = require "samebits.tensor"
local batches = require "samebits.batch"
local misuse = require "samebits.misuse"

local C, raise = lib.C, misuse.raise

local OUTPUTS = { "token", "lse", "sequence", "count" }
local DTYPES = { token = "float32", lse = "float32", sequence = "float32", count = "int64" }
local POINTERS = { float32 = "float *", int64 = "int64_t *" }

local function check_options(name, opts, known)
  if opts == nil then return {} end
  if type(opts) ~= "table" then raise("%s: expected a table, got %s", name, type(opts)) end
  for key in pairs(opts) do
    if not known[key] then raise("%s: unknown option '%s'", name, tostring(key)) end
  end
  return opts
end

-- An int32, or 0 where nothing is given, which the library takes for its default.
local function small_integer(name, value)
  if value == nil then return 0 end
  if type(value) ~= "number" or value % 1 ~= 0 or math.abs(value) >= 2 ^ 31 then
    raise("%s: expected an integer, got %s", name, tostring(value))
  end
  return value
end

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

--- Frees the backend's threads and memory. Closing again does nothing; any other use is an error.
function Context:close()
  local handle = self.handle
  if not handle then return end
  self.handle = nil
  C.sb_close(ffi.gc(handle, nil))
end

local function wanted_outputs(opts)
  if opts.outputs == nil then return OUTPUTS end
  if type(opts.outputs) ~= "table" then
    raise("outputs: expected a list of names, got %s", type(opts.outputs))
  end
  for _, name in ipairs(opts.outputs) do
    if not DTYPES[name] then
      raise("outputs: unknown output '%s'; known: %s", tostring(name), table.concat(OUTPUTS, ", "))
    end
  end
  return opts.outputs
end

-- The tensor for one output: the caller's, once it is fit to be written to, or a new one.
local function output(name, given, shape, device)
  if given == nil then return tensor.empty(shape, DTYPES[name], device) end
  if not tensor.is_tensor(given) then
    raise("out.%s: expected a tensor, got %s", name, type(given))
  end
  if given.dtype ~= DTYPES[name] or not batches.same_shape(given.shape, shape) then
    raise("out.%s: %s, expected %s %s", name, batches.describe(given), DTYPES[name],
          batches.shape_text(shape))
  end
  if given.device ~= device or not given:is_contiguous() then
    raise("out.%s: expected a contiguous tensor on %s", name, device)
  end
  return given
end

-- Device memory of the caller's for the library to compute in.
local function check_workspace(workspace, device)
  if not tensor.is_tensor(workspace) then
    raise("workspace: expected a tensor, got %s", type(workspace))
  end
  if workspace.device ~= device or not workspace:is_contiguous() then
    raise("workspace: expected a contiguous tensor on %s", device)
  end
  return workspace
end

local function flag(name, value)
  if value == nil or value == true then return 1 end
  if value == false then return 0 end
  raise("%s: expected a boolean, got %s", name, tostring(value))
end

local function launch_of(self, opts)
  local launch = ffi.new "sb_launch"
  launch.size = ffi.sizeof "sb_launch"
  launch.split = small_integer("split", opts.split == nil and self.split or opts.split)
  launch.threads = small_integer("threads", opts.threads == nil and self.block or opts.threads)
  launch.cluster = small_integer("cluster", opts.cluster == nil and self.cluster or opts.cluster)
  launch.check = flag("check", opts.check)
  if opts.stream ~= nil then
    launch.stream = devices.check_stream("logprob", opts.stream, self.device).handle
  end
  if opts.workspace ~= nil then
    local workspace = check_workspace(opts.workspace, self.device)
    launch.workspace = workspace.ptr
    launch.workspace_size = workspace:numel() * workspace.itemsize
  end
  return launch
end

local LOGPROB_OPTIONS = {
  outputs = true, split = true, threads = true, out = true, check = true, stream = true,
  workspace = true, cluster = true,
}

-- The batch and the options of a call, checked.
local function arguments(what, self, batch, opts)
  if getmetatable(self) ~= Context then raise("%s: call it as ctx:%s(batch)", what, what) end
  if not self.handle then raise("%s: the context is closed", what) end
  opts = check_options(what, opts, LOGPROB_OPTIONS)
  if not batches.is_batch(batch) then batch = batches.build(batch) end
  if batch.device ~= self.device then
    raise("%s: the batch is on %s, the context is on %s: batch:to \"%s\" moves it", what,
          batch.device, self.device, self.device)
  end
  if opts.out ~= nil and type(opts.out) ~= "table" then
    raise("out: expected a table of tensors, got %s", type(opts.out))
  end
  return batch, opts
end

-- entry: what of the library to call, with sb_logprob's arguments.
local function score(what, entry, self, batch, opts)
  batch, opts = arguments(what, self, batch, opts)
  local out = opts.out or {}
  local c = ffi.new "sb_logprob_out"
  c.size = ffi.sizeof "sb_logprob_out"
  local made = {}
  for _, name in ipairs(wanted_outputs(opts)) do
    local shape = (name == "token" or name == "lse") and batch.shape or { batch.sequences }
    local t, message, code = output(name, out[name], shape, self.device)
    if not t then return nil, message, code end
    made[name] = t
    c[name] = ffi.cast(POINTERS[DTYPES[name]], t.ptr)
  end
  local ok, message, code = status_of.check(
    C[entry](self.handle, c, batch.c, launch_of(self, opts)), self.handle)
  if not ok then return nil, message, code end
  for name, t in pairs(made) do out[name] = t end
  return out
end

local function logprob(self, batch, opts)
  return score("logprob", "sb_logprob", self, batch, opts)
end

--- Scores a batch, which has to be on the context's device (`batch:to(ctx.device)` moves it).
--
-- On a GPU the call waits until it is done and bad values raise errors, as on the cpu. With
-- `check = false` it returns at once instead: the results are there when the stream has got so far
-- (hold the batch, the results and the workspace until then), rows with bad values become NaN, and
-- `ctx:check` tells. Nothing there waits or allocates if `out` and `workspace` are given.
-- @param batch a batch, or the table to make one from
-- @tparam[opt] table opts `outputs`: a list of "token", "lse", "sequence", "count" (all by
-- default); `split`: pieces to cut each row into; `out`: a table from an earlier call, whose
-- tensors are written again; and on a GPU: `check`; `stream`: where to run (the default stream);
-- `workspace`: a tensor to compute in, of the bytes that `workspace_size` says; `threads`: of a
-- block; `cluster`: 1 makes a row's pieces a thread block cluster, -1 never does
-- @treturn table `token` and `lse`, shaped like the ids, `sequence` and `count` [B], on the
-- context's device; or nil, a message and the status' name where the environment fails. Anything
-- wrong with the batch is an error.
Context.logprob = misuse.guard(logprob)

local ANYWHERE = 256 -- an address for outputs that are wanted but not written to

--- The bytes of workspace that `logprob` needs for a batch with these options; 0 where none.
Context.workspace_size = misuse.guard(function(self, batch, opts)
  batch, opts = arguments("workspace_size", self, batch, opts)
  local c = ffi.new "sb_logprob_out"
  c.size = ffi.sizeof "sb_logprob_out"
  for _, name in ipairs(wanted_outputs(opts)) do
    c[name] = ffi.cast(POINTERS[DTYPES[name]], ANYWHERE)
  end
  local size = ffi.new "uint64_t[1]"
  local ok, message, code = status_of.check(
    C.sb_workspace_size(self.handle, size, c, batch.c, launch_of(self, opts)), self.handle)
  if not ok then return nil, message, code end
  return tonumber(size[0])
end)

--- Waits for a stream (the default one if none is given), and raises an error if a call with
-- `check = false` has met a bad id, temperature, row list or cu_seqlens since the last check: it
-- names one such row. True; or nil, a message and the status' name where the device fails.
Context.check = misuse.guard(function(self, stream)
  if not self.handle then raise "check: the context is closed" end
  local handle = stream ~= nil and devices.check_stream("check", stream, self.device).handle or nil
  local status = C.sb_check(self.handle, handle)
  if stream then stream:done() end
  return status_of.check(status, self.handle)
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
-- cudaStream_t), that stream. Nil, a message and a code where the device fails.
Context.stream = on_device "stream"

--- An event on the context's device; its `record(stream)` puts it into a stream.
Context.event = on_device "event"

--- Waits for two recorded events; the milliseconds from the first to the second.
Context.elapsed = on_device "elapsed"

local OPEN_OPTIONS = { threads = true, isa = true, split = true, block = true, cluster = true }

local function open(backend, opts)
  if backend == nil then backend = "auto" end
  if type(backend) ~= "string" then
    raise("open: expected a backend's name, got %s", type(backend))
  end
  opts = check_options("open", opts, OPEN_OPTIONS)
  if opts.isa ~= nil and type(opts.isa) ~= "string" then
    raise("isa: expected a name, got %s", type(opts.isa))
  end

  local c = ffi.new "sb_open_options"
  c.size = ffi.sizeof "sb_open_options"
  c.threads = small_integer("threads", opts.threads)
  c.isa = opts.isa
  local split, block = small_integer("split", opts.split), small_integer("block", opts.block)
  local cluster = small_integer("cluster", opts.cluster)
  local why, handle = ffi.new "char[512]", ffi.new "sb_context *[1]"
  local status = C.sb_open(handle, lib.constants.SB_ABI, devices.backend(backend), c, why, 512)
  if status ~= 0 then return status_of.failure(status, ffi.string(why)) end

  -- The closure keeps the library loaded for as long as the context may have to be freed.
  local owned = ffi.gc(handle[0], function(p) C.sb_close(p) end)
  local name = ffi.string(C.sb_context_backend(owned))
  return setmetatable({
    handle = owned,
    backend = name,
    device = devices.normal(backend == "auto" and name or backend),
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
