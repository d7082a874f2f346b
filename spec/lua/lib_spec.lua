-- Finding and loading the library, and the declarations that are generated from its header.

local ffi = require "ffi"
local samebits = require "samebits"
local lib = require "samebits.lib"
local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

-- Runs a command; its exit status and its output, both streams together.
local function run(command, ...)
  local output, status = shell.run(command, ...)
  return status, output
end

-- A Lua line in a process of its own, with an environment.
local function lua(environment, line)
  return run(environment .. " LUA_PATH='./lua/?.lua;;' luajit -e " .. shell.quote(line))
end

local files, folder

setup(function()
  files = temporary.folder()
  folder = files.name
end)

teardown(function() files:remove() end)

describe("the declarations", function()
  it("are what tools/gen_cdef.lua makes of src/samebits.h", function()
    local status, output = run("luajit tools/gen_cdef.lua --check")
    assert.equal(0, status, output)
  end)

  it("are checked by --check", function()
    run("mkdir -p %s/tools %s/src %s/lua/samebits; cp tools/gen_cdef.lua %s/tools", folder, folder,
        folder, folder)
    run("sed 's/int64_t vocab;/int32_t vocab;/' src/samebits.h > %s/src/samebits.h", folder)
    run("cp lua/samebits/cdef.lua %s/lua/samebits", folder)
    local status, output = run("luajit %s/tools/gen_cdef.lua --check", folder)
    assert.equal(1, status)
    assert.matches("stale", output)
    assert.equal(0, (run("luajit %s/tools/gen_cdef.lua && luajit %s/tools/gen_cdef.lua --check",
                         folder, folder)))
    assert.equal(0, (run("grep -q 'int32_t vocab;' %s/lua/samebits/cdef.lua", folder)))
  end)

  it("may be run again in one Lua state", function()
    local again = dofile "lua/samebits/cdef.lua"
    assert.same(lib.constants, again)
    local status, output = lua("", [[
      dofile "lua/samebits/cdef.lua" dofile "lua/samebits/cdef.lua" require "samebits"
      package.loaded["samebits.cdef"], package.loaded["samebits.lib"] = nil, nil
      package.loaded.samebits = nil
      io.write(require "samebits".version)]])
    assert.equal(0, status, output)
    assert.equal(samebits.version, output)
  end)

  it("have the sizes that the library accepts", function()
    -- Every call checks them; a zero-row call goes through all but sb_open_options.
    local out = samebits.logprob { logits = samebits.zeros({ 0, 4 }),
                                   ids = samebits.zeros({ 0 }, "int32") }
    assert.equal(0, out.token:numel())
    assert.equal(16, ffi.sizeof "sb_open_options")
  end)
end)

describe("the library", function()
  it("says three numbers that its header has, too", function()
    assert.equal(lib.constants.SB_VERSION, samebits.version)
    assert.equal(lib.constants.SB_ABI, samebits.abi)
    assert.equal(lib.constants.SB_NUMERICS, samebits.numerics)
  end)

  it("is, in these specs, the one that SB_BUILD names", function()
    local build = "/build/" .. (os.getenv "SB_BUILD" or "release") .. "/libsamebits.so"
    assert.equal(build, lib.path:sub(-#build))
  end)

  -- From a copy of the Lua files, which has no library of its own. Elsewhere than the folder a/lua
  -- there are only the modules of the system.
  local function from_copy(environment, line, cpath)
    run("mkdir -p %s/a/lua && cp -r lua/samebits* %s/a/lua", folder, folder)
    return lua("env -u SB_BUILD -u SAMEBITS_LIB -u LD_LIBRARY_PATH " .. environment,
      ([[package.path = "%s/a/lua/?.lua;/usr/share/lua/5.1/?.lua" package.cpath = "%s" %s]])
        :format(folder, cpath or "", line))
  end

  local PATH = [[io.write(require "samebits.lib".path)]]

  -- Puts a library, ours by default, where a path in the folder says.
  local function put(path, library)
    local full = files:path(path)
    run("mkdir -p \"$(dirname %s)\" && cp %s %s", full, library or lib.path, full)
    return full
  end

  it("is looked for in one place after the other", function()
    local cpath = folder .. "/c/?.so"
    local named = shell.line("SAMEBITS_LIB=%s", files:path "named.so")

    -- From the last place to the first: each wins over those before.
    put "loader/libsamebits.so.1"
    local loader = shell.line("LD_LIBRARY_PATH=%s/loader", folder)
    assert.same({ 0, "libsamebits.so.1" }, { from_copy(loader, PATH, cpath) })
    local path = put "named.so"
    assert.same({ 0, path }, { from_copy(loader .. " " .. named, PATH, cpath) })
    path = put "c/samebits/libsamebits.so"
    assert.same({ 0, path }, { from_copy(named, PATH, cpath) })
    path = put "a/build/release/libsamebits.so"
    assert.same({ 0, path }, { from_copy(named, PATH, cpath) })
    local tried = put "a/build/tried/libsamebits.so"
    assert.same({ 0, tried }, { from_copy(named .. " SB_BUILD=tried", PATH, cpath) })
    path = put "a/lua/samebits/libsamebits.so"
    assert.same({ 0, path }, { from_copy(named .. " SB_BUILD=tried", PATH, cpath) })
    run("rm -r %s/a %s/c %s/named.so", folder, folder, folder)
  end)

  it("that is nowhere is an error that names every place", function()
    local status, output = from_copy("SAMEBITS_LIB=", [[require "samebits"]])
    assert.equal(1, status)
    local at = 1
    for _, place in ipairs { folder .. "/a/lua/samebits/libsamebits.so",
                             folder .. "/a/build/release/libsamebits.so", "on package.cpath",
                             "SAMEBITS_LIB (not set)", "libsamebits.so.1 (the system's loader)",
                             "make -C build" } do
      local first, last = output:find(place, at, true)
      assert.truthy(first, place .. " is not told of, or out of order, in: " .. output)
      at = last
    end
  end)

  it("that SAMEBITS_LIB names but cannot be loaded is an error", function()
    put("a.txt", "README.md")
    for name, words in pairs { ["absent.so"] = "cannot open shared object file",
                               ["a.txt"] = "invalid ELF header" } do
      local status, output = from_copy(shell.line("SAMEBITS_LIB=%s/%s", folder, name),
                                       [[require "samebits"]])
      assert.equal(1, status)
      assert.truthy(output:find(("cannot load %s/%s"):format(folder, name), 1, true), output)
      assert.truthy(output:find(words, 1, true), output)
    end
  end)

  it("is refused with another ABI, or without any", function()
    local function compiled(name, code)
      local status, output = run("echo %s | cc -shared -fPIC -x c - -o %s/%s", code, folder, name)
      assert.equal(0, status, output)
      return from_copy(shell.line("SAMEBITS_LIB=%s/%s", folder, name), [[require "samebits"]])
    end
    local status, output = compiled("abi.so", "unsigned sb_abi(void) { return 77; }")
    assert.equal(1, status)
    assert.matches("ABI 77", output)
    assert.matches("for ABI " .. lib.constants.SB_ABI, output)
    status, output = compiled("none.so", "int something_else;")
    assert.equal(1, status)
    assert.matches("not a samebits library", output)
  end)

  it("lists its backends, and why one is unavailable", function()
    local names = {}
    for _, backend in ipairs(samebits.backends()) do
      names[backend.name] = backend
      assert.equal("boolean", type(backend.available))
      if not backend.available then assert.is_true(#backend.why > 0) end
    end
    assert.is_true(names.cpu.available)
    assert.is_nil(names.cpu.why)
  end)
end)
