--- Reads and writes .safetensors files.
--
-- All rules of the format are enforced when a file is loaded, before any tensor is returned.
-- Dtypes: F32, F16, BF16, F64, I8, U8, I16, I32, I64, BOOL; F8_E4M3 and F8_E5M2, whose values are
-- read as float16, which holds them exactly. The file may contain a tensor of another dtype: using
-- its stand-in raises an error. Tensors may start at any byte.
--
-- Writing needs dkjson (Debian: lua-dkjson).

local file = require "samebits.io.file"
local float8 = require "samebits.io.float8"
local header = require "samebits.io.safetensors_header"
local misuse = require "samebits.misuse"
local refusal = require "samebits.io.refusal"
local source = require "samebits.io.source"
local tensor = require "samebits.tensor"
local utf8 = require "samebits.text.utf8"

local layout, storage, tensor_text = tensor.layout, tensor.storage, tensor.text

local M = {}

-- The format's bound on the header.
local MAX_HEADER = 100000000

-- The key that marks the results of load, in their metatable.
local LOADED = {}

-- The result of load: tensors by name. Its metatable holds the metadata, so that no name is
-- reserved.
local function new_table(metadata)
  return setmetatable({}, {
    [LOADED] = true,
    __index = { metadata = metadata },
    __tostring = function(self)
      local lines = {}
      for name, t in pairs(self) do
        lines[#lines + 1] = tensor.unsupported.why(t) and "  " .. tostring(t) or
                            ("  %s: %s"):format(refusal.quote(name), tensor_text.head(t))
      end
      table.sort(lines)
      return ("safetensors, %d tensor%s%s"):format(#lines, #lines == 1 and "" or "s",
                                                   #lines > 0 and "\n" or "") ..
             table.concat(lines, "\n")
    end,
  })
end

--- Whether a value is a result of `load`.
function M.is_loaded(value)
  local metatable = type(value) == "table" and getmetatable(value)
  return type(metatable) == "table" and rawget(metatable, LOADED) == true
end

local SUPPORTED = "F32, F16, BF16, F64, F8_E4M3, F8_E5M2, I8, U8, I16, I32, I64, BOOL"

-- The tensor of an entry, in data that begins at byte `start`.
local function tensor_of(from, start, entry)
  local first, size = start + entry.first, entry.last - entry.first
  if entry.dtype then
    local ptr, owner = from:at(first, size)
    return tensor.tensor(ptr, { dtype = entry.dtype, shape = entry.shape, owner = owner })
  elseif not float8.is(entry.code) then
    return tensor.unsupported.new(("tensor %s: dtype %s is not supported (%s)"):format(
      refusal.quote(entry.name), refusal.quote(entry.code), SUPPORTED))
  end
  -- Converted when it is first used, because files of these dtypes are large.
  local held = { from:at(first, size) }  -- the bytes, and their owner
  return tensor.deferred("float16", entry.shape, function()
    local ptr, owner = storage.zeroed(2 * size)
    if not ptr then
      error(("tensor %s: no memory for %.17g bytes (float16 %s)"):format(
        refusal.quote(entry.name), 2 * size, layout.text(entry.shape)), 0)
    end
    float8.to_float16(entry.code, ptr, held[1], size)
    return ptr, owner
  end)
end

-- The start of the data, its entries in order, and the metadata.
local function contents(from)
  local size = from.size
  if size < 8 then refusal.raise("%.17g bytes; a safetensors file starts with 8 at least", size) end
  local p = from:at(0, 8)
  -- A sum of doubles: exact where it matters, and no length can wrap around.
  local length = 0
  for i = 7, 0, -1 do length = length * 256 + p[i] end
  if length > MAX_HEADER then
    refusal.raise("byte 0: a header of %.17g bytes (at most %d)", length, MAX_HEADER)
  end
  local start = 8 + length
  if start > size then
    refusal.raise("byte 0: a header of %.17g bytes in a file of %.17g", length, size)
  end
  local list, metadata = header.parse((from:at(8, length)), length, 8, size - start)
  return start, list, metadata
end

--- For code inside the library: loads a source; with `only`, one tensor of it.
function M.read(from, only)
  local start, list, metadata = contents(from)
  if only == nil then
    local out = new_table(metadata)
    for _, entry in ipairs(list) do rawset(out, entry.name, tensor_of(from, start, entry)) end
    return out, metadata
  end
  local names = {}
  for i, entry in ipairs(list) do
    if entry.name == only then
      local t = tensor_of(from, start, entry)
      local why = tensor.unsupported.why(t)
      if why then refusal.raise("%s", why) end
      return t
    end
    names[i] = entry.name
  end
  refusal.raise("no tensor called %s; it holds %s", refusal.quote(only), refusal.list(names))
end

--- Returns the tensors in a file, by name, and its metadata (strings by strings; empty if there is
-- none); or nil and a message.
--
-- `data.metadata` is also the metadata, unless a tensor has that name. The file is mapped, not
-- read: its pages are loaded when they are touched, and writing to a tensor never changes the file.
-- With `{ copy = true }` it is read (see samebits.load).
M.load = misuse.guard(function(path, opts)
  file.check_path("safetensors.load", path)
  return source.read(path, source.options("safetensors.load", opts), M.read)
end)

local function load_json()
  local ok, json = pcall(require, "dkjson")
  if ok then return json end
  return nil, "saving .safetensors files needs the Lua module dkjson (Debian: lua-dkjson)"
end

local function check_text(what, text)
  if type(text) ~= "string" then
    misuse.raise("safetensors.save: %s %s is not a string", what, tostring(text))
  end
  if utf8.invalid(text) then
    misuse.raise("safetensors.save: %s %s is not UTF-8", what, refusal.quote(text))
  end
end

-- Places larger elements first. As the data is aligned to 8 bytes, each tensor is aligned to its
-- elements.
local function place(tensors)
  local list = {}
  for name, t in pairs(tensors) do
    check_text("the name", name)
    if name == header.METADATA then
      misuse.raise("safetensors.save: a tensor cannot be called %s", name)
    end
    local why = tensor.unsupported.why(t)
    if why then misuse.raise("safetensors.save: %s", why) end
    if not tensor.is_tensor(t) then
      misuse.raise("safetensors.save: %s is not a tensor but %s", refusal.quote(name),
                   misuse.kind(t))
    end
    if t.device ~= "cpu" then
      misuse.raise("safetensors.save: the elements of %s are on %s, not in memory",
                   refusal.quote(name), t.device)
    end
    list[#list + 1] = { name = name, tensor = t, dtype = t.dtype, shape = t.shape }
  end
  table.sort(list, function(a, b)
    if a.tensor.itemsize ~= b.tensor.itemsize then return a.tensor.itemsize > b.tensor.itemsize end
    return a.name < b.name
  end)
  local at = 0
  for _, entry in ipairs(list) do
    entry.first = at
    at = at + entry.tensor:numel() * entry.tensor.itemsize
    entry.last = at
  end
  return list
end

local function length_bytes(n)
  local out = {}
  for i = 1, 8 do
    out[i] = string.char(n % 256)
    n = math.floor(n / 256)
  end
  return table.concat(out)
end

--- Writes tensors by name, and metadata (strings by strings, may be nil). Returns true, or nil and
-- a message. Equal tensors give equal bytes. The file is replaced whole or not at all.
M.save = misuse.guard(function(path, tensors, metadata)
  file.check_path("safetensors.save", path)
  if type(tensors) ~= "table" or tensor.is_tensor(tensors) then
    misuse.raise("safetensors.save: expected a table of tensors by name, got %s",
                 tensor.is_tensor(tensors) and "a tensor" or misuse.kind(tensors))
  end
  if metadata ~= nil and type(metadata) ~= "table" then
    misuse.raise("safetensors.save: the metadata is %s, not a table", misuse.kind(metadata))
  end
  for key, value in pairs(metadata or {}) do
    check_text("the metadata's key", key)
    check_text("the metadata's value", value)
  end
  local list = place(tensors)

  local json, message = load_json()
  if not json then return nil, message end
  local text = header.format(list, metadata or {}, json)
  if #text > MAX_HEADER then
    return nil, ("%s: a header of %d bytes (at most %d)"):format(path, #text, MAX_HEADER)
  end
  local parts = { length_bytes(#text), text }
  for _, entry in ipairs(list) do
    local dense = entry.tensor:contiguous()
    parts[#parts + 1] = { ptr = dense.ptr, size = entry.last - entry.first, owner = dense }
  end
  return file.write(path, parts)
end)

return M
