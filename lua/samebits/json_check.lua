--- Looks a JSON text over before a lenient decoder gets it.
--
-- Refused is whatever RFC 8259 does not allow, and beyond it what the text of a safetensors header
-- has no use for and decoders disagree about: two equal keys in an object, numbers but
-- non-negative integers up to 2^53, true, false, null, escapes of half a surrogate pair, more than
-- a few levels of nesting, bytes that are not UTF-8.

local refusal = require "samebits.refusal"
local utf8 = require "samebits.utf8"

local M = {}

-- 2^53, up to which a number is what its digits say.
local MAX = "9007199254740992"

local find, sub, byte = string.find, string.sub, string.byte

local QUOTE, BACKSLASH = byte '"', byte "\\"
local ESCAPES = '^\\["\\/bfnrt]'

--- Checks a text that starts at byte `base` of its file and holds one value. `depth` is the number
-- of levels allowed, `unescape` decodes a string with its quotes.
function M.check(text, base, depth, unescape)
  local function fail(pos, format, ...)
    refusal.raise("byte %.17g: header: " .. format, base + pos - 1, ...)
  end
  local function at(pos)
    return pos > #text and "the end" or refusal.quote(sub(text, pos, pos))
  end
  local function skip_space(pos) return find(text, "[^ \t\r\n]", pos) or #text + 1 end

  local bad = utf8.invalid(text)
  if bad then fail(bad, "not UTF-8: %02x", byte(text, bad)) end

  -- The position behind the string that starts at pos, and whether it has escapes.
  local function string_end(pos)
    local start, escaped = pos, false
    pos = pos + 1
    while true do
      pos = find(text, '[%z\1-\31"\\]', pos)
      if not pos then fail(start, "this string does not end") end
      local c = byte(text, pos)
      if c == QUOTE then return pos + 1, escaped end
      if c ~= BACKSLASH then fail(pos, "control character %02x in a string", c) end
      escaped = true
      if find(text, ESCAPES, pos) then
        pos = pos + 2
      else
        local _, last, digits = find(text, "^\\u(%x%x%x%x)", pos)
        if not last then fail(pos, "unknown escape") end
        local unit = tonumber(digits, 16)
        if unit >= 0xd800 and unit < 0xdc00 then
          _, last = find(text, "^\\u[dD][c-fC-F]%x%x", last + 1)
          if not last then fail(pos, "half a surrogate pair") end
        elseif unit >= 0xdc00 and unit < 0xe000 then
          fail(pos, "half a surrogate pair")
        end
        pos = last + 1
      end
    end
  end

  local value

  -- The members of a list or an object, up to and with its closing bracket.
  local function members(pos, close, level, member)
    if level > depth then fail(pos, "more than %d levels of nesting", depth) end
    pos = skip_space(pos + 1)
    if sub(text, pos, pos) == close then return pos + 1 end
    while true do
      pos = skip_space(member(pos))
      local c = sub(text, pos, pos)
      if c == close then return pos + 1 end
      if c ~= "," then fail(pos, "expected , or %s, found %s", close, at(pos)) end
      pos = skip_space(pos + 1)
    end
  end

  local function object(start, level)
    local seen = {}
    return members(start, "}", level, function(pos)
      if byte(text, pos) ~= QUOTE then fail(pos, "expected a key, found %s", at(pos)) end
      local last, escaped = string_end(pos)
      local key = sub(text, pos, last - 1)
      if escaped then key = unescape(key) else key = sub(key, 2, -2) end
      if seen[key] then fail(pos, "key %s twice", refusal.quote(key)) end
      seen[key] = true
      local colon = skip_space(last)
      if sub(text, colon, colon) ~= ":" then fail(colon, "expected :, found %s", at(colon)) end
      return value(skip_space(colon + 1), level)
    end)
  end

  -- The position behind the value at pos.
  function value(pos, level)
    local c = sub(text, pos, pos)
    if c == '"' then return (string_end(pos)) end
    if c == "{" then return object(pos, level + 1) end
    if c == "[" then
      return members(pos, "]", level + 1, function(p) return value(p, level + 1) end)
    end
    local _, last = find(text, "^[%w%.+-]+", pos)
    if not last then fail(pos, "expected a value, found %s", at(pos)) end
    local word = sub(text, pos, last)
    if not find(word, "^%d+$") or find(word, "^0%d") then
      fail(pos, "%s is not a string, a list, an object or a non-negative integer",
           refusal.quote(word))
    end
    if #word > 16 or #word == 16 and word > MAX then
      fail(pos, "%s is too large", refusal.quote(word))
    end
    return last + 1
  end

  local pos = skip_space(value(skip_space(1), 0))
  if pos <= #text then fail(pos, "%s behind the value", at(pos)) end
end

return M
