-- A sequence has the bits that it gets alone on one thread of the scalar cpu path, in any batch, on
-- every backend, instruction set and geometry.
--
-- Cases are drawn from seeds: SB_SEED (1) is the first seed, and SB_CASES (6) the number of cases
-- per transform. SB_CASE='...', in the form that a failure prints, runs a single case.

local backends = require "spec.support.backends"
local budget = require "spec.support.budget"
local cases = require "spec.support.invariance.case"
local check = require "spec.support.invariance.check"
local property = require "spec.support.invariance.property"
local transforms = require "samebits.verify.transforms"

local function one_case(text)
  local case, why = cases.parse(text)
  if case and not transforms.named[case.transform] then
    why = ("there is no transform '%s'"):format(case.transform)
  end
  if why then error(("SB_CASE='%s': %s"):format(text, why), 0) end
  local known
  backends.each(function(at)
    if at.name ~= case.on then return end
    known = true
    it(cases.text(case), function()
      local found = check.run(case, at)
      assert(not found, tostring(found))
    end)
  end)
  if not known then error(("SB_CASE: there is no '%s' here"):format(case.on), 0) end
end

-- The number of failures that are simplified; where everything fails, more would take long.
local SHRINKS = 8
local failures = 0

describe("the same bits as alone:", function()
  local text = os.getenv "SB_CASE"
  if text and text ~= "" then return one_case(text) end

  local variants = {}
  backends.each(function(at) variants[#variants + 1] = at end)

  for _, transform in ipairs(transforms.list) do
    for _, at in ipairs(variants) do
      if not transform.only or transform.only(at) then
        it(("%s on %s"):format(transform.name, at.name), function()
          for i = 1, budget.CASES do
            local case = cases.draw(transform, i, budget.SEED)
            case.on = at.name
            local most = failures >= SHRINKS and 0 or nil
            local report = property.test(case, at, budget.SEED, nil, most)
            failures = failures + (report and 1 or 0)
            assert(not report, report)
          end
        end)
      end
    end
  end
end)
