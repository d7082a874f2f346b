-- Checks that the header, the library's symbols and the committed makefiles agree.

local read = require("spec.support.files").read

local function output(command)
  local pipe = assert(io.popen(command .. ' 2>&1; echo "exit $?"'))
  local text = pipe:read('*a')
  pipe:close()
  local said, status = text:match('^(.-)exit (%d+)\n$')
  return said, tonumber(status)
end

local function has(program)
  local _, status = output('command -v ' .. program)
  return status == 0
end

local configuration = os.getenv('SB_BUILD') or 'release'
local build = 'build/' .. configuration

-- The names that a header declares.
local function declared_by(header)
  local names = {}
  for name in read(header):gmatch('SB_API [^;]-%f[%w_](sb_[%w_]+)%(') do
    names[#names + 1] = name
  end
  return names
end

describe('samebits.h', function()
  local header = read('src/samebits.h')

  it('and the control group\'s header declare exactly what the library exports', function()
    if not has('nm') then return pending('nm is not installed') end
    local declared, exported = declared_by('src/samebits.h'), {}
    assert.is_true(#declared > 10)
    for _, name in ipairs(declared_by('src/samebits_conventional.h')) do
      declared[#declared + 1] = name
    end
    local symbols, status = output('nm -D --defined-only ' .. build .. '/libsamebits.so')
    assert.equal(0, status, symbols)
    for name in symbols:gmatch(' [TDBR] ([%w_]+)') do
      -- the sanitizers' and gcov's own
      if not name:match('^__') and not name:match('^_[fi]') and name ~= 'mangle_path' then
        exported[#exported + 1] = name
      end
    end
    table.sort(declared)
    table.sort(exported)
    assert.same(declared, exported)
  end)

  it('gives the library its soname, by SB_ABI', function()
    if not has('readelf') then return pending('readelf is not installed') end
    local soname = 'libsamebits.so.' .. header:match('\n#define SB_ABI (%d+)\n')
    local said, status = output('readelf -d ' .. build .. '/libsamebits.so')
    assert.equal(0, status, said)
    assert.equal(soname, said:match('soname: %[(.-)%]'))
    assert.equal(soname .. '\n', (output('readlink ' .. build .. '/libsamebits.so')))
  end)

  it('lists in SB_STATUSES what the enum holds', function()
    local listed, held = {}, {}
    for name, number in header:gmatch('X%((SB_%u+[_%u]*), (%d+),') do
      listed[#listed + 1] = name .. ' = ' .. number
    end
    local enum = header:match('typedef enum sb_status {(.-)}')
    for name, number in enum:gmatch('(SB_[%u_]+) = (%d+)') do
      held[#held + 1] = name .. ' = ' .. number
    end
    assert.is_true(#held > 5)
    assert.same(held, listed)
  end)

  it('is C++ as well', function()
    if not has('c++') then return pending('no C++ compiler is installed') end
    local program = os.tmpname()
    local said, status = output(('c++ -std=c++11 -Wall -Wextra -pedantic -Werror %s ' ..
      '-Isrc spec/c/header.cpp -o %s -L%s -lsamebits "-Wl,-rpath,$PWD/%s" && %s')
      :format(configuration == 'asan' and '-fsanitize=address,undefined' or '', program, build,
              build, program))
    os.remove(program)
    assert.equal(0, status, said)
  end)
end)

local function makefiles()
  return read('build/Makefile') .. read('build/samebits.make') .. read('build/spec.make') ..
         read('build/faults.make')
end

describe('the committed makefiles', function()
  it('name every source', function()
    local text = makefiles()
    local sources, n = output('find src kernels spec/c spec/faults spec/fakes ' ..
                              '-name "*.c" -o -name "*.cu"'), 0
    for path in sources:gmatch('(%S+%.cu?)\n') do
      n = n + 1
      assert.truthy(text:find('../' .. path, 1, true),
        path .. ' is in no makefile: run `premake5 gmake` and commit build/')
    end
    assert.is_true(n > 15)
  end)

  it('are what premake5.lua generates', function()
    if not has('premake5') then return pending('premake5 is not installed') end
    local before = makefiles()
    local said, status = output('premake5 gmake')
    assert.equal(0, status, said)
    assert.equal(before, makefiles())
  end)
end)
