--- The one path that every op takes from a context's method to the library. It checks the options,
-- prepares the arguments, checks or makes the outputs, describes the launch, calls the library's
-- function, and keeps everything alive that a stream still uses.
--
-- An op is a table, which `call.op` completes:
--
-- * `name`: the op's name in messages;
-- * `entry`: the library's function. It is called with the context, the struct of outputs if there
--   is one, the values that `arguments` returns, and the launch;
-- * `struct`, `outputs`: the type of the struct of outputs, and a list of { name, dtype, shape },
--   in order; `shape(call)` returns the dimensions. The caller chooses outputs by the option
--   `outputs` and may give their tensors by the option `out`. An op without a struct makes its
--   result itself;
-- * `default(call)`: the names of the outputs if the caller chooses none; all by default;
-- * `launch`: the names of the launch options that the op has; nil: the op takes no launch;
-- * `settings`: the defaults of the launch options, in place of the context's;
-- * `options`: the names of its other options;
-- * `takes`: how many arguments come before the options; 1 by default;
-- * `ids`: how many ids per row a batch must have: "one" (the default), "several", or "any", which
--   includes none;
-- * `shards`: whether the logits may be those of a shard of the vocabulary;
-- * `arguments(call, ...)`: checks the caller's arguments and returns the arguments that the
--   library's function takes between the outputs and the launch. `call` is the call under way, see
--   below. If it sets `call.result`, that is returned instead of the outputs (and must be held:
--   `call:hold`). `call.beside` receives fields of the struct of outputs that are no outputs of the
--   op, and `call.made` further tensors to return;
-- * `applies(given)`: whether the op counts for a workspace of several ops; nil: always;
-- * `unchecked`: true if the library's function never waits, not even with a check.
--
-- `call.method` and `call.workspace` make methods from ops. samebits.context adopts the methods,
-- and `help` shows the comments before them.

local ffi = require "ffi"
local batches = require "samebits.batch"
local class = require "samebits.op.class"
local devices = require "samebits.device"
local lib = require "samebits.lib"
local misuse = require "samebits.misuse"
local objects = require "samebits.object"
local status_of = require "samebits.status"
local tensor = require "samebits.tensor"

local C, raise, try = lib.C, misuse.raise, misuse.try
local layout, describe = tensor.layout, tensor.describe

local launch_t, void_p = ffi.typeof "sb_launch", ffi.typeof "void *"

local M = {}

--- A function that is called after each call of the library and may raise an error; nil if there is
-- none. The prompt looks there for Ctrl-C.
M.after = nil

--- The options of a launch that most ops have.
M.LAUNCH = { "split", "threads", "cluster", "table", "one_read", "check", "stream", "workspace" }

-- Ops -------------------------------------------------------------------------------------------

--- Shapes of outputs: one element per row, or one per sequence.
function M.per_row(call) return call.shape end
function M.per_sequence(call) return { call.sequences } end

--- Completes the description of an op: see above.
function M.op(op)
  op.takes, op.ids = op.takes or 1, op.ids or "one"
  op.known, op.names, op.output = {}, {}, {}
  for _, list in ipairs { op.launch or {}, op.options or {}, op.struct and { "outputs", "out" } } do
    for _, name in ipairs(list) do op.known[name] = true end
  end
  for i, output in ipairs(op.outputs or {}) do
    local name, dtype, shape = unpack(output)
    op.names[i] = name
    op.output[name] = { dtype = dtype, shape = shape }
  end
  op.struct_t = op.struct and ffi.typeof(op.struct)
  return op
end

--- Returns a copy of an op with some fields replaced.
function M.like(op, fields)
  local made = {}
  for key, value in pairs(op) do made[key] = value end
  for key, value in pairs(fields) do made[key] = value end
  return M.op(made)
end

-- Options ---------------------------------------------------------------------------------------

--- Returns an int32. If no value is given, returns 0, which stands for the library's default.
function M.small_integer(name, value)
  if value == nil then return 0 end
  if type(value) ~= "number" or value % 1 ~= 0 or math.abs(value) >= 2 ^ 31 then
    raise("%s: expected an integer, got %s", name, tostring(value))
  end
  return value
end

local function flag(name, value)
  if value == nil or value == true then return 1 end
  if value == false then return 0 end
  raise("%s: expected a boolean, got %s", name, tostring(value))
end

