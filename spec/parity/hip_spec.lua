-- The kernels as HIP: compiled for AMD's GPUs where there is a hipcc, and run on the CPU, with
-- coroutines as lanes, in warps of 32 and of 64. lanes_spec.lua runs specs of a GPU in that way.
--
-- queue: early

local budget = require 'spec.support.budget'
local lanes = require 'spec.support.lanes'
local llvm = require 'spec.support.llvm'
local shell = require 'spec.support.shell'
local temporary = require 'spec.support.temporary'

-- What a ROCm build gives hipcc, too.
local FLAGS = '-std=c++17 -O2 -ffp-contract=off -x hip'
local TARGETS = { 'gfx90a', 'gfx942', 'gfx1030', 'gfx1100' } -- warps of 64, 64, 32, 32

local CONTROL = 'kernels/conventional.cu' -- the control group may call exp and log
local FIRST = 'kernels/order.cu' -- to machine code; the others in tools/test --all, it takes long
local FIRST_TARGET = 'gfx90a' -- the others there, too

local kernels = {}
for name in io.popen 'ls kernels/*.cu':lines() do kernels[#kernels + 1] = name end

describe('the kernels as HIP', function()
  local hipcc = os.getenv 'HIPCC' or 'hipcc'
  local folder

  setup(function() folder = temporary.folder() end)
  teardown(function() folder:remove() end)

  local function command(options, source, out)
    return ('%s %s %s %s -o %s'):format(shell.quote(hipcc), options, FLAGS, shell.quote(source),
                                        shell.quote(out))
  end

  -- LLVM IR as the front end makes it: our text alone, with every flag that an optimizer would use.
  local function ir_command(target, options, source, out)
    return command(('--cuda-device-only -S -emit-llvm -nogpulib -Xclang ' ..
                    '-disable-llvm-passes --offload-arch=%s %s'):format(target, options),
                   source, out)
  end

  local function ir(target, options, source)
    local out = folder:path 'kernel.ll'
    os.remove(out)
    local said = shell.run(ir_command(target, options, source, out))
    assert(io.open(out, 'rb'), said):close()
    return folder:read 'kernel.ll'
  end

  for _, target in ipairs(TARGETS) do
    it('are compiled for ' .. target, function()
      if not shell.has(hipcc) then return pending 'there is no hipcc' end
      if target ~= FIRST_TARGET and not budget.ALL then
        return pending 'tools/test --all compiles for it'
      end
      local empty = folder:write('empty.cu', '__global__ void nothing() {}\n')
      local genco = '--genco --offload-arch=' .. target
      local said, status = shell.run(command(genco, empty, folder:path 'k.co'))
      if status ~= 0 then return pending('hipcc: ' .. (said:match 'error: [^\n]*' or said)) end

      local function out_of(source, kind)
        return source:match '[^/]+$' .. '.' .. target .. kind
      end
      local commands = {}
      for _, source in ipairs(kernels) do
        if source == FIRST or budget.ALL then
          table.insert(commands, 1, command(genco, source, folder:path(out_of(source, '.co'))))
        end
        commands[#commands + 1] = ir_command(target, '', source,
                                             folder:path(out_of(source, '.ll')))
      end
      said, status = shell.run_all(commands)
      assert.equal(0, status, said)

      for _, source in ipairs(kernels) do
        local text = folder:read(out_of(source, '.ll'))
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
  -- In warps of 64, which switch between twice the lanes, some of the cases: lanes_spec.lua runs
  -- calls there, too, and tools/test --all each case.
  for warp, every in pairs { [32] = 1, [64] = budget.ALL and 1 or 4 } do
    it(('give the golden bits in warps of %d'):format(warp), function()
      local missing = lanes.missing()
      if missing then return pending(missing) end
      local said, status = shell.run('LD_LIBRARY_PATH=%s${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} ' ..
                                     'luajit spec/parity/lanes/selftest.lua %d',
                                     lanes.folder(warp), every)
      assert.equal(0, status, said)
      assert.is_truthy(said:find('all bits as expected', 1, true), said)
    end)
  end
end)
