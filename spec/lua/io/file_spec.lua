-- Writing whole files: which attributes of the replaced file are kept, what is left after a failure
-- or an interruption, and what a crash would leave.

local file = require "samebits.io.file"
local posix = require "samebits.io.posix"
local refusal = require "spec.support.refusal"
local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

local says = refusal.says

describe("file.write", function()
  local files, originals
  before_each(function() files, originals = temporary.folder(), {} end)
  after_each(function()
    for name, f in pairs(originals) do posix[name] = f end
    files:remove()
  end)

  -- Replaces functions of posix for the rest of a test.
  local function stub(functions)
    for name, f in pairs(functions) do originals[name], posix[name] = posix[name], f end
  end

  local function chmod(mode, path)
    assert.equal(0, os.execute(("chmod %s '%s'"):format(mode, path)))
  end
  local function mode_of(path) return ("%o"):format(posix.stat_path(path).mode) end

  -- Runs Lua in another process, arg[1] being the path; what it prints, and its status.
  local function run(path, text, prefix)
    local script = os.tmpname()
    local handle = assert(io.open(script, "w"))
    handle:write([[
      package.path = "lua/?.lua;" .. package.path
      local ffi = require "ffi"
      local posix, file = require "samebits.io.posix", require "samebits.io.file"
      ]], text)
    handle:close()
    local said, status = shell.run(("%s luajit '%s' '%s'"):format(prefix or "", script, path))
    os.remove(script)
    return said, status
  end

  for _, kind in ipairs { "unnamed", "named" } do
    describe("with a temporary that is " .. kind .. ",", function()
      -- The same on every file system.
      before_each(function()
        if kind == "named" then stub { create_unnamed = function() return nil end } end
      end)

      it("keeps the mode of the file that it replaces", function()
        local path = files:write("data", "old")
        for _, mode in ipairs { "600", "640", "664", "755", "444" } do
          chmod(mode, path)
          assert.is_true(file.write(path, { mode }))
          assert.equal(mode, mode_of(path))
          assert.equal(mode, files:read "data")
        end
        os.execute(("ln -s data '%s'"):format(files:path "link"))
        chmod("604", path)
        assert.is_true(file.write(files:path "link", { "through the link" }))
        assert.equal("604", mode_of(path))
        assert.equal("through the link", files:read "data")
      end)

      it("lets nobody read it meanwhile who could not read the file", function()
        local path = files:write("data", "old")
        chmod("600", path)
        local write, seen = posix.write, nil
        stub { write = function(fd, ...)
          seen = posix.stat(fd).mode
          return write(fd, ...)
        end }
        assert.is_true(file.write(path, { "new" }))
        assert.equal(384, seen) -- rw-------
      end)

      it("syncs before it renames, and the folder afterwards", function()
        local path, log, rename, sync = files:path "data", {}, posix.rename, posix.sync
        local write = posix.write
        stub {
          write = function(...) log[#log + 1] = "write" return write(...) end,
          rename = function(...) log[#log + 1] = "rename" return rename(...) end,
          sync = function(fd)
            log[#log + 1] = "sync " .. posix.stat(fd).kind
            return sync(fd)
          end,
        }
        assert.is_true(file.write(path, { "a", "b" }))
        assert.same({ "write", "write", "sync file", "rename", "sync directory" }, log)
      end)

      it("leaves the file as it was where a step fails", function()
        local path = files:write("data", "old")
        local function fails() return false end
        for _, step in ipairs { "write", "set_mode", "sync", "rename", "close" } do
          local original = posix[step]
          posix[step] = step == "close" and function(fd)
            original(fd)
            posix.close = original
            return false
          end or step == "set_mode" and function(fd)
            original(fd, 0)  -- another mode than the file's
            return false
          end or fails
          local ok, why = file.write(path, { "new" })
          posix[step] = original
          assert.is_nil(ok, step)
          says(why, path .. ": ")
          assert.equal("old", files:read "data")
          assert.same({ "data" }, files:names())
        end
      end)

      it("says so where only the folder cannot be synced", function()
        local path, sync = files:write("data", "old"), posix.sync
        stub { sync = function(fd) return posix.stat(fd).kind == "file" and sync(fd) end }
        says(refusal.message(file.write(path, { "new" })), "data: replaced, but a crash may undo")
        assert.equal("new", files:read "data")
      end)

      it("leaves nothing behind after Ctrl-C", function()
        local path = files:write("data", "old")
        local said, status = run(path, ([[
          if %q == "named" then posix.create_unnamed = function() return nil end end
          ffi.cdef "int kill(int pid, int signal); int usleep(unsigned int);"
          local write = posix.write
          posix.write = function(fd, data, size)
            assert(write(fd, data, 5))
            ffi.C.kill(posix.pid(), 2)
            for _ = 1, 1000 do ffi.C.usleep(1000) end
            return write(fd, data, size)
          end
          print(file.write(arg[1], { "new and longer" }))]]):format(kind))
        assert.equal(1, status, said)
        says(said, "interrupted!")
        assert.equal("old", files:read "data")
        assert.same({ "data" }, files:names())
      end)
    end)
  end

  it("leaves nothing behind where the process is killed", function()
    local fd = posix.create_unnamed(files.name)
    if not fd then return pending "this file system has no files without names" end
    posix.close(fd)
    local path = files:write("data", "old")
    local said, status = run(path, [[
      ffi.cdef "int kill(int pid, int signal);"
      local write = posix.write
      posix.write = function(fd, data, size)
        write(fd, data, 5)
        ffi.C.kill(posix.pid(), 9)
      end
      file.write(arg[1], { "new and longer" })]])
    assert.equal(137, status, said)
    assert.equal("old", files:read "data")
    assert.same({ "data" }, files:names())
  end)

  it("makes new files as the umask says", function()
    for umask, mode in pairs { ["022"] = "644", ["077"] = "600", ["002"] = "664" } do
      local path = files:path("new" .. umask)
      local said, status = run(path, "assert(file.write(arg[1], { 'new' }))",
                               ("umask %s;"):format(umask))
      assert.equal(0, status, said)
      assert.equal(mode, mode_of(path))
    end
  end)

  it("takes rights from a group that is not the file's", function()
    stub { set_owner = function() return false end }
    local path = files:write("data", "old")
    for before, after in pairs { ["640"] = "600", ["664"] = "644", ["4755"] = "755" } do
      chmod(before, path)
      assert.is_true(file.write(path, { "new" }))
      assert.equal(after, mode_of(path))
    end
  end)

  it("writes into the current folder", function()
    local said, status = run("data", [[assert(file.write(arg[1], { "new" }))]],
      ("LUA_PATH=\"$PWD/lua/?.lua;;\"; export LUA_PATH; cd '%s';"):format(files.name))
    assert.equal(0, status, said)
    assert.equal("new", files:read "data")
    assert.same({ "data" }, files:names())
  end)
end)
