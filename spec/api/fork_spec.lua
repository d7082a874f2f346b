-- Contexts in forked children of Lua and Python programs. spec/c/forks.c covers the case that only
-- C can produce, a fork while a call is under way; spec/faults/forked.c checks that the CUDA driver
-- is left alone.

local ffi = require "ffi"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local hex = require "spec.support.hex"
local shell = require "spec.support.shell"

ffi.cdef [[
int samebits_spec_fork(void) __asm__("fork");
int samebits_spec_waitpid(int child, int *status, int options) __asm__("waitpid");
unsigned samebits_spec_alarm(unsigned seconds) __asm__("alarm");
void samebits_spec_exit(int status) __asm__("_exit");
]]

local C = ffi.C

-- Runs life in a forked child. Returns "fine", the error that it raised, or how the child died. A
-- child that hangs is killed.
local function in_child(life)
  local path = os.tmpname()
  io.stdout:flush()
  local child = C.samebits_spec_fork()
  if child == 0 then
    C.samebits_spec_alarm(60)
    local ok, err = pcall(life)
    local file = io.open(path, "w")
    file:write(ok and "fine" or tostring(err))
    file:close()
    C.samebits_spec_exit(0)
  end
  local status = ffi.new "int[1]"
  assert.equal(child, C.samebits_spec_waitpid(child, status, 0))
  local file = io.open(path)
  local said = file:read "*a"
  file:close()
  os.remove(path)
  return status[0] == 0 and said or ("it ended with status 0x%x; %s"):format(status[0], said)
end

local R, V = 8, 20000 -- enough for threads to be woken
local ids = {}
for i = 1, R do ids[i] = i * 977 % V end
local spec = { logits = hex.tensor(hex.values(R * V, 5), { R, V }), ids = ids }

local function bytes(t) return ffi.string(t.ptr, t:numel() * t.itemsize) end

-- Every output of a few calls, as bytes.
local function results(ctx)
  local out = assert(ctx:logprob(spec, { outputs = { "token", "lse", "sequence", "entropy" } }))
  local first = assert(ctx:topk(spec, 3))
  return table.concat { bytes(out.token), bytes(out.lse), bytes(out.sequence), bytes(out.entropy),
                        bytes(first.ids), bytes(first.logprob) }
end

describe("in a forked child of a Lua program", function()
  if os.getenv "SB_BUILD" == "asan" then
    return pending "AddressSanitizer's allocator may stay locked in a forked child"
  end
  for _, threads in ipairs { 1, 4 } do
    it(("a cpu context of %d threads gives the same bits, and closes"):format(threads), function()
      local ctx = assert(samebits.open("cpu", { threads = threads }))
      local want = results(ctx)
      assert.equal("fine", in_child(function()
        assert(results(ctx) == want, "other bits")
        assert(ctx.threads == threads)
        local own = assert(samebits.open("cpu", { threads = 3 }))
        assert(results(own) == want, "other bits in a context of the child's")
        own:close()
        ctx:close()
      end))
      assert.equal("fine", in_child(function() ctx:close() end))
      assert.is_true(results(ctx) == want)
      ctx:close()
    end)
  end

  it("samebits.logprob goes on, too", function()
    local want = bytes(samebits.logprob(spec).token)
    assert.equal("fine", in_child(function()
      assert(bytes(samebits.logprob(spec).token) == want, "other bits")
    end))
  end)

  it("the child ends, and collects its contexts, as any program", function()
    local said, status = shell.run [[timeout 60 luajit -e '
      package.path = "./lua/?.lua;" .. package.path
      local samebits, ffi = require "samebits", require "ffi"
      ffi.cdef "int fork(void); int wait(int *status);"
      local ctx = assert(samebits.open("cpu", { threads = 4 }))
      local batch = { logits = samebits.empty { 64, 4096 }, ids = {} }
      ffi.fill(batch.logits.ptr, 64 * 4096 * 4)
      for i = 1, 64 do batch.ids[i] = i end
      assert(ctx:logprob(batch))
      if ffi.C.fork() == 0 then
        assert(ctx:logprob(batch))
        os.exit(0, true)
      end
      local status = ffi.new "int[1]"
      ffi.C.wait(status)
      print("status", status[0])
      os.exit(0, true)']]
    assert.equal("status\t0\n", said)
    assert.equal(0, status)
  end)

  describe("on a GPU", function()
    backends.with("cuda", function()
      it("a cuda context refuses, says why, closes; the parent's goes on", function()
        local ctx = assert(samebits.open "cuda")
        local batch = samebits.batch(spec):to(ctx.device)
        local stream = assert(ctx:stream())
        local want = bytes(assert(ctx:logprob(batch)).token:to "cpu")
        assert.equal("fine", in_child(function()
          local out, why, code = ctx:logprob(batch, { out = {} })
          assert(out == nil and code == "SB_ERR_BACKEND", code)
          assert(why:find("opened before fork()", 1, true), why)
          local ok, _, waited = stream:wait()
          assert(not ok and waited == "SB_ERR_BACKEND", waited)
          local made, reason, opened = samebits.open "cuda"
          assert(made == nil and opened == "SB_ERR_BACKEND", opened)
          assert(reason:find("fork", 1, true), reason)
          ctx:close()
          assert(bytes(samebits.logprob(spec).token) == want, "other bits on the cpu")
        end))
        assert.equal(want, bytes(assert(ctx:logprob(batch)).token:to "cpu"))
        ctx:close()
      end)
    end)
  end)
end)

describe("in a forked child of a Python program", function()
  if (os.getenv "SB_BUILD" or "release") ~= "release" then
    return pending "Python takes the release build"
  end
  local python = shell.quote(os.getenv "PYTHON" or "python3")
  local version, found = shell.run(python .. " --version")
  if found ~= 0 then return pending("there is no Python: " .. version:match "[^\n]*") end

  for _, way in ipairs { "os.fork", "multiprocessing" } do
    it(("%s: a context gives the same bits, and the child ends"):format(way), function()
      local said, status = shell.run(
        ("timeout 100 %s -B -W ignore spec/support/fork_python.py %s"):format(python, way))
      assert.equal("fine\n", said)
      assert.equal(0, status)
    end)
  end
end)
