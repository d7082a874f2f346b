--- Tensors: a pointer, a dtype, a shape and strides.
--
-- Fields (read-only): `dtype` ("float32", ...; see tensor/dtype.lua), `shape` and `strides` (lists;
-- strides in elements), `ndim`, `itemsize`, `device` ("cpu" or "cuda:0"), `ptr` (uint8_t *, the
-- first element's address on the device) and `owner` (the object that keeps the memory alive: keep
-- the tensor or its owner as long as you use the pointer).
--
-- Dimensions and indices count from 0: `t[0]` is the first row; negative ones count from the end:
-- `t[-1]` is the last row. Slice, select, transpose, view, expand and `t[i]` give views, which
-- share memory. Only `set`, `t[i] = v`, `copy_` and writes through ptr change a tensor.
--
-- `+ - * /` and unary minus work element by element, on tensors of one shape (or whose sizes agree
-- from the last dimension on, or are 1) and numbers. Results are float32, or float64 if an operand
-- is float64, int32 or int64; numbers are rounded to that dtype, and each operation once more.
-- `#t` is `t:len()`. `ipairs(t)` works in a LuaJIT with the metamethods of Lua 5.2 and is an error
-- in others; `t:each()` always works. Arithmetic on devices is made in memory and copied back.
--
-- On a device, views work as they do in memory. `get`, `t[i]`, `totable`, `bits` and tostring copy
-- the elements that they show. A conversion to another dtype, and a contiguous copy of a tensor
-- that is not contiguous, are made in memory and copied back. `set` is refused. A copy made without
-- a stream is complete on return: it waits for the device's default stream (and so for all work
-- except that in separate streams, such as `ctx:stream` makes).
--
-- When you read floats through a pointer, note that LuaJIT takes some NaN encodings for values of
-- another type (see tensor/element.lua). `get`, `totable` and `bits` handle them correctly.

local ffi = require "ffi"
local convert = require "samebits.tensor.convert"
local devices = require "samebits.device"
local dtype = require "samebits.tensor.dtype"
local element = require "samebits.tensor.element"
local half = require "samebits.tensor.half"
local layout = require "samebits.tensor.layout"
local misuse = require "samebits.misuse"
local nested = require "samebits.tensor.nested"
local objects = require "samebits.object"
local storage = require "samebits.tensor.storage"
local tensor_text = require "samebits.tensor.text"
local transfer = require "samebits.tensor.transfer"
local unsupported = require "samebits.tensor.unsupported"

local raise, text = misuse.raise, layout.text
local bytes_p = ffi.typeof("uint8_t *")

-- The modules of tensor/ that other code uses, too.
local M = {
  convert = convert, dtype = dtype, element = element, half = half, layout = layout,
  storage = storage, text = tensor_text, unsupported = unsupported,
}

local Tensor = {}  -- methods

local prototype, metatable = objects.class("tensor", Tensor)
local fields_of = objects.fields_of
local FIELDS = { __index = Tensor } -- of the tables of fields

--- How many times a tensor has been freed; 0 means that none needs to be looked for.
M.freed = 0

-- The tensors that share memory which `free` can give back, by its owner.
local sharers = setmetatable({}, { __mode = "k" })
local WEAK = { __mode = "k" }

local function new(ptr, name, shape, strides, owner, device)
  local t = objects.new(prototype, setmetatable({
    ptr = ptr, dtype = name, shape = shape, strides = strides, owner = owner, device = device,
    ndim = #shape, itemsize = dtype.of[name].size,
  }, FIELDS))
  local set = sharers[owner]
  if set then set[t] = true end
  return t
end

-- Notes that the memory can be given back.
local function freeable(owner)
  sharers[owner] = setmetatable({}, WEAK)
  return owner
end

local function copy_list(list)
  local out = {}
  for i = 1, #list do out[i] = list[i] end
  return out
end

--- Whether a value is a tensor.
-- @param value
-- @treturn boolean
function M.is_tensor(value) return getmetatable(value) == metatable end

--- Describes a value for messages: "float32 [2, 3]" for a tensor, otherwise its kind.
function M.describe(value)
  if M.is_tensor(value) then return ("%s %s"):format(value.dtype, text(value.shape)) end
  return misuse.kind(value)
end

-- Passes on the result of a check, which may be nil and a message.
local function checked(what, value, message)
  if value == nil then raise("%s: %s", what, message) end
  return value
