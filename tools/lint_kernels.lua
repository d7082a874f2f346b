-- lint_kernels.lua - finds instructions in compiled kernels that the contract does not allow.
--
--   luajit tools/lint_kernels.lua [FILE.cu ...]   default: kernels/*.cu
--
-- Needs nvcc (NVCC, PATH, CUDA_HOME or /usr/local/cuda). Compiles with the options that
-- tools/kernel.sh uses and reads the PTX; if it finds nvdisasm (NVDISASM, PATH, or beside nvcc), it
-- also reads the machine code. It thereby sees the effects of inlined headers, of options and of
-- ptxas, which the sources do not show. It cannot see a log of libdevice, which consists of plain
-- fma once inlined; lint_floats.lua refuses its name in the sources. The kernels of the control
-- group may contain the instructions of expf, and no others of those that are refused.

local archs = { '80', '90' }

-- Options of nvcc, in a text that has a space before and after each option.
local refused_options = {
  { ' %-%-?use_fast_math ', 'fast math' }, { ' %-%-?fmad[= ]true ', 'contraction' },
  { ' %-%-?ftz[= ]true ', 'flush to zero' }, { ' %-%-?prec%-div[= ]false ', 'inexact division' },
  { ' %-%-?prec%-sqrt[= ]false ', 'an inexact square root' },
}
local needed_options = { '--fmad=false' } -- without it, nvcc fuses products and sums

-- Opcodes of PTX. An instruction that also matches a pattern of `but` is allowed.
local refused_ptx = {
  { '^atom%.', 'an atomic' }, { '^red%.', 'an atomic' }, { '^multimem%.', 'an atomic' },
  { '^cp%.reduce%.', 'an atomic' }, { '^suatom', 'an atomic' }, { '^sured', 'an atomic' },
  { '%.approx', 'an approximate instruction' }, { '^div%.full', 'an approximate instruction' },
  { '^ex2%.', 'an approximate instruction' }, { '^lg2%.', 'an approximate instruction' },
  { '^sin%.', 'an approximate instruction' }, { '^cos%.', 'an approximate instruction' },
  { '^tanh%.', 'an approximate instruction' }, { '^rsqrt%.', 'an approximate instruction' },
  { '%.ftz', 'flush to zero' },
  { '%.satfinite', 'saturation' },
  -- Sums of products of int8 in int32 are exact; the others order them.
  { '^%a*mma[%._]', 'a tensor core', but = { '%.s32%.s8%.s8', '^wgmma%.fence', '^wgmma%.commit',
                                            '^wgmma%.wait' } },
  { '^tcgen05', 'a tensor core' },
  { '%.sat%.', 'saturation' },
  { '^%l+%..*%f[%w]b?f16', 'arithmetic on halves',
    but = { '^cvt%.', '^m[axin]+%.', '^setp?%.', '^neg%.', '^abs%.', '^mov%.', '^ld', '^st' } },
  -- ptxas may fuse an instruction that names no rounding with its neighbour.
  { '^mad%..*f%d%d', 'an fma under another name' },
  { '^add%..*f%d%d', 'no .rn', but = { '^add%.rn%.f%d%d' } },
  { '^sub%..*f%d%d', 'no .rn', but = { '^sub%.rn%.f%d%d' } },
  { '^mul%..*f%d%d', 'no .rn', but = { '^mul%.rn%.f%d%d' } },
  { '^fma%..*f%d%d', 'no .rn', but = { '^fma%.rn%.f%d%d' } },
  { '^div%..*f%d%d', 'no .rn', but = { '^div%.rn%.f%d%d' } },
  { '^rcp%..*f%d%d', 'no .rn', but = { '^rcp%.rn%.f%d%d' } },
  { '^sqrt%.', 'a square root' }, -- the contract has none, not even IEEE's
  { '^cvt%.r[mpzas][%.%a]*%.f', 'no .rn', but = { '^cvt%.r%ai%.' } }, -- .rzi rounds to an integer
}

-- Machine instructions, including their operands.
local refused_sass = {
  { '^ATOM', 'an atomic' }, { '^RED[%. ]', 'an atomic' }, { '^RED[GAS]', 'an atomic' },
  { '^SUATOM', 'an atomic' }, { '^SURED', 'an atomic' }, { '^U%u*RED[%u%.]', 'an atomic',
    but = { '^UREDUX' } }, -- REDUX is an integer sum or maximum of a warp
  { '^MUFU', 'an approximate instruction', but = { '^MUFU%.RCP ', '^MUFU%.RCP64H ' } }, -- counted
  -- F2I.FTZ ends ptxas's division of integers; the value that it converts is never subnormal.
  { '%.FTZ', 'flush to zero', but = { '^F2I%.' } },
  { '^[FD]%u%u%u%.[%w%.]*R[MPZ][%. ]', 'another rounding' },
  { '%.SAT', 'saturation' },
  { '^%u*MMA[%. ]', 'a tensor core', but = { '^IG?MMA%.' } },
  { '^CALL%.ABS', 'a function of others' },
  -- -0 + x converts a half to fp32; -0 * 0 + a constant loads that constant.
  { '^H[AMF]%u%u%d?%d?', 'arithmetic on halves',
    but = { '^HADD2%.F32 %S+ %-RZ, R%S+ $', '^HFMA2[%.MA]* %S+ %-RZ, RZ, ', '^HMNMX2' } },
}

-- The instructions of libdevice's expf, which only the control group may use.
local control_group = { ['kernels/conventional.cu'] = true }
local expf_ptx = { '^ex2%.approx%.ftz%.f32$', '^cvt%.sat%.f32%.f32$', '^fma%.rm%.f32$' }
local expf_sass = { '^MUFU%.EX2 ', '^FFMA%.SAT ', '^FFMA%.RM ' }

-- The kernels that multiply digits as bf16, in sums that stay exact (kernels/head_tiles.cuh).
local of_digits = '^head_bf16_'
local digits_ptx, digits_sass = '^mma%.sync%..*%.f32%.bf16%.bf16%.f32$', '^HMMA%.'

-- The routines that ptxas adds. Those for IEEE division, reciprocal and square root contain
-- instructions that are refused elsewhere, but their results are rounded to nearest; the others
-- work on integers or synchronise a warp.
local routines = {
  '__cuda_sm%w+_%w+_rn_', '__cuda_sm%w+_div_[su]%d+', '__cuda_sm%w+_rem_[su]%d+',
  '__cuda_reduxsync_[su]32_', '__cuda_sm70_votesync_', '__cuda_sm70_shflsync_',
  '__cuda_sm70_warpsync',
}

local function any(text, patterns)
  for _, pattern in ipairs(patterns or {}) do
    if text:find(pattern) then return true end
  end
  return false
end

local function refusal(text, rules)
  for _, rule in ipairs(rules) do
    if text:find(rule[1]) and not any(text, rule.but) then return rule[2] end
  end
end

-- Collects the findings in one file, each with the function that contains it.
local function collector(name)
  local found = {}
  return found, function(number, reason, text, where)
    found[#found + 1] = ('%s:%d: %s: %s (in %s)'):format(name, number, reason,
                                                         text:match('^%s*(.-)%s*$'), where)
  end
end

--- The refused options that a list of nvcc options contains, and the needed ones that it lacks.
local function lint_options(name, options)
  local found, text = {}, ' ' .. table.concat(options, ' ') .. ' '
  for _, rule in ipairs(refused_options) do
    local option = text:match(rule[1])
    if option then found[#found + 1] = ('%s: %s:%s'):format(name, rule[2], option) end
  end
  for _, option in ipairs(needed_options) do
    if not text:find(' ' .. option .. ' ', 1, true) then
      found[#found + 1] = ('%s: it lacks %s'):format(name, option)
    end
  end
  return found
end

--- The refused instructions in PTX. control: whether the PTX belongs to the control group.
local function lint_ptx(name, text, control)
  local found, add = collector(name)
  text = text:gsub('/%*.-%*/', function(c) return (c:gsub('[^\n]', ' ')) end)
  local number, where, others = 0, 'no function', {}
  for line in (text .. '\n'):gmatch('(.-)\n') do
    number = number + 1
    line = line:gsub('//.*', '')
    if line:find('.entry', 1, true) or line:find('.func', 1, true) then
      local head = line:gsub('%b()', ' ')
      local here = head:match('%.entry%s+([%w_$]+)') or head:match('%.func%s+([%w_$]+)')
      if head:find('%.extern') then others[here] = true else where = here or where end
    end
    local called = line:match('^%s*([%w_$]+),%s*$') -- the second line of a call
    if called and others[called] then add(number, 'a function of others', called, where) end
    for statement in line:gmatch('[^;{}]+') do
      local opcode = statement:gsub('^%s*[%w_$]+:%s', ''):gsub('^%s*@!?%%?[%w_]+', '')
                              :match('^%s*(%l[%w_.:]*)')
      local reason = opcode and refusal(opcode, refused_ptx)
      if control and reason and any(opcode, expf_ptx) then reason = nil end
      if where:find(of_digits) and reason and opcode:find(digits_ptx) then reason = nil end
      if reason then add(number, reason, statement, where) end
    end
    if line:find('__nv_') then add(number, 'libdevice', line, where) end
  end
  return found
