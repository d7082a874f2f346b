-- The sources contain no arithmetic outside the contract.

local loaded = assert(loadfile('tools/lint_floats.lua'))('tools.lint_floats')

describe('lint_floats', function()
  it('passes the sources', function()
    local files = loaded.default_files()
    assert.is_true(#files > 20, 'found only ' .. #files .. ' sources')
    assert.same({}, loaded.lint_files(files))
  end)

  for _, planted in ipairs {
    'x = expf(y);', 'x = exp(y);', 'x = exp2f(y);', 'x = log(y);', 'x = log1pf(y);',
    'x = pow(y, 2);', 'x = __expf(y);', 'x = __logf(y);', 'x = __fdividef(y, z);',
    'atomicAdd(&sum, x);', 'asm("ex2.approx.f32 %0, %1;" : "=f"(x) : "f"(y));',
    'cflags = "-ffast-math";', '"--use_fast_math"',
  } do
    it('catches ' .. planted, function()
      assert.equal(1, #loaded.lint('planted.c', 'float x;\n' .. planted .. '\n'))
    end)
  end

  local CONTROL = { 'src/control/conventional.c', 'kernels/conventional.cu' }

  it('lets the control group call expf and logf, and no one else', function()
    local text = 'x = expf (y) + logf(z);\n'
    for _, name in ipairs(CONTROL) do assert.same({}, loaded.lint(name, text)) end
    for _, name in ipairs { 'kernels/logprob.cu', 'kernels/merge.cuh', 'src/cpu/backend.c',
                            'src/control/cuda.c', 'src/control/conventional.h',
                            'kernels/op_conventional.c', 'elsewhere/kernels/conventional.cu' } do
      assert.equal(1, #loaded.lint(name, text), name)
    end
    assert.is_true(#loaded.lint_files(CONTROL) == 0)
  end)

  for _, planted in ipairs {
    'atomicAdd(&sum, expf(x));', 'x = __expf(y);', 'x = exp(y);', 'x = expm1f(y);', 'x = log(y);',
    'x = __logf(y);', 'x = powf(y, 2);', 'asm("ex2.approx.f32 %0, %1;" : "=f"(x) : "f"(y));',
    'atomicMax(&count, 1);', '#pragma STDC FP_CONTRACT ON',
  } do
    it('catches ' .. planted .. ' in the control group', function()
      for _, name in ipairs(CONTROL) do
        assert.equal(1, #loaded.lint(name, 'float x = expf(y);\n' .. planted .. '\n'), name)
      end
    end)
  end

  it('lets comments and our own names be', function()
    local text = '/* no expf(x), no atomicAdd */ float p = sb_exp2(r);\nsb_log2(u); // exp(x)\n'
    assert.same({}, loaded.lint('fine.c', text))
  end)
end)
