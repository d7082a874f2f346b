-- The Triton kernels give the golden bits: in Triton's interpreter, and compiled on a GPU. PYTHON
-- names a Python that has torch and triton; SB_CASES=all has the interpreter try every case.

local llvm = require 'spec.support.llvm'
local shell = require 'spec.support.shell'
local temporary = require 'spec.support.temporary'
local lint = assert(loadfile 'tools/lint_kernels.lua')('tools.lint_kernels')

local CANNOT = 77 -- the programs' exit status where something is missing
local program = (os.getenv 'PYTHON' or '') ~= '' and os.getenv 'PYTHON' or 'python3'
local python = shell.quote(program)

local function run(arguments, environment)
  return shell.run(('env %s %s spec/parity/%s'):format(environment or '', python, arguments))
end

local function check(environment)
  if not shell.has(program) then return pending 'there is no python3' end
  local said, status = run('triton_check.py', environment)
  if status == CANNOT then return pending(said:match 'cannot run here: [^\n]*') end
  assert.equal(0, status, said)
  local cases = 0
  for done in said:gmatch '%.txt: (%d+) of %d+ cases, 0 mismatches' do
    assert.is_true(tonumber(done) > 20, said)
    cases = cases + 1
  end
  assert.equal(4, cases, said)
end

describe('the contract in Triton', function()
  it('gives the golden bits in the interpreter', function() check 'TRITON_INTERPRET=1' end)

  it('gives the golden bits on a GPU', function() check '-u TRITON_INTERPRET' end)

  it('is compiled for NVIDIA and AMD without other roundings', function()
    if not shell.has(program) then return pending 'there is no python3' end
    local folder = temporary.folder()
    finally(function() folder:remove() end)
    local said, status = run('triton_compile.py ' .. shell.quote(folder.name))
    if status == CANNOT then return pending(said:match 'cannot run here: [^\n]*') end
    assert.equal(0, status, said)
    assert.is_nil(said:find '%f[%w]%w+: ', said) -- TARGET: why not

    local fused, kinds = 0, {}
    for _, name in ipairs(folder:names()) do
      local text, kind = folder:read(name), name:match '%.(%w+)$'
      assert.same({}, kind == 'ptx' and lint.lint_ptx(name, text) or llvm.lint(name, text))
      fused = fused + select(2, text:gsub('fma%.', ''))
      kinds[kind] = (kinds[kind] or 0) + 1
    end
    assert.is_true(fused > 500)
    assert.same({ ll = 15, ptx = 6 }, kinds)
  end)
end)
