--- Reports where LLVM IR may round in another way than the source asks for.

local M = {}

local REFUSED = {
  -- Flags of an instruction. nnan, ninf and nsz do not affect rounding: LLVM derives them.
  { '%f[%w]f%l+ [%l ]*%f[%l]fast%f[%L]', 'fast math' },
  { '%f[%w]f%l+ [%l ]*%f[%l]contract%f[%L]', 'contraction' },
  { '%f[%w]f%l+ [%l ]*%f[%l]reassoc%f[%L]', 'another order' },
  { '%f[%w]f%l+ [%l ]*%f[%l]arcp%f[%L]', 'a reciprocal for a division' },
  { '%f[%w]call [%l ]*%f[%l]fast%f[%L] ', 'fast math' },
  { '%f[%w]call [%l ]*%f[%l]contract%f[%L] ', 'contraction' },
  { '%f[%w]call [%l ]*%f[%l]afn%f[%L] ', 'an approximate function' },
  { '!fpmath', 'an inexact division' },
  { '@llvm%.fmuladd', 'an fma or a product and a sum' },
  { '@llvm%.amdgcn%.rcp', 'an approximate instruction' },
  { '@llvm%.exp%d*%.', 'exp of a library' }, { '@llvm%.log', 'log of a library' },
  { '@__ocml_%l*_?exp', 'exp of a library' }, { '@__ocml_%l*_?log', 'log of a library' },
  { '%f[%w]atomicrmw ', 'an atomic' }, { '%f[%w]cmpxchg ', 'an atomic' },
  { '"denormal%-fp%-math[%w-]*"="[^"]*preserve%-sign', 'flush to zero' },
  { '"denormal%-fp%-math[%w-]*"="[^"]*positive%-zero', 'flush to zero' },
  { '"unsafe%-fp%-math"="true"', 'fast math' },
}

--- A list of findings.
function M.lint(name, text)
  local found, number = {}, 0
  for line in (text .. '\n'):gmatch '(.-)\n' do
    number = number + 1
    local code = line:gsub('^;.*', '')
    for _, rule in ipairs(REFUSED) do
      if code:find(rule[1]) then
        found[#found + 1] = ('%s:%d: %s: %s'):format(name, number, rule[2], line:sub(1, 120))
        break
      end
    end
  end
  return found
end

return M
