--- The tokens of a report one by one, as comma-separated values and as JSON lines.
--
-- Every token that counts on a side has a row. Numbers have the digits that read back to the same
-- value; what is not a finite number is inf, -inf or nan. Texts of tokens are JSON strings in both
-- formats: spaces stay visible, and no cell of a table starts with a character that a spreadsheet
-- would take for a formula.

local misuse = require "samebits.misuse"
local printable = require "samebits.text.printable"
local stores = require "samebits.drift.store"
local tally = require "samebits.drift.tally"

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

local function number(x)
  if x ~= x then return "nan" end
  if x == math.huge then return "inf" elseif x == -math.huge then return "-inf" end
  if x % 1 == 0 and math.abs(x) < 2 ^ 53 then return ("%.0f"):format(x) end
  return ("%.9g"):format(x)
end

local function plain_id(ids, row)
  local id = ids:get(row)
  return type(id) == "cdata" and tonumber(id) or id
end

--- Calls f(token) for each token that counts on a side, in order of rows: `row`, `sequence`,
-- `position`, `id`, `token`, `state`, `a`, `b`, `a_hex`, `b_hex`, `ulps`, `difference`, `ratio`,
-- `cause`, `exactly`, `why`; the last three, and what a side lacks, are nil where they do not
-- apply.
function M.each(report, f)
  local store = report.store
  if not store then
    local rows = 1
    for _, n in ipairs(report.shape) do rows = rows * n end
    misuse.raise("the report holds none of its %.0f tokens one by one: give keep (--keep)", rows)
  end
  local texts = {}
  if report.texts and report.ids then
    local ids = {}
    for row = 0, store.rows - 1 do
      local id = store.state[row] ~= stores.INACTIVE and plain_id(report.ids, row)
      if id and texts[id] == nil then texts[id], ids[#ids + 1] = false, id end
    end
    texts = report.texts:texts(ids)
  end
  for row = 0, store.rows - 1 do
    local state = store.state[row]
    if state ~= stores.INACTIVE then
      local on_a, on_b = state ~= stores.ONLY_B, state ~= stores.ONLY_A
      local x, y = store.a[row], store.b[row]
      local sequence, position = report.layout.place(row)
      local token = { row = row, sequence = sequence, position = position,
                      id = report.ids and plain_id(report.ids, row),
                      state = stores.NAMES[state] }
      token.token = texts[token.id]
      if report.layout.origin then
        token.a_sequence, token.a_position, token.b_sequence, token.b_position =
          report.layout.origin(row)
      end
      if on_a then token.a, token.a_hex = tally.value(x), tally.hex(x) end
      if on_b then token.b, token.b_hex = tally.value(y), tally.hex(y) end
      if on_a and on_b then
        token.ulps, token.difference = tally.ulps(x, y), x == y and 0 or token.b - token.a
        token.ratio = math.exp(token.difference)
      end
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

--- Returns comma-separated values (RFC 4180), with a line of column names.
function M.csv(report)
  local columns = columns_of(report)
  local lines = { table.concat(columns, ",") }
  local cells = {}
  M.each(report, function(token)
    for i, column in ipairs(columns) do
      local value = token[column]
      if value == nil then
        cells[i] = ""
      elseif NUMBERS[column] then
        cells[i] = number(value)
      elseif column == "token" then
        cells[i] = csv_cell(M.quoted(value))
      else
        cells[i] = csv_cell(printable.text(tostring(value)))
      end
    end
    lines[#lines + 1] = table.concat(cells, ",")
  end)
  lines[#lines + 1] = ""
  return table.concat(lines, "\r\n")
end

--- Returns one object per line. Keys that do not apply are missing.
function M.jsonl(report)
  local lines, parts, columns = {}, {}, columns_of(report)
  M.each(report, function(token)
    local n = 0
    for _, column in ipairs(columns) do
      local value = token[column]
      if value ~= nil then
        local text
        if NUMBERS[column] then
          text = number(value)
          if not text:find "^-?%d" then text = '"' .. text .. '"' end
        elseif type(value) == "boolean" then
          text = tostring(value)
        else
          text = M.quoted(value)
        end
        n = n + 1
        parts[n] = ('"%s":%s'):format(column, text)
      end
    end
    lines[#lines + 1] = "{" .. table.concat(parts, ",", 1, n) .. "}\n"
  end)
  return table.concat(lines)
end

return M
