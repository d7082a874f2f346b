--- Heads: the last layer of a language model, whose logits have the same bits for any batch, any
-- cut of the vocabulary or of D, and any machine. `head` makes one. A batch with `hidden` and
-- `head` then goes wherever a batch with `logits` goes.

local ffi = require "ffi"
local call = require "samebits.op.call"
local class = require "samebits.op.class"
local lib = require "samebits.lib"
local misuse = require "samebits.misuse"
local status_of = require "samebits.status"
local tensor = require "samebits.tensor"

local C, raise, try = lib.C, misuse.raise, misuse.try
local layout, describe = tensor.layout, tensor.describe
local Head = class.Head

local DTYPES = { float32 = 1, float16 = 2, bfloat16 = 3 }
local FORMATS = { h24w16 = C.SB_H24W16, h24w24 = C.SB_H24W24 }
local BOUNDARY = 256 -- of a head's memory

local M = {}

function Head:__tostring()
  return ("samebits head: [%d, %d] %s%s on %s"):format(self.ids, self.width, self.format,
    self.first > 0 and (", ids from %d on"):format(self.first) or "", self.device)
end

--- Frees the head now, rather than when nothing refers to it. All calls that use it must be done.
function Head:free()
  if not self.handle then return end
  call.free_head(self.alive, ffi.gc(self.handle, nil))
  self.handle, self.memory = nil, nil
end

-- Making heads ----------------------------------------------------------------------------------

local function check_floats(what, t, ndim, device)
  if not tensor.is_tensor(t) or not DTYPES[t.dtype] or t.ndim ~= ndim then
    raise("%s: expected a %s of float32, float16 or bfloat16, got %s", what,
          ndim == 2 and "tensor [V, D]" or "tensor [V]", describe(t))
  end
  if t.device ~= device then
    raise("%s: the tensor is on %s, the context is on %s", what, t.device, device)
  end
  return t
end

local function number(what, value, default)
  if value == nil then return default end
  if type(value) ~= "number" then
    raise("%s: expected a number, got %s", what, misuse.kind(value))
  end
  return value
end

-- The library's struct of weights. at: the call, which holds what the struct points to.
local function weights_of(at, weights, opts)
  local what = at.what
  check_floats(what .. ": weights", weights, 2, at.device)
  local format = opts.format == nil and "h24w16" or opts.format
  if not FORMATS[format] then
    raise("%s: format: expected \"h24w16\" or \"h24w24\", got %s", what, tostring(format))
  end
  if weights.shape[2] > 1 and weights.strides[2] ~= 1 or
     weights.shape[1] > 1 and weights.strides[1] < weights.shape[2] then
    weights = at:in_place("weights", weights, weights.itemsize)
  end
  at:hold(weights)
  local c = ffi.new "sb_head_weights"
  c.size = ffi.sizeof "sb_head_weights"
  c.dtype, c.weights = DTYPES[weights.dtype], ffi.cast("const void *", weights.ptr)
  c.ids, c.width = weights.shape[1], weights.shape[2]
  c.row_stride = weights.shape[1] > 1 and weights.strides[1] or 0
  c.first = call.small_integer(what .. ": first", opts.first)
  c.bias_dtype, c.format = DTYPES.float32, FORMATS[format]
  if opts.bias ~= nil then
    local bias = check_floats(what .. ": bias", opts.bias, 1, at.device)
    if bias.shape[1] ~= weights.shape[1] then
      raise("%s: bias: shape %s, the weights are %s", what, layout.text(bias.shape),
            layout.text(weights.shape))
    end
    bias = at:in_place("bias", bias, bias.itemsize)
    c.bias, c.bias_dtype = ffi.cast("const void *", bias.ptr), DTYPES[bias.dtype]
  end
  if opts.scales ~= nil then
    local scales = at:input("scales", opts.scales, "int32", { weights.shape[1] })
    c.scales = ffi.cast("const uint32_t *", scales.ptr)
  end
  c.scale = number(what .. ": scale", opts.scale, 1)
  c.softcap = number(what .. ": softcap", opts.softcap, 0)
  c.keep_bad = opts.keep_bad and 1 or 0
  c.norms = opts.norms and 1 or 0
  return c, format
