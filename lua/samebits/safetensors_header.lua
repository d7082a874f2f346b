--- The header of a .safetensors file: a JSON object from names to dtype, shape and place.
--
--     {"__metadata__": {"k": "v"}, "x": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}

local dtype = require "samebits.dtype"
local json_check = require "samebits.json_check"
local layout = require "samebits.layout"
local refusal = require "samebits.refusal"

local M = {}

M.METADATA = "__metadata__"

local DTYPES = {
  F32 = "float32", F16 = "float16", BF16 = "bfloat16", F64 = "float64", I8 = "int8", U8 = "uint8",
  I16 = "int16", I32 = "int32", I64 = "int64", BOOL = "bool",
}
local CODES = {}
for code, name in pairs(DTYPES) do CODES[name] = code end
local SUPPORTED = "F32, F16, BF16, F64, I8, U8, I16, I32, I64, BOOL"

-- The header, a tensor's object, its lists.
local DEPTH = 3

local LIST, OBJECT = {}, {}  -- metatables that tell decoded lists from objects

local function is(value, what) return type(value) == "table" and getmetatable(value) == what end

local function metadata_of(entries)
  local metadata = entries[M.METADATA]
  entries[M.METADATA] = nil
  if metadata == nil then return {} end
  if not is(metadata, OBJECT) then refusal.raise("header: %s is not an object", M.METADATA) end
  for key, value in pairs(metadata) do
    if type(value) ~= "string" then
      refusal.raise("header: %s: the value of %s is not a string", M.METADATA, refusal.quote(key))
    end
  end
  return setmetatable(metadata, nil)
end

-- One tensor's entry: its dtype, shape, and where in the data it begins and ends.
local function entry_of(name, entry, data_size)
  local function fail(format, ...)
    refusal.raise("tensor %s: " .. format, refusal.quote(name), ...)
  end
  if not is(entry, OBJECT) then fail("its entry is not an object") end
  for key in pairs(entry) do
    if key ~= "dtype" and key ~= "shape" and key ~= "data_offsets" then
      fail("unknown key %s", refusal.quote(key))
    end
  end
  local code, sizes, offsets = entry.dtype, entry.shape, entry.data_offsets

  if code == nil then fail("no dtype") end
  if type(code) ~= "string" then fail("dtype is not a string") end
  if not DTYPES[code] then
    fail("dtype %s is not supported (%s)", refusal.quote(code), SUPPORTED)
  end

  if sizes == nil then fail("no shape") end
  if not is(sizes, LIST) then fail("shape is not a list") end
  for _, size in ipairs(sizes) do
    if type(size) ~= "number" then fail("shape is not a list of integers") end
  end
  local shape, message = layout.shape(sizes)
  if not shape then fail("%s", message) end

  if offsets == nil then fail("no data_offsets") end
  if not is(offsets, LIST) or #offsets ~= 2 or type(offsets[1]) ~= "number" or
     type(offsets[2]) ~= "number" then
    fail("data_offsets are not two integers")
  end
  local first, last = offsets[1], offsets[2]
  if first > last then fail("data_offsets [%.17g, %.17g] run backwards", first, last) end
  if last > data_size then
    fail("data_offsets [%.17g, %.17g] leave the %.17g bytes of data", first, last, data_size)
  end
  local bytes = layout.numel(shape) * dtype.of[DTYPES[code]].size
  if bytes ~= last - first then
    fail("%s %s needs %.17g bytes, data_offsets [%.17g, %.17g] hold %.17g", code,
         layout.text(shape), bytes, first, last, last - first)
  end
  return { name = name, dtype = DTYPES[code], shape = shape, first = first, last = last }
end

--- Parses a header that starts at byte `base` and is followed by `data_size` bytes of data. Gives a
-- list of entries (name, dtype, shape, first, last: bytes of the data), in the order of their data,
-- and the metadata; refuses what breaks a rule of the format. `json` is the dkjson module.
function M.parse(text, base, data_size, json)
  if text:sub(1, 1) ~= "{" then
    refusal.raise("byte %d: header: expected {, found %s", base,
                  text == "" and "nothing" or refusal.quote(text:sub(1, 1)))
  end
  json_check.check(text, base, DEPTH, function(s) return (json.decode(s)) end)
  local decoded, _, problem = json.decode(text, 1, nil, OBJECT, LIST)
  if not is(decoded, OBJECT) then refusal.raise("header: %s", tostring(problem)) end

  local metadata = metadata_of(decoded)
  local names = {}
  for name in pairs(decoded) do names[#names + 1] = name end
  table.sort(names)
  local list = {}
  for i, name in ipairs(names) do list[i] = entry_of(name, decoded[name], data_size) end
  table.sort(list, function(a, b)
    if a.first ~= b.first then return a.first < b.first end
    if a.last ~= b.last then return a.last < b.last end
    return a.name < b.name
  end)

  -- One after the other, from the first byte of the data to its last.
  local done, before = 0, nil
  for _, entry in ipairs(list) do
    if entry.first < done then
      refusal.raise("tensors %s and %s overlap: one ends at byte %.17g of the data, the other " ..
                    "begins at %.17g", refusal.quote(before), refusal.quote(entry.name), done,
                    entry.first)
    elseif entry.first > done then
      refusal.raise("bytes %.17g to %.17g of the data belong to no tensor", done, entry.first)
    end
    done, before = entry.last, entry.name
  end
  if done < data_size then
    refusal.raise("bytes %.17g to %.17g of the data belong to no tensor", done, data_size)
  end
  return list, metadata
end

--- The JSON text for a list of entries and metadata: the entries by name, padded with spaces to a
-- multiple of 8 bytes.
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
