-- The golden vectors equal the output of their generator. PYTHON names a Python that has mpmath.
-- Without tools/test --all, four files are left out: they take nine tenths of the time.
--
-- queue: early

local budget = require 'spec.support.budget'
local shell = require 'spec.support.shell'

local LONG = { 'generated', 'sample', 'entropy', 'kl' }

describe('spec/vectors', function()
  it('is what tools/gen_vectors.py writes', function()
    local program = (os.getenv 'PYTHON' or '') ~= '' and os.getenv 'PYTHON' or 'python3'
    if not shell.has(program) then return pending 'there is no python3' end
    local but = budget.ALL and '' or ' --but ' .. table.concat(LONG, ',')
    local said, status = shell.run(shell.quote(program) .. ' tools/gen_vectors.py --check' .. but)
    if said:find('mpmath is missing', 1, true) then return pending 'there is no mpmath' end
    assert.equal(0, status, said)
    local files = shell.run 'ls spec/vectors/*.txt | wc -l'
    local left_out = budget.ALL and 0 or #LONG
    assert.equal(tonumber(files) - left_out, (select(2, said:gsub(' same\n', ''))), said)
  end)
end)