end

--- The same for machine code.
local function lint_sass(name, text, control)
  local found, add = collector(name)
  local labels = {}
  for label in text:gmatch('\n([%w_$.]+):') do labels[label] = true end
  local number, where, routine = 0, 'no function', false
  -- Counts the seeds of divisions and the divisions themselves, which must agree. The signs of a
  -- division: FCHK, which tests whether an fp32 division needs its routine; the call of the routine
  -- for fp64; and, for integers with and without signs, the conversion that rounds the divisor up.
  local seeds, divisions, seeds64, divisions64, start
  local function finish()
    if seeds and not routine then
      if seeds ~= divisions then
        add(start, 'an approximate instruction',
            ('%d MUFU.RCP, %d divisions'):format(seeds, divisions), where)
      end
      if seeds64 ~= divisions64 then
        add(start, 'an approximate instruction',
            ('%d MUFU.RCP64H, %d divisions'):format(seeds64, divisions64), where)
      end
    end
    seeds, divisions, seeds64, divisions64, start = 0, 0, 0, 0, number
  end
  for line in (text .. '\n'):gmatch('(.-)\n') do
    number = number + 1
    local label = line:match('^([%w_$.]+):')
    if label and not label:find('^%.L_') then
      finish()
      where, routine = label:gsub('^%.text%.', ''), any(label, routines)
    end
    local code = line:match('^%s*/%*%x+%*/%s+{?%s*(.-;)')
    if code then
      code = code:gsub('^@!?U?P%w+%s+', ''):gsub('%s*;$', ' ')
      local target = code:match('^CALL%S* `%((.-)%)')
      if target and not labels[target] then
        add(number, 'a function of others', code, where)
      elseif target and target:find('__cuda_') and not any(target, routines) then
        add(number, 'an unknown routine', code, where)
      end
      local reason = not routine and refusal(code, refused_sass)
      if control and reason and any(code, expf_sass) then reason = nil end
      if where:find(of_digits) and reason and code:find(digits_sass) then reason = nil end
      if reason then add(number, reason, code, where) end
      if code:find('^MUFU%.RCP ') then seeds = seeds + 1 end
      if code:find('^MUFU%.RCP64H ') then seeds64 = seeds64 + 1 end
      if code:find('^FCHK ') or code:find('^I2F%.RP ') or code:find('^I2F%.U%d+%.RP ') then
        divisions = divisions + 1
      end
      if target and (target:find('_div_rn_f64') or target:find('_dblrcp_rn')) then
        divisions64 = divisions64 + 1
      end
    end
  end
  finish()
  return found
