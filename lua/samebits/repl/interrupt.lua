--- Ctrl-C while a statement runs.
--
-- No Lua may run inside a signal handler. So the handler is a function of libc that does nothing
-- (abs), set to be used once: the signal's disposition is back at its default afterwards, which a
-- hook that the interpreter calls every so many instructions sees. A second Ctrl-C before the first
-- one was seen (in compiled code or inside a call of C) ends the program, as it would have without
-- all this.

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
local INSTRUCTIONS = 10000   -- between two looks: well below a millisecond

--- The error of a statement that was interrupted.
M.MESSAGE = "interrupted"

local once = ffi.new "samebits_sigaction"
once.handler = ffi.cast("void (*)(int)", C.samebits_libc_abs)
once.flags = SA_RESETHAND

local now = ffi.new "samebits_sigaction"

--- Waits for Ctrl-C from here on: gives a function that puts things back as they were.
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

--- Forgets the one that came.
function M.rearm() C.samebits_libc_sigaction(SIGINT, once, nil) end

local function look()
  if M.came() then error(M.MESSAGE, 0) end
end

--- xpcall, of which Ctrl-C makes an error: MESSAGE, again and again until f is left. A hook that
-- was set before, such as a profiler's, is set again afterwards.
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
    debug.sethook(look, "", INSTRUCTIONS)
    return finish(xpcall(f, function(err)
      restore()
      return handler(err)
    end))
  end
  -- The hook may find its signal when f has just returned.
  local function result(ok, ...)
    if ok then return ... end
    restore()
    return false, (...)
  end
  return result(pcall(whole))
end

return M
