-- The output of nvcc and ptxas for the kernels holds no atomic, no approximate instruction and no
-- other rounding. tools/lint_kernels.lua lists what is refused; this spec runs it on the kernels,
-- and on kernels that hold each such thing.
--
-- It reads the PTX that the build made. Without a GPU, tools/test builds for 90 alone, since the
-- code for 90 has all that the code for 80 has. The kernels whose text for 80 is another one are
-- then compiled for 80 without optimization, to see that they can be; with tools/test --all every
-- kernel as kernel.sh would, and read, too.
--
-- queue: early

local lint = assert(loadfile 'tools/lint_kernels.lua')('tools.lint_kernels')
local budget = require 'spec.support.budget'
local temporary = require 'spec.support.temporary'

local objects = 'build/obj/' .. (os.getenv 'SB_BUILD' or 'release')

-- Kernel bodies, each with the findings expected in PTX and in machine code; false: none.
local planted = {
  { 'atomic_unused', 'atomicAdd(u, 1u);', 'an atomic', 'an atomic' },
  { 'atomic_used', 'u[1] = atomicAdd(u, 1u);', 'an atomic', 'an atomic' },
  { 'atomic_float', 'atomicAdd(x, x[1]);', 'an atomic', 'an atomic' },
  { 'atomic_double', 'd[1] = atomicAdd(d, d[2]);', 'an atomic', 'an atomic' },
  { 'atomic_shared', '__shared__ unsigned s; s = 0; __syncthreads(); atomicMax(&s, u[threadIdx.x]);'
    .. ' __syncthreads(); u[0] = s;', 'an atomic', 'an atomic' },
  { 'reduction', 'asm volatile("red.global.add.u32 [%0], 1;" :: "l"(u));',
    'an atomic', 'an atomic' },
  { 'fast_exp', 'x[0] = __expf(x[1]);', 'approximate', 'approximate' },
  { 'fast_log', 'x[0] = __logf(x[1]);', 'approximate', 'approximate' },
  { 'fast_sine', 'x[0] = __sinf(x[1]);', 'approximate', 'approximate' },
  { 'fast_quotient', 'x[0] = __fdividef(x[1], x[2]);', 'approximate', 'approximate' },
  { 'full_quotient', 'asm("div.full.f32 %0, %1, %2;" : "=f"(x[0]) : "f"(x[1]), "f"(x[2]));',
    'approximate', 'approximate' },
  { 'fast_root', 'x[0] = rsqrtf(x[1]);', 'approximate', 'approximate' },
  { 'root', 'x[0] = sqrtf(x[1]);', 'a square root', 'approximate' },
  { 'fast_tanh', 'asm("tanh.approx.f32 %0, %1;" : "=f"(x[0]) : "f"(x[1]));',
    'approximate', 'approximate' },
  { 'fast_double', 'asm("rcp.approx.ftz.f64 %0, %1;" : "=d"(d[0]) : "d"(d[1]));',
    'approximate', 'approximate' },
  { 'library_exp', 'x[0] = expf(x[1]);', 'approximate', 'approximate' },
  { 'flushed', 'asm("add.rn.ftz.f32 %0, %1, %2;" : "=f"(x[0]) : "f"(x[1]), "f"(x[2]));',
    'flush to zero', 'flush to zero' },
  { 'saturated', 'x[0] = __saturatef(x[1] * x[2]);', 'saturation', 'saturation' },
  { 'fma_down', 'x[0] = __fmaf_rd(x[1], x[2], x[3]);', 'no .rn', 'another rounding' },
  { 'add_up', 'x[0] = __fadd_ru(x[1], x[2]);', 'no .rn', 'another rounding' },
  { 'double_to_zero', 'd[0] = __dmul_rz(d[1], d[2]);', 'no .rn', 'another rounding' },
  { 'narrowed_to_zero', 'x[0] = __double2float_rz(d[1]);', 'no .rn', false },
  -- What ptxas may fuse, and does.
  { 'bare', 'float p; asm("mul.f32 %0, %1, %2;" : "=f"(p) : "f"(x[1]), "f"(x[2]));' ..
    ' asm("add.f32 %0, %1, %2;" : "=f"(x[0]) : "f"(p), "f"(x[3]));', 'no .rn', false },
  { 'mad', 'asm("mad.rn.f32 %0, %1, %2, %3;" : "=f"(x[0]) : "f"(x[1]), "f"(x[2]), "f"(x[3]));',
    'another name', false },
  { 'halves', 'asm("add.rn.f16x2 %0, %1, %2;" : "=r"(u[0]) : "r"(u[1]), "r"(u[2]));',
    'on halves', 'on halves' },
  { 'tensor_core', 'asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3},"' ..
    ' "{%4, %5}, {%6}, {%0, %1, %2, %3};" : "+f"(x[0]), "+f"(x[1]), "+f"(x[2]), "+f"(x[3])' ..
    ' : "r"(u[0]), "r"(u[1]), "r"(u[2]));', 'a tensor core', 'a tensor core' },
  { 'printing', 'printf("%f", x[0]);', 'a function of others', 'a function of others' },
  -- What is fine.
  { 'fine', 'x[0] = x[1] / x[2] + __fmaf_rn(x[3], x[4], x[5]); x[6] = x[7] - x[8];' ..
    ' d[0] = d[1] / d[2]; d[3] = 1.0 / d[4]; d[5] = d[6] * d[7]; x[8] = (float)d[7];' ..
    ' u[0] = u[1] / u[2] + u[3] % u[4]; ((long long *)d)[8] /= ((long long *)d)[9];' ..
    ' u[5] = (unsigned)x[9]; x[10] = (float)u[6]; x[11] = rintf(x[12]);', false, false },
  { 'signed_quotient', '((int *)u)[0] = ((int *)u)[1] / ((int *)u)[2];', false, false },
  { 'integers_of_a_warp', '\n#if __CUDA_ARCH__ >= 800\nu[0] = __reduce_add_sync(~0u, u[1]) +' ..
    ' __reduce_max_sync(~0u, u[2]) + __shfl_xor_sync(~0u, u[3], 1);\n#endif\n', false, false },
  { 'converted_halves', 'float f; asm("cvt.f32.f16 %0, %1;" : "=f"(f) :' ..
    ' "h"((unsigned short)u[0])); x[0] = f;', false, false },
  { 'product_and_sum', 'x[0] = x[1] * x[2] + x[3];', false, false },
}

