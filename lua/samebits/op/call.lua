--- What the calls of a context have in common: their options, checked; the outputs; the launch.

local ffi = require "ffi"
local devices = require "samebits.device"
local tensor = require "samebits.tensor"
local batches = require "samebits.batch"
local misuse = require "samebits.misuse"
local status_of = require "samebits.status"

local raise = misuse.raise

local M = {}

--- The outputs of a logprob, in order.
M.OUTPUTS = { "token", "lse", "sequence", "count", "outside", "entropy", "saved" }

-- Those that a call gives where it names none; outside where the batch has kept sets.
local DEFAULT = { "token", "lse", "sequence", "count" }
local WITH_KEPT = { "token", "lse", "sequence", "count", "outside" }

local DTYPES = { token = "float32", lse = "float32", sequence = "float32", count = "int64",
                 outside = "int64", entropy = "float32", saved = "uint8" }
local PER_ROW = { token = true, lse = true, entropy = true, saved = true }
local SAVED = ffi.sizeof "sb_saved_row"
local POINTERS = { float32 = "float *", int32 = "int32_t *", int64 = "int64_t *",
                   uint8 = "sb_saved_row *" }

--- Options of a call, or of what else `name` is: a table with no other keys than those known.
function M.options(name, opts, known)
  if opts == nil then return {} end
  if type(opts) ~= "table" then raise("%s: expected a table, got %s", name, type(opts)) end
  for key in pairs(opts) do
    if not known[key] then raise("%s: unknown option '%s'", name, tostring(key)) end
  end
  return opts
end

--- An int32, or 0 where nothing is given, which the library takes for its default.
function M.small_integer(name, value)
  if value == nil then return 0 end
  if type(value) ~= "number" or value % 1 ~= 0 or math.abs(value) >= 2 ^ 31 then
    raise("%s: expected an integer, got %s", name, tostring(value))
  end
  return value
end

-- The tensor for one output: the caller's, once it is fit to be written to, or a new one.
local function output(name, given, shape, device, dtype)
  if given == nil then return tensor.empty(shape, dtype, device) end
  if not tensor.is_tensor(given) then
    raise("out.%s: expected a tensor, got %s", name, type(given))
  end
  if given.dtype ~= dtype or not tensor.layout.same(given.shape, shape) then
    raise("out.%s: %s, expected %s %s", name, tensor.describe(given), dtype,
          tensor.layout.text(shape))
  end
  if given.device ~= device or not given:is_contiguous() then
    raise("out.%s: expected a contiguous tensor on %s", name, device)
  end
  return given
end

