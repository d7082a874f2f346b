--- The tokens of a report one by one, as comma-separated values and as JSON lines.
--
-- Every token that counts on a side has a row. Numbers have the digits that read back to the same
-- value; what is not a finite number is inf, -inf or nan. Texts of tokens are JSON strings in both
-- formats: spaces stay visible, and no cell of a table starts with a character that a spreadsheet
-- would take for a formula.

local bytes = require "samebits.text.bytes"
local misuse = require "samebits.misuse"
local printable = require "samebits.text.printable"
local stores = require "samebits.drift.store"
local tally = require "samebits.drift.tally"
local tensor = require "samebits.tensor"

local M = {}

--- The columns, in order. Those of ALIGNED follow where the sides were aligned by their ids.
M.COLUMNS = { "row", "sequence", "position", "id", "token", "state", "a", "b", "a_hex", "b_hex",
              "ulps", "difference", "ratio", "cause", "exactly", "why" }

M.ALIGNED = { "a_sequence", "a_position", "b_sequence", "b_position" }

local NUMBERS = { a_sequence = true, a_position = true, b_sequence = true, b_position = true,
                  row = true, sequence = true, position = true, id = true, a = true, b = true,
                  ulps = true, difference = true, ratio = true }

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\" }

--- Returns text as a JSON string.
function M.quoted(text)
  return '"' .. printable.text(text):gsub('["\\]', ESCAPES) .. '"'
end

--- Returns a function that returns the id of a row as a number. It reads through a pointer, because
-- there may be millions.
function M.id_reader(ids)
  local read, p, step = tensor.element.read[ids.dtype], ids.ptr, ids.strides[1]
  return function(row)
    local id = read(p, row * step)
    return type(id) == "cdata" and tonumber(id) or id
  end
end

-- The texts of all ids that count, by id.
local function texts_of(report, id_of)
  local store, known, ids = report.store, {}, {}
  for row = 0, store.rows - 1 do
    local id = store.state[row] ~= stores.INACTIVE and id_of(row)
    if id and not known[id] then known[id], ids[#ids + 1] = true, id end
  end
  return report.texts:texts(ids)
end

--- Calls f(token) for each token that counts on a side, in order of rows; the table is used again.
-- It holds the columns; those that do not apply are nil.
function M.each(report, f)
  local store = report.store
  if not store then
    local rows = 1
    for _, n in ipairs(report.shape) do rows = rows * n end
    misuse.raise("the report holds none of its %.0f tokens one by one: give keep (--keep)", rows)
  end
  local id_of = report.ids and M.id_reader(report.ids)
  local texts = report.texts and id_of and texts_of(report, id_of) or {}
  local origin, token = report.layout.origin, {}
  for row = 0, store.rows - 1 do
    local state = store.state[row]
    if state ~= stores.INACTIVE then
      local on_a, on_b = state ~= stores.ONLY_B, state ~= stores.ONLY_A
      local x, y = store.a[row], store.b[row]
      token.row, token.state = row, stores.NAMES[state]
      token.sequence, token.position = report.layout.place(row)
      token.id = id_of and id_of(row)
      token.token = texts[token.id]
      if origin then
        token.a_sequence, token.a_position, token.b_sequence, token.b_position = origin(row)
      end
      token.a, token.a_hex = on_a and tally.value(x) or nil, on_a and tally.hex(x) or nil
      token.b, token.b_hex = on_b and tally.value(y) or nil, on_b and tally.hex(y) or nil
      token.ulps, token.difference, token.ratio = nil, nil, nil
      if on_a and on_b then
        token.ulps, token.difference = tally.ulps(x, y), x == y and 0 or token.b - token.a
        token.ratio = math.exp(token.difference)
      end
      token.cause, token.exactly, token.why = nil, nil, nil
      if state == stores.DIFFERENT then
        local kind = store:explained(row)
        token.cause, token.exactly = kind.cause, kind.cause_exact
        token.why = kind.by and report.causes[kind.by].text
      end
      f(token)
    end
  end
end

local function columns_of(report)
  if not report.layout.origin then return M.COLUMNS end
  local out = {}
  for _, list in ipairs { M.COLUMNS, M.ALIGNED } do
    for _, column in ipairs(list) do out[#out + 1] = column end
  end
  return out
end

local function csv_cell(text)
  if text:find '[",\r\n]' then return '"' .. text:gsub('"', '""') .. '"' end
  return text
end

-- f, which makes a string of another one, with its results kept.
local function kept(f)
  return setmetatable({}, { __index = function(self, text)
    local made = f(text)
    self[text] = made
    return made
  end })
end

local function csv_text(value) return csv_cell(printable.text(tostring(value))) end
local function csv_token(value) return csv_cell(M.quoted(value)) end

-- Digits alone need no escapes.
local HEX = { a_hex = true, b_hex = true }

-- A list of stretches of bytes, each of which a file can be written from (io/file.lua).
local STRETCH = 2 ^ 22

local function cut(parts, out)
  if out.n < STRETCH then return out end
  parts[#parts + 1] = { ptr = out.p, size = out.n }
  return bytes.new()
end

local function done(parts, out)
  parts[#parts + 1] = { ptr = out.p, size = out.n }
  return parts
end

-- Puts a number. quote: what stands around one that is not finite.
local function put_number(out, x, quote)
  if x % 1 == 0 and math.abs(x) < 2 ^ 53 then return out:integer(x) end
  if x == x and math.abs(x) < math.huge then return out:text(("%.9g"):format(x)) end
  out:text(quote)
  out:text(x ~= x and "nan" or x > 0 and "inf" or "-inf")
  out:text(quote)
end

--- Returns comma-separated values (RFC 4180), with a line of column names, as a list of parts
-- { ptr, size }.
function M.csv(report)
  local columns, parts, out = columns_of(report), {}, bytes.new()
  local texts, tokens = kept(csv_text), kept(csv_token)
  out:text(table.concat(columns, ",") .. "\r\n")
  M.each(report, function(token)
    for i, column in ipairs(columns) do
      local value = token[column]
      if i > 1 then out:byte(44) end
      if value ~= nil then
        if NUMBERS[column] then
          put_number(out, value, "")
        elseif HEX[column] then
          out:text(value)
        else
          out:text(column == "token" and tokens[value] or texts[tostring(value)])
        end
      end
    end
    out:text "\r\n"
    out = cut(parts, out)
  end)
  return done(parts, out)
end

--- Returns one object per line, in the same form. Keys that do not apply are missing.
function M.jsonl(report)
  local columns, parts, out = columns_of(report), {}, bytes.new()
  local texts, keys = kept(M.quoted), {}
  for i, column in ipairs(columns) do keys[i] = ('%s"%s":'):format(i > 1 and "," or "{", column) end
  M.each(report, function(token)
    for i, column in ipairs(columns) do
      local value = token[column]
      if value ~= nil then
        out:text(keys[i])
        if NUMBERS[column] then
          put_number(out, value, '"')
        elseif HEX[column] then
          out:byte(34)
          out:text(value)
          out:byte(34)
        else
          out:text(value == true and "true" or value == false and "false" or texts[value])
        end
      end
    end
    out:text "}\n"
    out = cut(parts, out)
  end)
  return done(parts, out)
end

return M
