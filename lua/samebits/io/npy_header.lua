--- The header of a .npy file: a Python dict of three entries. The parser accepts only this form.
--
--     {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }
--
-- The three entries may be in any order, with either kind of quotes and any white space. No other
-- Python syntax is accepted.

local refusal = require "samebits.io.refusal"

local M = {}

M.MAGIC = "\147NUMPY"

-- numpy writes bfloat16 (of the ml_dtypes package) as two untyped bytes.
local DTYPES = {
  ["<f4"] = "float32", ["<f2"] = "float16", ["<f8"] = "float64", ["<V2"] = "bfloat16",
  ["|V2"] = "bfloat16", ["<i2"] = "int16", ["<i4"] = "int32", ["<i8"] = "int64",
  ["|i1"] = "int8", ["|u1"] = "uint8", ["|b1"] = "bool",
}
local DESCRS = {
  float32 = "<f4", float16 = "<f2", float64 = "<f8", bfloat16 = "<V2", int16 = "<i2",
  int32 = "<i4", int64 = "<i8", int8 = "|i1", uint8 = "|u1", bool = "|b1",
}
local SUPPORTED = "<f4, <f2, <f8, <V2 (bfloat16), <i2, <i4, <i8, |i1, |u1, |b1"

-- 2^53, up to which a double represents an integer exactly.
local MAX = "9007199254740992"

local function check_descr(text, at)
  local name = DTYPES[text]
  if name then return name end
  if text:find("^>") then
    refusal.raise("byte %d: dtype %s is big-endian; write it with dtype '<%s'", at,
                  refusal.quote(text), refusal.quote(text:sub(2)):sub(2, -2))
  end
  refusal.raise("byte %d: dtype %s is not supported (%s)", at, refusal.quote(text), SUPPORTED)
end

--- Parses the dict. `base` is the byte of the file that the text starts at, for messages. Returns a
-- dtype's name, whether the first index is the fastest, and the shape; refuses everything else.
function M.parse(text, base)
  local pos = 1

  local function fail(format, ...)
    refusal.raise("byte %d: header: " .. format, base + pos - 1, ...)
  end
  local function skip_space() pos = text:find("[^ \t\r\n]", pos) or #text + 1 end
  -- Returns a pattern's match (its capture, if it has one) and moves past it, or returns nil.
  local function take(pattern)
    skip_space()
    local _, last, capture = text:find("^" .. pattern, pos)
    if not last then return nil end
    local taken = capture or text:sub(pos, last)
    pos = last + 1
    return taken
  end
  local function found()
    skip_space()
    return pos > #text and "the end" or refusal.quote(text:sub(pos, pos))
  end
  local function expect(pattern, what)
    return take(pattern) or fail("expected %s, found %s", what, found())
  end
  local function take_string() return take("'([^'\\\n]*)'") or take('"([^"\\\n]*)"') end

  local read = {}
  function read.descr()
    skip_space()
    local at = base + pos - 1
    if text:find("^%[", pos) then fail("descr is a list: structured arrays are not supported") end
    return check_descr(take_string() or fail("descr: expected a string, found %s", found()), at)
  end
  function read.fortran_order()
    local word = take("(%a+)")
    if word == "True" then return true end
    if word == "False" then return false end
    fail("fortran_order: expected True or False, found %s", word and refusal.quote(word) or found())
  end
  function read.shape()
    local shape = {}
    expect("%(", "the ( of a shape")
    while not take("%)") do
      if #shape > 0 and shape.open then fail("shape: expected , or ), found %s", found()) end
      local digits = expect("%d+", "a size of digits in the shape")
      if digits:find("^0%d") then fail("shape: %s is no number", refusal.quote(digits)) end
      if #digits > 16 or #digits == 16 and digits > MAX then
        fail("shape: %s is too large", refusal.quote(digits))
      end
      shape[#shape + 1] = tonumber(digits)
      shape.open = not take(",")
    end
    -- In Python (3) is a number and (3,) a tuple.
    if #shape == 1 and shape.open then fail("shape: (%.17g) is not a tuple", shape[1]) end
    shape.open = nil
    return shape
  end

  local values = {}
  expect("{", "{")
  while not take("}") do
    local key = take_string() or fail("expected a key, found %s", found())
    if not read[key] then fail("unknown key %s", refusal.quote(key)) end
    if values[key] ~= nil then fail("key '%s' twice", key) end
    expect(":", ":")
    values[key] = read[key]()
    if not take(",") then
      expect("}", ", or }")
      break
    end
  end
  for _, key in ipairs { "descr", "fortran_order", "shape" } do
    if values[key] == nil then fail("key '%s' is missing", key) end
  end
  skip_space()
  if pos <= #text then fail("%s behind the dict", found()) end
  return values.descr, values.fortran_order, values.shape
end

--- Returns everything before the data of a dense array, a multiple of 64 bytes.
function M.format(name, shape)
  local sizes = {}
  for d = 1, #shape do sizes[d] = ("%d"):format(shape[d]) end
  local tuple = "(" .. table.concat(sizes, ", ") .. (#shape == 1 and ",)" or ")")
  local dict = ("{'descr': '%s', 'fortran_order': False, 'shape': %s, }")
    :format(DESCRS[name], tuple)
  -- Magic, version 1.0 and a 16-bit length come before the dict, a newline after it. At most 64
  -- dimensions of 2^53 keep it far below 64 KiB.
  local total = math.ceil((10 + #dict + 1) / 64) * 64
  local length = total - 10
  return M.MAGIC .. "\1\0" .. string.char(length % 256, math.floor(length / 256)) .. dict ..
         (" "):rep(total - 10 - #dict - 1) .. "\n"
end

return M
