--- Runs samebits.drift on tensors and again on files: whatever it finds in memory it must also find
-- in .npy files of either order and in safetensors files. Each report is compared with that of one
-- of the three, in turn; with tools/test --all, with all three.

local samebits = require "samebits"
local budget = require "spec.support.budget"
local orders = require "spec.support.orders"
local temporary = require "spec.support.temporary"

local M = {}

-- Replaces each tensor in memory by the path of a file that `save(t, name)` makes.
local function filed(value, save, name)
  if samebits.is_tensor(value) then
    if value.device ~= "cpu" then return value end
    return save(value, name)
  elseif type(value) ~= "table" or value[1] ~= nil then
    return value
  end
  local out = {}
  for key, field in pairs(value) do out[key] = filed(field, save, name .. "_" .. key) end
  return out
end

--- A report as text, without the origins of its sides and of itself.
local function text_of(report)
  local sources = { report.a.source, report.b.source, report.made, report.files }
  report.a.source, report.b.source, report.made, report.files = nil, nil, nil, nil
  local text = report:json()
  report.a.source, report.b.source, report.made, report.files = unpack(sources, 1, 4)
  return text
end

M.text_of = text_of

-- The ways to turn sides into files, each with a function of a folder, a tensor and a name.
local WAYS = { { "safetensors", function(files, t, name)
  local path = files:path(name .. ".safetensors")
  assert(samebits.save(path, { [name] = t }))
  return path .. ":" .. name
end } }
for _, order in ipairs(orders.NAMES) do
  WAYS[#WAYS + 1] = { order .. " order", function(files, t, name)
    local path = files:path(name .. order .. ".npy")
    orders.save(path, t, order)
    return path
  end }
end

local turn = 0

-- The ways that are due.
local function due()
  if budget.ALL then return WAYS end
  turn = turn % #WAYS + 1
  return { WAYS[turn] }
end

--- Fails unless drift says of files what `report` says of the same sides in memory.
function M.agree(report, a, b, meta)
  local files, want = temporary.folder(), text_of(report)
  local ok, why = pcall(function()
    for _, way in ipairs(due()) do
      local function save(t, name) return way[2](files, t, name) end
      local found, message = samebits.drift(filed(a, save, "a"), filed(b, save, "b"),
                                            filed(meta, save, "meta"))
      assert(found, message)
      local got = text_of(found)
      assert(got == want, ("%s:\n%s\nin memory:\n%s"):format(way[1], got, want))
    end
  end)
  files:remove()
  if not ok then error(why, 0) end
end

--- The report of samebits.drift, which is the same where the sides are read from files.
function M.drift(a, b, meta)
  local report = assert(samebits.drift(a, b, meta))
  M.agree(report, a, b, meta)
  return report
end

--- The causes of a report as { name = tokens, ... }, including the tokens that nothing explains.
function M.causes(report)
  local out = {}
  for _, cause in ipairs(report.causes) do
    out[cause.cause] = (out[cause.cause] or 0) + cause.tokens
  end
  if report.unexplained > 0 then out.unexplained = report.unexplained end
  return out
end

return M