end

-- Allocates zeroed memory.
local function allocate(what, name, shape)
  local size = layout.numel(shape) * dtype.of[name].size
  local ptr, owner = storage.zeroed(size)
  if not ptr then raise("%s: no memory for %.17g bytes (%s %s)", what, size, name, text(shape)) end
  if storage.is_freeable(owner) then freeable(owner) end
  return new(ptr, name, copy_list(shape), layout.dense(shape), owner, "cpu")
end

local function bytes_of(t) return layout.numel(t.shape) * t.itemsize end

-- Reports a device's failure, prefixed with the call's name.
local function failed(what, device, message, code)
  return nil, ("%s: %s: %s"):format(what, device, message), code
end

-- Allocates uninitialised memory of a device, for a kind of tensors; nil, a message and a code if
-- that fails.
local function allocate_on(what, device, kind, name, shape)
  local at, message, code = devices.of(device)
  if not at then return failed(what, device, message, code) end
  local owner
  owner, message, code = at:alloc(layout.numel(shape) * dtype.of[name].size, kind)
  if not owner then return failed(what, device, message, code) end
  freeable(owner)
  return new(owner, name, copy_list(shape), layout.dense(shape), owner,
             kind == devices.PINNED and "cpu" or device)
end

-- "cpu", or a backend's name and a number: "cuda" becomes "cuda:0".
local function device_name(what, name)
  if name == nil then return "cpu" end
  local normal = devices.normal(name)
  if normal then return normal end
  raise("%s: device %s; expected 'cpu' or one like 'cuda:0'", what, element.text(name))
end

local function dense_copy(t, what)
  local out = allocate(what, t.dtype, t.shape)
  transfer.dense(out.ptr, t.ptr, t.itemsize, t.shape, t.strides)
  storage.keep(t)
  return out
end

local function is_contiguous(t) return layout.is_dense(t.shape, t.strides) end

-- For a tensor in memory: the tensor itself if it is contiguous, otherwise a contiguous copy.
local function dense(t, what)
  return is_contiguous(t) and t or dense_copy(t, what)
end

-- Holds the tensors that a copy in a stream reads and writes.
local function hold(device, stream, from, to)
  local at = devices.opened(device)
  at:hold(stream, from)
  at:hold(stream, to)
end

-- Copies to memory: a contiguous copy; nil, a message and a code if the device fails.
local function fetched(t, what, stream)
  local at, ok, message, code
  at, message, code = devices.of(t.device)
  if not at then return failed(what, t.device, message, code) end
  if stream and not is_contiguous(t) then
    raise("%s: a tensor of shape %s with strides %s is no single copy: not in a stream", what,
          text(t.shape), text(t.strides))
  end
  local out = allocate(what, t.dtype, t.shape)
  ok, message, code = transfer.fetch(at, out.ptr, t, stream)
  if not ok then return failed(what, t.device, message, code) end
  if stream then hold(t.device, stream, t, out) end
  return out
end

-- Copies from memory to a device: a contiguous copy, or the device's failure.
local function sent(t, what, device, stream)
  local source = dense(t, what)
  local out, ok, message, code
  out, message, code = allocate_on(what, device, devices.DEVICE, t.dtype, t.shape)
  if not out then return nil, message, code end
  ok, message, code = devices.of(device):copy(out.ptr, source.ptr, bytes_of(source), stream)
  if not ok then return failed(what, device, message, code) end
  if stream then hold(device, stream, source, out) end
  return out
end

-- A contiguous copy on the same device.
local function cloned(t, what)
  if t.device == "cpu" then return dense_copy(t, what) end
  local out, ok, message, code
  if not is_contiguous(t) then
    out, message, code = fetched(t, what)
    if not out then return nil, message, code end
    return sent(out, what, t.device)
  end
  out, message, code = allocate_on(what, t.device, devices.DEVICE, t.dtype, t.shape)
  if not out then return nil, message, code end
  ok, message, code = devices.of(t.device):copy(out.ptr, t.ptr, bytes_of(t))
  if not ok then return failed(what, t.device, message, code) end
  return out
end

-- The tensor in memory, to be read at once. A device's failure is an error here.
local function readable(t, what)
  if t.device == "cpu" then return t end
  local copy, message = fetched(t, what)
  if not copy then raise("%s", message) end
  return copy
end

