--- Tensors: a pointer, a dtype, a shape and strides.
--
-- Fields (read them, do not write them): `dtype` ("float32", ... see dtype.lua), `shape` and
-- `strides` (lists; strides in elements), `ndim`, `itemsize`, `device` ("cpu"), `ptr` (uint8_t *,
-- the first element) and `owner` (what keeps the memory alive: hold the tensor, or its owner, as
-- long as the pointer is used).
--
-- Dimensions and indices count from 0: `t[0]` is the first row. Views share memory: slice, select,
-- transpose, view, `t[i]`. Nothing changes a tensor but `set`, `t[i] = v` and writes through ptr.
--
-- Reading floats through a pointer, mind that LuaJIT takes some NaN encodings for values of another
-- type (see element.lua); `get`, `totable` and `bits` do not.

local ffi = require "ffi"
local convert = require "samebits.convert"
local dtype = require "samebits.dtype"
local element = require "samebits.element"
local layout = require "samebits.layout"
local misuse = require "samebits.misuse"
local nested = require "samebits.nested"
local storage = require "samebits.storage"
local tensor_text = require "samebits.tensor_text"

local raise, text = misuse.raise, layout.text
local bytes_p = ffi.typeof("uint8_t *")

local M = {}

local Tensor = {}  -- methods
local metatable = {}

local function new(ptr, name, shape, strides, owner, device)
  return setmetatable({
    ptr = ptr, dtype = name, shape = shape, strides = strides, owner = owner, device = device,
    ndim = #shape, itemsize = dtype.of[name].size,
  }, metatable)
end

--- Whether a value is a tensor.
function M.is_tensor(value) return getmetatable(value) == metatable end

-- The result of a check that gives nil and a message.
local function checked(what, value, message)
  if value == nil then raise("%s: %s", what, message) end
  return value
end

local function on_cpu(t, what)
  if t.device ~= "cpu" then raise("%s: the elements are on %s, not in memory", what, t.device) end
end

local function allocate(what, name, shape)
  local size = layout.numel(shape) * dtype.of[name].size
  local ptr, owner = storage.zeroed(size)
  if not ptr then raise("%s: no memory for %.17g bytes (%s %s)", what, size, name, text(shape)) end
  return new(ptr, name, shape, layout.dense(shape), owner, "cpu")
end

-- "cpu", or a backend's name and a number: "cuda" is "cuda:0".
local function device_name(what, name)
  if name == nil or name == "cpu" then return "cpu" end
  if type(name) == "string" then
    if name:find("^%l+$") then return name .. ":0" end
    if name:find("^%l+:%d+$") then return name end
  end
  raise("%s: device %s; expected 'cpu' or one like 'cuda:0'", what, element.text(name))
end

-- Memory of the caller's, which stays the caller's.
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
    -- An array's size is known.
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

local function is_pointer(data)
  return type(data) == "cdata" and tostring(ffi.typeof(data)):find("[%*%[]") ~= nil
end

