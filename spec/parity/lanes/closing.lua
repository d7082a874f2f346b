-- closing.lua SEED - a Lua state that ends while calls and copies are under way, with contexts,
-- streams, memory and tables of arrays that it made in an order that the seed gives. LuaJIT runs
-- the finalizers of all of them in an order of its own. The driver, whose streams run late, ends
-- the process if one of them frees a resource that another one, or work in a stream, still uses.

package.path = "./lua/?.lua;./?.lua;" .. package.path

local ffi = require "ffi"
local samebits = require "samebits"
local dlpack = require "samebits.dlpack"
local C = require("samebits.lib").C

math.randomseed(tonumber(arg[1]))

local kept = {} -- alive to the end
local logits = assert(samebits.tensor({ { 1, 2, 3 }, { 3, 2, 1 } }):to "cuda")

local function context() return assert(samebits.open "cuda") end

-- A framework's tensor: its memory goes with the deleter.
local framework = ffi.new "sb_context *[1]"
assert(C.sb_open(framework, 1, "cuda", nil, nil, 0) == 0)
-- It is open until the process ends, which LeakSanitizer must not take for a leak.
ffi.cdef "void __lsan_ignore_object(const void *p);"
pcall(function() ffi.C.__lsan_ignore_object(framework[0]) end)
local deleter = ffi.cast("void (*)(samebits_dl_managed *)", function(managed)
  C.sb_memory_free(framework[0], managed.tensor.data, "SB_DEVICE")
end)
local managed_tensors = {}
local function imported()
  local shape, data = ffi.new("int64_t[2]", 2, 3), ffi.new "void *[1]"
  local managed = ffi.new "samebits_dl_managed"
  assert(C.sb_memory_alloc(framework[0], data, 24, "SB_DEVICE") == 0)
  managed.tensor.data, managed.tensor.device_type, managed.tensor.ndim = data[0], 2, 2
  managed.tensor.code, managed.tensor.bits, managed.tensor.lanes = 2, 32, 1
  managed.tensor.shape, managed.deleter = shape, deleter
  managed_tensors[#managed_tensors + 1] = { managed, shape }
  return dlpack.import(ffi.cast("samebits_dl_managed *", managed))
end

local makers = {
  function() return context() end,
  function() return context():stream() end,
  function() return samebits.pinned({ 1000 }, "int32", "cuda") end,
  function() -- a copy in a stream
    local stream = context():stream()
    return { stream, samebits.pinned({ 1000 }, "int32", "cuda"):to("cuda", { stream = stream }) }
  end,
  function() -- a copy in a stream that somebody else may end
    local own = context():stream()
    local stream = context():stream(own.handle)
    return { own, samebits.pinned({ 1000 }, "int32", "cuda"):to("cuda", { stream = stream }) }
  end,
  function() -- a call in a stream
    local ctx = context()
    return ctx:logprob({ logits = logits, ids = { 1, 2 } }, { check = false,
                                                              stream = ctx:stream() })
  end,
  function() -- one of a framework's memory
    return context():logprob({ logits = imported(), ids = { 1, 2 } }, { check = false })
  end,
  function() -- one in the default stream, with what belongs to it
    local ctx = context()
    return { ctx, ctx:logprob({ logits = logits, ids = { 1, 2 } }, { check = false }) }
  end,
}

for i = 1, 40 do
  local made = assert(makers[math.random(#makers)]())
  if math.random(2) == 1 then kept[i] = made end
  if math.random(8) == 1 then collectgarbage() end
end
collectgarbage "stop" -- what is under way stays so
for i = 41, 50 do kept[i] = assert(makers[math.random(#makers)]()) end
assert(next(kept))
os.exit(0, true) -- closes the state
