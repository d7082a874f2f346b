--- A report as JSON; `samebits help verify` describes it.

local misuse = require "samebits.misuse"
local printable = require "samebits.text.printable"

local M = {}

local KEYS = {
  "version", "numerics", "ok", "used", "unused", "seed", "rounds", "dtype", "shape", "vocab",
  "sampled", "chosen_ids", "paths", "transforms", "name", "kind", "backend", "context", "about",
  "results", "tokens", "mismatches", "sequences", "sequence_mismatches", "differences", "max_ulps",
  "max_apart", "error", "first", "worst", "transform", "output", "sequence", "position", "id",
  "want", "got", "want_value", "got_value", "ulps", "text",
}

--- Returns one object, on one line.
function M.format(report)
  local ok, json = pcall(require, "dkjson")
  if not ok then misuse.raise "json: needs the Lua module dkjson (Debian: lua-dkjson)" end
  local fields = {} -- without methods, which are also reached by name
  for name, value in pairs(report) do fields[name] = value end
  return printable.json(json.encode(fields, { keyorder = KEYS })) .. "\n"
end

return M
