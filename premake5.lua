-- premake5.lua - describes the build, from top to bottom: options, workspace, projects, actions.
-- The generated makefiles are committed, so `make -C build` needs no Premake. Run `premake5 gmake`
-- after a change here, and after adding or removing a source file.

newoption {
  trigger = 'cuda', value = 'MODE', default = 'auto',
  description = 'Build the CUDA kernels',
  allowed = {
    { 'auto', 'when nvcc is found' }, { 'yes', 'fail without nvcc' }, { 'no', 'CPU only' },
  },
}
newoption {
  trigger = 'cuda-arch', value = 'LIST', default = '80,86,89,90,100,120',
  description = 'Comma-separated SM numbers',
}

workspace 'samebits'
  configurations { 'release', 'debug', 'asan', 'tsan', 'coverage' }
  if defaultconfiguration then defaultconfiguration 'release' end
  location 'build'
  language 'C'
  cdialect 'C11'
  warnings 'Extra'
  fatalwarnings { 'All' }
  -- The contract specifies every rounding, so the compiler must not fuse or reorder operations. The
  -- options here come after those of CFLAGS and override them; src/det/float.h refuses the options
  -- that they cannot override.
  buildoptions {
    '-fno-fast-math', '-fno-unsafe-math-optimizations', '-fno-associative-math',
    '-fno-reciprocal-math', '-fno-finite-math-only', '-fsigned-zeros', '-fno-rounding-math',
    '-ffp-contract=off', '-fno-math-errno',
  }
  filter 'configurations:release'
    optimize 'Speed'
    symbols 'On'
  filter 'configurations:debug'
    symbols 'On'
  filter 'configurations:asan'
    symbols 'On'
    optimize 'On'
    sanitize { 'Address', 'UndefinedBehavior' }
    buildoptions { '-fno-sanitize-recover=all', '-fno-omit-frame-pointer' }
  filter 'configurations:tsan'
    symbols 'On'
    optimize 'On'
    sanitize { 'Thread' }
    buildoptions { '-fno-omit-frame-pointer' }
  filter 'configurations:coverage'
    symbols 'On'
    optimize 'Debug'
    buildoptions { '--coverage' }
    linkoptions { '--coverage' }
  filter {}

-- The name of the file, and with it the soname, ends in the number of the ABI. Programs link with,
-- and Lua loads, a symbolic link to it.
local ABI = io.readfile('src/samebits.h'):match('\n#define SB_ABI (%d+)\n')

-- The files of a pattern in one order, whatever the order of the folder's entries.
local function sorted(pattern)
  local files = os.matchfiles(pattern)
  table.sort(files)
  return files
end

project 'samebits'
  kind 'SharedLib'
  targetextension('.so.' .. ABI)
  targetdir 'build/%{cfg.buildcfg}'
  objdir 'build/obj/%{cfg.buildcfg}'
  includedirs { 'src' }
  visibility 'Hidden'
  pic 'On'
  files { 'src/**.c', 'src/**.h' }
  buildoptions { '-pthread' }
  linkoptions { '-pthread' }
  links { 'm', 'dl' }
  postbuildmessage 'libsamebits.so is a link to %{cfg.buildtarget.name}'
  postbuildcommands { 'ln -sf %{cfg.buildtarget.name} %{cfg.buildcfg}/libsamebits.so' }

  -- Each kernel is compiled to a fatbin and embedded. Without nvcc, the embedded file is empty.
  files { 'kernels/**.cu' }
  filter 'files:kernels/**.cu'
    buildmessage 'kernel %{file.name}'
    buildinputs {
      'tools/kernel.sh', 'tools/embed.S', 'build/%{prj.name}.make',
      sorted('kernels/**.cuh'), sorted('src/det/*.h'), 'src/cuda/args.h',
    }
    buildcommands {
      'sh ../tools/kernel.sh %{file.relpath} %{cfg.objdir}/%{file.basename}.cu.o --cuda='
        .. _OPTIONS['cuda'] .. ' --arch=' .. _OPTIONS['cuda-arch'],
    }
    buildoutputs { '%{cfg.objdir}/%{file.basename}.cu.o' }
  filter {}

-- The checks that are written in C: exhaustive float tests, the accumulator, the ABI and so on.
-- tools/test runs them.
project 'spec'
  kind 'ConsoleApp'
  targetname 'samebits-spec'
  targetdir 'build/%{cfg.buildcfg}'
  objdir 'build/obj/spec-%{cfg.buildcfg}'
  includedirs { 'src' }
  files { 'spec/c/*.c', 'spec/c/*.h' }
  files { 'spec/fuzz/*.c', 'spec/fuzz/*.h' }
  removefiles { 'spec/fuzz/entry.c', 'spec/fuzz/no_kernels.c', 'spec/fuzz/reader.c' }
  -- The library does not export these.
  files { 'src/cpu/isa_*.c', 'src/cpu/products_*.c', 'src/cuda/plan.c' }
  buildoptions { '-pthread' }
  linkoptions { '-pthread', "-Wl,-rpath,'$$ORIGIN'" }
  links { 'samebits', 'm' }

-- The library with all its requests to the system wrapped, so that each of them can be made to
-- fail.
project 'faults'
  kind 'ConsoleApp'
  targetname 'samebits-faults'
  targetdir 'build/%{cfg.buildcfg}'
  objdir 'build/obj/faults-%{cfg.buildcfg}'
  includedirs { 'src' }
  files { 'src/**.c', 'spec/faults/*.c', 'spec/faults/*.h', 'spec/fakes/*.c', 'spec/fakes/*.h' }
  buildoptions { '-pthread' }
  linkoptions { '-pthread' }
  for _, name in ipairs {
    'malloc', 'calloc', 'realloc', 'free', 'pthread_create', 'pthread_join', 'pthread_mutex_init',
    'pthread_mutex_destroy', 'pthread_cond_init', 'pthread_cond_destroy', 'pthread_sigmask',
    'pthread_atfork', 'sched_getaffinity', 'dlopen', 'dlsym', 'dlerror', 'dlclose',
  } do
    linkoptions { '-Wl,--wrap=' .. name }
  end
  links { 'm', 'dl' }
  filter 'files:spec/fakes/*.c' -- do not count the fakes' allocations
    defines { 'malloc=__real_malloc', 'calloc=__real_calloc', 'free=__real_free' }
  filter {}

newaction {
  trigger = 'test', description = 'Build, then run every spec and example',
  execute = function()
    if not os.execute('tools/test') then os.exit(1) end
  end,
}

newaction {
  trigger = 'docs', description = 'Generate docs/api from the sources',
  execute = function()
    if not os.execute('tools/docs') then os.exit(1) end
  end,
}