local function source()
  local text = { '#include <cstdio>\n' }
  for _, case in ipairs(planted) do
    text[#text + 1] = ('extern "C" __global__ void %s(float *x, double *d, unsigned *u) { %s }\n')
      :format(case[1], case[2])
  end
  return table.concat(text)
end

-- The findings that stand in one function.
local function of(found, name)
  local list = {}
  for _, line in ipairs(found) do
    if line:find('(in ' .. name .. ')', 1, true) then list[#list + 1] = line end
  end
  return list
end

-- Whether a file of machine code holds no FMA: head_error.cu only adds, multiplies and compares,
-- and the kernels of head_hopper.cu are empty but for 90.
local function has_no_fma(name)
  return (name:find '^head_error%.' or name:find '^head_hopper%.sm_80%.') ~= nil
end

-- Asserts that one of the lines holds reason; with false, that there is none.
local function says(reason, lines)
  if not reason then return assert.same({}, lines) end
  for _, line in ipairs(lines) do
    if line:find(reason, 1, true) then return end
  end
  error(('none says "%s": %s'):format(reason, table.concat(lines, '\n')), 2)
end

-- The control group's kernels with something added to one of them.
local function planted_in_control(folder, flags)
  local file = assert(io.open('kernels/conventional.cu'))
  local text, n = file:read('*a'):gsub('sum = warp_fold<add>%(sum%);\n',
    '%0 atomicAdd((float *)in.lse, sum); sum = __logf(sum);\n')
  file:close()
  assert(n == 1, 'kernels/conventional.cu has no place for it')
  local pipe = io.popen('pwd')
  local options = { '-I', pipe:read('*l') .. '/kernels' }
  pipe:close()
  for _, option in ipairs(flags) do options[#options + 1] = option end
  return lint.compile(folder.name, { folder:write('planted_control.cu', text) }, options, { '90' })
end

-- The sources that a list of results lacks for an arch.
local function lacking(results, arch)
  local has, list = {}, {}
  for _, result in ipairs(results) do
    if result.arch:sub(1, 2) == arch then has[result.source] = true end
  end
  for _, file in ipairs(lint.default_files()) do
    if not has[file] then list[#list + 1] = file end
  end
  return list
end

-- Whether a file, or one that it includes, has other text for other GPUs. device.cuh, which all
-- include, does not count.
local function differs(path)
  local file = assert(io.open(path))
  local text = file:read '*a'
  file:close()
  if path:find 'device%.cuh$' then return false end
  if text:find('__CUDA_ARCH__', 1, true) then return true end
  for name in text:gmatch '#include "([%w_]+%.cuh)"' do
    if differs('kernels/' .. name) then return true end
  end
  return false
end

describe('lint_kernels', function()
  if not lint.nvcc() then
    pending('there is no nvcc')
    return
  end

  local folder, flags, kernels, tried, in_ptx, in_sass, control
  local disassembles = lint.nvdisasm() ~= nil

  -- The kernels that the build did not compile for an arch, compiled for it.
  local function compiled_for(arch, options)
    return lint.compile(folder.name, lacking(kernels, arch), options, { arch })
  end

  setup(function()
    folder = temporary.folder()
    flags = lint.options(folder.name)
    kernels = lint.built(objects, lint.default_files())
    for _, arch in ipairs(budget.ALL and lint.archs or { '90' }) do
      for _, kernel in ipairs(compiled_for(arch, flags)) do kernels[#kernels + 1] = kernel end
    end
    for _, kernel in ipairs(kernels) do
      kernel.found = lint.lint_ptx(kernel.name, kernel.ptx, kernel.control)
    end
    tried = lint.compile(folder.name, { folder:write('planted.cu', source()) }, flags, { '90' })
    control = planted_in_control(folder, flags)
    if disassembles then
      lint.assemble(folder.name, control)
      lint.assemble(folder.name, kernels)
      lint.assemble(folder.name, tried)
      in_sass = lint.lint_sass(tried[1].name_sass, tried[1].sass)
    end
    in_ptx = lint.lint_ptx(tried[1].name, tried[1].ptx)
  end)

  teardown(function() if folder then folder:remove() end end)

  it('has the PTX of every file for 90', function() assert.same({}, lacking(kernels, '90')) end)

  it('has it for 80, or the kernels can be compiled for it', function()
    local quick, files = { unpack(flags) }, {}
    quick[#quick + 1], quick[#quick + 2] = '-Xcicc', '-O0'
    for _, file in ipairs(lacking(kernels, '80')) do
      if budget.ALL or differs(file) then files[#files + 1] = file end
    end
    for _, kernel in ipairs(lint.compile(folder.name, files, quick, { '80' })) do
      assert.is_truthy(kernel.ptx:find '%.entry', kernel.name)
    end
  end)

  it('knows which kernels differ for 80', function()
    assert.is_true(differs 'kernels/logprob.cu' and differs 'kernels/sample.cu')
    assert.is_false(differs 'kernels/stats.cu')
  end)

  it('passes the options of tools/kernel.sh', function()
    assert.is_true(#flags >= 2, table.concat(flags, ' '))
    assert.same({}, lint.lint_options('tools/kernel.sh', flags))
  end)

  it('catches options', function()
    for _, option in ipairs { '--use_fast_math', '-use_fast_math', '--fmad=true', '-ftz=true',
                              '--prec-div=false', '-prec-sqrt=false' } do
      assert.equal(1, #lint.lint_options('planted', { '-O3', '--fmad=false', option }), option)
    end
    assert.same({ 'planted: it lacks --fmad=false' }, lint.lint_options('planted', { '-O3' }))
  end)

  it('passes the kernels as PTX', function()
    for _, kernel in ipairs(kernels) do
      assert.is_true(select(2, kernel.ptx:gsub('%.entry', '')) > 0, kernel.name)
      -- below compute capability 9.0, kernels that need it are empty
      local is_empty = not kernel.ptx:find 'ld%.param' and not kernel.name:find 'compute_90'
      local computes = kernel.ptx:find 'fma%.rn%.f%d%d' or kernel.ptx:find 'mul%.rn%.f%d%d'
      assert.is_true(is_empty or computes ~= nil, kernel.name)
      assert.same({}, kernel.found)
    end
  end)

  for _, case in ipairs(planted) do
    it(('%s %s in PTX'):format(case[3] and 'catches' or 'lets be', case[1]), function()
      says(case[3], of(in_ptx, case[1]))
    end)
  end

  -- All but what expf is; and that only there.
  local function says_planted(found)
    local list = of(found, 'conventional_sums')
    assert.equal(2, #list, table.concat(found, '\n'))
    assert.equal(2, #found, table.concat(found, '\n'))
    says('an atomic', list)
    says('an approximate instruction', list)
  end

  local function passes_only_as_control(lint_one, name, text)
    assert.same({}, lint_one(name, text, true))
    says('an approximate instruction', lint_one(name, text))
  end

  it('catches more than expf in the control group, in PTX', function()
    says_planted(lint.lint_ptx(control[1].name, control[1].ptx, true))
    local seen = 0
    for _, kernel in ipairs(kernels) do
      if kernel.control then
        seen = seen + 1
        passes_only_as_control(lint.lint_ptx, kernel.name, kernel.ptx)
      end
    end
    assert.is_true(seen >= 1)
    assert.is_nil(control[1].control, 'a file elsewhere is not the control group')
  end)

  -- With kernel.sh's options a product and a sum stay two instructions; without, they do not, and
  -- no reader of PTX could tell that fma from one that was written.
  it('sees that nvcc fuses nothing', function()
    local function fused(text)
      return text:match('%.entry product_and_sum(.-)\n}'):find('fma%.') ~= nil
    end
    assert.is_false(fused(tried[1].ptx))
    local path = folder:write('fused.cu', source())
    local bare = lint.compile(folder.name, { path }, { '-std=c++17', '-O3' }, { '90' })[1]
    assert.is_true(fused(bare.ptx))
  end)

  it('catches fast math in plain arithmetic', function()
    local path = folder:write('fast.cu',
      'extern "C" __global__ void plain(float *x) { x[0] = x[1] / x[2]; x[3] = sqrtf(x[4]); }\n')
    local fast = lint.compile(folder.name, { path }, { '-O3', '--use_fast_math' }, { '90' })[1]
    assert.equal(2, #lint.lint_ptx(fast.name, fast.ptx))
  end)

  if not disassembles then
    pending('machine code: there is no nvdisasm')
    return
  end

  it('passes the kernels as machine code', function()
    for _, kernel in ipairs(kernels) do
      assert.is_truthy(kernel.sass:find 'EXIT', kernel.name_sass)
      assert.equal(not has_no_fma(kernel.name_sass), kernel.sass:find '[FD]FMA' ~= nil,
                   kernel.name_sass)
      assert.same({}, lint.lint_sass(kernel.name_sass, kernel.sass, kernel.control))
    end
  end)

  it('catches more than expf in the control group, in machine code', function()
    says_planted(lint.lint_sass(control[1].name_sass, control[1].sass, true))
    for _, kernel in ipairs(kernels) do
      if kernel.control then
        passes_only_as_control(lint.lint_sass, kernel.name_sass, kernel.sass)
      end
    end
  end)

  for _, case in ipairs(planted) do
    it(('%s %s in machine code'):format(case[4] and 'catches' or 'lets be', case[1]), function()
      says(case[4], of(in_sass, case[1]))
    end)
  end
end)
