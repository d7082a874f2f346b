-- lint_floats.lua - finds floating-point arithmetic that the contract does not cover.
--
--   luajit tools/lint_floats.lua [FILE ...]   default: every C and CUDA source, and the build files
--
-- It refuses the following everywhere: fast-math options and pragmas, approximate device functions,
-- atomics on floats, and exp, log and pow of libm and libdevice. Float arithmetic belongs in
-- src/det and in the vector code that mirrors it; other code may only store, compare and pass on
-- floats. The control group (samebits_conventional.h) is an exception: its two files may call expf
-- and logf, but nothing else.

local refused = {
  { '%-ffast%-math', 'fast math' }, { '%-Ofast', 'fast math' }, { 'use_fast_math', 'fast math' },
  { '%-funsafe%-math', 'fast math' }, { '%-fassociative%-math', 'reordered sums' },
  { '%-ffp%-contract=fast', 'contraction by the compiler' }, { '%-fmad=true', 'contraction' },
  { '%-ftz=true', 'flush to zero' }, { 'FP_CONTRACT%s+ON', 'contraction by the compiler' },
  { '%f[%w_]__expf?%f[^%w_]', 'approximate exp' }, { '%f[%w_]__exp10f%f[^%w_]', 'approximate exp' },
  { '%f[%w_]__log2?f%f[^%w_]', 'approximate log' },
  { '%f[%w_]__log10f%f[^%w_]', 'approximate log' },
  { '%f[%w_]__fdividef%f[^%w_]', 'approximate division' },
  { '%f[%w_]__powf%f[^%w_]', 'approximate pow' },
  { '%.approx', 'an approximate instruction' },
  { '%f[%w_]atomic%u%w*%f[^%w_]', 'an atomic on device memory' },
  { '%f[%w_]exp[2m]?1?[0f]?f?%s*%(', 'exp of a library' },
  { '%f[%w_]logf?%s*%(', 'log of a library' },
  { '%f[%w_]log2f?%s*%(', 'log of a library' }, { '%f[%w_]log1pf?%s*%(', 'log of a library' },
  { '%f[%w_]log10f?%s*%(', 'log of a library' }, { '%f[%w_]powf?%s*%(', 'pow of a library' },
}

local control_group = { ['src/control/conventional.c'] = true, ['kernels/conventional.cu'] = true }

-- Comments may mention refused names.
local function without_comments(text)
  text = text:gsub('/%*.-%*/', function(c) return (c:gsub('[^\n]', ' ')) end)
  return (text:gsub('//[^\n]*', ''))
end

local function lint(name, text)
  local found, number = {}, 0
  if name:match('%.[chS]$') or name:match('%.cuh?$') then text = without_comments(text) end
  if control_group[name] then
    text = text:gsub('%f[%w_]expf(%s*%()', 'let_be%1'):gsub('%f[%w_]logf(%s*%()', 'let_be%1')
  end
  for line in (text .. '\n'):gmatch('(.-)\n') do
    number = number + 1
    for _, rule in ipairs(refused) do
      if line:find(rule[1]) then
        found[#found + 1] = ('%s:%d: %s: %s'):format(name, number, rule[2],
                                                     line:match('^%s*(.-)%s*$'))
        break
      end
    end
  end
  return found
end

local function default_files()
  local names = {}
  local pipe = assert(io.popen('find src kernels -name "*.[ch]" -o -name "*.cu" -o ' ..
                               '-name "*.cuh" 2>/dev/null'))
  for name in pipe:lines() do names[#names + 1] = name end
  pipe:close()
  for _, name in ipairs { 'premake5.lua', 'build/samebits.make', 'tools/kernel.sh' } do
    local file = io.open(name)
    if file then
      file:close()
      names[#names + 1] = name
    end
  end
  return names
end

local function lint_files(names)
  local found = {}
  for _, name in ipairs(names) do
    local file = assert(io.open(name, 'rb'))
    for _, line in ipairs(lint(name, assert(file:read('*a')))) do found[#found + 1] = line end
    file:close()
  end
  return found
end

-- A spec loads this file as a module; otherwise it runs as a program.
if ... == 'tools.lint_floats' then
  return { lint = lint, lint_files = lint_files, default_files = default_files }
end

local found = lint_files(#arg > 0 and arg or default_files())
for _, line in ipairs(found) do io.stderr:write(line, '\n') end
os.exit(#found == 0 and 0 or 1)
