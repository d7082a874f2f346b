-- The golden vectors equal the output of their generator. PYTHON names a Python that has mpmath.

local shell = require 'spec.support.shell'

describe('spec/vectors', function()
  it('is what tools/gen_vectors.py writes', function()
    local program = (os.getenv 'PYTHON' or '') ~= '' and os.getenv 'PYTHON' or 'python3'
    if not shell.has(program) then return pending 'there is no python3' end
    local said, status = shell.run(shell.quote(program) .. ' tools/gen_vectors.py --check')
    if said:find('mpmath is missing', 1, true) then return pending 'there is no mpmath' end
    assert.equal(0, status, said)
    local files = shell.run 'ls spec/vectors/*.txt | wc -l'
    assert.equal(tonumber(files), (select(2, said:gsub(' same\n', ''))), said)
  end)
end)
