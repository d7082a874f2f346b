--- Elementwise arithmetic and comparisons, as methods and operators of tensors.
--
-- An operand is a tensor or a number. The result is float32, or float64 if an operand is a float64,
-- int32 or int64 tensor, whose values a float32 may not hold; comparisons give bool. Numbers are
-- rounded to the result's dtype first. Each element of `+ - * /` is then one IEEE operation of that
-- dtype: float32 operands are computed in double and rounded once more, which for these four gives
-- the same bits (a double has more than twice a float32's digits, plus two).
--
-- Blocks of elements are converted to doubles by tensor/convert.lua, where every NaN becomes one
-- that LuaJIT can hold.

local ffi = require "ffi"
local convert = require "samebits.tensor.convert"
local element = require "samebits.tensor.element"
local layout = require "samebits.tensor.layout"
local misuse = require "samebits.misuse"

local raise, try, text = misuse.raise, misuse.try, layout.text

local BLOCK = convert.BLOCK
local a, b = ffi.new("double[?]", BLOCK), ffi.new("double[?]", BLOCK)
local result = ffi.new("double[?]", BLOCK)
local float = ffi.typeof "float"

-- Each operation has its own loop, so that each is compiled by itself. The loops read the blocks a
-- and b, and write `out`.
local function loop(expression)
  return assert(loadstring([[
    local a, b, exp, log, abs = ...
    return function(out, n) for i = 0, n - 1 do out[i] = ]] .. expression .. [[ end end]],
    "=" .. expression))(a, b, math.exp, math.log, math.abs)
end

local ARITHMETIC = { add = "a[i] + b[i]", sub = "a[i] - b[i]", mul = "a[i] * b[i]",
                     div = "a[i] / b[i]" }
local MASKS = { lt = "<", le = "<=", gt = ">", ge = ">=", eq = "==", ne = "~=" }
local ALONE = { abs = "abs(a[i])", exp = "exp(a[i])", log = "log(a[i])" }
local SIGNS = { add = "+", sub = "-", mul = "*", div = "/" }

-- Dtypes whose values a float32 may not hold.
local WIDE = { float64 = true, int32 = true, int64 = true }

-- The elements of a tensor in memory, in order. int64 values that a double cannot hold are refused.
local function readable(what, t)
  local _ = t.ptr -- refused if freed
  t = try(try(t:to "cpu"):contiguous())
  if t.dtype == "int64" then
    local p = t:pointer()
    for i = 0, t:numel() - 1 do
      if p[i] < -2LL ^ 53 or p[i] > 2LL ^ 53 then
        raise("%s: element %s is %s, beyond 2^53", what, text(layout.index(i, t.shape)),
              element.text(p[i]))
      end
    end
  end
  return t
end

-- The shape of two tensors together. Sizes agree from the last dimension on, or one of them is 1.
local function shared_shape(what, s, t)
  local out, n = {}, math.max(#s, #t)
  for d = 1, n do
    local i, j = s[#s - n + d] or 1, t[#t - n + d] or 1
    if i ~= j and i ~= 1 and j ~= 1 then
      raise("%s: shapes %s and %s do not fit", what, text(s), text(t))
    end
    out[d] = i == 1 and j or i
  end
  return out
end

-- Fills a block with elements of an operand.
local function load(into, operand, first, n)
  if type(operand) == "number" then
    for i = 0, n - 1 do into[i] = operand end
  else
    convert.load(into, operand.dtype, operand.ptr, first, n)
  end
end

return function(tensor, Tensor, metatable)
  -- A number as the dtype holds it.
  local function rounded(value, dtype)
    return dtype == "float32" and tonumber(ffi.cast(float, value)) or value
  end

  local function run(shape, dtype, device, compute, x, y)
    local out = try(tensor.empty(shape, dtype))
    local numel = layout.numel(shape)
    for first = 0, numel - 1, BLOCK do
      local n = math.min(BLOCK, numel - first)
      load(a, x, first, n)
      if y ~= nil then load(b, y, first, n) end
      compute(result, n)
      convert.store(dtype, out.ptr, first, n, result)
    end
    if device == "cpu" then return out end
    return try(out:to(device))
  end

  local function binary(what, compute, mask)
    return misuse.guard(function(x, y)
      local device, shape, dtype = nil, {}, "float32"
      if y == nil then raise("%s: expected a tensor or a number, got nil", what) end
      for _, operand in ipairs { x, y } do
        if tensor.is_tensor(operand) then
          if device and operand.device ~= device then
            raise("%s: tensors on %s and %s", what, device, operand.device)
          end
          device, shape = operand.device, shared_shape(what, shape, operand.shape)
          if WIDE[operand.dtype] then dtype = "float64" end
        elseif type(operand) ~= "number" then
          raise("%s: expected a tensor or a number, got %s", what, element.text(operand))
        end
      end
      local function prepared(operand)
        if type(operand) == "number" then return rounded(operand, dtype) end
        return try(readable(what, operand):expand(shape):contiguous())
      end
      return run(shape, mask and "bool" or dtype, device, compute, prepared(x), prepared(y))
    end)
  end

  local made = {}
  for name, expression in pairs(ARITHMETIC) do
    made[name] = binary(SIGNS[name], loop(expression))
    metatable["__" .. name] = made[name]
  end
  for name, sign in pairs(MASKS) do
    made[name] = binary(name, loop(("a[i] %s b[i] and 1 or 0"):format(sign)), true)
  end
  for name, expression in pairs(ALONE) do
    local compute = loop(expression)
    made[name] = misuse.guard(function(self)
      local t = readable(name, self)
      return run(t.shape, WIDE[t.dtype] and "float64" or "float32", self.device, compute, t)
    end)
  end
  metatable.__unm = function(t) return made.mul(t, -1) end
  -- Lua turns what these give into one boolean.
  metatable.__lt = function()
    error("< and > of tensors: Lua would give one boolean: t:lt(u), t:gt(u) give masks", 2)
  end
  metatable.__le = function()
    error("<= and >= of tensors: Lua would give one boolean: t:le(u), t:ge(u) give masks", 2)
  end

  --- Returns a mask, bool, of where this tensor is less than another one or a number. NaN is
  -- neither less nor greater than anything, nor equal to it. Lua's own comparisons cannot do this:
  -- `<` of tensors is refused, and `==` asks whether both are the same object (`samebits.same_bits`
  -- compares contents).
  -- @tparam tensor|number other a tensor or a number, as for `+`
  -- @treturn tensor bool
  Tensor.lt = made.lt

  --- Returns a mask of where this tensor is less than another one or a number, or equal to it.
  -- @tparam tensor|number other as for `lt`
  -- @treturn tensor bool
  Tensor.le = made.le

  --- Returns a mask of where this tensor is greater than another one or a number.
  -- @tparam tensor|number other as for `lt`
  -- @treturn tensor bool
  Tensor.gt = made.gt

  --- Returns a mask of where this tensor is greater than another one or a number, or equal to it.
  -- @tparam tensor|number other as for `lt`
  -- @treturn tensor bool
  Tensor.ge = made.ge

  --- Returns a mask of where this tensor equals another one or a number, as numbers do: +0 and -0
  -- are equal, NaN equals nothing.
  -- @tparam tensor|number other as for `lt`
  -- @treturn tensor bool
  Tensor.eq = made.eq

  --- Returns a mask of where this tensor does not equal another one or a number.
  -- @tparam tensor|number other as for `lt`
  -- @treturn tensor bool
  Tensor.ne = made.ne

  --- Returns the absolute values: float32, or float64 for float64, int32 and int64.
  -- @treturn tensor
  Tensor.abs = made.abs

  --- Returns e^x of the elements, in the dtype of `abs`. It and `log` are the C library's, in
  -- double, rounded once: good to look at, but not under the contract about bits. `ctx:compare` has
  -- e^x with the same bits everywhere.
  -- @treturn tensor
  Tensor.exp = made.exp

  --- Returns the natural logarithms of the elements: see `exp`.
  -- @treturn tensor
  Tensor.log = made.log
end