-- A tensor over memory of the caller's, which the caller still owns.
local function from_pointer(data, opts)
  local name = checked("tensor", dtype.find(opts.dtype)).name
  if opts.shape == nil then raise "tensor: a pointer needs a shape" end
  local shape = checked("tensor", layout.shape(opts.shape))
  local strides = layout.dense(shape)
  if opts.strides ~= nil then
    strides = checked("tensor", layout.strides(opts.strides, shape))
  end
  local low, high = layout.extent(shape, strides)
  local kind = tostring(ffi.typeof(data))
  if kind:find("[", 1, true) then
    -- The size of an FFI array is known.
    local size, itemsize = ffi.sizeof(data), dtype.of[name].size
    if low < 0 or (high + 1) * itemsize > size then
      raise("tensor: %s %s with strides %s spans bytes %.17g to %.17g of an array of %.17g bytes",
            name, text(shape), text(strides), low * itemsize, (high + 1) * itemsize, size)
    end
  elseif high >= low and data == nil then
    raise("tensor: null pointer for shape %s", text(shape))
  end
  return new(ffi.cast(bytes_p, data), name, shape, strides, { data, opts.owner },
             device_name("tensor", opts.device))
end

local OPTIONS = { dtype = true, shape = true, strides = true, device = true, owner = true }

local function check_options(opts)
  if opts == nil then return {} end
  if type(opts) ~= "table" then raise("tensor: options are %s, not a table", element.text(opts)) end
  for key in pairs(opts) do
    if not OPTIONS[key] then raise("tensor: unknown option '%s'", tostring(key)) end
  end
  return opts
end

-- For code inside the library: a contiguous tensor in memory whose elements are made when they are
-- first asked for. make() then returns a pointer and its owner.
function M.deferred(name, shape, make)
  local t = new(nil, name, copy_list(shape), layout.dense(shape), nil, "cpu")
  t.make = make
  return t
end

local function is_pointer(data)
  return type(data) == "cdata" and tostring(ffi.typeof(data)):find("[%*%[]") ~= nil
end

--- Makes a tensor from nested Lua lists (or one number), or over memory of the caller's.
--
-- * Lists: the lists determine the shape (`opts.shape`, if given, must have as many elements);
--   ragged lists are refused. Floats take any number and round it; integers refuse values that they
--   cannot hold; bool takes booleans, 0 and 1; int64_t values are taken exactly.
-- * A pointer or FFI array: `opts.shape` and `opts.dtype` are required and nothing is copied.
--   `opts.strides` (in elements, any sign) are dense by default, and `opts.owner` is kept alive
--   with the tensor.
--
-- `opts.dtype` is "float32" by default. `opts.device` ("cpu", "cuda", "cuda:1") is the device that
-- a pointer points to, or the device to put the lists' tensor on. Returns nil, a message and a code
-- if the device is not available.
-- @param data numbers in nested lists, one number, or a pointer
-- @tparam[opt] table opts `dtype`, `shape`, `strides`, `device`, `owner`
-- @treturn tensor
M.tensor = misuse.guard(function(data, opts)
  unsupported.check(data)
  opts = check_options(opts)
  if M.is_tensor(data) then raise "tensor: data is a tensor; see its methods to and clone" end
  if is_pointer(data) then return from_pointer(data, opts) end

  local name = checked("tensor", dtype.find(opts.dtype or "float32")).name
  if opts.strides ~= nil then raise "tensor: strides are for pointers" end
  local device = device_name("tensor", opts.device)
  local shape = nested.shape(data, "tensor")
  local out = allocate("tensor", name, shape)
  local function put(p, k, v) return element.put(name, p, k, v) end
  if #shape == 0 then
    local ok, why = put(out.ptr, 0, data)
    if not ok then raise("tensor: data %s", why) end
  else
    -- For bool, list elements are checked more strictly than a conversion to bool checks them.
    nested.fill(data, shape, out.ptr, "tensor", put, name ~= "bool" and name or nil)
  end
  if opts.shape ~= nil then
    local wanted = checked("tensor", layout.shape(opts.shape))
    if layout.numel(wanted) ~= out:numel() then
      raise("tensor: data of shape %s has %.17g elements, %s has %.17g", text(shape), out:numel(),
            text(wanted), layout.numel(wanted))
    end
    out = new(out.ptr, name, wanted, layout.dense(wanted), out.owner, "cpu")
  end
  if device == "cpu" then return out end
  return sent(out, "tensor", device)
end)