end

-- ---- compiling -----------------------------------------------------------------------------

local function quoted(word) return "'" .. word:gsub("'", "'\\''") .. "'" end

-- Runs a shell command. Returns whether it succeeds, and its output.
local function run(command)
  local pipe = assert(io.popen('{ ' .. command .. '\n} 2>&1; echo "exit $?"'))
  local text = pipe:read('*a')
  pipe:close()
  local said, status = text:match('^(.-)exit (%d+)\n$')
  return status == '0', said
end

local function read(path)
  local file = io.open(path, 'rb')
  if not file then return nil end
  local text = file:read('*a')
  file:close()
  return text
end

local function first_program(candidates)
  for _, path in ipairs(candidates) do
    local ok, found = run('command -v ' .. quoted(path))
    if ok then return found:match('[^\n]+') end
  end
end

local function cuda_home() return os.getenv('CUDA_HOME') or '/usr/local/cuda' end

--- The nvcc that tools/kernel.sh finds, or nil.
local function nvcc()
  return first_program { os.getenv('NVCC') or '', 'nvcc', cuda_home() .. '/bin/nvcc' }
end

--- The path of nvdisasm, or nil.
local function nvdisasm()
  local beside = (nvcc() or ''):match('^(.*)/')
  return first_program { os.getenv('NVDISASM') or '', 'nvdisasm',
                         cuda_home() .. '/bin/nvdisasm', (beside or '.') .. '/nvdisasm' }