-- Checks the workspace: device memory of the caller's that the library computes in.
local function check_workspace(workspace, device)
  if not tensor.is_tensor(workspace) then
    raise("workspace: expected a tensor, got %s", misuse.kind(workspace))
  end
  if workspace.device ~= device or not workspace:is_contiguous() then
    raise("workspace: expected a contiguous tensor on %s", device)
  end
  return workspace
end

-- Converts seconds to the library's milliseconds: 0 for its default, -1 for no limit.
local function milliseconds(what, value)
  if value == nil then return 0 end
  if value == math.huge then return -1 end
  if type(value) ~= "number" or value ~= value or value <= 0 or value > 2 ^ 31 / 1000 - 1 then
    raise("%s: timeout: expected seconds above 0, or math.huge, got %s", what, tostring(value))
  end
  return math.ceil(value * 1000)
end

--- Returns the launch options as the library's struct. what: the call's name. settings: the
-- defaults of the options; the context's own if nil.
function M.launch(what, context, opts, settings)
  local launch = launch_t()
  launch.size = ffi.sizeof(launch_t)
  settings = settings or context
  local function option(name, default)
    return M.small_integer(name, opts[name] == nil and default or opts[name])
  end
  launch.split = option("split", settings.split)
  launch.threads = option("threads", settings.block)
  launch.cluster = option("cluster", settings.cluster)
  launch.table = option("table", settings.table)
  launch.one_read = option("one_read", settings.one_read)
  launch.check = flag("check", opts.check)
  launch.timeout = milliseconds(what, opts.timeout)
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

-- A call under way ------------------------------------------------------------------------------

-- Fields: `op`; `what`, the name for messages; `context`, `device`; `opts`, the checked options.
-- For the outputs: `shape`, the dimensions of the rows, `sequences`, their number, and `kept`,
-- whether rows have kept sets; the first batch sets these. `made`: outputs by name; `beside`: other
-- fields of their struct; `held`: a list of everything else that must live until the stream has
-- passed the call.
local Call = {}
Call.__index = Call

-- Closes a context that is not open any longer, once, when none of its heads is left: a head may be
-- used by other contexts, and is freed by its own.
local function close_if_done(alive)
  local raw = alive.raw
  if alive.open or alive.heads > 0 or not raw then return end
  alive.raw = nil
  C.sb_close(raw)
end

--- Frees a head of a context, open or not.
function M.free_head(alive, head)
  C.sb_head_free(alive.raw, head)
  alive.heads = alive.heads - 1
  close_if_done(alive)
end