--- A tensor from nested Lua lists (or one number), or over memory of the caller's.
--
-- * Lists: the shape is theirs (`opts.shape`, where given, must have as many elements); ragged ones
--   are refused. Floats take any number and round it, integers refuse what they cannot hold, bool
--   takes booleans, 0 and 1; int64_t values are taken exactly.
-- * A pointer or FFI array: `opts.shape` and `opts.dtype` are required, nothing is copied,
--   `opts.strides` (in elements, any sign) are dense by default, and `opts.owner` is kept alive
--   with the tensor.
--
-- `opts.dtype` is "float32" by default. `opts.device` says where a pointer points; lists make
-- tensors in memory ("cpu").
M.tensor = misuse.guard(function(data, opts)
  opts = check_options(opts)
  if M.is_tensor(data) then raise "tensor: data is a tensor; see its methods to and clone" end
  if is_pointer(data) then return from_pointer(data, opts) end

  local name = checked("tensor", dtype.find(opts.dtype or "float32")).name
  if opts.strides ~= nil then raise "tensor: strides are for pointers" end
  if device_name("tensor", opts.device) ~= "cpu" then
    raise("tensor: device '%s' is for pointers; data is %s", opts.device, type(data))
  end
  local shape = nested.shape(data, "tensor")
  local out = allocate("tensor", name, shape)
  local function put(p, k, v) return element.put(name, p, k, v) end
  if #shape == 0 then
    local ok, why = put(out.ptr, 0, data)
    if not ok then raise("tensor: data %s", why) end
  else
    -- bool is stricter here than a conversion to bool is.
    nested.fill(data, shape, out.ptr, "tensor", put, name ~= "bool" and name or nil)
  end
  if opts.shape == nil then return out end
  local wanted = checked("tensor", layout.shape(opts.shape))
  if layout.numel(wanted) ~= out:numel() then
    raise("tensor: data of shape %s has %.17g elements, %s has %.17g", text(shape), out:numel(),
          text(wanted), layout.numel(wanted))
  end
  return new(out.ptr, name, wanted, layout.dense(wanted), out.owner, "cpu")
end)

--- A tensor from nested lists of hex strings, as `bits` gives them.
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

local function filled(what)
  return misuse.guard(function(shape, name)
    name = checked(what, dtype.find(name or "float32")).name
    return allocate(what, name, checked(what, layout.shape(shape)))
  end)
end

--- A tensor of zeros.
M.zeros = filled "zeros"

--- A tensor to be written; what it holds until then is not promised.
M.empty = filled "empty"

--- The number of elements.
function Tensor:numel() return layout.numel(self.shape) end

--- The size of the first dimension (`#t` cannot work in LuaJIT).
function Tensor:len()
  if self.ndim == 0 then error("len: a tensor of shape [] has no dimension", 2) end
  return self.shape[1]
end

--- The first element's address as a pointer of the dtype's C type (uint16_t for 16-bit floats).
function Tensor:pointer() return ffi.cast(element.pointer[self.dtype], self.ptr) end

-- The offset that one index adds; nil and a message where there is no such index.
local function step(t, what, dim, i)
  local size = t.shape[dim + 1]
  if type(i) ~= "number" or i % 1 ~= 0 or i < 0 or i >= size then
    return nil, ("%s: index %s in dim %d is outside [0, %.17g) (shape %s)"):format(
      what, element.text(i), dim, size, text(t.shape))
  end
  return i * t.strides[dim + 1]
end

-- The offset of an index, in elements; nil and a message where there is no such element.
local function locate(t, what, ...)
  local n = select("#", ...)
  if n ~= t.ndim then
    return nil, ("%s: %d indices for a tensor of shape %s"):format(what, n, text(t.shape))
  end
  if t.device ~= "cpu" then
    return nil, ("%s: the elements are on %s, not in memory"):format(what, t.device)
  end
  local offset = 0
  if n <= 3 then
    -- Written out: LuaJIT does not compile select() with a variable.
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

--- The element at an index, one number a dimension. It is a number; true or false for bool; an
-- int64_t for int64 values beyond 2^53 in magnitude, which a number cannot hold.
function Tensor:get(...)
  local offset, message = locate(self, "get", ...)
  if not offset then error(message, 2) end
  return element.read[self.dtype](self.ptr, offset)
end

--- Stores a value at an index, converted as `tensor` converts list elements.
function Tensor:set(value, ...)
  local offset, message = locate(self, "set", ...)
  if not offset then error(message, 2) end
  local ok, why = element.put(self.dtype, self.ptr, offset, value)
  if not ok then error(("set: the value at %s %s"):format(text { ... }, why), 2) end
end

local function check_dim(t, what, dim)
  if type(dim) ~= "number" or dim % 1 ~= 0 or dim < 0 or dim >= t.ndim then
    raise("%s: dim %s is outside [0, %d) (shape %s)", what, element.text(dim), t.ndim,
          text(t.shape))
  end
  return dim + 1
