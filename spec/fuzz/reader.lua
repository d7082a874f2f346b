--- What has to hold of a reader, whatever bytes it gets: a result that lies inside the file, or nil
-- and one line that starts with the path. Raises an error where it does not. Shared by reader.c and
-- the spec that replays the corpus.

local bits = require "samebits.bits"
local npy = require "samebits.io.npy"
local safetensors = require "samebits.io.safetensors"
local objects = require "samebits.object"
local tensor = require "samebits.tensor"
local unsupported = require("samebits.tensor").unsupported

local M = {}

local function bytes_of(t) return t:numel() * t.itemsize end

-- Its elements can be read, from the first to the last, and written as text.
local function use(t)
  assert(tensor.is_tensor(t))
  assert(t:contiguous():numel() == t:numel())
  assert(#tostring(t) > 0)
end

-- Read and not mapped it is the same: a result, or the same message.
local function check_copy(load, path, first, message)
  local copy, why = load(path, { copy = true })
  assert((copy == nil) == (first == nil), "copied and mapped differ")
  assert(copy ~= nil or why == message, why)
  return copy
end

local function check_same(a, b)
  assert(a.dtype == b.dtype and bits.same_bits(a, b), "copied and mapped differ")
end

function M.npy(path, size)
  local t, message = npy.load(path)
  local copy = check_copy(npy.load, path, t, message)
  if not t then return nil, message end
  assert(bytes_of(t) <= size, "an array larger than its file")
  use(t)
  check_same(t, copy)
  return t
end

function M.safetensors(path, size)
  local data, metadata = safetensors.load(path)
  local copy = check_copy(safetensors.load, path, data, metadata)
  if not data then return nil, metadata end
  local total = 8
  for name, t in pairs(data) do
    assert(type(name) == "string")
    local why = unsupported.why(t)
    if why then
      assert(why == unsupported.why(rawget(copy, name)) and not why:find "%c")
    else
      -- One that is deferred takes one byte per element in the file.
      total = total + (objects.fields_of[t].make and t:numel() or bytes_of(t))
      use(t)
      check_same(t, rawget(copy, name))
    end
  end
  assert(total <= size, "tensors larger than their file")
  assert(#tostring(data) > 0)
  for key, value in pairs(metadata) do
    assert(type(key) == "string" and type(value) == "string", "metadata but strings")
  end
  return data
end

--- Runs the reader of a format ("npy", "safetensors"): whether it took the file.
function M.try(format, path, size)
  local result, message = M[format](path, size)
  if result then return true end
  assert(type(message) == "string", "nil without a message")
  assert(message:sub(1, #path + 2) == path .. ": ", message)
  assert(not message:find "%c", "a control character in: " .. message)
  return false
end

return M
