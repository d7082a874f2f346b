--- Reads the texts of token ids from a tokenizer's file: a tokenizer.json (of Hugging Face's
-- tokenizers) or a vocab.json, an object of texts and ids.
--
-- The file is searched for entries instead of being decoded, because such files have megabytes and
-- only the texts of a few ids are shown. It is untrusted: a text can be any bytes, and callers
-- escape it. A file without entries is refused.

local bit = require "bit"
local posix = require "samebits.io.posix"

local M = {}

-- GPT-2's map of bytes to printable characters, reversed: the bytes 33 to 126, 161 to 172 and 174
-- to 255 stand for themselves, the others follow from U+0100 on.
local BYTE_OF = {}
do
  local rest = 256
  for b = 0, 255 do
    if b >= 33 and b <= 126 or b >= 161 and b <= 172 or b >= 174 then
      BYTE_OF[b] = string.char(b)
    else
      BYTE_OF[rest], rest = string.char(b), rest + 1
    end
  end
end

local function utf8_of(code)
  if code < 0x80 then return string.char(code) end
  if code < 0x800 then return string.char(0xc0 + bit.rshift(code, 6), 0x80 + code % 64) end
  if code < 0x10000 then
    return string.char(0xe0 + bit.rshift(code, 12), 0x80 + bit.rshift(code, 6) % 64,
                       0x80 + code % 64)
  end
  return string.char(0xf0 + bit.rshift(code, 18), 0x80 + bit.rshift(code, 12) % 64,
                     0x80 + bit.rshift(code, 6) % 64, 0x80 + code % 64)
end

local ESCAPES = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }

-- The text of a JSON string without its quotes.
local function unescaped(text)
  if not text:find("\\", 1, true) then return text end
  text = text:gsub("\\u[dD]([89abAB]%x%x)\\u[dD]([c-fC-F]%x%x)", function(high, low)
    return utf8_of(0x10000 + (tonumber("d" .. high, 16) - 0xd800) * 1024 +
                   tonumber("d" .. low, 16) - 0xdc00)
  end)
  return (text:gsub("\\(u?)(%x?%x?%x?%x?)(.?)", function(u, digits, rest)
    if u == "u" and #digits == 4 then return utf8_of(tonumber(digits, 16)) .. rest end
    local c = (u .. digits .. rest)
    return (ESCAPES[c:sub(1, 1)] or c:sub(1, 1)) .. c:sub(2)
  end))
end

-- The text of a token of a byte-level vocabulary; nil if one of its characters stands for no byte.
local function from_bytes(token)
  local out = {}
  for c in token:gmatch "[%z\1-\127\194-\244][\128-\191]*" do
    local a, b = c:byte(1, 2)
    local code = #c == 1 and a or #c == 2 and (a - 192) * 64 + b - 128 or -1
    local byte = BYTE_OF[code]
    if not byte then return nil end
    out[#out + 1] = byte
  end
  return table.concat(out)
end

local function from_pieces(token)
  local byte = token:match "^<0x(%x%x)>$"
  if byte then return string.char(tonumber(byte, 16)) end
  return (token:gsub("\226\150\129", " ")) -- U+2581
end

local Tokenizer = {}
Tokenizer.__index = Tokenizer

-- Where the vocabulary begins in a text, and whether it is a list of pairs { text, score }.
local function vocabulary(text)
  local model = text:find '"model"%s*:%s*{' or 1
  local _, at = text:find('"vocab"%s*:%s*%f[{%[]', model)
  if not at then
    _, at = text:find "^%s*%f[{]"
    if not at or text:find '"model"' then return nil end
  end
  return at + 1, text:sub(at + 1, at + 1) == "["
end

-- Where a JSON string ends whose opening quote is at `at`.
local function string_end(text, at)
  local from = at + 1
  while true do
    local close = text:find('"', from, true)
    if not close then return nil end
    local slashes = 0
    while text:byte(close - 1 - slashes) == 92 do slashes = slashes + 1 end
    if slashes % 2 == 0 then return close end
    from = close + 1
  end
end

-- Calls f(raw text, id) for each entry.
local function each_entry(text, at, is_list, f)
  local id, n = 0, 0
  local close = is_list and "^%s*%]" or "^%s*}"
  at = at + 1
  while true do
    if text:find(close, at) then return n end
    local open = text:find('"', at, true)
    local past = open and string_end(text, open)
    if not past then return n end
    local _, last, digits
    if is_list then
      _, last = text:find("^[^%]]*%]%s*,?", past + 1)
      digits = id
      id = id + 1
    else
      _, last, digits = text:find("^%s*:%s*(%d+)%s*,?", past + 1)
    end
    if not last then return n end
    f(text:sub(open + 1, past - 1), tonumber(digits))
    at, n = last + 1, n + 1
  end
end

-- Tokens that were added, such as <|im_end|>: they stand for themselves.
local function added(text, wanted, out)
  local first = text:find '"added_tokens"%s*:%s*%['
  if not first then return end
  local list = text:match("%b[]", first)
  for object in (list or ""):gmatch "%b{}" do
    local id, content = object:match '"id"%s*:%s*(%d+)', object:match '"content"%s*:%s*()'
    if id and wanted[tonumber(id)] and content then
      local past = string_end(object, content)
      if past then out[tonumber(id)] = unescaped(object:sub(content + 1, past - 1)) end
    end
  end
end

--- Returns the texts of a list of ids, by id; ids without one are missing.
function Tokenizer:texts(ids)
  local wanted, out = {}, {}
  for _, id in ipairs(ids) do wanted[id] = true end
  each_entry(self.text, self.at, self.is_list, function(raw, id)
    if wanted[id] then
      local token = unescaped(raw)
      out[id] = self.is_bytes and from_bytes(token) or from_pieces(token)
    end
  end)
  added(self.text, wanted, out)
  return out
end

--- Opens a file. Returns a tokenizer, or nil and a message.
function M.open(path)
  if posix.kind_of_path(path) == "directory" then
    path = path:gsub("/*$", "") .. "/tokenizer.json"
  end
  local file, why = io.open(path, "rb")
  if not file then return nil, why end
  local text = file:read "*a"
  file:close()
  local self = setmetatable({ path = path, text = text or "" }, Tokenizer)
  self.at, self.is_list = vocabulary(self.text)
  if not self.at then return nil, path .. ": no vocabulary in it (tokenizer.json, vocab.json)" end
  -- A byte-level vocabulary writes a space as U+0120, pieces write it as U+2581.
  self.is_bytes = self.text:find("ByteLevel", 1, true) ~= nil or
                  not self.text:find("\226\150\129", self.at, true) and
                  self.text:find("\196\160", self.at, true) ~= nil or
                  not self.text:find("\\u2581", self.at, true) and
                  self.text:find("\\u0120", self.at, true) ~= nil
  local entries = each_entry(self.text, self.at, self.is_list, function() end)
  if entries == 0 then return nil, path .. ": its vocabulary has no entries" end
  return self
end

return M
