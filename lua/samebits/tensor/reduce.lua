--- Sums, means and extremes of tensors: of all elements, or along one dimension.
--
-- Sums are exact and rounded once, so that no order of addition shows. Sums of float32, float16 and
-- bfloat16 are the library's own (sb_sums), on the tensor's device; those of float64 are kept as
-- partial sums without rounding errors (Shewchuk), those of integers and bool are integers.

local ffi = require "ffi"
local element = require "samebits.tensor.element"
local misuse = require "samebits.misuse"
local layout = require "samebits.tensor.layout"

local raise, try = misuse.raise, misuse.try

local SHORT = { float32 = true, float16 = true, bfloat16 = true }

-- The exact sum of n numbers, rounded once to a double. The partial sums do not overlap, and grow.
local function exact(read, p, first, n)
  local partials, count, special = {}, 0, 0
  for k = first, first + n - 1 do
    local x = read(p, k)
    if x - x ~= 0 then special, x = special + x, 0 end -- infinities and NaN
    local kept = 0
    for i = 1, count do
      local y = partials[i]
      if math.abs(x) < math.abs(y) then x, y = y, x end
      local high = x + y
      local low = y - (high - x)
      if low ~= 0 then
        kept = kept + 1
        partials[kept] = low
      end
      x = high
    end
    count = kept + 1
    partials[count] = x
  end
  if special ~= 0 then return special end
  -- From the largest on. A tie in the last addition is decided by the sign of what is left.
  local sum = count > 0 and partials[count] or 0
  for i = count - 1, 1, -1 do
    local x, y = sum, partials[i]
    sum = x + y
    local low = y - (sum - x)
    if low ~= 0 then
      local below = partials[i - 1]
      if below and (low < 0) == (below < 0) then
        local twice = low * 2
        local moved = sum + twice
        if twice == moved - sum then sum = moved end
      end
      break
    end
  end
  return sum
end

local function integers(read, p, first, n)
  local sum = 0LL
  for k = first, first + n - 1 do
    local v = read(p, k)
    if v == true then v = 1 elseif v == false then v = 0 end
    local before = sum
    v = ffi.cast("int64_t", v)
    sum = sum + v
    if (v < 0) ~= (sum < before) and v ~= 0 then raise "sum: the sum is beyond int64" end
  end
  return sum
end

-- The position of the greatest (sign 1) or least (sign -1) of n >= 1 elements: the first one, and a
-- NaN before any other.
local function extreme(read, p, first, n, sign)
  local at, best = 0, nil
  for k = 0, n - 1 do
    local v = read(p, first + k)
    if v == true then v = 1 elseif v == false then v = 0 end
    if v ~= v then return k end
    if best == nil or sign > 0 and v > best or sign < 0 and v < best then at, best = k, v end
  end
  return at
end

