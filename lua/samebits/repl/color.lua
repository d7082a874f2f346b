--- Colours of the prompt, on terminals that have them. NO_COLOR (no-color.org), if it is not empty,
-- and TERM=dumb turn them off. Texts are coloured when they are complete, so no width counts
-- escapes.

local posix = require "samebits.io.posix"

local M = {}

local CODES = { prompt = "1;34", error = "31", faint = "2", string = "32", word = "33", name = "36",
                title = "1" }

--- Whether text to standard output is coloured.
function M.enabled()
  local no, term = os.getenv "NO_COLOR", os.getenv "TERM"
  return (no == nil or no == "") and term ~= nil and term ~= "" and term ~= "dumb" and
         posix.is_terminal(1)
end

--- Returns text in the colour of a kind; unchanged if `on` is false.
function M.paint(on, kind, text)
  if not on or text == "" then return text end
  return "\27[" .. CODES[kind] .. "m" .. text .. "\27[0m"
end

--- Returns a prompt. An editor does not count what stands between \1 and \2. libedit loses escapes
-- that no character follows, so the blank at the end comes last.
function M.prompt(on, text)
  if not on then return text end
  local mark, blank = text:match "^(.-)( ?)$"
  return "\1\27[" .. CODES.prompt .. "m\2" .. mark .. "\1\27[0m\2" .. blank
end

local WORDS = { ["nil"] = true, ["true"] = true, ["false"] = true, ["nan"] = true, ["inf"] = true }

local function line_of(line)
  if line:find "^tensor %l[%w]* %[" then return M.paint(true, "faint", line) end
  local out, at = {}, 1
  while at <= #line do
    local quote = line:match("^[\"']", at)
    local past
    if quote then
      -- To the quote that ends it; escapes are two characters.
      past = at + 1
      while past <= #line and line:sub(past, past) ~= quote do
        past = past + (line:sub(past, past) == "\\" and 2 or 1)
      end
      out[#out + 1] = M.paint(true, "string", line:sub(at, past))
      at = past + 1
    else
      local word, after = line:match("^([%a_][%w_]*)()", at)
      if word then
        local tensor, end_of_tensor = line:match("^(tensor %l%w* %b[] [%w:]+)()", at)
        if WORDS[word] then
          out[#out + 1] = M.paint(true, "word", word)
        elseif line:find("^ = ", after) then
          out[#out + 1] = M.paint(true, "name", word)
        elseif tensor then
          out[#out + 1] = M.paint(true, "faint", tensor)
          after = end_of_tensor
        else
          out[#out + 1] = word
        end
        at = after
      else
        -- Numbers and marks, up to the next letter or quote.
        past = line:match("^[^%a_\"']+()", at) or at + 1
        -- The e of a number is no word.
        local digits, behind = line:match("^(%d[%w.+-]*)()", at)
        if digits then past = behind end
        out[#out + 1] = line:sub(at, past - 1)
        at = past
      end
    end
  end
  return table.concat(out)
end

--- Returns the text of shown data in colours.
function M.values(text)
  if text:find("\27", 1, true) then return text end
  return (text:gsub("[^\n]+", line_of))
end

--- Returns the text of a help page in colours: its first line, and names in backquotes.
function M.help(on, text)
  if not on then return text end
  local first, rest = text:match "^([^\n]*)(.*)$"
  return M.paint(true, "title", first) .. rest:gsub("`[^`\n]+`", function(name)
    return M.paint(true, "name", name)
  end)
end

return M