--- Makes a tensor from nested lists of hex strings, as `bits` returns them.
M.from_bits = misuse.guard(function(data, name)
  name = checked("from_bits", dtype.find(name or "float32")).name
  local shape, size = nested.shape(data, "from_bits"), dtype.of[name].size
  local out = allocate("from_bits", name, shape)
  local function put(p, k, v) return element.put_hex(size, p, k, v) end
  if #shape == 0 then
    local ok, why = put(out.ptr, 0, data)
    if not ok then raise("from_bits: data %s", why) end
  else
    nested.fill(data, shape, out.ptr, "from_bits", put)
  end
  return out
end)

-- Checks the dtype's name, the shape and the device that a function was given.
local function described(what, shape, name, device)
  name = checked(what, dtype.find(name or "float32")).name
  return name, checked(what, layout.shape(shape)), device_name(what, device)
end

--- Makes a tensor of zeros from its shape, its dtype ("float32" by default) and its device ("cpu"
-- by default). Returns nil, a message and a code if the device is not available.
-- @tparam table shape
-- @tparam[opt] string name of the dtype
-- @tparam[opt] string device
-- @treturn tensor
M.zeros = misuse.guard(function(shape, name, device)
  name, shape, device = described("zeros", shape, name, device)
  local out = allocate("zeros", name, shape)
  if device == "cpu" then return out end
  return sent(out, "zeros", device)
end)

--- Makes a tensor like `zeros`, but with unspecified contents, for a caller that writes every
-- element.
-- @tparam table shape
-- @tparam[opt] string name of the dtype
-- @tparam[opt] string device
-- @treturn tensor
M.empty = misuse.guard(function(shape, name, device)
  name, shape, device = described("empty", shape, name, device)
  if device == "cpu" then return allocate("empty", name, shape) end
  return allocate_on("empty", device, devices.DEVICE, name, shape)
end)

--- Makes a tensor in page-locked memory with unspecified contents. Copies between it and a device
-- ("cuda") can overlap other work. On the device "cpu" it is ordinary memory. Returns nil, a
-- message and a code if the device is not available.
-- @tparam table shape
-- @tparam[opt] string name of the dtype
-- @tparam[opt] string device
-- @treturn tensor
M.pinned = misuse.guard(function(shape, name, device)
  name, shape, device = described("pinned", shape, name, device or "cuda")
  return allocate_on("pinned", device, devices.PINNED, name, shape)
end)

--- The number of elements.
-- @treturn number
function Tensor:numel() return layout.numel(self.shape) end

--- The size of the first dimension, which is also `#t`.
-- @treturn number
function Tensor:len()
  if self.ndim == 0 then error("len: a tensor of shape [] has no dimension", 2) end
  return self.shape[1]
end

--- The first element's address as a pointer of the dtype's C type (uint16_t for 16-bit floats). For
-- a tensor on a device, this is an address on that device.
function Tensor:pointer() return ffi.cast(element.pointer[self.dtype], self.ptr) end

-- Why a write to the tensor is refused; nil for a tensor in memory.
local function read_only(t, what)
  if t.device == "cpu" then return nil end
  return ("%s: the elements are on %s: set them in memory and copy them there (see copy_)"):format(
    what, t.device)
end

-- The offset that one index adds; nil and a message if the index is out of range.
local function step(t, what, dim, i)
  local size = t.shape[dim + 1]
  if type(i) ~= "number" or i % 1 ~= 0 or i < -size or i >= size then
    return nil, ("%s: index %s in dim %d is outside [%.17g, %.17g) (shape %s)"):format(
      what, element.text(i), dim, -size, size, text(t.shape))
  end
  return (i < 0 and i + size or i) * t.strides[dim + 1]
end

-- The offset of an index, in elements; nil and a message if there is no such element.
local function locate(t, what, ...)
  local n = select("#", ...)
  if n ~= t.ndim then
    return nil, ("%s: %d indices for a tensor of shape %s"):format(what, n, text(t.shape))
  end
  local offset = 0
  if n <= 3 then
    -- Written out, because LuaJIT does not compile select() with a variable.
    local i, j, k = ...
    local add, message = 0, nil
    if n >= 1 then add, message = step(t, what, 0, i) end
    if not add then return nil, message end
    offset = add
    if n >= 2 then
      add, message = step(t, what, 1, j)
      if not add then return nil, message end
      offset = offset + add
    end
    if n >= 3 then
      add, message = step(t, what, 2, k)
      if not add then return nil, message end
      offset = offset + add
    end
    return offset
  end
  for d = 1, n do
    local add, message = step(t, what, d - 1, (select(d, ...)))
    if not add then return nil, message end
    offset = offset + add
  end
  return offset