end

local function aligned(t)
  local address = ffi.cast("char *", t.ptr)
  local past = tonumber(ffi.cast("uintptr_t", address) % BOUNDARY)
  return address + (BOUNDARY - past) % BOUNDARY
end

local KNOWN = { "format", "bias", "scale", "softcap", "first", "scales", "keep_bad", "norms" }
local HEAD = call.op { name = "head", options = KNOWN, launch = { "check", "stream" } }
local UPDATE = call.op { name = "update", options = KNOWN, launch = { "check", "stream" } }

local function check(status, context) try(status_of.check(status, context.handle)) end

local function describe_head(head, c, format)
  head.ids, head.width, head.first = tonumber(c.ids), tonumber(c.width), tonumber(c.first)
  head.format, head.scale, head.softcap, head.norms = format, c.scale, c.softcap, c.norms == 1
  return head
end

local function make(self, weights, opts)
  local at = call.begin(HEAD, "head", self, opts)
  local c, format = weights_of(at, weights, at.opts)
  local size, handle = ffi.new "uint64_t[1]", ffi.new "sb_head *[1]"
  check(C.sb_head_bytes(self.handle, size, c), self)
  local memory = try(tensor.empty({ tonumber(size[0]) + BOUNDARY }, "uint8", self.device))
  at:hold(memory)
  check(C.sb_head_create(self.handle, handle, c, aligned(memory), size[0],
                         call.launch("head", self, at.opts)), self)
  at:hold_for_stream()
  local alive, context = self.alive, self.handle
  alive.heads = alive.heads + 1
  return describe_head(setmetatable({
    handle = ffi.gc(handle[0], function(p) call.finalize_head(alive, p) end),
    alive = alive, context = context, memory = memory,
    bytes = tonumber(size[0]), device = self.device, biased = c.bias ~= nil,
  }, Head), c, format)
end

--- Prepares a head from weights: the logit of id v is the exact product of a hidden state and row v
-- of the weights, rounded once. docs/numerics.md has the definition, in "The linear head".
-- @tparam tensor weights [V, D], float32, float16 or bfloat16, on the context's device; they are
-- not needed afterwards
-- @tparam[opt] table opts `format`: "h24w16" (the default; 2 bytes per weight) or "h24w24" (3
-- bytes, and at most the error of a float32 product); `bias`: a tensor [V]; `scale`: a factor of
-- all logits; `softcap`: cap of cap * tanh(x / cap); `first`: the id of the first row, if the
-- weights are of a shard of the vocabulary; `scales`: those of whole rows, if the weights are some
-- columns: see `scales`; `keep_bad`: true if rows with NaN or infinity are no errors, but make
-- logits NaN; `norms`: true if the head keeps the norms of its weights, for `head_error`; on a GPU
-- `check` and `stream`, as for `logprob`
-- @treturn head with the fields `ids`, `width`, `first`, `format`, `bytes`, `norms` and `device`;
-- for batches on the same device, of any context. Or nil, a message and the status' name. Invalid
-- weights are errors.
M.head = call.plain_method(make)

--- Prepares other weights in a head, such as those after a step of training. Their shape, `format`,
-- `first`, `norms` and whether there is a bias must be the head's.
-- @tparam head head
-- @tparam tensor weights as for `head`
-- @tparam[opt] table opts as for `head`; `format`, `first` and `norms` are the head's by default
-- @treturn head the same one; or nil, a message and the status' name
M.head_update = call.plain_method(function(self, head, weights, opts)
  local at = call.begin(UPDATE, "head_update", self, opts)
  if not class.is_head(head) then raise("head_update: expected a head, got %s", describe(head)) end
  local own = { format = head.format, first = head.first, norms = head.norms }
  for name, value in pairs(at.opts) do own[name] = value end
  local c, format = weights_of(at, weights, own)
  check(C.sb_head_update(self.handle, head.handle, c, call.launch("head_update", self, at.opts)),
        self)
  at:hold(head)
  at:hold_for_stream()
  return describe_head(head, c, format)
end)

