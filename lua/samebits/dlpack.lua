--- DLPack: exchanges tensors with other frameworks, in both directions, without a copy.
--
--     local dlpack = require "samebits.dlpack"
--     local logits = dlpack.import(managed)     -- a DLManagedTensor *: now the tensor's
--     local managed = dlpack.export(tensor)     -- now whoever takes it
--
-- Ownership. `import` takes ownership of the DLManagedTensor and calls its deleter when neither the
-- tensor nor any view of it is left. If `import` refuses it with an error, the caller still owns
-- it. `export` keeps the tensor alive until the consumer calls the deleter, once. `release` calls
-- the deleter of a managed tensor that no consumer took.
--
-- An exported tensor's deleter is Lua code. It must be called on the thread that runs this Lua
-- state, while the state lives.
--
-- The memory must be ready: before tensors on a GPU are used here, the producer's stream must have
-- finished the work that writes them. The same holds for a consumer of exported tensors.
-- @module samebits.dlpack

local ffi = require "ffi"
local devices = require "samebits.device"
local misuse = require "samebits.misuse"
local tensor = require "samebits.tensor"

local layout = tensor.layout

local raise = misuse.raise

-- The structs of DLPack 1's dlpack.h, under names of our own.
if not pcall(ffi.typeof, "samebits_dl_managed") then
  ffi.cdef [[
typedef struct samebits_dl_tensor {
    void *data;
    int32_t device_type, device_id;
    int32_t ndim;
    uint8_t code, bits;
    uint16_t lanes;
    int64_t *shape;
    int64_t *strides;
    uint64_t byte_offset;
} samebits_dl_tensor;

typedef struct samebits_dl_managed {
    samebits_dl_tensor tensor;
    void *context;
    void (*deleter)(struct samebits_dl_managed *self);
} samebits_dl_managed;

typedef struct samebits_dl_versioned {
    uint32_t major, minor;
    void *context;
    void (*deleter)(struct samebits_dl_versioned *self);
    uint64_t flags;
    samebits_dl_tensor tensor;
} samebits_dl_versioned;
]]
end

local M = {}

local managed_p = ffi.typeof "samebits_dl_managed *"
local versioned_p = ffi.typeof "samebits_dl_versioned *"

local MAJOR, READ_ONLY = 1, 1
local CPU, CUDA, CUDA_HOST, CUDA_MANAGED = 1, 2, 3, 13

-- The dtypes: code and bits.
local INT, UINT, FLOAT, BFLOAT, BOOL = 0, 1, 2, 4, 6
local TYPES = {
  float32 = { FLOAT, 32 }, float16 = { FLOAT, 16 }, bfloat16 = { BFLOAT, 16 },
  float64 = { FLOAT, 64 }, int8 = { INT, 8 }, uint8 = { UINT, 8 }, int16 = { INT, 16 },
  int32 = { INT, 32 }, int64 = { INT, 64 }, bool = { BOOL, 8 },
}
local NAMES = {}
for name, kind in pairs(TYPES) do NAMES[kind[1] * 256 + kind[2]] = name end

-- Import ------------------------------------------------------------------------------------------

local function device_of(t)
  if t.device_type == CPU or t.device_type == CUDA_HOST then return "cpu" end
  if t.device_type == CUDA or t.device_type == CUDA_MANAGED then
    if t.device_id < 0 then raise("dlpack.import: device_id is %d", t.device_id) end
    return ("cuda:%d"):format(t.device_id)
  end
  raise("dlpack.import: device_type is %d; 1 (CPU), 2 (CUDA), 3 (CUDA host) and 13 (CUDA " ..
        "managed) are taken", t.device_type)
end

local function dtype_of(t)
  if t.lanes ~= 1 then
    raise("dlpack.import: lanes is %d: vectors of elements are not taken", t.lanes)
  end
  local name = NAMES[t.code * 256 + t.bits]
  if not name then
    raise("dlpack.import: no dtype here has code %d and %d bits", t.code, t.bits)
  end
  return name
end

-- A list of ndim integers, exact as numbers.
local function integers(what, array, ndim)
  local list = {}
  for i = 0, ndim - 1 do
    local n = tonumber(array[i])
    if math.abs(n) >= 2 ^ 53 then
      raise("dlpack.import: %s[%d] is %.17g", what, i, n)
    end
    list[i + 1] = n
  end
  return list
end

local function shape_of(t)
  if t.ndim < 0 or t.ndim > layout.MAX_DIMS then
    raise("dlpack.import: ndim is %d, outside [0, %d]", t.ndim, layout.MAX_DIMS)
  end
  if t.ndim > 0 and t.shape == nil then raise "dlpack.import: shape is null" end
  local shape, why = layout.shape(integers("shape", t.shape, t.ndim))
  if not shape then raise("dlpack.import: %s", why) end
  if t.strides == nil or t.ndim == 0 then return shape end
  local strides
  strides, why = layout.strides(integers("strides", t.strides, t.ndim), shape)
  if not strides then raise("dlpack.import: %s", why) end
  return shape, strides
end