end

local with_value = { ['-gencode'] = true, ['-o'] = true, ['-MF'] = true, ['-MT'] = true,
                     ['--threads'] = true, ['--keep-dir'] = true }
local of_the_output = { ['-fatbin'] = true, ['-MMD'] = true, ['-MP'] = true, ['--keep'] = true }

--- The options that tools/kernel.sh passes to nvcc, without those for the output and the targets.
-- Runs the script with a fake compiler that records its arguments.
local function options(folder)
  local noted, program = folder .. '/options', folder .. '/noting'
  local file = assert(io.open(program, 'w'))
  file:write(('#!/bin/sh\nprintf "%%s\\n" "$@" > %s\n'):format(quoted(noted)))
  file:close()
  local ok, said = run(('chmod +x %s && NVCC=%s CUDA=yes CC=true sh tools/kernel.sh x.cu %s')
    :format(quoted(program), quoted(program), quoted(folder .. '/x.o')))
  assert(ok, said)
  local list, skip = {}, false
  for word in assert(read(noted), 'tools/kernel.sh called no compiler'):gmatch('[^\n]+') do
    if skip then skip = false
    elseif with_value[word] then skip = true
    elseif not of_the_output[word] and word ~= 'x.cu' then list[#list + 1] = word end
  end
  return list
end

-- What a source is compiled for instead of an architecture: sm_90a if it has instructions of that.
local function arch_of(source, arch)
  local text = assert(read(source), source)
  return arch == '90' and text:find('__CUDA_ARCH_FEAT_SM90_ALL', 1, true) and '90a' or arch
end

--- Compiles sources for all archs, as many at once as there are processors. Returns a list of
-- { arch, name, ptx = text, control }, by source and arch.
local function compile(folder, sources, list, only)
  local commands, results, words = {}, {}, {}
  for i, word in ipairs(list) do words[i] = quoted(word) end
  for _, source in ipairs(sources) do
    for _, named in ipairs(only or archs) do
      local arch = arch_of(source, named)
      local out = ('%s/%s.compute_%s.ptx'):format(folder, source:match('([^/]+)%.cu$'), arch)
      os.remove(out)
      commands[#commands + 1] = quoted(('%s %s -arch=compute_%s -ptx -o %s %s'):format(
        quoted(nvcc()), table.concat(words, ' '), arch, quoted(out), quoted(source)))
      results[#results + 1] = { arch = arch, path = out, name = out:match('[^/]+$'),
                                source = source, control = control_group[source] }
    end
  end
  local _, said = run(('printf "%%s\\0" %s | xargs -0 -n 1 -P "$(nproc)" sh -c'):format(
    table.concat(commands, ' ')))
  for _, result in ipairs(results) do
    result.ptx = assert(read(result.path),
                        ('nvcc did not compile %s: %s'):format(result.source, said))
  end
  return results