-- Logits ----------------------------------------------------------------------------------------

-- The ids that a call is about: all of the head's by default.
local function part(at, batch)
  local first = at.opts.first == nil and batch.first or at.opts.first
  local n = at.opts.n
  if n == nil then n = batch.first + batch.held - first end
  return call.small_integer("first", first), call.small_integer("n", n)
end

local function check_hidden(at, batch)
  if not batch.head then raise("%s: the batch has logits, not hidden states", at.what) end
  return batch
end

local LOGITS = call.op {
  name = "logits",
  entry = "sb_logits",
  launch = { "split", "check", "stream", "workspace" },
  options = { "dtype", "first", "n", "to" },
  ids = "any",
  shards = true,
  arguments = function(at, given)
    local batch = check_hidden(at, at:batch(given))
    local first, n = part(at, batch)
    local dtype = at.opts.dtype == nil and "float32" or at.opts.dtype
    if not DTYPES[dtype] then
      raise("logits: dtype: expected float32, float16 or bfloat16, got %s", tostring(dtype))
    end
    local shape = layout.appended(batch.shape, n)
    local to = at.opts.to
    if to == nil then
      to = try(tensor.empty(shape, dtype, at.device))
    elseif not tensor.is_tensor(to) or not DTYPES[to.dtype] or not layout.same(to.shape, shape) or
           to.device ~= at.device or not to:is_contiguous() then
      raise("logits: to: %s, expected a contiguous tensor %s on %s", describe(to),
            layout.text(shape), at.device)
    end
    at.result = at:hold(to)
    local c = ffi.new "sb_logits_out"
    c.size = ffi.sizeof "sb_logits_out"
    c.dtype, c.logits = DTYPES[to.dtype], ffi.cast("void *", to.ptr)
    c.first, c.held = first, n
    return c, batch.c
  end,
}

--- Computes the logits of a batch of hidden states: those that all other calls use.
-- @param batch with `hidden` and `head`, as for `logprob`; it needs no ids
-- @tparam[opt] table opts `dtype`: "float32" (the default), or "bfloat16" or "float16", rounded
-- once more; `first` and `n`: only the ids from `first` on, n of them, multiples of 16; `to`: a
-- contiguous tensor to write to; `split`, and on a GPU `check`, `stream` and `workspace`, as for
-- `logprob`
-- @treturn tensor [.., V]: ignored rows are +0, ids outside kept sets -inf; or nil, a message and
-- the status' name. Invalid batches are errors.
M.logits = call.method(LOGITS)

local ERROR = call.op {
  name = "head_error",
  entry = "sb_head_error",
  launch = { "check", "stream" },
  options = { "scales" },
  ids = "any",
  shards = true,
  arguments = function(at, given)
    local batch = check_hidden(at, at:batch(given))
    local scales = at.opts.scales
    if scales ~= nil then scales = at:input("scales", scales, "int32", batch.shape) end
    at.result = at:hold(try(tensor.empty(batch.shape, "float32", at.device)))
    return ffi.cast("float *", at.result.ptr), batch.c,
           ffi.cast("const uint32_t *", scales and scales.ptr or nil)
  end,
}

--- Computes how far the logits of each row may be from the exact products of its hidden state and
-- the weights, beside half an ulp: a strict bound, for every id of the head. Divided by the root of
-- D, it is what to expect of the errors' root mean square: "h24w16" suits rows where that is far
-- below what a logit may be wrong, "h24w24" the others. See docs/numerics.md, "Linear: a row's own
-- bound".
-- @param batch with `hidden` and `head`, as for `logits`; the head was made with `norms`
-- @tparam[opt] table opts `scales`: int32, those of whole rows, if the batch has some columns, as
-- for `products`; on a GPU `check` and `stream`, as for `logprob`
-- @treturn tensor float32: ignored rows are +0, rows with NaN or infinity NaN; or nil, a message
-- and the status' name. Invalid batches are errors.
M.head_error = call.method(ERROR)

