--- Reads an untrusted JSON text, strictly, in time and memory that its length bounds.
--
-- It refuses everything that RFC 8259 does not allow. It also refuses text that a safetensors
-- header has no use for and that decoders disagree about: two equal keys in an object, numbers
-- other than non-negative integers up to 2^53, true, false, null, escapes of half a surrogate pair,
-- more than a few levels of nesting, and bytes that are not UTF-8. Too many keys are refused, too,
-- because a byte of text can take a hundred bytes in tables.
--
-- It makes one pass over the bytes, through a pointer, because LuaJIT compiles such loops but not
-- string.find.

local ffi = require "ffi"
local refusal = require "samebits.io.refusal"
local utf8 = require "samebits.text.utf8"

local M = {}

-- 2^53, up to which a double represents an integer exactly.
local MAX = "9007199254740992"

local LIST, OBJECT = {}, {}  -- metatables that distinguish lists from objects

--- Whether a value is a list. Its elements are value[1] and so on.
function M.is_list(value) return type(value) == "table" and getmetatable(value) == LIST end

--- Whether a value is an object. Its keys, in their order, are value[1] and so on, and the value of
-- a key is value[key].
function M.is_object(value) return type(value) == "table" and getmetatable(value) == OBJECT end

local byte = string.byte
local QUOTE, BACKSLASH, COLON, COMMA = byte '"', byte "\\", byte ":", byte ","
local OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT = byte "[", byte "]", byte "{", byte "}"

