--- Handles Ctrl-C while a statement runs.
--
-- No Lua code may run inside a signal handler. The handler is therefore a function of libc that has
-- no effect (abs), and it is set to be used once. After the signal its disposition is back at the
-- default, which is noticed by a hook that the interpreter calls every so many instructions, and by
-- the ops of a context after each call of the library (op/call.lua): a call into C is not cut
-- short, because nothing of it could be trusted, but nothing runs after it either. A second Ctrl-C
-- before the first one was noticed (in compiled code or inside a call of C) ends the program, as it
-- would have without this module.

local ffi = require "ffi"

ffi.cdef [[
typedef struct samebits_sigaction {
  void (*handler)(int);
  uint64_t mask[16];
  int flags;
  void (*restorer)(void);
} samebits_sigaction;
int samebits_libc_sigaction(int signal, const samebits_sigaction *action,
                            samebits_sigaction *before) __asm__("sigaction");
int samebits_libc_abs(int value) __asm__("abs");
]]

local C = ffi.C
local M = {}

local SIGINT = 2
local SA_RESETHAND = ffi.cast("int", 0x80000000)
local INSTRUCTIONS = 10000   -- between two checks: well below a millisecond

--- The error of a statement that was interrupted.
M.MESSAGE = "interrupted"

local once = ffi.new "samebits_sigaction"
once.handler = ffi.cast("void (*)(int)", C.samebits_libc_abs)
once.flags = SA_RESETHAND

local now = ffi.new "samebits_sigaction"

--- Starts to watch for Ctrl-C. Returns a function that restores the previous state.
function M.watch()
  local before = ffi.new "samebits_sigaction"
  if C.samebits_libc_sigaction(SIGINT, nil, before) ~= 0 then return function() end end
  C.samebits_libc_sigaction(SIGINT, once, nil)
  return function() C.samebits_libc_sigaction(SIGINT, before, nil) end
end

--- Whether Ctrl-C has come since the last `watch` or `rearm`.
function M.came()
  C.samebits_libc_sigaction(SIGINT, nil, now)
  return now.handler == nil
end

--- Forgets an earlier Ctrl-C.
function M.rearm() C.samebits_libc_sigaction(SIGINT, once, nil) end

--- Raises MESSAGE if Ctrl-C has come.
function M.look()
  if M.came() then error(M.MESSAGE, 0) end
end

--- Like xpcall, but Ctrl-C becomes an error: MESSAGE, again and again until f is left. A hook that
-- was set before, such as a profiler's, is restored afterwards.
function M.call(f, handler)
  local hook, mask, count = debug.gethook()
  local function restore()
    if hook then debug.sethook(hook, mask, count) else debug.sethook() end
  end
  local function finish(...)
    restore()
    return ...
  end
  local function whole()
    debug.sethook(M.look, "", INSTRUCTIONS)
    return finish(xpcall(f, function(err)
      restore()
      return handler(err)
    end))
  end
  -- The hook may notice the signal when f has just returned.
  local function result(ok, ...)
    if ok then return ... end
    restore()
    return false, (...)
  end
  return result(pcall(whole))
end

return M
