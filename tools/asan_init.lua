-- asan_init.lua - for LUA_INIT, see tools/asan: the sanitizers are preloaded into LuaJIT; its
-- children, compilers and gnuplot, go without.
if jit then
  local ffi = require "ffi"
  ffi.cdef "int samebits_asan_unsetenv(const char *name) __asm__(\"unsetenv\");"
  ffi.C.samebits_asan_unsetenv "LD_PRELOAD"
end
