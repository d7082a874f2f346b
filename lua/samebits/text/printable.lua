--- Makes foreign text (names of files and tensors, messages that quote them) safe to show.
--
-- Characters that have another effect than showing themselves become escapes: control characters
-- and bytes that are not UTF-8 as \x1b (\n, \r and \t have their own), the controls of U+0080 to
-- U+009F and the marks that end a line or change its direction as \u{202e}. Everything else is
-- unchanged, even backslashes, so escaping twice has no further effect. The result is UTF-8.
--
-- All text that is shown passes through this module: the command line, the prompt, reports as text,
-- as JSON and as a page, plots, and the messages that public functions raise or return.

local utf8 = require "samebits.text.utf8"

local M = {}

local NAMED = { ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function escape_byte(c) return NAMED[c] or ("\\x%02x"):format(c:byte()) end

-- Escapes a character of two or three bytes.
local function escape_character(c)
  local a, b, d = c:byte(1, 3)
  local code = d and (a - 224) * 4096 + (b - 128) * 64 + d - 128 or (a - 192) * 64 + b - 128
  return ("\\u{%x}"):format(code)
end

-- C1 controls; marks of direction, line and paragraph separators; U+FFFE and U+FFFF, which XML does
-- not allow.
local CHARACTERS = {
  "\194[\128-\159]", "\216\156", "\226\128[\142\143\168-\174]", "\226\129[\166-\169]",
  "\239\191[\190\191]",
}

-- Writes bytes that are not UTF-8 as escapes that begin with `mark`; everything else is unchanged.
local function as_utf8(text, mark)
  local bad = utf8.invalid(text)
  if not bad then return text end
  local parts, from = {}, 1
  while bad do
    parts[#parts + 1] = ("%s%s%02x"):format(text:sub(from, bad - 1), mark, text:byte(bad))
    from = bad + 1
    bad = utf8.invalid(text, from)
  end
  return table.concat(parts) .. text:sub(from)
end

local function escaped(text, controls)
  if not text:find "[%c\128-\255]" then return text end
  text = as_utf8(text, "\\x"):gsub(controls, escape_byte)
  for _, pattern in ipairs(CHARACTERS) do text = text:gsub(pattern, escape_character) end
  return text
end

--- Escapes a name, or other text that is shown within a line.
function M.text(text) return escaped(text, "%c") end

--- Escapes text of several lines; line feeds and tabs are unchanged.
function M.lines(text) return escaped(text, "[%z\1-\8\11-\31\127]") end

--- Escapes JSON from an encoder that escapes controls as JSON does and passes other bytes on.
function M.json(text) return as_utf8(text, "\\\\x") end

--- Returns an error's message in one line.
function M.message(text) return M.text((tostring(text):gsub("%s*\n%s*", " "))) end

return M
