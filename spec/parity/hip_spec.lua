-- The kernels as HIP: compiled for AMD's GPUs where hipcc is, and run on the CPU, coroutines for
-- lanes, in warps of 32 and of 64.

local llvm = require 'spec.support.llvm'
local shell = require 'spec.support.shell'
local temporary = require 'spec.support.temporary'

-- What a ROCm build gives hipcc, too.
local FLAGS = '-std=c++17 -O2 -ffp-contract=off -x hip'
local TARGETS = { 'gfx90a', 'gfx942', 'gfx1030', 'gfx1100' } -- warps of 64, 64, 32, 32

local CONTROL = 'kernels/conventional.cu' -- the control group may call exp and log
local FIRST = 'kernels/logprob.cu' -- to machine code; the others with SB_CASES=all, it takes long

local kernels = {}
for name in io.popen 'ls kernels/*.cu':lines() do kernels[#kernels + 1] = name end

describe('the kernels as HIP', function()
  local hipcc = os.getenv 'HIPCC' or 'hipcc'
  local folder

  setup(function() folder = temporary.folder() end)
  teardown(function() folder:remove() end)

  local function compile(options, source, out)
    return shell.run(('%s %s %s %s -o %s'):format(shell.quote(hipcc), options, FLAGS,
                                                  shell.quote(source), shell.quote(out)))
  end

  -- LLVM IR as the front end makes it: our text alone, with every flag that an optimizer would use.
  local function ir(target, options, source)
    local out = folder:path 'kernel.ll'
    os.remove(out)
    local said = compile(('--cuda-device-only -S -emit-llvm -nogpulib -Xclang ' ..
                          '-disable-llvm-passes --offload-arch=%s %s'):format(target, options),
                         source, out)
    local file = io.open(out, 'rb')
    assert(file, said)
    local text = file:read '*a'
    file:close()
    return text
  end

  for _, target in ipairs(TARGETS) do
    it('are compiled for ' .. target, function()
      if not shell.has(hipcc) then return pending 'there is no hipcc' end
      local empty = folder:write('empty.cu', '__global__ void nothing() {}\n')
      local said, status = compile('--genco --offload-arch=' .. target, empty, folder:path 'k.co')
      if status ~= 0 then return pending('hipcc: ' .. (said:match 'error: [^\n]*' or said)) end
      for _, source in ipairs(kernels) do
        if source == FIRST or os.getenv 'SB_CASES' == 'all' then
          said, status = compile('--genco --offload-arch=' .. target, source, folder:path 'k.co')
          assert.equal(0, status, said)
        end
        local text = ir(target, '', source)
        assert.is_true(select(2, text:gsub('amdgpu_kernel', '')) > 0)
        assert.is_nil(text:match '[^\n]* asm [^\n]*') -- PTX, which only an assembler would refuse
        local found = {}
        for _, line in ipairs(llvm.lint(source .. ' for ' .. target, text)) do
          local allowed = source == CONTROL and line:find '[pg] of a library'
          if not allowed then found[#found + 1] = line end
        end
        assert.same({}, found)
      end
    end)
  end

  -- That the reader of LLVM IR would see them.
  for option, finding in pairs {
    ['-ffp-contract=fast'] = 'contraction', ['-ffast-math'] = 'fast math',
    ['-ffp-contract=on'] = 'an fma or a product and a sum',
    ['-fgpu-flush-denormals-to-zero'] = 'flush to zero',
  } do
    it('would be refused with ' .. option, function()
      if not shell.has(hipcc) then return pending 'there is no hipcc' end
      local source = folder:write('plain.cu',
        '__global__ void plain(float *x) { x[0] = x[1] * x[2] + x[3]; x[4] = x[5] / x[6]; }\n')
      assert.same({}, llvm.lint('plain', ir('gfx90a', '', source)))
      -- after FLAGS, so that it counts
      local plain = FLAGS
      FLAGS = FLAGS:gsub('-ffp%-contract=off', '-ffp-contract=off ' .. option)
      local ok, text = pcall(ir, 'gfx90a', '', source)
      FLAGS = plain
      assert(ok, text)
      local found = table.concat(llvm.lint('plain', text), '\n')
      assert.is_truthy(found:find(finding, 1, true), found)
    end)
  end
end)

describe('the kernels as HIP on the CPU', function()
  local samebits = require 'samebits'

  for _, warp in ipairs { 32, 64 } do
    it(('give the golden bits in warps of %d'):format(warp), function()
      if not shell.has(os.getenv 'CXX' or 'c++') then return pending 'there is no C++ compiler' end
      local _, why = samebits.open 'cuda'
      if tostring(why):find 'without nvcc' then
        return pending 'the library was built without nvcc'
      end
      local folder = temporary.folder()
      finally(function() folder:remove() end)
      local said, status = shell.run(('spec/parity/lanes/build %s %d'):format(folder.name, warp))
      assert.equal(0, status, said)
      said, status = shell.run(('LD_LIBRARY_PATH=%s${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} ' ..
                                'luajit spec/parity/lanes/selftest.lua'):format(folder.name))
      assert.equal(0, status, said)
      assert.is_truthy(said:find('all bits as expected', 1, true), said)
    end)
  end
end)