-- A deleter may be a callback of this same Lua state, and compiled code must not call it.
local function release(managed)
  if managed.deleter ~= nil then managed.deleter(managed) end
end
jit.off(release)

local function tensor_of(managed)
  local t = managed.tensor
  local device, dtype = device_of(t), dtype_of(t)
  local shape, strides = shape_of(t)
  local itemsize = t.bits / 8
  if t.byte_offset % itemsize ~= 0 then
    raise("dlpack.import: byte_offset %s is no multiple of the element's %d bytes",
          (tostring(t.byte_offset):gsub("ULL", "")), itemsize)
  end
  local data = ffi.cast("uint8_t *", t.data)
  if data == nil and layout.numel(shape) > 0 then raise "dlpack.import: data is null" end
  local owner = {}
  local made = tensor.tensor(data + t.byte_offset, {
    dtype = dtype, shape = shape, strides = strides, device = device, owner = owner,
  })
  owner.managed = ffi.gc(managed, function(last) -- from here on nothing is refused
    devices.settle_at_end(device)
    release(last)
  end)
  return made
end

local function pointer(what, ctype, value)
  local kind = misuse.kind(value) -- a tensor's is not "userdata", whatever its type
  if kind ~= "cdata" and kind ~= "userdata" then
    raise("%s: expected a pointer to a managed tensor, got %s", what, kind)
  end
  if kind == "cdata" then
    kind = tostring(ffi.typeof(value))
    if not (kind:find("*", 1, true) or kind:find("samebits_dl_", 1, true)) then
      raise("%s: expected a pointer to a managed tensor, got %s", what, kind)
    end
  end
  local managed = ffi.cast(ctype, value)
  if managed == nil then raise("%s: a null pointer", what) end
  return managed
end

--- Makes a tensor over the memory of a DLManagedTensor. The tensor owns it from now on.
-- @param value a pointer (cdata of any pointer type, or light userdata), as from a capsule
-- "dltensor"
-- @treturn tensor on "cpu" or "cuda:N". A managed tensor that cannot be imported is an error that
-- says why (the device, the dtype, lanes, a byte_offset that is not a multiple of the element,
-- shapes and strides past the address space); the caller then still owns it.
-- the address space), and then the caller still owns it.
M.import = misuse.guard(function(value)
  return tensor_of(pointer("dlpack.import", managed_p, value))
end)

--- As `import`, for a DLManagedTensorVersioned ("dltensor_versioned"). Read-only memory is refused,
-- because tensors here can be written to.
M.import_versioned = misuse.guard(function(value)
  local managed = pointer("dlpack.import", versioned_p, value)
  if managed.major ~= MAJOR then
    raise("dlpack.import: version %d.%d; %d is read", managed.major, managed.minor, MAJOR)
  end
  if managed.flags % 2 == READ_ONLY then raise "dlpack.import: the memory is read-only" end
  return tensor_of(managed)
end)

-- Export ------------------------------------------------------------------------------------------

-- The tensors that consumers hold, by address.
local held = {}

local function key(managed) return tonumber(ffi.cast("uintptr_t", managed)) end

-- Made once and never freed, because LuaJIT has few callbacks.
local deleter

local function device_code(t)
  if t.device == "cpu" then return CPU, 0 end
  local number = devices.backend(t.device) == t.device and t.device:match "^cuda:(%d+)$"
  if not number then raise("dlpack.export: DLPack knows no device %s", t.device) end
  return CUDA, tonumber(number)
end

--- Makes a DLManagedTensor over a tensor's memory, for a consumer that calls its deleter once.
-- @tparam tensor t on "cpu" or "cuda:N", of any strides
-- @return a DLManagedTensor *
M.export = misuse.guard(function(t)
  if not tensor.is_tensor(t) then
    raise("dlpack.export: expected a tensor, got %s", misuse.kind(t))
  end
  local device_type, device_id = device_code(t)
  deleter = deleter or ffi.cast("void (*)(samebits_dl_managed *)", function(managed)
    held[key(managed)] = nil
  end)
  local box = {
    owner = tensor.lend(t), managed = ffi.new "samebits_dl_managed",
    shape = ffi.new("int64_t[?]", t.ndim + 1, t.shape),
    strides = ffi.new("int64_t[?]", t.ndim + 1, t.strides),
  }
  local managed = ffi.cast(managed_p, box.managed)
  local to, kind = managed.tensor, TYPES[t.dtype]
  to.data, to.device_type, to.device_id, to.ndim = t.ptr, device_type, device_id, t.ndim
  to.code, to.bits, to.lanes = kind[1], kind[2], 1
  to.shape, to.strides, to.byte_offset = box.shape, box.strides, 0
  managed.deleter = deleter
  held[key(managed)] = box
  return managed
end)

--- Returns how many exported tensors consumers have not released yet.
function M.exported()
  local n = 0
  for _ in pairs(held) do n = n + 1 end
  return n
end

--- Calls the deleter of a managed tensor that no consumer took.
M.release = misuse.guard(function(value)
  release(pointer("dlpack.release", managed_p, value))
end)

return M
