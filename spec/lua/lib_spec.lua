-- Finding and loading the library, and the declarations that are generated from its header.

local ffi = require "ffi"
local samebits = require "samebits"
local lib = require "samebits.lib"

-- Runs a command; its exit status and its output, both streams together.
local function run(command, ...)
  local pipe = io.popen(("{ " .. command .. "; } 2>&1; echo \"status $?\""):format(...))
  local text = pipe:read "*a"
  pipe:close()
  local output, status = text:match "^(.*)status (%d+)\n$"
  return tonumber(status), output
end

local function quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

-- A Lua line in a process of its own, with an environment.
local function lua(environment, line)
  return run("%s LUA_PATH='./lua/?.lua;;' luajit -e %s", environment, quote(line))
end

local folder

setup(function()
  folder = os.tmpname()
  os.remove(folder)
  assert.equal(0, (run("mkdir %s", folder)))
end)

teardown(function() run("rm -r %s", folder) end)

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

  it("is the one that SAMEBITS_LIB names, or an error", function()
    run("cp %s %s/other.so", quote(lib.path), folder)
    local status, output = lua(("SAMEBITS_LIB=%s/other.so"):format(folder),
                               [[io.write(require "samebits.lib".path)]])
    assert.equal(0, status, output)
    assert.equal(folder .. "/other.so", output)

    status, output = lua(("SAMEBITS_LIB=%s/absent.so"):format(folder), [[require "samebits"]])
    assert.equal(1, status)
    assert.matches("cannot load .*absent%.so", output)
    status, output = lua("SAMEBITS_LIB=./README.md", [[require "samebits"]])
    assert.equal(1, status)
    assert.matches("cannot load %./README%.md", output)
  end)

  it("is looked for beside the Lua modules, then on package.cpath", function()
    run("mkdir -p %s/a/lua %s/c/samebits; cp -r lua/samebits* %s/a/lua", folder, folder, folder)
    local function path_in(cpath)
      return lua("env -u SAMEBITS_LIB", ([[package.path = "%s/a/lua/?.lua;/usr/share/lua/5.1/?.lua"
        package.cpath = "%s" io.write(require "samebits.lib".path)]]):format(folder, cpath))
    end
    local cpath = folder .. "/c/?.so"
    local status, output = path_in(cpath)
    assert.equal(1, status)
    -- Says where it looked.
    for _, place in ipairs { "/a/lua/samebits/libsamebits.so", "/a/build/release/libsamebits.so",
                             "the system's loader", "make %-C build", "SAMEBITS_LIB" } do
      assert.matches(place, output)
    end
    run("mkdir -p %s/a/build/release; cp %s %s/a/build/release/libsamebits.so", folder,
        quote(lib.path), folder)
    assert.same({ 0, folder .. "/a/build/release/libsamebits.so" }, { path_in(cpath) })
    run("cp %s %s/c/samebits/libsamebits.so", quote(lib.path), folder)
    assert.same({ 0, folder .. "/c/samebits/libsamebits.so" }, { path_in(cpath) })
    run("cp %s %s/a/lua/samebits/libsamebits.so", quote(lib.path), folder)
    assert.same({ 0, folder .. "/a/lua/samebits/libsamebits.so" }, { path_in(cpath) })
  end)

  it("is refused with another ABI, or without any", function()
    local function compiled(name, code)
      local status, output = run("echo %s | cc -shared -fPIC -x c - -o %s/%s", quote(code), folder,
                                 name)
      assert.equal(0, status, output)
      return lua(("SAMEBITS_LIB=%s/%s"):format(folder, name), [[require "samebits"]])
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
