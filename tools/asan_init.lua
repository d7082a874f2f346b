-- asan_init.lua - runs first in each LuaJIT, through LUA_INIT (see tools/asan). The sanitizers are
-- preloaded into LuaJIT; this keeps them out of its child processes, such as compilers and gnuplot.
if jit then
  local ffi = require "ffi"
  ffi.cdef "int samebits_asan_unsetenv(const char *name) __asm__(\"unsetenv\");"
  ffi.C.samebits_asan_unsetenv "LD_PRELOAD"
end
