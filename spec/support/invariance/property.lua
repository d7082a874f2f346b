--- Runs cases as tests: what fails is made as simple as it can be, and reported with a command that
-- runs it again.

local cases = require "spec.support.invariance.case"
local check = require "spec.support.invariance.check"

local M = {}

-- The cases to try at most; the specs' own take up to 400.
local TRIES = 600

--- The simplest case that still fails, what was found there, and how many cases were tried.
-- A case whose every simpler neighbour passes is where it ends; or when `most` have been tried.
function M.shrink(case, found, run, most)
  local tried, seen = 0, {}
  local simpler = true
  while simpler do
    simpler = false
    for _, candidate in ipairs(cases.simpler(case)) do
      local key = cases.text(candidate)
      if not seen[key] then
        seen[key] = true
        if tried >= (most or TRIES) then return case, found, tried end
        tried = tried + 1
        local now = run(candidate)
        -- An error is another failure than other bits.
        if now and (now.message ~= nil) == (found.message ~= nil) then
          case, found, simpler = candidate, now, true
          break
        end
      end
    end
  end
  return case, found, tried
end

--- The command that runs a case again.
function M.command(case)
  return ("SB_CASE='%s' luajit %s spec/invariance/sequences_spec.lua"):format(
    cases.text(case), arg[0])
end

-- What a failure says.
local function report(case, found, small, small_found, tried, seed)
  local lines = {
    ("SB_SEED=%s, %s"):format(seed, cases.text(case)),
    "  " .. tostring(found),
    ("the simplest of %d cases tried:"):format(tried),
    "  " .. tostring(small_found),
    "  " .. M.command(small),
  }
  return table.concat(lines, "\n")
end

--- Runs a case on a variant: nothing; or a report of what failed, and the simplest case that does.
-- `seed` is where the drawing started; `score` as for check.run, `most` for shrink.
function M.test(case, at, seed, score, most)
  local function run(candidate) return check.run(candidate, at, score) end
  local found = run(case)
  if not found then return nil end
  local small, small_found, tried = M.shrink(case, found, run, most)
  return report(case, found, small, small_found, tried, seed), small
end

return M
