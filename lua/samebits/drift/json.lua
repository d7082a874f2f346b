--- A report as JSON. docs/drift.md describes it.

local misuse = require "samebits.misuse"
local printable = require "samebits.text.printable"

local M = {}

M.SCHEMA = "samebits.drift/1"

local LISTS = { inputs = true, histogram = true, worst = true, causes = true, bands = true,
                notes = true, positions = true, worst_sequences = true, sample = true,
                shape = true, with = true, unused = true, clips = true, below = true,
                above = true, segments = true, files = true }

-- Objects that the exports and the page are made from.
local INNER = { sample = true, store = true, texts = true, ids = true, layout = true,
                by_sequence = true }

local KEYS = {
  "schema", "version", "numerics", "verdict", "verdict_text", "equal", "inputs", "field", "a", "b",
  "shape", "sequences", "tokens", "compared", "different", "unexplained", "causes", "cause", "text",
  "logits", "op", "first", "row", "sequence", "position", "id", "a_hex", "b_hex", "ulps", "max",
  "histogram", "low", "high", "count", "difference", "ratio", "clips", "kl", "finite", "not_finite",
  "noise", "segments", "worst", "worst_sequences", "positions", "near", "notes", "made", "files",
}

-- Values that JSON cannot represent as numbers become strings: "inf", "-inf", "nan".
local function plain(value, key)
  if type(value) == "number" then
    if value ~= value then return "nan" end
    if value == math.huge then return "inf" elseif value == -math.huge then return "-inf" end
    return value
  elseif type(value) == "table" then
    local out = {}
    for k, v in pairs(value) do out[k] = plain(v, k) end
    if LISTS[key] then setmetatable(out, { __jsontype = "array" })
    elseif next(out) == nil then setmetatable(out, { __jsontype = "object" }) end
    return out
  end
  return value
end

function M.format(report)
  local ok, json = pcall(require, "dkjson")
  if not ok then misuse.raise "json: needs the Lua module dkjson (Debian: lua-dkjson)" end
  local out = { schema = M.SCHEMA }
  for key, value in pairs(report) do
    if not INNER[key] then out[key] = plain(value, key) end
  end
  return printable.json(json.encode(out, { keyorder = KEYS, indent = false })) .. "\n"
end

return M