local function shape_of(name, batch)
  if not PER_ROW[name] then return { batch.sequences } end
  if name ~= "saved" then return batch.shape end
  local shape = {}
  for i = 1, #batch.shape do shape[i] = batch.shape[i] end
  shape[#shape + 1] = SAVED
  return shape
end

local function wanted(batch, opts)
  if opts.outputs == nil then return batch.kept and WITH_KEPT or DEFAULT end
  if type(opts.outputs) ~= "table" then
    raise("outputs: expected a list of names, got %s", type(opts.outputs))
  end
  for _, name in ipairs(opts.outputs) do
    if not DTYPES[name] then
      raise("outputs: unknown output '%s'; known: %s", tostring(name),
            table.concat(M.OUTPUTS, ", "))
    end
  end
  return opts.outputs
end

--- The outputs that `opts` asks for, of a batch: the library's struct and the tensors by name; nil,
-- a message and a code where there is no memory for them. `opts.out` is checked here.
function M.outputs(batch, opts)
  if opts.out ~= nil and type(opts.out) ~= "table" then
    raise("out: expected a table of tensors, got %s", type(opts.out))
  end
  local c, made = ffi.new "sb_logprob_out", {}
  c.size = ffi.sizeof "sb_logprob_out"
  for _, name in ipairs(wanted(batch, opts)) do
    local shape = shape_of(name, batch)
    local t, message, code = output(name, opts.out and opts.out[name], shape, batch.device,
                                    DTYPES[name])
    if not t then return nil, message, code end
    made[name] = t
    c[name] = ffi.cast(POINTERS[DTYPES[name]], t.ptr)
  end
  return c, made
end

--- The table of results: the caller's `opts.out`, if there is one, with what was made in it.
function M.results(made, opts)
  local out = opts.out or {}
  for name, t in pairs(made) do out[name] = t end
  return out
end

--- An address for arrays that a call asks about, but does not touch.
M.ANYWHERE = 256

--- The struct alone, with addresses that nothing may be written to.
function M.wanted_outputs(batch, opts)
  local c = ffi.new "sb_logprob_out"
  c.size = ffi.sizeof "sb_logprob_out"
  for _, name in ipairs(wanted(batch, opts)) do
    c[name] = ffi.cast(POINTERS[DTYPES[name]], M.ANYWHERE)
  end
  return c
end

--- Tensors for the results of a call, the caller's of `opts.out` or new ones, by name: shapes and
-- dtypes by name. `c` gets their addresses. Nil, a message and a code where there is no memory.
function M.fill(c, opts, shapes, dtypes, device)
  if opts.out ~= nil and type(opts.out) ~= "table" then
    raise("out: expected a table of tensors, got %s", type(opts.out))
  end
  local made = {}
  for name, shape in pairs(shapes) do
    local t, message, code = output(name, opts.out and opts.out[name], shape, device, dtypes[name])
    if not t then return nil, message, code end
    made[name] = t
    c[name] = ffi.cast(POINTERS[dtypes[name]], t.ptr)
  end
  return made
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

--- The options that say how to run, as the library's struct. what: the call's name.
function M.launch(what, context, opts)
  local launch = ffi.new "sb_launch"
  launch.size = ffi.sizeof "sb_launch"
  local function option(name, default)
    return M.small_integer(name, opts[name] == nil and default or opts[name])
  end
  launch.split = option("split", context.split)
  launch.threads = option("threads", context.block)
  launch.cluster = option("cluster", context.cluster)
  launch.check = flag("check", opts.check)
  if opts.stream ~= nil then
    launch.stream = devices.check_stream(what, opts.stream, context.device).handle
  end
  if opts.workspace ~= nil then
    local workspace = check_workspace(opts.workspace, context.device)
    launch.workspace = workspace.ptr
    launch.workspace_size = workspace:numel() * workspace.itemsize
  end
  return launch
end

--- After a call has been put into its stream: holds what it uses until the stream has been waited
-- for. Calls with a check have waited, but for those that never do: always. things: a list, which
-- may have holes; those of `made`, a table, are held, too.
function M.hold(context, opts, things, made, always)
  if context.device == "cpu" or opts.check ~= false and not always then return end
  local at = devices.opened(context.device)
  if not at then return end -- nothing was made there
  at:hold(opts.stream, context)
  if opts.workspace then at:hold(opts.stream, opts.workspace) end
  for _, thing in pairs(things) do at:hold(opts.stream, thing) end
  for _, thing in pairs(made) do at:hold(opts.stream, thing) end
end

--- The bytes of workspace that a call needs: ask makes it, with the launch options it is given.
function M.needed(what, context, opts, ask)
  local bytes, launch = ffi.new "uint64_t[1]", M.launch(what, context, opts)
  launch.needed = bytes
  local ok, message, code = status_of.check(ask(launch), context.handle)
  if not ok then return nil, message, code end
  return tonumber(bytes[0])
end

--- A batch for a call of a context, made from a table if it is none. ids: "one" a row, which is the
-- default, "several" or "any", none included.
function M.batch(what, context, batch, ids)
  if not batches.is_batch(batch) then batch = batches.build(batch, ids == "any") end
  if not batch.ids and ids ~= "any" then raise("%s: the batch has no ids", what) end
  if batch.width and ids ~= "several" then
    raise("%s: the batch's ids are %s, several a row of the logits %s: see ctx:logprob_ids", what,
          tensor.layout.text(batch.ids.shape), tensor.layout.text(batch.logits.shape))
  end
  if batch.device ~= context.device then
    raise("%s: the batch is on %s, the context is on %s: batch:to \"%s\" moves it", what,
          batch.device, context.device, context.device)
  end
  return batch
end

--- The batch, whose logits must not be a shard's.
function M.whole(what, batch)
  if batch.held == batch.vocab then return batch end
  raise("%s: the batch has the logits of ids %d to %d of %d, a shard: see ctx:partial", what,
        batch.first, batch.first + batch.held - 1, batch.vocab)
end

return M
