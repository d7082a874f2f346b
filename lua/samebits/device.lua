--- Devices: the memory and the streams of a backend.
--
-- A device is opened at its first use and stays open. Its tensors and streams belong to the device,
-- not to any context of the user's, because the user may close a context before them. On a GPU all
-- contexts work in the device's primary CUDA context, so pointers and streams of one context are
-- valid in another.
--
-- The library is loaded with the first device. Tensors in memory do not need it.

local ffi = require "ffi"
local misuse = require "samebits.misuse"

local raise = misuse.raise
local bytes_p, void_p = ffi.typeof("uint8_t *"), ffi.typeof("void *")

local M = {}

-- The library and the modules that interpret its failures, set once a device is opened.
local C, status_of, constants

-- The kinds of memory: SB_DEVICE and SB_PINNED.
M.DEVICE, M.PINNED = 1, 2

-- Names -------------------------------------------------------------------------------------------

local aliases = {}

--- Gives a backend's device a second name. Tensors treat the alias as another device, whose memory
-- they cannot read. The specs use an alias of the cpu to run the code paths of a GPU's tensors.
function M.alias(name, backend) aliases[name] = backend end

--- Returns "cpu", or a backend's name and a number: "cuda" becomes "cuda:0". Returns nil if the
-- name is not a device's.
function M.normal(name)
  if name == "cpu" then return name end
  if type(name) ~= "string" then return nil end
  if name:find "^%l+$" then return name .. ":0" end
  local backend, number = name:match "^(%l+):(%d+)$"
  return backend and ("%s:%d"):format(backend, tonumber(number)) or nil
end

--- The name that the library uses for a device.
function M.backend(name) return aliases[M.normal(name)] or name end

-- Devices -----------------------------------------------------------------------------------------

local Device = {}
Device.__index = Device

-- Whatever work in a stream uses is held until someone has waited for the stream. box.held has one
-- set per such stream, keyed by the address of the stream's handle (0 for the default stream);
-- box.keys lists these keys. The collector therefore frees nothing that is in use. At the end of a
-- Lua state, however, all finalizers run in no particular order, so any code that frees something
-- settles the streams first. (On CUDA, freeing memory waits for the GPU anyway.) Finalizers do not
-- use pairs, because such a loop never ended once it had been compiled and then run in a finalizer.
local function key_of(handle) return handle and tonumber(ffi.cast("uintptr_t", handle)) or 0 end

-- The number of held things, over all streams together, at which the streams are waited for
-- unasked.
local MANY = 10000

-- Counted anew each time: a finalizer may let go of a set in the middle of `hold`, after which a
-- running total would be too high by the thing that `hold` was adding.
local function count_held(box)
  local n = 0
  for i = 1, #box.keys do
    local set = box.held[box.keys[i]]
    if set then n = n + set.count end
  end
  return n
end

