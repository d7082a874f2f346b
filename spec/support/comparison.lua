--- Compares our errors with those of the fp32 paths, over all targets of all rows of a cell.

local errors = require "spec.support.errors"
local fp32_softmax = require "spec.support.fp32_softmax"
local tolerance = require "spec.support.tolerance"

local M = {}

--- The name of our own path among the others.
M.OURS = "samebits"
M.PATHS = { M.OURS, unpack(fp32_softmax.NAMES) }

-- For each path, the plain errors and the errors beyond rounding.
local function collection(paths)
  local made = {}
  for _, path in ipairs(paths) do made[path] = { all = errors.new(), beyond = errors.new() } end
  return made
end

--- The errors of a cell: each(path, got, exact) is called for every token and path. score gives our
-- results as at.score does. Returns the logits and the truth.
function M.cell(cell, score, each)
  local t = tolerance.logits(cell)
  local truth = tolerance.truth(cell, t, true)
  tolerance.score(cell, t, truth, tolerance.ALL, score, function(got, _, row, k)
    each(M.OURS, got, row.exact[k])
    for _, name in ipairs(fp32_softmax.NAMES) do each(name, row.fp32[name][k], row.exact[k]) end
  end)
  return t, truth
end

--- Errors in groups: add(key, path, got, exact); at(key)[path].all and .beyond; keys in order.
function M.groups(paths)
  local made, keys = {}, {}
  local self = { keys = keys }
  function self.add(key, path, got, exact)
    if not made[key] then
      made[key] = collection(paths)
      keys[#keys + 1] = key
    end
    local of = made[key][path]
    of.all:add(got, exact)
    of.beyond:add_amount(errors.beyond_rounding(got, exact), exact)
  end
  function self.at(key) return made[key] end
  return self
end

return M