end

local function copy_list(list)
  local out = {}
  for i = 1, #list do out[i] = list[i] end
  return out
end

-- A view of the same memory, `offset` elements further on.
local function view_at(t, offset, shape, strides)
  return new(t.ptr + offset * t.itemsize, t.dtype, shape, strides, t.owner, t.device)
end

local function select_index(t, what, dim, i)
  local d = check_dim(t, what, dim)
  local offset, message = step(t, what, dim, i)
  if not offset then raise(message) end
  local shape, strides = copy_list(t.shape), copy_list(t.strides)
  table.remove(shape, d)
  table.remove(strides, d)
  return view_at(t, offset, shape, strides)
end

--- The view of index i in a dimension, which disappears.
Tensor.select = misuse.guard(function(self, dim, i)
  return select_index(self, "select", dim, i)
end)

--- The view of indices from .. to - 1 of a dimension; by default from its beginning, to its end.
Tensor.slice = misuse.guard(function(self, dim, from, to)
  local d = check_dim(self, "slice", dim)
  local size = self.shape[d]
  from, to = from == nil and 0 or from, to == nil and size or to
  for _, bound in ipairs { from, to } do
    if type(bound) ~= "number" or bound % 1 ~= 0 or bound < 0 or bound > size then
      raise("slice: bound %s in dim %d is outside [0, %.17g] (shape %s)", element.text(bound), dim,
            size, text(self.shape))
    end
  end
  if from > to then
    raise("slice: from %.17g to %.17g in dim %d (shape %s)", from, to, dim, text(self.shape))
  end
  local shape = copy_list(self.shape)
  shape[d] = to - from
  return view_at(self, from < to and from * self.strides[d] or 0, shape, copy_list(self.strides))
end)

--- The view with two dimensions exchanged (of a matrix: 0 and 1 by default).
Tensor.transpose = misuse.guard(function(self, dim0, dim1)
  if dim0 == nil and dim1 == nil and self.ndim == 2 then dim0, dim1 = 0, 1 end
  local a, b = check_dim(self, "transpose", dim0), check_dim(self, "transpose", dim1)
  local shape, strides = copy_list(self.shape), copy_list(self.strides)
  shape[a], shape[b] = shape[b], shape[a]
  strides[a], strides[b] = strides[b], strides[a]
  return view_at(self, 0, shape, strides)
end)

--- Whether the elements follow each other in memory in index order.
function Tensor:is_contiguous() return layout.is_dense(self.shape, self.strides) end

local copy_run = {}
for size, word_p in pairs(element.word) do
  -- A loop of its own for every size, so that each is compiled for its type.
  copy_run[size] = assert(loadstring([[
    local ffi, word_p = ...
    return function(target, source, count, step)
      local to, from = ffi.cast(word_p, target), ffi.cast(word_p, source)
      for i = 0, count - 1 do to[i] = from[i * step] end
    end]], "=copy_run"))(ffi, word_p)
end

local function dense_copy(t, what)
  on_cpu(t, what)
  local out = allocate(what, t.dtype, copy_list(t.shape))
  local size, run = t.itemsize, copy_run[t.itemsize]
  layout.each_run(t.shape, t.strides, function(offset, count, stride, first)
    local to, from = out.ptr + first * size, t.ptr + offset * size
    if stride == 1 then
      ffi.copy(to, from, count * size)
    else
      run(to, from, count, stride)
    end
  end)
  return out
end

local function dense(t, what)
  return t:is_contiguous() and t or dense_copy(t, what)
end

--- The tensor itself if it is contiguous, else a contiguous copy.
Tensor.contiguous = misuse.guard(function(self) return dense(self, "contiguous") end)

--- A contiguous copy.
Tensor.clone = misuse.guard(function(self) return dense_copy(self, "clone") end)

