--- Loads and saves tensors in either format, .npy or .safetensors. The first bytes tell the format;
-- the name's ending tells it if a file is written or is too short.

local ffi = require "ffi"
local foreign = require "samebits.io.foreign"
local npy = require "samebits.io.npy"
local posix = require "samebits.io.posix"
local safetensors = require "samebits.io.safetensors"
local source = require "samebits.io.source"
local tensor = require "samebits.tensor"
local misuse = require "samebits.misuse"
local refusal = require "samebits.io.refusal"

local raise = misuse.raise

local NPY_MAGIC = "\147NUMPY"

local function extension(path) return path:match "%.(%a+)$" end

local function format_of(from)
  local n = math.min(from.size, foreign.BYTES)
  local bytes = ffi.string((from:at(0, n)), n)
  if bytes:sub(1, #NPY_MAGIC) == NPY_MAGIC then return "npy" end
  local ending = extension(from.path)
  if ending == "npy" or ending == "safetensors" then return ending end
  -- Eight bytes of header length, then the header, a JSON object.
  if bytes:sub(9, 9) == "{" then return "safetensors" end
  local advice = foreign.advice(bytes, from.path)
  refusal.raise("neither .npy nor .safetensors%s", advice and ", but " .. advice or "")
end

local function read(from, name)
  if format_of(from) == "safetensors" then return safetensors.read(from, name) end
  if name then
    refusal.raise("a .npy file holds one tensor, without the name %s", refusal.quote(name))
  end
  return npy.read(from)
end

local function load(path, name, opts)
  if type(path) ~= "string" then raise("load: expected a path, got %s", misuse.kind(path)) end
  if type(name) == "table" and opts == nil then name, opts = nil, name end
  if name ~= nil and type(name) ~= "string" then
    raise("load: expected a tensor's name, got %s", misuse.kind(name))
  end
  return source.read(path, source.options("load", opts), read, name)
end

--- Whether a file of this name exists.
local function exists(path) return posix.stat_path(path) ~= nil end

--- The path of FILE or FILE:NAME, and the name if there is one. If the whole text is an existing
-- path, it is the path, even with a colon.
local function split_spec(spec)
  if exists(spec) then return spec end
  local file, after = spec:match "^(.+):([^:]+)$"
  if file and exists(file) then return file, after end
  return spec
end

--- load, for code inside the library. `opened`, if given, is a list that the file is added to (see
-- source.lua).
local function load_named(path, name, opened)
  return source.read(path, { opened = opened }, read, name)
end

local function save(path, value, metadata)
  if type(path) ~= "string" then raise("save: expected a path, got %s", misuse.kind(path)) end
  local ending = extension(path)
  if ending == "npy" then
    if not tensor.is_tensor(value) then
      raise("save: a .npy file holds one tensor, got %s", misuse.kind(value))
    end
    return npy.save(path, value)
  end
  if ending == "safetensors" then
    if type(value) ~= "table" or tensor.is_tensor(value) then
      raise("save: a .safetensors file holds named tensors, { name = tensor }, got %s",
            tensor.is_tensor(value) and "a tensor" or misuse.kind(value))
    end
    return safetensors.save(path, value, metadata)
  end
  raise("save: %s ends neither in .npy nor in .safetensors", path)
end

local M = {}

--- Loads a file.
--
-- The file is mapped, not read: its pages are loaded when they are touched, so a large file opens
-- at once, and writing to a tensor never changes the file. While such tensors are used, no program
-- may shorten the file, which would end the process with SIGBUS, or write to it, which would change
-- the tensors. Replacing it by renaming, as `save` does, is safe. `copy` avoids these restrictions:
-- it reads the bytes into memory (those of one tensor if a name is given) and fails if the file
-- changes meanwhile.
-- @tparam string path of a regular file: a FIFO or a device is refused
-- @tparam[opt] string name of a tensor inside a .safetensors file
-- @tparam[opt] table opts `copy` (false), whether to read the file instead of mapping it; opts may
-- be given in place of the name
-- @treturn tensor|table a tensor (.npy, or a name was given) or a table of tensors by name; or nil
-- and a message. In a table, the stand-in for a tensor of an unsupported dtype raises an error when
-- it is used.
M.load = misuse.guard(load)

--- Saves a tensor as .npy or a table of tensors as .safetensors, chosen by the path's ending.
-- @tparam string path that ends in .npy or .safetensors
-- @tparam tensor|table value
-- @tparam[opt] table metadata strings by name, for .safetensors
-- @treturn boolean true, or nil and a message
M.save = misuse.guard(save)

M.exists, M.load_named, M.split_spec = exists, load_named, split_spec

return M
