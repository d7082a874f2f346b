--- The header of a .safetensors file: a JSON object from names to dtype, shape and place.
--
--     {"__metadata__": {"k": "v"}, "x": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}

local ffi = require "ffi"
local json_read = require "samebits.io.json_read"
local refusal = require "samebits.io.refusal"
local tensor = require "samebits.tensor"

local dtype, layout = tensor.dtype, tensor.layout

local M = {}

M.METADATA = "__metadata__"

local DTYPES = {
  F32 = "float32", F16 = "float16", BF16 = "bfloat16", F64 = "float64", I8 = "int8", U8 = "uint8",
  I16 = "int16", I32 = "int32", I64 = "int64", BOOL = "bool",
}
local CODES = {}
for code, name in pairs(DTYPES) do CODES[name] = code end

-- Bits per element of the format's dtypes. A file may have other dtypes, whose sizes are unknown.
local BITS = {
  F8_E4M3 = 8, F8_E5M2 = 8, F8_E4M3FNUZ = 8, F8_E5M2FNUZ = 8, F8_E8M0 = 8, F6_E2M3 = 6, F6_E3M2 = 6,
  F4 = 4, U16 = 16, U32 = 32, U64 = 64, C64 = 64,
}
for code, name in pairs(DTYPES) do BITS[code] = 8 * dtype.of[name].size end

-- The levels are the header, a tensor's object and its lists. A tensor has four keys including its
-- name, so these limits allow 2^18 tensors, which take half a gigabyte of tables; large models have
-- a hundredth of that in a file.
local LIMITS = { depth = 3, keys = 2 ^ 20, elements = layout.MAX_DIMS }

local is_object, is_list = json_read.is_object, json_read.is_list

local function metadata_of(header)
  local given, metadata = header[M.METADATA], {}
  if given == nil then return metadata end
  if not is_object(given) then refusal.raise("header: %s is not an object", M.METADATA) end
  for _, key in ipairs(given) do
    if type(given[key]) ~= "string" then
      refusal.raise("header: %s: the value of %s is not a string", M.METADATA, refusal.quote(key))
    end
    metadata[key] = given[key]
  end
  return metadata
end

-- One tensor's entry: its dtype, shape, and the place in the data where it begins and ends.
local function entry_of(name, entry, data_size)
  local function fail(format, ...)
    refusal.raise("tensor %s: " .. format, refusal.quote(name), ...)
  end
  if not is_object(entry) then fail("its entry is not an object") end
  for _, key in ipairs(entry) do
    if key ~= "dtype" and key ~= "shape" and key ~= "data_offsets" then
      fail("unknown key %s", refusal.quote(key))
    end
  end
  local code, sizes, offsets = entry.dtype, entry.shape, entry.data_offsets

  if code == nil then fail("no dtype") end
  if type(code) ~= "string" then fail("dtype is not a string") end

  if sizes == nil then fail("no shape") end
  if not is_list(sizes) then fail("shape is not a list") end
  for _, size in ipairs(sizes) do
    if type(size) ~= "number" then fail("shape is not a list of integers") end
  end
  local shape, message = layout.shape(sizes)
  if not shape then fail("%s", message) end

  if offsets == nil then fail("no data_offsets") end
  if not is_list(offsets) or #offsets ~= 2 or type(offsets[1]) ~= "number" or
     type(offsets[2]) ~= "number" then
    fail("data_offsets are not two integers")
  end
  local first, last = offsets[1], offsets[2]
  if first > last then fail("data_offsets [%.17g, %.17g] run backwards", first, last) end
  if last > data_size then
    fail("data_offsets [%.17g, %.17g] leave the %.17g bytes of data", first, last, data_size)
  end
  local bytes = BITS[code] and layout.numel(shape) * BITS[code] / 8
  if bytes and bytes ~= last - first then
    fail("%s %s needs %.17g bytes, data_offsets [%.17g, %.17g] hold %.17g", code,
         layout.text(shape), bytes, first, last, last - first)
  end
  return { name = name, code = code, dtype = DTYPES[code], shape = shape, first = first,
           last = last }