return function(tensor, Tensor)
  -- The tensor as rows of n elements, contiguous in memory or on its device, and the shape of the
  -- result.
  local function rows_of(what, t, dim)
    local _ = t.ptr -- refused if freed
    if dim == nil then return t:reshape(1, t:numel()), {} end
    local d = dim
    if type(d) == "number" and d < 0 then d = d + t.ndim end
    if type(d) ~= "number" or d % 1 ~= 0 or d < 0 or d >= t.ndim then
      raise("%s: dim %s is outside [%d, %d) (shape %s)", what, element.text(dim), -t.ndim, t.ndim,
            layout.text(t.shape))
    end
    local shape = {}
    for i = 1, t.ndim do if i ~= d + 1 then shape[#shape + 1] = t.shape[i] end end
    for i = d, t.ndim - 2 do t = t:transpose(i, i + 1) end
    local n = t.shape[t.ndim]
    return try(t:reshape(layout.numel(shape), n)), shape
  end

  -- The result for rows: a number for the whole tensor, otherwise a tensor.
  local function shaped(t, shape, dim)
    if dim == nil then return t:reshape(-1):get(0) end
    return t:reshape(shape)
  end

  -- The library's sums of the rows of a tensor of short floats.
  local function sums(t, output)
    local ctx = try(require("samebits.context").shared(t.device))
    return try(ctx:sums(try(t:to "float32"), { outputs = { output } }))[output]
  end

  -- One value per row, by find(read, pointer, first, n).
  local function each_row(t, dtype, find)
    local m = try(try(t:to "cpu"):contiguous())
    local out, n, p = try(tensor.empty({ m.shape[1] }, dtype)), m.shape[2], m.ptr
    local read = element.read[m.dtype]
    for r = 0, m.shape[1] - 1 do out:set(find(read, p, r * n, n), r) end
    tensor.storage.keep(m)
    return try(out:to(t.device))
  end

  --- Returns the exact sum, rounded once; of no elements, 0. No order of addition shows in it. Of
  -- floats it is float32, of float64 float64, of integers and bool (which counts what is true) an
  -- integer.
  -- @tparam[opt] number dim the dimension to sum along; everything by default
  -- @treturn number|tensor a number; or a tensor without that dimension
  Tensor.sum = misuse.guard(function(self, dim)
    local t, shape = rows_of("sum", self, dim)
    local out
    if SHORT[t.dtype] then
      out = sums(t, "sum")
    elseif t.dtype == "float64" then
      out = each_row(t, "float64", exact)
    else
      out = each_row(t, "int64", integers)
    end
    return shaped(out, shape, dim)
  end)

  --- Returns the mean: the exact sum divided by the number of elements; of no elements, NaN. Of
  -- float32, float16 and bfloat16 it is float32, of others float64. `ctx:sums` has means under a
  -- mask.
  -- @tparam[opt] number dim as for `sum`
  -- @treturn number|tensor a number; or a tensor without that dimension
  Tensor.mean = misuse.guard(function(self, dim)
    local t, shape = rows_of("mean", self, dim)
    if t.shape[2] > 0 and SHORT[t.dtype] then return shaped(sums(t, "mean"), shape, dim) end
    local add = t.dtype == "float64" and exact or integers
    return shaped(each_row(t, SHORT[t.dtype] and "float32" or "float64", function(read, p, first, n)
      if n == 0 then return 0 / 0 end
      return tonumber(add(read, p, first, n)) / n
    end), shape, dim)
  end)

  local function extremes(what, t, dim, sign, dtype)
    local rows, shape = rows_of(what, t, dim)
    if rows.shape[2] == 0 then
      raise("%s: of no elements (shape %s)", what, layout.text(t.shape))
    end
    return each_row(rows, dtype or rows.dtype, function(read, p, first, n)
      local at = extreme(read, p, first, n, sign)
      return dtype and at or read(p, first + at)
    end), shape
  end

  --- Returns the greatest element; NaN if there is a NaN. Refused for no elements.
  -- @tparam[opt] number dim as for `sum`
  -- @treturn number|boolean|tensor a value; or a tensor of this dtype, without that dimension
  Tensor.max = misuse.guard(function(self, dim)
    local out, shape = extremes("max", self, dim, 1)
    return shaped(out, shape, dim)
  end)

  --- Returns the least element: see `max`.
  -- @tparam[opt] number dim as for `sum`
  -- @treturn number|boolean|tensor a value; or a tensor of this dtype, without that dimension
  Tensor.min = misuse.guard(function(self, dim)
    local out, shape = extremes("min", self, dim, -1)
    return shaped(out, shape, dim)
  end)

  --- Returns where the greatest element is, the first one if several are equal; or the first NaN.
  -- @tparam[opt] number dim as for `sum`
  -- @treturn number|tensor its index, one number per dimension, so that `t:get(t:argmax())` is
  -- `t:max()`; or, with a dimension, an int64 tensor of indices in it
  Tensor.argmax = misuse.guard(function(self, dim)
    local out, shape = extremes("argmax", self, dim, 1, "int64")
    if dim ~= nil then return shaped(out, shape, dim) end
    return unpack(layout.index(out:get(0), self.shape))
  end)
end
