-- Ctrl-C while a statement runs: seen by a hook, forgotten, and out of the way of other hooks.

local ffi = require "ffi"
local interrupt = require "samebits.repl.interrupt"

describe("Ctrl-C:", function()
  ffi.cdef "int samebits_spec_raise(int signal) __asm__(\"raise\");"
  local restore
  before_each(function() restore = interrupt.watch() end)
  after_each(function() restore() end)

  it("ends a loop that never would, even one that catches errors", function()
    local f = loadstring "local raise = ... ; raise(2) while true do pcall(error) end"
    jit.off(f)
    local hook = debug.gethook()
    local ok, why = interrupt.call(function() f(ffi.C.samebits_spec_raise) end, tostring)
    assert.is_false(ok)
    assert.equal(interrupt.MESSAGE, why)
    assert.is_true(interrupt.came())
    assert.equal(hook, (debug.gethook()))
  end)

  it("is forgotten by rearm, and results and errors pass", function()
    ffi.C.samebits_spec_raise(2)
    assert.is_true(interrupt.came())
    interrupt.rearm()
    assert.is_false(interrupt.came())
    assert.same({ true, 1, 2 }, { interrupt.call(function() return 1, 2 end, tostring) })
    assert.same({ false, "e!" }, { interrupt.call(function() error("e", 0) end,
                                                  function(e) return e .. "!" end) })
  end)

  it("is noticed right after a call of the library, though that call ends", function()
    local call, samebits = require "samebits.op.call", require "samebits"
    local ctx, calls = assert(samebits.open "cpu"), 0
    call.after = function()
      calls = calls + 1
      interrupt.look()
    end
    local batch = samebits.batch { logits = samebits.tensor { { 0, 0 } }, ids = { 1 } }
    assert.is_table(ctx:logprob(batch))
    ffi.C.samebits_spec_raise(2)
    local ok, why = pcall(ctx.logprob, ctx, batch)
    call.after = nil
    assert.same({ false, interrupt.MESSAGE, 2 }, { ok, why, calls })
    ctx:close()
  end)

  it("leaves a hook of the caller's as it was", function()
    local function hook() end
    debug.sethook(hook, "", 123)
    interrupt.call(function() end, tostring)
    local after, _, count = debug.gethook()
    debug.sethook()
    assert.equal(hook, after)
    assert.equal(123, count)
  end)
end)
