--- Loading and saving tensors, whatever the format: .npy or .safetensors, told apart by their
-- first bytes, and by the name's ending where a file is written or too short to tell.

local foreign = require "samebits.foreign"
local npy = require "samebits.npy"
local safetensors = require "samebits.safetensors"
local tensor = require "samebits.tensor"
local misuse = require "samebits.misuse"
local refusal = require "samebits.refusal"

local raise = misuse.raise

local NPY_MAGIC = "\147NUMPY"

local function extension(path) return path:match "%.(%a+)$" end

local function first_bytes(path, n)
  local file, why = io.open(path, "rb")
  if not file then return nil, why end
  local bytes, unreadable = file:read(n)
  file:close()
  if not bytes and unreadable then return nil, ("%s: %s"):format(path, unreadable) end
  return bytes or ""
end

local function format_of(path)
  local bytes, why = first_bytes(path, foreign.BYTES)
  if not bytes then return nil, why end
  if bytes:sub(1, #NPY_MAGIC) == NPY_MAGIC then return "npy" end
  local ending = extension(path)
  if ending == "npy" or ending == "safetensors" then return ending end
  -- Eight bytes of header length, then the header, a JSON object.
  if bytes:sub(9, 9) == "{" then return "safetensors" end
  local advice = foreign.advice(bytes, path)
  return nil, ("%s: neither .npy nor .safetensors%s"):format(path,
    advice and ", but " .. advice or "")
end

--- The names in a table of tensors, sorted; and as a list for a message.
local function names_of(tensors)
  local names, quoted = {}, {}
  for name in pairs(tensors) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do quoted[i] = refusal.quote(name) end
  return names, table.concat(quoted, ", ")
end

local function load(path, name)
  if type(path) ~= "string" then raise("load: expected a path, got %s", type(path)) end
  if path == "" then return nil, "the path is empty" end
  if name ~= nil and type(name) ~= "string" then
    raise("load: expected a tensor's name, got %s", type(name))
  end
  local format, why = format_of(path)
  if not format then return nil, why end
  if format == "npy" then
    if name then
      return nil, ("%s: a .npy file holds one tensor, without the name %s"):format(path,
        refusal.quote(name))
    end
    return npy.load(path)
  end
  if not name then return safetensors.load(path) end
  local tensors, problem = safetensors.load(path)
  if not tensors then return nil, problem end
  -- rawget: what is loaded answers to `metadata`, too.
  local found = rawget(tensors, name)
  if found then return found end
  local names, text = names_of(tensors)
  return nil, ("%s: no tensor called %s; it holds %s"):format(path, refusal.quote(name),
    #names > 0 and text or "none")
end

--- Whether there is a file of this name that can be opened.
local function exists(path)
  local file = io.open(path, "rb")
  if file then file:close() end
  return file ~= nil
end

--- The path of FILE or FILE:NAME, and the name if there is one. A path that exists as it stands
-- wins over a name after a colon.
local function split_spec(spec)
  if exists(spec) then return spec end
  local file, after = spec:match "^(.+):([^:]+)$"
  if file and exists(file) then return file, after end
  return spec
end

local function save(path, value, metadata)
  if type(path) ~= "string" then raise("save: expected a path, got %s", type(path)) end
  local ending = extension(path)
  if ending == "npy" then
    if not tensor.is_tensor(value) then
      raise("save: a .npy file holds one tensor, got %s", type(value))
    end
    return npy.save(path, value)
  end
  if ending == "safetensors" then
    if type(value) ~= "table" or tensor.is_tensor(value) then
      raise("save: a .safetensors file holds named tensors, { name = tensor }, got %s",
            tensor.is_tensor(value) and "a tensor" or type(value))
    end
    return safetensors.save(path, value, metadata)
  end
  raise("save: %s ends neither in .npy nor in .safetensors", path)
end

local M = {}

--- Loads a file.
-- @tparam string path
-- @tparam[opt] string name of a tensor inside a .safetensors file
-- @return a tensor (.npy, or a name was given) or a table of tensors by name; or nil and a message
M.load = misuse.guard(load)

--- Saves a tensor as .npy or a table of tensors as .safetensors, chosen by the path's ending.
-- @return true, or nil and a message
M.save = misuse.guard(save)

M.exists, M.names_of, M.split_spec = exists, names_of, split_spec

return M