-- Derivatives by hidden states and weights --------------------------------------------------------

local PRODUCT = { grad = true, logits = true, weights = true, by_hidden = true, by_weights = true,
                  by_bias = true }

-- A contiguous float64 tensor of a shape, which the call adds to; null if there is none.
local function added_to(at, given, name, shape)
  local t = given[name]
  if t == nil then return nil end
  if not tensor.is_tensor(t) or t.dtype ~= "float64" or not layout.same(t.shape, shape) or
     t.device ~= at.device or not t:is_contiguous() then
    raise("head_backward: %s: expected a contiguous float64 tensor %s on %s, got %s", name,
          layout.text(shape), at.device, describe(t))
  end
  return ffi.cast("double *", at:hold(t).ptr)
end

-- Rows of floats that lie side by side, and the elements from one to the next.
local function rows(at, name, t, shape)
  if not tensor.is_tensor(t) or not DTYPES[t.dtype] or not layout.same(t.shape, shape) then
    raise("head_backward: %s: expected float32, float16 or bfloat16 %s, got %s", name,
          layout.text(shape), describe(t))
  end
  t = at:input(name, t, t.dtype, shape)
  return ffi.cast("const void *", t.ptr), DTYPES[t.dtype]
end

local BACKWARD = call.op {
  name = "head_backward",
  entry = "sb_head_backward",
  launch = {},
  options = { "first", "n" },
  takes = 2,
  ids = "any",
  shards = true,
  arguments = function(at, batch, given)
    batch = check_hidden(at, at:batch(batch))
    given = misuse.options("head_backward", given, PRODUCT)
    local first, n = part(at, batch)
    local D, shape = batch.head.width, layout.appended(batch.shape, n)
    local c = ffi.new "sb_head_gradient"
    c.size, c.first, c.held = ffi.sizeof "sb_head_gradient", first, n
    c.grad, c.grad_dtype = rows(at, "grad", given.grad, shape)
    c.weights_dtype = DTYPES.float32
    if given.weights ~= nil then
      c.weights, c.weights_dtype = rows(at, "weights", given.weights, { n, D })
    end
    if given.logits ~= nil then
      c.logits = ffi.cast("const float *", at:input("logits", given.logits, "float32", shape).ptr)
    end
    c.by_hidden = added_to(at, given, "by_hidden", batch.hidden.shape)
    c.by_weights = added_to(at, given, "by_weights", { n, D })
    c.by_bias = added_to(at, given, "by_bias", { n })
    at.result = true
    return c, batch.c
  end,
}

--- Adds the derivatives of a loss by hidden states, weights and biases, for all ids or a chunk of
-- them, to sums in fp64, in a fixed order: see `sb_head_backward` in src/samebits.h. On the cpu.
-- @param batch as for `logits`: the batch that was scored
-- @tparam table given `grad`: the derivatives by the logits of these ids, as `backward` gives them;
-- `logits`: these logits, if the head has a softcap; `weights` [n, D]: the rows of these ids, for
-- `by_hidden`; and what to add to, float64: `by_hidden`, shaped as the hidden states, `by_weights`
-- [n, D] and `by_bias` [n], each if it is wanted
-- @tparam[opt] table opts `first` and `n`: the ids, as for `logits`
-- @treturn boolean true; or nil, a message and the status' name. Invalid arguments are errors.
M.head_backward = call.method(BACKWARD)

-- Columns of D ----------------------------------------------------------------------------------