end

--- Returns the element at an index, one number per dimension. The element is a number; true or
-- false for bool; an int64_t for int64 values beyond 2^53 in magnitude, which a number cannot hold.
-- @param ... numbers
-- @treturn number|boolean
function Tensor:get(...)
  local offset, message = locate(self, "get", ...)
  if not offset then error(message, 2) end
  local value, why = transfer.read(self, offset)
  if value == nil then error(("get: %s: %s"):format(self.device, why), 2) end
  return value
end

--- Stores a value at an index, converted as `tensor` converts list elements.
-- @tparam number|boolean value
-- @param ... numbers
function Tensor:set(value, ...)
  local offset, message = locate(self, "set", ...)
  message = message or read_only(self, "set")
  if message then error(message, 2) end
  local ok, why = element.put(self.dtype, self.ptr, offset, value)
  if not ok then error(("set: the value at %s %s"):format(text { ... }, why), 2) end
end

local function check_dim(t, what, dim)
  if type(dim) ~= "number" or dim % 1 ~= 0 or dim < -t.ndim or dim >= t.ndim then
    raise("%s: dim %s is outside [%d, %d) (shape %s)", what, element.text(dim), -t.ndim, t.ndim,
          text(t.shape))
  end
  return (dim < 0 and dim + t.ndim or dim) + 1
end

-- A view of the same memory, starting `offset` elements later.
local function view_at(t, offset, shape, strides)
  return new(t.ptr + offset * t.itemsize, t.dtype, shape, strides, t.owner, t.device)
end

local function select_index(t, what, dim, i)
  local d = check_dim(t, what, dim)
  local offset, message = step(t, what, d - 1, i)
  if not offset then raise(message) end
  local shape, strides = copy_list(t.shape), copy_list(t.strides)
  table.remove(shape, d)
  table.remove(strides, d)
  return view_at(t, offset, shape, strides)
end

--- Returns the view at index i of a dimension. The view lacks that dimension.
-- @tparam number dim
-- @tparam number i
-- @treturn tensor
Tensor.select = misuse.guard(function(self, dim, i)
  return select_index(self, "select", dim, i)
end)

--- The view of the indices `from` to `to` - 1 of a dimension. By default `from` is 0 and
-- `to` is the dimension's size; negative ones count from the end.
-- @tparam number dim
-- @tparam[opt] number from
-- @tparam[opt] number to
-- @treturn tensor
Tensor.slice = misuse.guard(function(self, dim, from, to)
  local d = check_dim(self, "slice", dim)
  local size = self.shape[d]
  from, to = from == nil and 0 or from, to == nil and size or to
  for _, bound in ipairs { from, to } do
    if type(bound) ~= "number" or bound % 1 ~= 0 or bound < -size or bound > size then
      raise("slice: bound %s in dim %d is outside [%.17g, %.17g] (shape %s)", element.text(bound),
            d - 1, -size, size, text(self.shape))
    end
  end
  from, to = from < 0 and from + size or from, to < 0 and to + size or to
  if from > to then
    raise("slice: from %.17g to %.17g in dim %d (shape %s)", from, to, dim, text(self.shape))
  end
  local shape = copy_list(self.shape)
  shape[d] = to - from
  return view_at(self, from < to and from * self.strides[d] or 0, shape, copy_list(self.strides))
end)

--- Returns the view with two dimensions exchanged (by default 0 and 1, for a matrix).
-- @tparam[opt] number dim0
-- @tparam[opt] number dim1
-- @treturn tensor
Tensor.transpose = misuse.guard(function(self, dim0, dim1)
  if dim0 == nil and dim1 == nil and self.ndim == 2 then dim0, dim1 = 0, 1 end
  local a, b = check_dim(self, "transpose", dim0), check_dim(self, "transpose", dim1)
  local shape, strides = copy_list(self.shape), copy_list(self.strides)
  shape[a], shape[b] = shape[b], shape[a]
  strides[a], strides[b] = strides[b], strides[a]
  return view_at(self, 0, shape, strides)
end)

