-- The golden vectors on the cuda backend alone, whatever its driver: each n-th case if a number is
-- given. With SB_CASES=all each of them, in every geometry.
package.path = './lua/?.lua;./lua/?/init.lua;' .. package.path

local selftest = require 'samebits.selftest'
local variants = require 'samebits.variants'

local geometries = {}
for _, at in ipairs(variants.list()) do
  if at.backend == 'cuda' then geometries[#geometries + 1] = at end
end
local here, why = geometries[1].context()
if not here then
  print(why)
  os.exit(1)
end

-- Beside what a GPU chooses itself: rows in pieces, by the kernels for few rows.
local more = { ['generated.txt'] = { geometries[4] }, ['batches.txt'] = geometries }
local all = os.getenv 'SB_CASES' == 'all'
local failed = 0
for _, file in ipairs(selftest.FILES) do
  local some = all and geometries or more[file] or { geometries[1] }
  local report = assert(selftest.run { files = { file }, variants = some,
                                       every = all and 1 or tonumber(arg[1]) })
  failed = failed + report.failed
  io.write(selftest.text(report))
end
os.exit(failed == 0, true) -- and closes the contexts
