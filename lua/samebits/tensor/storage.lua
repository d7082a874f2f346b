--- Memory for tensors: zeroed, aligned for any dtype, and freed when nothing refers to it any more.

local ffi = require "ffi"

-- Declared under names of our own, so that declarations in other modules cannot conflict.
ffi.cdef [[
void *samebits_libc_calloc(size_t count, size_t size) __asm__("calloc");
void samebits_libc_free(void *) __asm__("free");
]]

local M = {}

-- LuaJIT collects its own objects in time but limits their size. Memory from calloc has neither
-- property, so the collector is told to run each time this many more bytes have been handed out.
local SMALL = 2 ^ 20
local PERIOD = 2 ^ 30
local since = 0

local bytes_p = ffi.typeof("uint8_t *")

local large = setmetatable({}, { __mode = "k" }) -- memory from calloc

--- Allocates `size` zeroed bytes. Returns a uint8_t pointer and the owner to keep alive with it;
-- nil if memory is out.
function M.zeroed(size)
  if size < SMALL then
    local array = ffi.new("int64_t[?]", math.ceil(size / 8) + 1)
    return ffi.cast(bytes_p, array), array
  end
  since = since + size
  if since > PERIOD then
    collectgarbage()
    since = 0
  end
  local memory = ffi.C.samebits_libc_calloc(size, 1)
  if memory == nil then
    collectgarbage()
    memory = ffi.C.samebits_libc_calloc(size, 1)
    if memory == nil then return nil end
  end
  memory = ffi.gc(ffi.cast(bytes_p, memory), ffi.C.samebits_libc_free)
  large[memory] = true
  return memory, memory
end

--- Does nothing. Pass a tensor or an owner behind the last use of a pointer into its memory: what
-- no code refers to any more may be collected at any allocation, also a local variable or a
-- parameter of a function that has not ended, and a pointer keeps nothing.
function M.keep() end

--- Whether memory can be given back before the collector does so, by its owner.
function M.is_freeable(owner) return large[owner] == true end

--- Gives such memory back. Returns whether it was such memory.
function M.free(owner)
  if not large[owner] then return false end
  large[owner] = nil
  ffi.C.samebits_libc_free(ffi.gc(owner, nil))
  return true
end

return M