local function set_of(box, key)
  local set = box.held[key]
  if not set then
    set = { count = 0, things = {} }
    box.held[key] = set
    box.keys[#box.keys + 1] = key
  end
  return set
end

local function let_go(box, key)
  local set, keys = box.held[key], box.keys
  if not set then return end
  box.held[key] = nil
  for i = 1, #keys do
    if keys[i] == key then
      keys[i] = keys[#keys]
      keys[#keys] = nil
      return
    end
  end
end

-- Waits for the streams that hold something, except those that are being captured: they refuse it.
local function settle(box)
  for i = #box.keys, 1, -1 do
    local key = box.keys[i]
    if key and C.sb_stream_wait(box.raw, ffi.cast(void_p, key)) == 0 then let_go(box, key) end
  end
end

-- Closes the context when neither the device nor anything made on it is left; box counts the users.
-- A finalizer must not refer to the cdata that it finalizes, which would then never be collected,
-- so `raw` is a copy of the pointer.
local function release(box)
  box.users = box.users - 1
  if box.users == 0 then
    settle(box)
    C.sb_close(box.raw)
  end
end

-- Runs a finalizer's work, or puts it off while the context is asked: see `ask`.
local function finish(box, work)
  if box.asked then box.put_off[#box.put_off + 1] = work else work() end
end

-- Ends the asking, and does what was put off meanwhile.
local function catch_up(box)
  local put_off = box.put_off
  box.asked = false
  if #put_off == 0 then return end
  box.put_off = {}
  for i = 1, #put_off do put_off[i]() end
end

local finalizers = setmetatable({}, { __mode = "k" }) -- by pointer

local function owned(box, pointer, free)
  box.users = box.users + 1
  local function finalize(p)
    finish(box, function()
      free(box, p)
      release(box)
    end)
  end
  finalizers[pointer] = finalize
  return ffi.gc(pointer, finalize)
end

--- Gives memory back that `alloc` returned, before the collector does so.
function M.free(pointer)
  local finalize = finalizers[pointer]
  finalizers[pointer] = nil
  finalize(ffi.gc(pointer, nil))
end

-- Calls the library with the device's context. Returns true; or nil, a message and a code. The
-- collector may run between a call that fails and the question why, and every call of a context
-- forgets the line about the last failure: no finalizer calls the context before the line is read.
local function ask(self, entry, ...)
  local box = self.box
  box.asked = true
  local status = C[entry](box.raw, ...)
  local message = status ~= 0 and ffi.string(C.sb_last_error(box.raw))
  catch_up(box)
  if message then return status_of.failure(status, message) end
  return true
end

-- Lua's collector does not see how large memory on a device is. It is told to run each time this
-- many more bytes have been handed out, and whenever the device has no memory left.
local PERIOD = 2 ^ 30
local since = 0

local FREE = {}
for _, kind in ipairs { M.DEVICE, M.PINNED } do
  FREE[kind] = function(box, p)
    settle(box)
    C.sb_memory_free(box.raw, p, kind)
  end
end

local function collect(box)
  settle(box)
  collectgarbage()
end

--- Allocates memory of a kind. Returns a uint8_t pointer, which keeps the memory alive; or nil, a
-- message and a code.
function Device:alloc(bytes, kind)
  since = since + bytes
  if since > PERIOD then
    collect(self.box)
    since = 0
  end
  local data = ffi.new "void *[1]"
  if not ask(self, "sb_memory_alloc", data, bytes, kind) then
    collect(self.box)
    local ok, message, code = ask(self, "sb_memory_alloc", data, bytes, kind)
    if not ok then return nil, message, code end
  end
  return owned(self.box, ffi.cast(bytes_p, data[0]), FREE[kind])
end

--- Queues a copy in a stream, or in the default stream if none is given. The copy is between any
-- two of this device's memory, page-locked memory and ordinary memory.
function Device:queue(to, from, bytes, stream)
  return ask(self, "sb_memory_copy", to, from, bytes, stream and stream.handle)
end

--- Waits for a stream, or for the default stream if none is given, and releases everything it held.
function Device:wait(stream)
  local ok, message, code = ask(self, "sb_stream_wait", stream and stream.handle)
  if not ok then return nil, message, code end
  let_go(self.box, key_of(stream and stream.handle))
  return true
end

--- Holds a value that work in a stream uses until the stream has been waited for. The value is not
-- nil. Call it once the work is queued: a finalizer may wait for the stream and let go of what it
-- holds at any time, even in the middle of this function.
function Device:hold(stream, value)
  local box, key = self.box, key_of(stream and stream.handle)
  if box.held[key] and box.held[key].things[value] then return end
  if count_held(box) >= MANY then settle(box) end
  local set = set_of(box, key)
  set.things[value] = true
  set.count = set.count + 1
end

--- The number of things that are held.
function Device:count_held() return count_held(self.box) end

--- Waits for the streams of a device that hold something. Call it before memory that they use is
-- given back by other means. A device that was never opened has no streams.
function M.settle(name)
  local device = M.opened(name)
  if device then settle(device.box) end
end

--- The same, for finalizers of memory that this library does not own and whose freeing may not
-- wait. Held memory is finalized only at the end of the Lua state, before which LuaJIT turns its
-- compiler off.
function M.settle_at_end(name)
  local device = M.opened(name)
  if device and not device.box.asked and not jit.status() then settle(device.box) end
end

--- Does a finalizer's work that settles a device: at once, or when no call of the device is under
-- way.
function M.finish(name, work)
  local device = M.opened(name)
  if device then finish(device.box, work) else work() end
end

--- Copies and waits. If a stream is given, copies in that stream without waiting.
function Device:copy(to, from, bytes, stream)
  local ok, message, code = self:queue(to, from, bytes, stream)
  if not ok or stream then return ok, message, code end
  return self:wait()
end

-- Streams -----------------------------------------------------------------------------------------

local Stream = {}
Stream.__index = Stream

function Stream:__tostring() return ("samebits stream on %s"):format(self.device) end

--- Waits until everything that was put into the stream is done. Returns the stream; or nil, a
-- message and a code.
-- @treturn stream
Stream.wait = misuse.guard(function(self)
  local ok, message, code = self.owner:wait(self)
  if not ok then return nil, message, code end
  return self
end)

local function end_stream(box, p)
  C.sb_stream_wait(box.raw, p)
  C.sb_stream_destroy(box.raw, p)
  let_go(box, key_of(p))
end

--- Returns a new stream, or wraps an existing one given its handle. A wrapped stream stays its
-- owner's and must live until it has been waited for here.
function Device:stream(pointer)
  local handle
  if pointer ~= nil then
    local kind = misuse.kind(pointer)
    if kind ~= "userdata" and
       not (kind == "cdata" and tostring(ffi.typeof(pointer)):find("*", 1, true)) then
      raise("stream: expected a pointer (a CUstream or cudaStream_t), got %s", kind)
    end
    handle = ffi.cast(void_p, pointer)
  else
    local made = ffi.new "void *[1]"
    local ok, message, code = ask(self, "sb_stream_create", made)
    if not ok then return nil, message, code end
    handle = owned(self.box, made[0], end_stream)
  end
  return setmetatable({ device = self.name, owner = self, handle = handle }, Stream)
end

--- Whether a value is a stream.
function M.is_stream(value) return getmetatable(value) == Stream end

-- Opening -----------------------------------------------------------------------------------------

local opened = {}

--- Returns a device by its normal name and opens it if necessary; or nil, a message and a code.
function M.of(name)
  if opened[name] then return opened[name] end
  local lib = require "samebits.lib"
  C, status_of, constants = lib.C, require "samebits.status", lib.constants

  local options = ffi.new "sb_open_options"
  options.size = ffi.sizeof "sb_open_options"
  options.threads = 1 -- nothing is computed here
  local why, handle = ffi.new "char[512]", ffi.new "sb_context *[1]"
  local status = C.sb_open(handle, constants.SB_ABI, M.backend(name), options, why, 512)
  if status ~= 0 then return status_of.failure(status, ffi.string(why)) end

  -- asked: a call is under way; put_off: functions that finalizers have left to do after it
  local box = { raw = handle[0], users = 1, held = {}, keys = {}, asked = false, put_off = {} }
  local self = setmetatable({ name = name, box = box }, Device)
  -- Finalized at the end of the Lua state, when a call that was interrupted may still be noted.
  self.anchor = ffi.gc(ffi.new "uint8_t[1]", function()
    catch_up(box)
    release(box)
  end)
  opened[name] = self
  return self
end

--- Settles all devices: see `settle`.
function M.settle_all()
  for name in pairs(opened) do M.settle(name) end
end

--- Returns a device that has been opened; nil if it has not.
function M.opened(name) return opened[name] end

--- Raises unless a value is a stream of the device.
function M.check_stream(what, stream, device)
  if not M.is_stream(stream) then
    raise("%s: expected a stream, got %s (ctx:stream makes one, also from a framework's)", what,
          misuse.kind(stream))
  elseif stream.device ~= device then
    raise("%s: the stream is on %s, not on %s", what, stream.device, device)
  end
  return stream
end

-- Methods by class, for samebits.repl.sources.
M.classes = { Stream = Stream }

return M
