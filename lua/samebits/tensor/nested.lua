--- Converts nested Lua lists to elements in memory and back.
--
-- Messages call a list's first element [0], as everywhere in this library.

local convert = require "samebits.tensor.convert"
local element = require "samebits.tensor.element"
local layout = require "samebits.tensor.layout"
local misuse = require "samebits.misuse"

local M = {}

local function elements(n) return ("%d element%s"):format(n, n == 1 and "" or "s") end

local function path_text(path, depth)
  local out = {}
  for i = 1, depth do out[i] = ("[%d]"):format(path[i]) end
  return table.concat(out)
end

-- The length of a list. Entries that a length does not count (after a nil, or under a name) are
-- refused rather than dropped.
local function length(list, what, path, depth)
  local n, count = #list, 0
  for _ in pairs(list) do count = count + 1 end
  if count == n then return n end
  for key in pairs(list) do
    if type(key) ~= "number" or key % 1 ~= 0 or key < 1 then
      misuse.raise("%s: data%s has %s and the key %s besides", what, path_text(path, depth),
                   elements(n), tostring(key))
    end
  end
  -- All keys are positive integers, so one of them is missing.
  local missing = 1
  while list[missing] ~= nil do missing = missing + 1 end
  path[depth + 1] = missing - 1
  misuse.raise("%s: data%s is nil", what, path_text(path, depth + 1))
end

-- Any table but a tensor.
local function is_list(v) return type(v) == "table" end

--- Returns the shape of nested lists, judged by their first elements; fill checks the others.
function M.shape(data, what)
  local shape, level = {}, data
  while is_list(level) do
    if #shape == layout.MAX_DIMS then
      misuse.raise("%s: data is nested more than %d deep", what, layout.MAX_DIMS)
    end
    shape[#shape + 1] = length(level, what, { 0 }, 0)
    level = level[1]
  end
  return shape
end

--- Writes nested lists of a shape to memory with `put(pointer, k, value)`. If `dtype` is given, put
-- is called only for values that are not numbers of that dtype.
function M.fill(data, shape, target, what, put, dtype)
  local path, at, ndim = {}, 0, #shape

  local function leaf(list, n)
    -- All at once as long as they are numbers; one by one from the first other element on.
    local from = dtype and (convert.list(dtype, target, at, list, n) or n + 1) or 1
    for i = from, n do
      local ok, why = put(target, at + i - 1, list[i])
      if not ok then
        path[ndim] = i - 1
        if is_list(list[i]) then why = "is a list, where others are numbers" end
        misuse.raise("%s: data%s %s", what, path_text(path, ndim), why)
      end
    end
    at = at + n
  end

  local function level(list, depth)
    if not is_list(list) then
      misuse.raise("%s: data%s is %s, where others are lists", what, path_text(path, depth - 1),
                   element.text(list))
    end
    local n = length(list, what, path, depth - 1)
    if n ~= shape[depth] then
      local first = {}
      for i = 1, depth - 1 do first[i] = 0 end
      misuse.raise("%s: ragged data: data%s has %s, data%s has %d", what,
                   path_text(path, depth - 1), elements(n), path_text(first, depth - 1),
                   shape[depth])
    end
    if depth == ndim then return leaf(list, n) end
    for i = 1, n do
      path[depth] = i - 1
      level(list[i], depth + 1)
    end
  end
  level(data, 1)
end

--- Returns elements as nested lists of `read(pointer, k)`.
function M.to(pointer, shape, strides, read)
  local ndim = #shape
  if ndim == 0 then return read(pointer, 0) end
  local function level(depth, offset)
    local out, step = {}, strides[depth]
    for i = 1, shape[depth] do
      if depth == ndim then
        out[i] = read(pointer, offset)
      else
        out[i] = level(depth + 1, offset)
      end
      offset = offset + step
    end
    return out
  end
  return level(1, 0)
end

return M
