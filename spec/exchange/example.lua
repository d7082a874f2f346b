--- The data that the ranks of exchange_spec.lua score, the same in all of them.

local hex = require "spec.support.hex"
local prng = require "spec.support.prng"
local shards = require "spec.support.shards"

local M = {}

local R, V = 5, 531

--- A batch of whole rows: the last one is poisoned, the one before it empty.
function M.spec()
  local values = hex.values(R * V, 21)
  for id = 1, V do values[3 * V + id] = "ff800000" end
  values[4 * V + 17] = "7fc00000"
  return { logits = hex.tensor(values, { R, V }), ids = { 0, 300, V - 1, 7, 8 }, temperature = 0.7 }
end

--- The uneven cuts of the vocabulary for a number of ranks.
function M.cuts(ranks) return shards.cuts(prng.new(ranks), V, ranks) end

local function bytes(t)
  local list = {}
  for i = 0, t:numel() - 1 do list[i + 1] = ("%02x"):format(t.ptr[i]) end
  return table.concat(list)
end

local OUTPUTS = { "token", "lse", "sequence" }
local WITH_ENTROPY = { "token", "lse", "sequence", "entropy" }

--- The outputs that ranks finish, with or without moments.
function M.outputs(moments) return moments and WITH_ENTROPY or OUTPUTS end

--- Records and outputs as text, bit by bit.
function M.text(records, out)
  local lines = {}
  for _, name in ipairs { "states", "moments", "targets" } do
    local t = records[name]
    if t then lines[#lines + 1] = name .. " " .. bytes(assert(t:to "cpu")) end
  end
  for _, name in ipairs(M.outputs(records.moments)) do
    lines[#lines + 1] = name .. " " .. table.concat(hex.of(assert(out[name]:to "cpu")), " ")
  end
  return table.concat(lines, "\n")
end

return M