--- Returns the view that repeats dimensions of size 1, and new ones in front, to make a shape.
-- Several elements of it are then one place in memory.
-- @tparam table shape
-- @treturn tensor
Tensor.expand = misuse.guard(function(self, shape)
  shape = checked("expand", layout.shape(shape))
  local strides, more = {}, #shape - self.ndim
  for d = 1, #shape do
    local size = self.shape[d - more] or 1
    if more < 0 or size ~= shape[d] and size ~= 1 then
      raise("expand: from shape %s to %s", text(self.shape), text(shape))
    end
    strides[d] = size == shape[d] and self.strides[d - more] or 0
  end
  return view_at(self, 0, shape, strides)
end)

--- Whether the elements follow each other in memory in index order.
-- @treturn boolean
function Tensor:is_contiguous() return is_contiguous(self) end

--- Returns the tensor itself if it is contiguous, otherwise a contiguous copy on the same device
-- (made in memory and copied back). Returns nil, a message and a code if the device fails.
-- @treturn tensor
Tensor.contiguous = misuse.guard(function(self)
  if is_contiguous(self) then return self end
  return cloned(self, "contiguous")
end)

--- Returns a contiguous copy on the same device; nil, a message and a code if the device fails.
-- @treturn tensor
Tensor.clone = misuse.guard(function(self) return cloned(self, "clone") end)

-- The requested shape, given as a list or as arguments. One size may be -1, which is then computed
-- from the others.
local function wanted_shape(t, what, first, ...)
  local list = type(first) == "table" and copy_list(first) or { first, ... }
  local open, known = nil, 1
  for d = 1, #list do
    if list[d] == -1 and not open then
      open = d
    elseif type(list[d]) == "number" then
      known = known * list[d]
    end
  end
  local numel = t:numel()
  if open then
    if known < 1 or numel % known ~= 0 then
      raise("%s: shape %s of %.17g elements as %s", what, text(t.shape), numel, text(list))
    end
    list[open] = numel / known
  end
  local shape = checked(what, layout.shape(list))
  if layout.numel(shape) ~= numel then
    raise("%s: shape %s has %.17g elements, %s has %.17g", what, text(t.shape), numel, text(shape),
          layout.numel(shape))
  end
  return shape
end

--- Returns a view of the same elements in the same order, in another shape. Refused where only a
-- copy could have that shape.
-- @param ... sizes, or a list of them
-- @treturn tensor
Tensor.view = misuse.guard(function(self, ...)
  local shape = wanted_shape(self, "view", ...)
  local strides = layout.reshaped(self.shape, self.strides, shape)
  if not strides then
    raise("view: shape %s with strides %s cannot be seen as %s without a copy (see reshape)",
          text(self.shape), text(self.strides), text(shape))
  end
  return view_at(self, 0, shape, strides)
end)

--- Returns the same elements in another shape, as a view if possible, otherwise as a copy.
-- @param ... sizes, or a list of them
-- @treturn tensor
Tensor.reshape = misuse.guard(function(self, ...)
  local shape = wanted_shape(self, "reshape", ...)
  local strides = layout.reshaped(self.shape, self.strides, shape)
  if strides then return view_at(self, 0, shape, strides) end
  local copy, message, code = cloned(self, "reshape")
  if not copy then return nil, message, code end
  return view_at(copy, 0, shape, layout.dense(shape))
end)

local function stream_option(what, opts, device)
  if opts == nil then return nil end
  if type(opts) ~= "table" then
    raise("%s: options are %s, not a table", what, element.text(opts))
  end
  for key in pairs(opts) do
    if key ~= "stream" then raise("%s: unknown option '%s'", what, tostring(key)) end
  end
  return opts.stream ~= nil and devices.check_stream(what, opts.stream, device) or nil
end

-- A contiguous copy on another device.
local function moved(t, device, opts)
  if t.device == "cpu" then return sent(t, "to", device, stream_option("to", opts, device)) end
  local stream = stream_option("to", opts, t.device)
  if device == "cpu" then return fetched(t, "to", stream) end
  if stream then
    raise("to: from %s to %s goes through memory: not in a stream", t.device, device)
  end
  local copy, message, code = fetched(t, "to")
  if not copy then return nil, message, code end
  return sent(copy, "to", device)
end