--- What the collector does with a head. As long as the context is open, it only notes the head: the
-- collector may run between a call that fails and the question why, and every call of a context,
-- also one that frees a head, forgets the line about the last failure.
function M.finalize_head(alive, head)
  if alive.open then alive.unused[#alive.unused + 1] = head else M.free_head(alive, head) end
end

--- Frees the heads that the collector has noted since.
function M.free_unused(alive)
  local unused = alive.unused
  if #unused == 0 then return end
  alive.unused = {} -- for what is found meanwhile
  for i = 1, #unused do M.free_head(alive, unused[i]) end
end

--- Closes a context, at once or when the last of its heads has been freed.
function M.close(alive)
  alive.open = false
  M.free_unused(alive)
  close_if_done(alive)
end

--- Begins a call: checks the context and the options.
function M.begin(op, what, context, opts)
  if not class.is_context(context) then raise("%s: call it as ctx:%s(batch)", what, what) end
  if not context.handle then raise("%s: the context is closed", what) end
  M.free_unused(context.alive)
  return setmetatable({
    op = op, what = what, context = context, device = context.device,
    opts = misuse.options(what, opts, op.known), made = {}, beside = {}, held = {},
  }, Call)
end

--- Keeps a value alive until the stream has passed the call, and returns it.
function Call:hold(thing)
  self.held[#self.held + 1] = thing
  return thing
end

-- Makes a batch if the caller gave a table to make one from. The table may be wrong: `name`
-- identifies it in messages.
local function built(what, name, given, ids)
  if not name then return batches.build(given, ids == "any") end
  local ok, made = pcall(batches.build, given, ids == "any")
  if not ok then raise("%s: %s", what, tostring(made)) end
  return made
end

--- Returns the batch that the op needs, from a batch or from the table to make one from. name: its
-- name in messages, if a call has several batches. ids: replaces the op's `ids`.
function Call:batch(given, name, ids)
  local what = name and ("%s: %s"):format(self.what, name) or self.what
  ids = ids or self.op.ids
  local batch = batches.is_batch(given) and given or built(what, name, given, ids)
  if not batch.ids and ids ~= "any" then raise("%s: the batch has no ids", what) end
  if batch.width and ids ~= "several" then
    raise("%s: the batch's ids are %s, several per row of the logits %s: see ctx:logprob_ids", what,
          layout.text(batch.ids.shape),
          layout.text((batch.logits or batch.hidden).shape))
  end
  if batch.head and not batch.head.handle then raise("%s: the head has been freed", what) end
  if batch.device ~= self.device then
    raise("%s: the batch is on %s, the context is on %s: batch:to \"%s\" moves it", what,
          batch.device, self.device, self.device)
  end
  if tensor.freed > 0 then
    for _, value in pairs(objects.fields_of[batch]) do
      if tensor.is_tensor(value) then local _ = value.ptr end -- refused if freed
    end
  end
  if batch.held ~= batch.vocab and not self.op.shards then
    raise("%s: the batch has the logits of ids %d to %d of %d, a shard: see ctx:partial", what,
          batch.first, batch.first + batch.held - 1, batch.vocab)
  end
  if not self.shape then
    self.shape, self.sequences, self.kept = batch.shape, batch.sequences, batch:has_kept()
  end
  return self:hold(batch)
end

--- Whether a tensor can be read in place: it is contiguous and starts at a multiple of `boundary`
-- bytes.
function M.is_in_place(t, boundary)
  return t:is_contiguous() and tonumber(ffi.cast("uintptr_t", t.ptr) % boundary) == 0
end

--- Returns the tensor if the library can read it in place (contiguous, at a multiple of `boundary`
-- bytes), otherwise a copy that the library can read.
function Call:in_place(name, t, boundary)
  if M.is_in_place(t, boundary) then return self:hold(t) end
  if self.opts.stream then
    raise("%s: %s: strides %s, or no %d-byte boundary, need a copy: not in a stream", self.what,
          name, layout.text(t.strides), boundary)
  end
  return self:hold(try(t:clone()))
end

--- Returns an input of a given dtype and, unless nil, a given shape, in a form that the library can
-- read. boundary: the element's size by default.
function Call:input(name, t, dtype, shape, boundary)
  if not tensor.is_tensor(t) or not shape and t.dtype ~= dtype then
    raise("%s: %s: expected a %s tensor, got %s", self.what, name, dtype, describe(t))
  end
  if t.dtype ~= dtype or shape and not layout.same(t.shape, shape) then
    raise("%s: %s: %s, expected %s %s", self.what, name, describe(t), dtype, layout.text(shape))
  end
  if t.device ~= self.device then
    raise("%s: %s: the tensor is on %s, the context is on %s", self.what, name, t.device,
          self.device)
  end
  return self:in_place(name, t, boundary or t.itemsize)
end

-- Outputs ---------------------------------------------------------------------------------------

-- The tensor for one output: the caller's, checked to be writable, or a new one.
local function output(name, given, shape, device, dtype)
  if given == nil then return try(tensor.empty(shape, dtype, device)) end
  if not tensor.is_tensor(given) then
    raise("out.%s: expected a tensor, got %s", name, misuse.kind(given))
  end
  if given.dtype ~= dtype or not layout.same(given.shape, shape) then
    raise("out.%s: %s, expected %s %s", name, describe(given), dtype, layout.text(shape))
  end
  if given.device ~= device or not given:is_contiguous() then
    raise("out.%s: expected a contiguous tensor on %s", name, device)
  end
  return given
end

-- The names of the requested outputs.
local function wanted(self)
  local op, names = self.op, self.opts.outputs
  if names == nil then return op.default and op.default(self) or op.names end
  if type(names) ~= "table" then
    raise("outputs: expected a list of names, got %s", misuse.kind(names))
  end
  for _, name in ipairs(names) do
    if not op.output[name] then
      raise("outputs: unknown output '%s'; known: %s", tostring(name),
            table.concat(op.names, ", "))
    end
  end
  return names
end

-- A struct of outputs without any outputs.
local function new_struct(self)
  local out = self.op.struct_t()
  out.size = ffi.sizeof(self.op.struct_t)
  for name, value in pairs(self.beside) do out[name] = value end
  return out
end

--- The address of an output of a given dtype and shape, in the tensor of the caller's option `out`
-- or a new one, which is returned under its name.
function Call:output(name, dtype, shape)
  local given = self.opts.out or {}
  if type(given) ~= "table" then
    raise("out: expected a table of tensors, got %s", misuse.kind(given))
  end
  local t = output(name, given[name], shape, self.device, dtype)
  self.made[name] = t
  return ffi.cast(void_p, t.ptr)
end

--- Returns the struct of the requested outputs.
function Call:outputs()
  local out = new_struct(self)
  for _, name in ipairs(wanted(self)) do
    local its = self.op.output[name]
    out[name] = self:output(name, its.dtype, its.shape(self))
  end
  return out
end

--- Returns the result of the call: the op's own result, or the table of outputs, which is the
-- caller's `out` if it gave one.
function Call:results()
  if self.result ~= nil then return self.result end
  local out = self.opts.out or {}
  for name, t in pairs(self.made) do out[name] = t end
  return out
end

-- Calling ---------------------------------------------------------------------------------------

-- The arguments of the library's function after the context: `out` if there is one, the values that
-- the op's `arguments` returned, and the launch if the op takes one.
local function listed(self, out, ...)
  local list, n = { ... }, select("#", ...)
  if out then
    table.insert(list, 1, out)
    n = n + 1
  end
  if self.op.launch then
    n = n + 1
    self:hold(self.opts.workspace)
    list[n] = M.launch(self.what, self.context, self.opts, self.op.settings)
  end
  return list, n
end

-- Holds everything that the call uses until its stream has been waited for, each thing once. A call
-- with a check has already waited.
local function hold(self)
  if self.device == "cpu" or self.opts.check ~= false and not self.op.unchecked then return end
  local at, stream = devices.opened(self.device), self.opts.stream
  if not at then return end -- nothing was made there
  at:hold(stream, self.context)
  for _, thing in ipairs(self.held) do at:hold(stream, thing) end
  for _, thing in pairs(self.made) do at:hold(stream, thing) end
end

--- Holds everything that a call uses that is not run by `run`.
function Call:hold_for_stream() hold(self) end

local function check(self, status) try(status_of.check(status, self.context.handle)) end

local function run(self, ...)
  local list, n = listed(self, self.op.struct and self:outputs(), ...)
  local status = C[self.op.entry](self.context.handle, unpack(list, 1, n))
  hold(self)
  if M.after then M.after() end
  check(self, status)
  return self:results()
end

--- Runs an op on a context. what: the name for messages; the rest: the arguments before the
-- options. Raises misuse, and reports other failures as `misuse.fail` does.
function M.run(op, what, context, opts, ...)
  local self = M.begin(op, what, context, opts)
  return run(self, op.arguments(self, ...))
end

local methods = setmetatable({}, { __mode = "k" })

--- Whether a value is a context method that was made here.
function M.is_method(value) return methods[value] ~= nil end

--- Returns the op that a method was made from; nil for any other value.
function M.op_of(value) return methods[value] or nil end

-- op: the op, or false if the method is none.
local function method(f, op)
  local guarded = misuse.guard(f)
  methods[guarded] = op or false
  return guarded
end

--- Makes the method of an op.
function M.method(op)
  return method(function(self, ...)
    return M.run(op, op.name, self, (select(op.takes + 1, ...)), ...)
  end, op)
end

--- Makes a method that begins its call itself: f(context, ...).
function M.plain_method(f) return method(f) end

--- An address for arrays that a call does not touch, because it only returns its requirements.
M.ANYWHERE = ffi.cast(void_p, 256)

-- The struct of the requested outputs, without tensors for them.
local function wanted_outputs(self)
  local out = new_struct(self)
  for _, name in ipairs(wanted(self)) do out[name] = M.ANYWHERE end
  return out
end

local function bytes(self, ...)
  local size = ffi.new "uint64_t[1]"
  local list, n = listed(self, self.op.struct and wanted_outputs(self), ...)
  list[n].needed = size
  check(self, C[self.op.entry](self.context.handle, unpack(list, 1, n)))
  return tonumber(size[0])
end

--- Makes the method that returns a number of bytes of workspace that is enough for each of some
-- ops. The ops must have a launch. name: the method's own name.
function M.workspace(name, ...)
  local ops = { ... }
  return method(function(self, ...)
    local most = 0
    for _, op in ipairs(ops) do
      if not op.applies or op.applies(...) then
        local call = M.begin(op, name, self, (select(op.takes + 1, ...)))
        most = math.max(most, bytes(call, op.arguments(call, ...)))
      end
    end
    return most
  end)
end

--- Makes a method that is not an op: f(context, ...), on an open context.
function M.plain(name, f)
  return method(function(self, ...)
    M.begin({ known = {} }, name, self)
    return f(self, ...)
  end)
end

return M