local SCALES = call.op {
  name = "scales",
  entry = "sb_scales",
  launch = { "stream" },
  arguments = function(at, matrix)
    if not tensor.is_tensor(matrix) or not DTYPES[matrix.dtype] or matrix.ndim < 2 then
      raise("scales: expected a tensor [.., D] of float32, float16 or bfloat16, got %s",
            describe(matrix))
    end
    matrix = at:input("matrix", matrix, matrix.dtype)
    local shape = { unpack(matrix.shape, 1, matrix.ndim - 1) }
    at.result = at:hold(try(tensor.empty(shape, "int32", at.device)))
    return ffi.cast("uint32_t *", at.result.ptr), ffi.cast("const void *", matrix.ptr),
           DTYPES[matrix.dtype], layout.numel(shape), matrix.shape[matrix.ndim], 0
  end,
}

--- Computes the scale of each row, for ranks that hold some columns of D each. The elementwise
-- maximum over the ranks, as integers, is the scale of whole rows.
-- @tparam tensor matrix [.., D]: hidden states or weights
-- @tparam[opt] table opts on a GPU `stream`
-- @treturn tensor int32, the shape without D; or nil, a message and the status' name
M.scales = call.method(SCALES)

local PRODUCTS = call.op {
  name = "products",
  entry = "sb_products",
  launch = { "split", "check", "stream", "workspace" },
  options = { "first", "n" },
  takes = 2,
  ids = "any",
  shards = true,
  arguments = function(at, given, scales)
    local batch = check_hidden(at, at:batch(given))
    local first, n = part(at, batch)
    scales = at:input("scales", scales, "int32", batch.shape)
    at.result = at:hold(try(tensor.empty(layout.appended(batch.shape, n), "int64", at.device)))
    return ffi.cast("int64_t *", at.result.ptr), batch.c, ffi.cast("const uint32_t *", scales.ptr),
           first, n
  end,
}

--- Computes the exact integer products of the columns that a rank holds. The elementwise sum over
-- the ranks, in any order, is the product of whole rows.
-- @param batch as for `logits`, of some columns, with a head that was made with `scales`
-- @tparam tensor scales int32, those of whole rows of `hidden`: the maximum over the ranks
-- @tparam[opt] table opts `first`, `n`, `split`, and on a GPU `check`, `stream` and `workspace`, as
-- for `logits`
-- @treturn tensor int64 [.., n]; ignored rows are 0; or nil, a message and the status' name
M.products = call.method(PRODUCTS)

local COMBINE = call.op {
  name = "combine",
  entry = "sb_combine",
  launch = { "stream" },
  options = { "first" },
  takes = 3,
  arguments = function(at, sums, scales, head)
    if not class.is_head(head) then raise("combine: expected a head, got %s", describe(head)) end
    at:hold(head)
    sums = at:input("sums", sums, "int64")
    if sums.ndim < 2 then raise("combine: sums: %s, expected [.., n]", describe(sums)) end
    local shape, n = { unpack(sums.shape, 1, sums.ndim - 1) }, sums.shape[sums.ndim]
    scales = at:input("scales", scales, "int32", shape)
    at.result = at:hold(try(tensor.empty(sums.shape, "float32", at.device)))
    local first = at.opts.first == nil and head.first or at.opts.first
    return ffi.cast("float *", at.result.ptr), ffi.cast("const int64_t *", sums.ptr),
           ffi.cast("const uint32_t *", scales.ptr), head.handle, layout.numel(shape),
           call.small_integer("first", first), n
  end,
}

--- Computes logits from sums of products over all columns, with the bits of `logits`.
-- @tparam tensor sums int64 [.., n]: the sum over the ranks of what `products` returns
-- @tparam tensor scales int32 [..]: those of whole rows of hidden
-- @tparam head head any rank's
-- @tparam[opt] table opts `first`: the id of the first sum; on a GPU `stream`
-- @treturn tensor float32 [.., n]; or nil, a message and the status' name
M.combine = call.method(COMBINE)

-- Methods by class, for samebits.repl.sources.
M.classes = { Head = Head }

return M