-- A copy in another dtype, on the same device.
local converted
function converted(t, target)
  if t.device ~= "cpu" then
    local copy, message, code = fetched(t, "to")
    if not copy then return nil, message, code end
    return sent(converted(copy, target), "to", t.device)
  end
  local source = dense(t, "to")
  local out = allocate("to", target, t.shape)
  local bad = convert.array(target, out.ptr, source.dtype, source.ptr, out:numel())
  if bad then
    local value = element.read[source.dtype](source.ptr, bad)
    local _, why = element.check_integer(dtype.of[target], value)
    raise("to: element %s is %s, %s", text(layout.index(bad, t.shape)), element.text(value), why)
  end
  return out
end

--- The tensor in another dtype or on another device, or the tensor itself if nothing
-- changes.
--
-- Floats are rounded once, to nearest even (subnormals kept, overflow to infinity, NaN stays NaN).
-- An integer dtype takes integers in its range, and an error names the first element that is not
-- one; bool is true where an element is not zero.
--
-- On another device ("cpu", "cuda", "cuda:1") the copy is contiguous. With `opts.stream` the copy
-- is put into that stream and `to` returns at once: the result is ready when the stream has reached
-- that point, and the stream keeps both tensors until its `wait`. (Only copies between a device and
-- page-locked memory overlap other work.) If a device is not available or fails, `to` returns nil,
-- a message and a code.
-- @tparam string target a dtype or a device
-- @tparam[opt] table opts `stream`
-- @treturn tensor
Tensor.to = misuse.guard(function(self, target, opts)
  if dtype.of[target] then
    if opts ~= nil then raise "to: options are for devices" end
    if target == self.dtype then return self end
    return converted(self, target)
  end
  if type(target) ~= "string" or target ~= "cpu" and target ~= "cuda" and
     not target:find("^%l+:%d+$") then
    raise("to: %s is neither a dtype (%s) nor a device", element.text(target), dtype.names)
  end
  local device = device_name("to", target)
  if device == self.device then return self end
  return moved(self, device, opts)
end)

--- Copies the elements of another tensor of the same dtype and shape into this one, which must be
-- contiguous. Either tensor may be on any device. `opts.stream` works as for `to`; a tensor copied
-- in a stream must be contiguous, too. Returns this tensor; or nil, a message and a code if a
-- device fails.
-- @tparam tensor source
-- @tparam[opt] table opts `stream`
-- @treturn tensor
Tensor.copy_ = misuse.guard(function(self, source, opts)
  if not M.is_tensor(source) then raise("copy_: %s is no tensor", element.text(source)) end
  if source.dtype ~= self.dtype or text(source.shape) ~= text(self.shape) then
    raise("copy_: from %s %s to %s %s", source.dtype, text(source.shape), self.dtype,
          text(self.shape))
  end
  if not is_contiguous(self) then
    raise("copy_: the target of shape %s with strides %s is not contiguous", text(self.shape),
          text(self.strides))
  end
  local device = self.device == "cpu" and source.device or self.device
  if device == "cpu" and type(opts) == "table" and devices.is_stream(opts.stream) then
    device = opts.stream.device
  end
  local stream = stream_option("copy_", opts, device)

  -- Copies between two devices, or from a strided tensor on a device, go through memory.
  local elsewhere = source.device ~= "cpu" and source.device ~= device
  if stream and (elsewhere or not is_contiguous(source)) then
    raise("copy_: %s on %s with strides %s is no single copy: not in a stream", text(source.shape),
          source.device, text(source.strides))
  end
  if elsewhere or source.device ~= "cpu" and not is_contiguous(source) then
    local copy, message, code = fetched(source, "copy_")
    if not copy then return nil, message, code end
    source = copy
  end
  source = dense(source, "copy_")
  if device == "cpu" then
    ffi.copy(self.ptr, source.ptr, bytes_of(self))
    return self
  end
  local at, why, name = devices.of(device)
  if not at then return failed("copy_", device, why, name) end
  local ok, message, code = at:copy(self.ptr, source.ptr, bytes_of(self), stream)
  if not ok then return failed("copy_", device, message, code) end
  if stream then hold(device, stream, self, source) end
  return self
end)

local function nested_of(t, read)
  local list = nested.to(t.ptr, t.shape, t.strides, read)
  storage.keep(t)
  return list
end

--- Returns the elements as nested lists (for a tensor of shape [], the value), each as `get`
-- returns it.
-- @treturn table
Tensor.totable = misuse.guard(function(self)
  local t = readable(self, "totable")
  return nested_of(t, element.read[t.dtype])
end)