-- The shape asked for, given as a list or as arguments; one size may be -1: what is left.
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

--- The same elements in the same order in another shape, as a view. Refused where only a copy can.
Tensor.view = misuse.guard(function(self, ...)
  local shape = wanted_shape(self, "view", ...)
  local strides = layout.reshaped(self.shape, self.strides, shape)
  if not strides then
    raise("view: shape %s with strides %s cannot be seen as %s without a copy (see reshape)",
          text(self.shape), text(self.strides), text(shape))
  end
  return view_at(self, 0, shape, strides)
end)

--- The same, as a view if possible, else as a copy.
Tensor.reshape = misuse.guard(function(self, ...)
  local shape = wanted_shape(self, "reshape", ...)
  local strides = layout.reshaped(self.shape, self.strides, shape)
  if strides then return view_at(self, 0, shape, strides) end
  return view_at(dense_copy(self, "reshape"), 0, shape, layout.dense(shape))
end)

--- The tensor in another dtype or on another device; itself where nothing changes.
--
-- Floats are rounded to nearest even once (subnormals kept, overflow to infinity, NaN stays NaN).
-- An integer dtype takes integers in its range, and the first other element is named in an error;
-- bool is true where an element is not zero. A device that cannot be had is nil and a message.
Tensor.to = misuse.guard(function(self, target)
  if not dtype.of[target] then
    if type(target) ~= "string" or not target:find("^cpu$") and not target:find("^%l+:%d+$") and
       target ~= "cuda" then
      raise("to: %s is neither a dtype (%s) nor a device", element.text(target), dtype.names)
    end
    local device = device_name("to", target)
    if device == self.device then return self end
    return nil, ("to: no way from %s to %s"):format(self.device, device)
  end
  if target == self.dtype then return self end
  on_cpu(self, "to")
  local source = dense(self, "to")
  local out = allocate("to", target, copy_list(self.shape))
  local bad = convert.array(target, out.ptr, source.dtype, source.ptr, out:numel())
  if bad then
    local value = element.read[source.dtype](source.ptr, bad)
    local _, why = element.check_integer(dtype.of[target], value)
    raise("to: element %s is %s, %s", text(layout.index(bad, self.shape)), element.text(value), why)
  end
  return out
end)

--- The elements as nested lists (of a tensor of shape []: the value), as get gives them.
Tensor.totable = misuse.guard(function(self)
  on_cpu(self, "totable")
  return nested.to(self.ptr, self.shape, self.strides, element.read[self.dtype])
end)

--- The encodings as nested lists of hex strings, two digits a byte, most significant first.
Tensor.bits = misuse.guard(function(self)
  on_cpu(self, "bits")
  return nested.to(self.ptr, self.shape, self.strides, element.hex[self.itemsize])
end)

-- t[i]: the view of row i, or the element itself where there is one dimension.
local index_number = misuse.guard(function(self, i)
  if self.ndim == 0 then raise "index: a tensor of shape [] has no dimension" end
  if self.ndim > 1 then return select_index(self, "index", 0, i) end
  local offset, message = locate(self, "index", i)
  if not offset then raise(message) end
  return element.read[self.dtype](self.ptr, offset)
end)

function metatable.__index(self, key)
  if type(key) == "number" then return index_number(self, key) end
  return Tensor[key]
end

local set_number = misuse.guard(function(self, i, value)
  if self.ndim ~= 1 then
    raise("index: t[i] = v needs one dimension, the shape is %s (see set)", text(self.shape))
  end
  local offset, message = locate(self, "index", i)
  if not offset then raise(message) end
  local ok, why = element.put(self.dtype, self.ptr, offset, value)
  if not ok then raise("index: the value at [%d] %s", i, why) end
end)

function metatable.__newindex(self, key, value)
  if type(key) == "number" then return set_number(self, key, value) end
  rawset(self, key, value)
end

metatable.__tostring = tensor_text.describe

return M