-- The characters that may follow a backslash, except u.
local ESCAPES = ffi.new "uint8_t[256]"
for short, c in pairs { ['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n",
                        r = "\r", t = "\t" } do
  ESCAPES[byte(short)] = byte(c)
end

-- The characters of numbers and words.
local WORD = ffi.new "uint8_t[256]"
for c = 0, 255 do WORD[c] = string.char(c):find "[%w.+-]" and 1 or 0 end

-- The four hex digits at p[pos], or -1.
local function unit_at(p, pos, past)
  if pos + 4 > past then return -1 end
  local unit = 0
  for i = pos, pos + 3 do
    local c = p[i]
    local digit
    if c >= 48 and c <= 57 then digit = c - 48
    elseif c >= 65 and c <= 70 then digit = c - 55
    elseif c >= 97 and c <= 102 then digit = c - 87
    else return -1 end
    unit = unit * 16 + digit
  end
  return unit
end

local floor = math.floor

-- Writes a code point as UTF-8 to out[k]. Returns the place after it.
local function put(out, k, code)
  if code < 0x80 then
    out[k] = code
    return k + 1
  elseif code < 0x800 then
    out[k], out[k + 1] = 0xc0 + floor(code / 64), 0x80 + code % 64
    return k + 2
  elseif code < 0x10000 then
    out[k], out[k + 1] = 0xe0 + floor(code / 4096), 0x80 + floor(code / 64) % 64
    out[k + 2] = 0x80 + code % 64
    return k + 3
  end
  out[k], out[k + 1] = 0xf0 + floor(code / 0x40000), 0x80 + floor(code / 4096) % 64
  out[k + 2], out[k + 3] = 0x80 + floor(code / 64) % 64, 0x80 + code % 64
  return k + 4
end

--- Reads the single value in `size` bytes at `p`, which start at byte `base` of their file. limits:
-- `depth`, the levels of nesting; `keys`, of all objects together; `elements` of a list.
function M.read(p, size, base, limits)
  local keys = 0

  local function fail(pos, format, ...)
    refusal.raise("byte %.17g: header: " .. format, base + pos, ...)
  end
  local function at(pos)
    return pos >= size and "the end" or refusal.quote(string.char(p[pos]))
  end
  local function is(pos, c) return pos < size and p[pos] == c end
  local function skip_space(pos)
    while pos < size do
      local c = p[pos]
      if c ~= 32 and c ~= 10 and c ~= 13 and c ~= 9 then break end
      pos = pos + 1
    end
    return pos
  end

  -- The place of the quote that ends the string whose opening quote is at `start`, whether the
  -- string has an escape, and whether it has bytes beyond ASCII.
  local function string_end(start)
    local pos, escaped, wide = start + 1, false, false
    while pos < size do
      local c = p[pos]
      if c == QUOTE then return pos, escaped, wide end
      if c < 32 then fail(pos, "control character %02x in a string", c) end
      if c == BACKSLASH then
        escaped = true
        pos = pos + 1  -- the byte after it, even a quote, belongs to the escape
      elseif c >= 0x80 then
        wide = true
      end
      pos = pos + 1
    end
    fail(start, "this string does not end")
  end

  -- The code point of the escape at pos, and the place after it.
  local function unescaped(pos, past)
    local short = ESCAPES[p[pos + 1]]
    if short ~= 0 then return short, pos + 2 end
    local unit = p[pos + 1] == 117 and unit_at(p, pos + 2, past) or -1
    if unit < 0 then fail(pos, "unknown escape") end
    if unit < 0xd800 or unit > 0xdfff then return unit, pos + 6 end
    local low = -1
    if unit < 0xdc00 and pos + 12 <= past and p[pos + 6] == BACKSLASH and p[pos + 7] == 117 then
      low = unit_at(p, pos + 8, past)
    end
    if low < 0xdc00 or low > 0xdfff then fail(pos, "half a surrogate pair") end
    return 0x10000 + (unit - 0xd800) * 1024 + low - 0xdc00, pos + 12
  end

  -- The text between two quotes with its escapes resolved. Resolving never makes it longer.
  local function resolved(from, past)
    local out, k, pos = ffi.new("uint8_t[?]", past - from), 0, from
    while pos < past do
      local c = p[pos]
      if c == BACKSLASH then
        local code
        code, pos = unescaped(pos, past)
        k = put(out, k, code)
      else
        out[k] = c
        k, pos = k + 1, pos + 1
      end
    end
    return ffi.string(out, k)
  end

  -- The string that starts at pos, and the place after it.
  local function text(pos)
    local last, escaped, wide = string_end(pos)
    local raw = ffi.string(p + pos + 1, last - pos - 1)
    local bad = wide and utf8.invalid(raw)
    if bad then fail(pos + bad, "not UTF-8: %02x", byte(raw, bad)) end
    return escaped and resolved(pos + 1, last) or raw, last + 1
  end

  local value

  -- Calls member(pos) for each member of a list or an object; member returns the place after the
  -- bytes that it read. Returns the place after the closing bracket.
  local function members(pos, close, level, member)
    if level > limits.depth then fail(pos, "more than %d levels of nesting", limits.depth) end
    pos = skip_space(pos + 1)
    if is(pos, close) then return pos + 1 end
    while true do
      pos = skip_space(member(pos))
      if is(pos, close) then return pos + 1 end
      if not is(pos, COMMA) then
        fail(pos, "expected , or %s, found %s", string.char(close), at(pos))
      end
      pos = skip_space(pos + 1)
    end
  end

  local function object(start, level)
    local out, n = setmetatable({}, OBJECT), 0
    return out, members(start, CLOSE_OBJECT, level, function(pos)
      if not is(pos, QUOTE) then fail(pos, "expected a key, found %s", at(pos)) end
      local key, colon = text(pos)
      if out[key] ~= nil then fail(pos, "key %s twice", refusal.quote(key)) end
      keys, n = keys + 1, n + 1
      if keys > limits.keys then fail(pos, "more than %d keys", limits.keys) end
      colon = skip_space(colon)
      if not is(colon, COLON) then fail(colon, "expected :, found %s", at(colon)) end
      out[n] = key
      out[key], pos = value(skip_space(colon + 1), level)
      return pos
    end)
  end

  local function list(start, level)
    local out, n = setmetatable({}, LIST), 0
    return out, members(start, CLOSE_LIST, level, function(pos)
      if n == limits.elements then fail(pos, "more than %d elements", n) end
      n = n + 1
      out[n], pos = value(pos, level)
      return pos
    end)
  end

  local function number(pos)
    local past = pos
    while past < size and WORD[p[past]] ~= 0 do past = past + 1 end
    if past == pos then fail(pos, "expected a value, found %s", at(pos)) end
    -- Leading zeros are refused, so more than 16 digits are always too many.
    local word = ffi.string(p + pos, math.min(past - pos, 100))
    if not word:find "^%d+$" or word:find "^0%d" then
      fail(pos, "%s is not a string, a list, an object or a non-negative integer",
           refusal.quote(word))
    end
    if #word > 16 or #word == 16 and word > MAX then
      fail(pos, "%s is too large", refusal.quote(word))
    end
    return tonumber(word), past
  end

  -- The value at pos, inside this many levels, and the place after it.
  function value(pos, level)
    if is(pos, QUOTE) then return text(pos) end
    if is(pos, OPEN_OBJECT) then return object(pos, level + 1) end
    if is(pos, OPEN_LIST) then return list(pos, level + 1) end
    return number(pos)
  end

  local out, pos = value(skip_space(0), 0)
  pos = skip_space(pos)
  if pos < size then fail(pos, "%s behind the value", at(pos)) end
  return out
end

return M