--- Returns the encodings as nested lists of hex strings, two digits per byte, most significant
-- first.
-- @treturn table
Tensor.bits = misuse.guard(function(self)
  local t = readable(self, "bits")
  return nested_of(t, element.hex[t.itemsize])
end)

-- t[i]: the view of row i, or the element itself where there is one dimension.
local index_number = misuse.guard(function(self, i)
  if self.ndim == 0 then raise "index: a tensor of shape [] has no dimension" end
  if self.ndim > 1 then return select_index(self, "index", 0, i) end
  local offset, message = locate(self, "index", i)
  if not offset then raise(message) end
  local value, why = transfer.read(self, offset)
  if value == nil then raise("index: %s: %s", self.device, why) end
  return value
end)

local function refuse_freed(self)
  if fields_of[self].freed then raise("tensor: %s has been freed", M.describe(self)) end
end

-- Makes the memory of a deferred tensor: its pointer or its owner.
local function made(self, key)
  refuse_freed(self)
  local fields = fields_of[self]
  if not fields.make then return nil end
  fields.ptr, fields.owner = fields.make()
  fields.make = nil
  return fields[key]
end

function metatable.__index(self, key)
  if type(key) == "number" then return index_number(self, key) end
  local value = fields_of[self][key]
  if type(value) == "nil" and (key == "ptr" or key == "owner") then return made(self, key) end
  return value
end

local set_number = misuse.guard(function(self, i, value)
  if self.ndim ~= 1 then
    raise("index: t[i] = v needs one dimension, the shape is %s (see set)", text(self.shape))
  end
  local offset, message = locate(self, "index", i)
  message = message or read_only(self, "index")
  if message then raise("%s", message) end
  local ok, why = element.put(self.dtype, self.ptr, offset, value)
  if not ok then raise("index: the value at [%d] %s", i, why) end
end)

function metatable.__newindex(self, key, value)
  if type(key) == "number" then return set_number(self, key, value) end
  fields_of[self][key] = value
end

function metatable.__tostring(self) return self:text() end

--- Returns the text that tostring gives, in lines of `width` columns.
-- @tparam[opt] number width
-- @treturn string
function Tensor:text(width)
  if fields_of[self].freed then return tensor_text.head(self) .. ", freed" end
  return tensor_text.describe(self, transfer.read, width)
end

local function following(t, i)
  i = i + 1
  if i < t.shape[1] then return i, t[i] end
end

--- For loops over the first dimension: `for i, row in t:each() do`, where `row` is `t[i]`.
-- @treturn function an iterator
-- @treturn tensor
-- @treturn number
Tensor.each = misuse.guard(function(self)
  if self.ndim == 0 then raise "each: a tensor of shape [] has no dimension" end
  return following, self, -1
end)

metatable.__len = Tensor.len
-- LuaJIT calls this if it was built with the metamethods of Lua 5.2; others refuse ipairs(t).
metatable.__ipairs = Tensor.each

--- Gives the memory back now, where it would otherwise wait for the collector: that of a tensor on
-- a device, and 1 MiB or more in memory. Work in streams is waited for. This tensor, and for such
-- memory all its views and batches of them, cannot be used any more. Memory that the library did
-- not allocate, or that `samebits.dlpack` has lent out, stays as it is.
Tensor.free = misuse.guard(function(self)
  local own = fields_of[self]
  local owner = not own.freed and own.owner
  local set = owner and sharers[owner] or { [self] = true }
  M.freed = M.freed + 1
  for t in pairs(set) do
    local fields = fields_of[t]
    fields.freed, fields.ptr, fields.owner, fields.make = true, nil, nil, nil
  end
  if owner and sharers[owner] then
    sharers[owner] = nil
    devices.settle_all()
    if not storage.free(owner) then devices.free(owner) end
  end
end)

--- For code inside the library that lends memory out: `free` does not give it back any more.
-- Returns the owner, to keep as long as the memory is lent.
function M.lend(t)
  local owner = t.owner
  if owner ~= nil then sharers[owner] = nil end
  return owner
end

require "samebits.tensor.arithmetic"(M, Tensor, metatable)
require "samebits.tensor.reduce"(M, Tensor)

-- Methods by class, for samebits.repl.sources.
M.classes = { Tensor = Tensor }

return M
