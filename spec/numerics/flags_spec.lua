-- Compiler options that change values: with the makefiles' command line, either the bits are the
-- contract's whatever CFLAGS holds, or the build is refused. Each option is tried on a program that
-- checks golden vectors of the arithmetic, compiled as the makefiles compile the library.
--
-- queue: early

local jit = require 'jit'
local shell = require 'spec.support.shell'
local temporary = require 'spec.support.temporary'

local quote = shell.quote
local NEEDS = 'samebits needs IEEE arithmetic'

local COMPILERS = { 'gcc', 'clang' }

-- A compiler may not know some of the options below: it refuses these by itself.
local FLAGS = {
  '-ffast-math', '-Ofast', '-funsafe-math-optimizations', '-fassociative-math',
  '-fassociative-math -fno-signed-zeros -fno-trapping-math', '-freciprocal-math',
  '-ffinite-math-only', '-fno-signed-zeros', '-fno-trapping-math', '-frounding-math',
  '-fsignaling-nans', '-fsingle-precision-constant', '-fexcess-precision=fast',
  '-ffp-contract=fast', '-fapprox-func', '-ffp-model=fast', '-fno-honor-nans -fno-honor-infinities',
  '-fdenormal-fp-math=preserve-sign',
}
if jit.arch == 'x64' then
  for _, flags in ipairs { '-ffp-contract=fast -mfma', '-mfpmath=387', '-mfpmath=sse+387',
                           '-mrecip' } do
    FLAGS[#FLAGS + 1] = flags
  end
end

-- Where macros reveal an option, the sources are refused without the makefiles, too.
local TOLD = {
  gcc = { '-ffast-math', '-funsafe-math-optimizations', '-freciprocal-math', '-ffinite-math-only',
          '-fassociative-math -fno-signed-zeros -fno-trapping-math', '-fno-signed-zeros',
          '-fsingle-precision-constant' },
  clang = { '-ffast-math', '-ffinite-math-only', '-ffp-model=fast' },
}
if jit.arch == 'x64' then
  for _, flags in ipairs { '-mfpmath=387', '-mfpmath=sse+387' } do
    TOLD.gcc[#TOLD.gcc + 1] = flags
  end
end

local files
local function output(name) return quote(files:path(name)) end

-- How the top makefile compiles a source: the options, from a run that only prints commands. CFLAGS
-- is in the environment, or an argument of make.
local function options(compiler, flags, as_argument)
  local settings = ('CC=%s CFLAGS=%s'):format(compiler, quote(flags))
  local said, status = shell.run(as_argument and 'make -Bn samebits ' .. settings or
                                 settings .. ' make -Bn samebits')
  assert(status == 0, said)
  local line = said:match('\n' .. compiler .. ' ([^\n]-) +%-o "obj/release/isa_scalar%.o"')
  assert(line and line:find(flags, 1, true), said)
  return line
end

-- A command that compiles the program of golden vectors, from the folder that makefiles run in.
local function compiling(compiler, flags, name)
  return ('cd build && %s %s -I../spec/c -o %s ../spec/numerics/flags.c ../spec/c/vectors.c -lm')
    :format(compiler, flags, output(name))
end

-- Whether a compiler itself refuses options, or to have them undone.
local function is_unknown(compiler, flags)
  local _, status = shell.run(('%s -Werror %s -ffp-contract=off -c -x c -o %s /dev/null'):format(
    compiler, flags, output 'nothing.o'))
  return status ~= 0
end

local function without(compiler)
  if not shell.has(compiler) then return ('there is no %s'):format(compiler) end
end

describe('options that change values', function()
  setup(function() files = temporary.folder() end)
  teardown(function() files:remove() end)

  for _, compiler in ipairs(COMPILERS) do
    -- All of them are compiled at once, as there are processors.
    it(('leave the bits alone or are refused, in CFLAGS of %s'):format(compiler), function()
      if without(compiler) then return pending(without(compiler)) end
      local commands, same, refused = {}, 0, 0
      for i, flags in ipairs(FLAGS) do
        local command = compiling(compiler, options(compiler, flags, i % 2 == 0), 'program' .. i)
        commands[i] = ('%s >%s 2>&1; true'):format(command, output('said' .. i))
      end
      shell.run_all(commands)
      for i, flags in ipairs(FLAGS) do
        local compiled = io.open(files:path('program' .. i), 'rb')
        if compiled then
          compiled:close()
          local said, status = shell.run(output('program' .. i))
          assert(status == 0, ('%s %s: %s'):format(compiler, flags, said))
          assert.is_truthy(said:find(': 0 wrong', 1, true))
          same = same + 1
        else
          local said = files:read('said' .. i)
          assert(said:find(NEEDS, 1, true) or is_unknown(compiler, flags),
                 ('%s: %s'):format(flags, said))
          refused = refused + 1
        end
      end
      assert.is_true(same >= 12 and refused >= 1, ('%d the same, %d refused'):format(same, refused))
    end)

    it(('are refused by the sources themselves where %s tells of them'):format(compiler), function()
      if without(compiler) then return pending(without(compiler)) end
      for _, flags in ipairs(TOLD[compiler]) do
        local said, status = shell.run(
          ('%s -std=c11 %s -Isrc -fsyntax-only src/cpu/isa_scalar.c'):format(compiler, flags))
        assert(status ~= 0 and said:find(NEEDS, 1, true), ('%s: %s'):format(flags, said))
      end
      local said, status = shell.run(compiler ..
                                     ' -std=c11 -Isrc -fsyntax-only src/cpu/isa_scalar.c')
      assert(status == 0, said)
    end)
  end

  it('would be noticed', function()
    if without 'clang' then return pending(without 'clang') end
    local said, status = shell.run(compiling(
      'clang', '-std=c11 -O3 -I../src -funsafe-math-optimizations', 'unsafe'))
    assert(status == 0, said)
    said, status = shell.run(output 'unsafe')
    assert.equal(1, status)
    assert.is_true(tonumber(said:match ': (%d+) wrong') > 100, said)
  end)

  it('do not get past kernel.sh into the kernels', function()
    local said = files:path 'arguments'
    local nvcc = files:write('nvcc', ([[#!/bin/sh
echo "$* [$NVCC_APPEND_FLAGS]" >%s
while [ "$1" != -o ]; do shift; done
: >"$2"
]]):format(quote(said)))
    local text, status = shell.run((
      'chmod +x %s && NVCC_APPEND_FLAGS="--use_fast_math --fmad=true" NVCC=%s CUDA=yes ' ..
      'sh tools/kernel.sh kernels/stats.cu %s'):format(quote(nvcc), quote(nvcc), output 'k.cu.o'))
    assert(status == 0, text)
    local given = files:read 'arguments'
    local asked = given:find('--use_fast_math --fmad=true', 1, true)
    local ours = { '--fmad=false', '--ftz=false', '--prec-div=true', '--prec-sqrt=true' }
    for _, flag in ipairs(ours) do
      assert.is_true((given:find(flag, 1, true) or 0) > asked, given)
    end
    assert.is_truthy(given:find('[]', 1, true), given)
  end)
end)