end

local function overlap(a, b)
  refusal.raise("tensors %s and %s overlap: one ends at byte %.17g of the data, the other " ..
                "begins at %.17g", refusal.quote(a.name), refusal.quote(b.name), a.last, b.first)
end

-- The entries in order from the first byte of the data to its last; refused if they overlap or
-- leave bytes out. They are found by their first bytes and not sorted, because input can be made to
-- sort slowly.
local function in_order(entries, data_size)
  local empty, full = {}, {}  -- by first byte; `empty` has lists
  for _, entry in ipairs(entries) do
    local first = entry.first
    if entry.last > first then
      if full[first] then overlap(full[first], entry) end
      full[first] = entry
    else
      empty[first] = empty[first] or {}
      table.insert(empty[first], entry)
    end
  end

  local list, done = {}, 0
  while true do
    for _, entry in ipairs(empty[done] or {}) do list[#list + 1] = entry end
    local entry = full[done]
    if not entry then break end
    list[#list + 1], done = entry, entry.last
  end
  if #list == #entries and done == data_size then return list end

  -- The first entry that was not reached shows the error.
  local reached, left = {}, nil
  for _, entry in ipairs(list) do reached[entry] = true end
  for _, entry in ipairs(entries) do
    if not reached[entry] and (not left or entry.first < left.first) then left = entry end
  end
  for _, entry in ipairs(left and list or {}) do
    if entry.first <= left.first and left.first < entry.last then overlap(entry, left) end
  end
  refusal.raise("bytes %.17g to %.17g of the data belong to no tensor", done,
                left and left.first or data_size)
end

--- Parses the header: `size` bytes at `p`, from byte `base` of the file on, followed by `data_size`
-- bytes of data. Returns a list of entries (name, shape, code: the file's name of the dtype, dtype:
-- ours, nil if there is none, first, last: bytes of the data), in the order of their data, and the
-- metadata. Refuses a header that breaks a rule of the format.
function M.parse(p, size, base, data_size)
  if size == 0 or p[0] ~= 0x7b then
    refusal.raise("byte %d: header: expected {, found %s", base,
                  size == 0 and "nothing" or refusal.quote(ffi.string(p, 1)))
  end
  local header = json_read.read(p, size, base, LIMITS)
  local metadata, entries = metadata_of(header), {}
  for _, name in ipairs(header) do
    if name ~= M.METADATA then
      entries[#entries + 1] = entry_of(name, header[name], data_size)
    end
  end
  return in_order(entries, data_size), metadata
end

--- Returns the JSON text for a list of entries and metadata: the entries sorted by name, padded
-- with spaces to a multiple of 8 bytes.
function M.format(list, metadata, json)
  local parts = {}
  local keys = {}
  for key in pairs(metadata) do keys[#keys + 1] = key end
  if #keys > 0 then
    table.sort(keys)
    local pairs_text = {}
    for i, key in ipairs(keys) do
      pairs_text[i] = json.quotestring(key) .. ":" .. json.quotestring(metadata[key])
    end
    parts[1] = ('"%s":{%s}'):format(M.METADATA, table.concat(pairs_text, ","))
  end

  local sorted = {}
  for i, entry in ipairs(list) do sorted[i] = entry end
  table.sort(sorted, function(a, b) return a.name < b.name end)
  for _, entry in ipairs(sorted) do
    local sizes = {}
    for d, size in ipairs(entry.shape) do sizes[d] = ("%d"):format(size) end
    parts[#parts + 1] = ('%s:{"dtype":"%s","shape":[%s],"data_offsets":[%d,%d]}'):format(
      json.quotestring(entry.name), CODES[entry.dtype], table.concat(sizes, ","), entry.first,
      entry.last)
  end
  local text = "{" .. table.concat(parts, ",") .. "}"
  return text .. (" "):rep(-#text % 8)
end

return M