end

--- What a build made of sources, as compile returns it, of all archs that it compiled for: the PTX
-- that tools/kernel.sh left in the folder of a configuration's objects.
local function built(objects, sources)
  local results = {}
  for _, source in ipairs(sources) do
    local stem = source:match('([^/]+)%.cu$')
    local pipe = assert(io.popen(('find %s -type f -name "*.ptx" 2>/dev/null'):format(
      quoted(objects .. '/' .. stem .. '.cu.ptx'))))
    for path in pipe:lines() do
      local ptx = assert(read(path), path)
      local arch = assert(ptx:match('\n%.target sm_(%w+)'), path)
      results[#results + 1] = { arch = arch, path = path, source = source, ptx = ptx,
                                name = ('%s.compute_%s.ptx'):format(stem, arch),
                                control = control_group[source] }
    end
    pipe:close()
  end
  return results
end

--- Adds the machine code that ptxas makes of the results of compile: sets name_sass and sass.
local function assemble(folder, results)
  local commands = {}
  for _, result in ipairs(results) do
    result.name_sass = result.name:gsub('compute_(.*)%.ptx$', 'sm_%1.sass')
    local out = folder .. '/' .. result.name_sass
    os.remove(out)
    commands[#commands + 1] = ('{ %s -arch=sm_%s -cubin -o %s.cubin %s && %s -c %s.cubin > %s; } &')
      :format(quoted(nvcc()), result.arch, quoted(out), quoted(result.path), quoted(nvdisasm()),
              quoted(out), quoted(out))
  end
  local _, said = run(table.concat(commands, '\n') .. '\nwait')
  for _, result in ipairs(results) do
    result.sass = read(folder .. '/' .. result.name_sass)
    assert(result.sass and #result.sass > 0, 'no machine code: ' .. said)
  end
end

local function default_files()
  local names = {}
  local pipe = assert(io.popen('ls kernels/*.cu'))
  for name in pipe:lines() do names[#names + 1] = name end
  pipe:close()
  return names
end

-- A spec loads this file as a module; otherwise it runs as a program.
if ... == 'tools.lint_kernels' then
  return { lint_options = lint_options, lint_ptx = lint_ptx, lint_sass = lint_sass, nvcc = nvcc,
           nvdisasm = nvdisasm, options = options, compile = compile, built = built,
           assemble = assemble, default_files = default_files, archs = archs }
end

if not nvcc() then
  io.stderr:write('lint_kernels: there is no nvcc\n')
  os.exit(1)
end
local folder = os.tmpname()
os.remove(folder)
assert(run('mkdir ' .. quoted(folder)))
local bad = 0
local function say(found)
  bad = bad + #found
  for _, line in ipairs(found) do io.stderr:write(line, '\n') end
end
local ok, why = pcall(function()
  local list = options(folder)
  say(lint_options('tools/kernel.sh', list))
  for _, source in ipairs(#arg > 0 and arg or default_files()) do
    local results = compile(folder, { source }, list)
    for _, result in ipairs(results) do say(lint_ptx(result.name, result.ptx, result.control)) end
    if nvdisasm() then
      assemble(folder, results)
      for _, result in ipairs(results) do
        say(lint_sass(result.name_sass, result.sass, result.control))
      end
    end
  end
end)
run('rm -rf ' .. quoted(folder))
if not ok then io.stderr:write('lint_kernels: ', tostring(why), '\n') end
os.exit(ok and bad == 0 and 0 or 1)
