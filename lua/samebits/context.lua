--- Contexts: an opened backend, and the calls it serves.

local ffi = require "ffi"
local lib = require "samebits.lib"
local tensor = require "samebits.tensor"
local batches = require "samebits.batch"
local misuse = require "samebits.misuse"

local C, raise = lib.C, misuse.raise

-- Statuses that say the caller's arguments are wrong. The others are failures of the environment,
-- returned as nil, message, name.
local MISUSE = {
  SB_ERR_ARGUMENT = true, SB_ERR_SHAPE = true, SB_ERR_DTYPE = true, SB_ERR_ID = true,
  SB_ERR_TEMPERATURE = true,
}

local OUTPUTS = { "token", "lse", "sequence", "count" }
local DTYPES = { token = "float32", lse = "float32", sequence = "float32", count = "int64" }
local POINTERS = { float32 = "float *", int64 = "int64_t *" }

local function failure(status, message)
  local name = ffi.string(C.sb_status_name(status))
  if message == "" then message = ffi.string(C.sb_status_text(status)) end
  if MISUSE[name] then raise("%s", message) end
  return nil, message, name
end

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

function Context:__tostring()
  if not self.handle then return ("samebits context: %s, closed"):format(self.backend) end
  return ("samebits context: %s, %s, %d thread%s"):format(self.backend, self.isa, self.threads,
                                                         self.threads == 1 and "" or "s")
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
local function output(name, given, shape)
  if given == nil then return tensor.zeros(shape, DTYPES[name]) end
  if not tensor.is_tensor(given) then
    raise("out.%s: expected a tensor, got %s", name, type(given))
  end
  if given.dtype ~= DTYPES[name] or not batches.same_shape(given.shape, shape) then
    raise("out.%s: %s, expected %s %s", name, batches.describe(given), DTYPES[name],
          batches.shape_text(shape))
  end
  if given.device ~= "cpu" or not given:is_contiguous() then
    raise("out.%s: expected a contiguous tensor on the cpu", name)
  end
  return given
end

local LOGPROB_OPTIONS = { outputs = true, split = true, out = true }

local function logprob(self, batch, opts)
  if getmetatable(self) ~= Context then raise("logprob: call it as ctx:logprob(batch)") end
  if not self.handle then raise("logprob: the context is closed") end
  opts = check_options("logprob", opts, LOGPROB_OPTIONS)
  if not batches.is_batch(batch) then batch = batches.build(batch) end
  if opts.out ~= nil and type(opts.out) ~= "table" then
    raise("out: expected a table of tensors, got %s", type(opts.out))
  end

  local out = opts.out or {}
  local c = ffi.new "sb_logprob_out"
  c.size = ffi.sizeof "sb_logprob_out"
  local made = {}
  for _, name in ipairs(wanted_outputs(opts)) do
    local shape = (name == "token" or name == "lse") and batch.shape or { batch.sequences }
    made[name] = output(name, out[name], shape)
    c[name] = ffi.cast(POINTERS[DTYPES[name]], made[name].ptr)
  end

  local launch = ffi.new "sb_launch"
  launch.size = ffi.sizeof "sb_launch"
  launch.split = small_integer("split", opts.split == nil and self.split or opts.split)

  local status = C.sb_logprob(self.handle, c, batch.c, launch)
  if status ~= 0 then return failure(status, ffi.string(C.sb_last_error(self.handle))) end
  for name, t in pairs(made) do out[name] = t end
  return out
end

--- Scores a batch.
-- @param batch a batch, or the table to make one from
-- @tparam[opt] table opts `outputs`: a list of "token", "lse", "sequence", "count" (all by
-- default); `split`: pieces to cut each row into; `out`: a table from an earlier call, whose
-- tensors are written again
-- @treturn table `token` and `lse`, shaped like the ids, `sequence` and `count` [B]; or nil, a
-- message and the status' name where the environment fails. Anything wrong with the batch is an
-- error.
Context.logprob = misuse.guard(logprob)

local OPEN_OPTIONS = { threads = true, isa = true, split = true }

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
  local split = small_integer("split", opts.split)
  local why, handle = ffi.new "char[512]", ffi.new "sb_context *[1]"
  local status = C.sb_open(handle, lib.constants.SB_ABI, backend, c, why, 512)
  if status ~= 0 then return failure(status, ffi.string(why)) end

  -- The closure keeps the library loaded for as long as the context may have to be freed.
  local owned = ffi.gc(handle[0], function(p) C.sb_close(p) end)
  return setmetatable({
    handle = owned,
    backend = ffi.string(C.sb_context_backend(owned)),
    isa = ffi.string(C.sb_context_isa(owned)),
    threads = C.sb_context_threads(owned),
    split = split,
  }, Context)
end

local M = {}

--- Opens a backend.
-- @tparam[opt] string backend its name; "auto", the default, is the best one here
-- @tparam[opt] table opts `threads`: how many work on a call; `isa`: "scalar", "avx2" or "avx512"
-- on the cpu; `split`: the default of `ctx:logprob`'s option. None of them can reach a bit.
-- @return the context, with the fields `backend`, `isa` and `threads`; or nil, a message and the
-- status' name
M.open = misuse.guard(open)

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

local default

--- Scores a batch on a context that is opened at the first call and kept.
M.logprob = misuse.guard(function(batch, opts)
  if not default then
    local context, message, code = open("auto")
    if not context then return nil, message, code end
    default = context
  end
  return logprob(default, batch, opts)
end)

return M
