--- Shapes and strides, independent of any data.
--
-- Both are lists, one entry per dimension; strides are in elements. Dimensions and indices count
-- from 0 in every message.

local M = {}

--- The largest number of elements or bytes that is supported: doubles are exact up to here.
M.MAX = 2 ^ 53

--- The largest number of dimensions.
M.MAX_DIMS = 64

--- Formats a list, such as "[2, 3]".
function M.text(list)
  local out = {}
  for i = 1, #list do
    local v = list[i]
    out[i] = type(v) == "number" and ("%.17g"):format(v) or tostring(v)
  end
  return "[" .. table.concat(out, ", ") .. "]"
end

--- Whether two shapes are the same.
function M.same(a, b)
  if #a ~= #b then return false end
  for d = 1, #a do if a[d] ~= b[d] then return false end end
  return true
end

--- A copy of a shape with one more dimension at the end.
function M.appended(shape, size)
  local out = {}
  for d = 1, #shape do out[d] = shape[d] end
  out[#out + 1] = size
  return out
end

local function is_integer(v) return type(v) == "number" and v % 1 == 0 end

--- Checks and copies a list of dimensions, or returns nil and a message.
function M.shape(list)
  if type(list) ~= "table" then return nil, "shape is " .. type(list) .. ", not a list" end
  local n = #list
  if n > M.MAX_DIMS then return nil, ("%d dimensions, at most %d"):format(n, M.MAX_DIMS) end
  local out, product = {}, 1
  for d = 1, n do
    local size = list[d]
    if not is_integer(size) or size < 0 or size > M.MAX then
      return nil, ("shape %s: dim %d is not a size"):format(M.text(list), d - 1)
    end
    out[d] = size
    -- Zeros count as 1, so that the product of the other dimensions is bounded, too.
    product = product * math.max(size, 1)
    if product > M.MAX then return nil, ("shape %s: too many elements"):format(M.text(list)) end
  end
  return out
end

--- Checks and copies a list of strides for a shape, or returns nil and a message.
function M.strides(list, shape)
  if type(list) ~= "table" or #list ~= #shape then
    return nil, ("strides %s for shape %s"):format(
      type(list) == "table" and M.text(list) or type(list), M.text(shape))
  end
  local out = {}
  for d = 1, #shape do
    local step = list[d]
    if not is_integer(step) or math.abs(step) * math.max(shape[d], 1) > M.MAX then
      return nil, ("strides %s: dim %d is not a stride"):format(M.text(list), d - 1)
    end
    out[d] = step
  end
  return out
end

function M.numel(shape)
  local n = 1
  for d = 1, #shape do n = n * shape[d] end
  return n
end

--- Returns the strides of a shape whose elements follow each other, the last index fastest.
function M.dense(shape)
  local strides, step = {}, 1
  for d = #shape, 1, -1 do
    strides[d] = step
    step = step * math.max(shape[d], 1)
  end
  return strides
end

--- The same with the first index fastest.
function M.dense_fortran(shape)
  local strides, step = {}, 1
  for d = 1, #shape do
    strides[d] = step
    step = step * math.max(shape[d], 1)
  end
  return strides
end

--- Whether the elements follow each other, the last index fastest. The stride of a dimension of
-- size 1 has no meaning.
function M.is_dense(shape, strides)
  if M.numel(shape) == 0 then return true end
  local step = 1
  for d = #shape, 1, -1 do
    if shape[d] ~= 1 and strides[d] ~= step then return false end
    step = step * shape[d]
  end
  return true
end

--- Returns the lowest and the highest offset, in elements, that any index reaches (0 and -1: none).
function M.extent(shape, strides)
  local low, high = 0, 0
  for d = 1, #shape do
    if shape[d] == 0 then return 0, -1 end
    local reach = (shape[d] - 1) * strides[d]
    if reach < 0 then low = low + reach else high = high + reach end
  end
  return low, high
end

-- The same elements in the same order with as few dimensions as possible.
local function merged(shape, strides)
  local sizes, steps, n = {}, {}, 0
  for d = 1, #shape do
    if shape[d] ~= 1 then
      if n > 0 and steps[n] == strides[d] * shape[d] then
        sizes[n], steps[n] = sizes[n] * shape[d], strides[d]
      else
        n = n + 1
        sizes[n], steps[n] = shape[d], strides[d]
      end
    end
  end
  return sizes, steps, n
end

--- Calls visit(offset, count, step, first) for runs of elements that cover a tensor in index order.
-- A run has `count` elements, `step` apart, starting at `offset`; `first` counts the elements
-- before it.
function M.each_run(shape, strides, visit)
  if M.numel(shape) == 0 then return end
  local sizes, steps, n = merged(shape, strides)
  if n == 0 then return visit(0, 1, 1, 0) end
  local count, step = sizes[n], steps[n]
  local index = {}
  for d = 1, n - 1 do index[d] = 0 end
  local offset, first = 0, 0
  while true do
    visit(offset, count, step, first)
    first = first + count
    local d = n - 1
    while d >= 1 do
      index[d] = index[d] + 1
      offset = offset + steps[d]
      if index[d] < sizes[d] then break end
      offset = offset - sizes[d] * steps[d]
      index[d] = 0
      d = d - 1
    end
    if d < 1 then return end
  end
end

--- Returns the index (a list) of the element at position `flat`, counted from 0 in index order.
function M.index(flat, shape)
  local index = {}
  for d = #shape, 1, -1 do
    index[d] = flat % shape[d]
    flat = (flat - index[d]) / shape[d]
  end
  return index
end

--- Returns the strides that show the same elements, in the same order, in another shape with
-- equally many elements; nil if only a copy can.
function M.reshaped(shape, strides, wanted)
  if M.numel(shape) == 0 then return M.dense(wanted) end
  local sizes, steps, n = merged(shape, strides)
  local out = {}
  local d = #wanted
  -- Each merged dimension, from the last one on, must be a product of whole wanted dimensions.
  for m = n, 1, -1 do
    local left, step = sizes[m], steps[m]
    while left > 1 do
      if d < 1 or left % wanted[d] ~= 0 then return nil end
      out[d] = step
      step = step * wanted[d]
      left = left / wanted[d]
      d = d - 1
    end
  end
  -- The remaining dimensions have size 1.
  while d >= 1 do
    out[d] = d < #wanted and out[d + 1] * wanted[d + 1] or 1
    d = d - 1
  end
  return out
end

return M
