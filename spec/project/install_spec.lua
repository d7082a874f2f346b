-- make install and uninstall, LuaRocks, and what they leave behind; from a copy of the checkout, in
-- a path with spaces.

local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

local run, quote = shell.run, shell.quote

-- The commands below do not see the checkout's variables.
local CLEAN = "env -u LUA_PATH -u LUA_CPATH -u LUA_INIT -u SAMEBITS_LIB -u SB_BUILD " ..
              "-u LD_LIBRARY_PATH -u PKG_CONFIG_PATH "

local function succeeds(format, ...)
  local said, status = run(format:format(...))
  assert.equal(0, status, said)
  return said
end

-- The files in a folder that are no folders, sorted, each with its mode.
local function files_in(folder)
  return succeeds("cd %s && find . ! -type d -printf '%%M %%p\n' | LC_ALL=C sort", quote(folder))
end

-- All of the files that `samebits selftest` checks are there. cli_spec.lua checks them; here one.
local function has_vectors(root)
  for _, file in ipairs(require("samebits.selftest").FILES) do
    succeeds("cmp spec/vectors/%s %s/share/lua/5.1/samebits/vectors/%s", file, quote(root), file)
  end
end

local files, tree, prefix

setup(function()
  files = temporary.folder()
  tree, prefix = files:path "check out", files:path "pre fix"
  succeeds("mkdir -p %s/build/obj && cp -a Makefile samebits-*.rockspec README.md CHANGELOG.md " ..
           "CONTRIBUTING.md LICENSE bin docs examples kernels lua src tools types %s", quote(tree),
           quote(tree))
  succeeds("mkdir -p %s/spec && cp -a spec/vectors %s/spec", quote(tree), quote(tree))
  succeeds("cp -a build/Makefile build/*.make build/release %s/build && cp -a build/obj/release " ..
           "%s/build/obj", quote(tree), quote(tree))
end)

teardown(function() files:remove() end)

-- make in the copy.
local function make(words) return run(("make -C %s %s"):format(quote(tree), words)) end

describe("make install", function()
  setup(function()
    local said, status = make("install PREFIX=" .. quote(prefix))
    assert.equal(0, status, said)
    assert.truthy(said:find("installed: " .. prefix .. "/bin/samebits", 1, true), said)
  end)

  it("has built nothing anew, and puts every Lua module in place", function()
    assert.equal(succeeds("cd lua && find . -name '*.lua' | LC_ALL=C sort"),
      succeeds("cd %s/share/lua/5.1 && find . -path ./samebits/types -prune -o -name '*.lua' " ..
               "-print | LC_ALL=C sort", quote(prefix)))
    succeeds("diff -r types %s/share/lua/5.1/samebits/types", quote(prefix))
    succeeds("cmp build/release/libsamebits.so %s/lib/libsamebits.so.1", quote(prefix))
  end)

  it("leaves a command that runs from anywhere", function()
    local bin = CLEAN .. quote(prefix) .. "/bin/samebits "
    local said = succeeds("cd / && %s info", bin)
    assert.truthy(said:find(prefix .. "/share/lua/5.1/samebits/libsamebits.so\n", 1, true), said)
    has_vectors(prefix)
    said = succeeds("cd / && %s selftest --only rows.txt", bin)
    assert.matches("rows.txt +cpu scalar +%d+ +0\n", said)
    assert.matches("all bits as expected\n$", said)
    said = succeeds("cd / && %s help selftest", bin)
    assert.falsy(said:find(files.name, 1, true), said)
  end)

  it("leaves modules that LuaJIT finds", function()
    local said = succeeds("cd / && %s LUA_PATH=%s/share/lua/5.1/'?.lua' luajit -e %s", CLEAN,
      quote(prefix), quote [[local samebits = require "samebits"
        local out = assert(assert(samebits.open "cpu"):logprob(samebits.batch {
          logits = samebits.tensor { { 0, 0 } }, ids = { 1 } }))
        io.write(out.token:bits()[1])]])
    assert.equal("bf317218", said) -- -ln 2
  end)

  it("leaves what pkg-config needs to compile the C example", function()
    if not shell.has "pkg-config" then return pending "pkg-config is not installed" end
    local found = ("PKG_CONFIG_PATH=%s/lib/pkgconfig pkg-config "):format(quote(prefix))
    assert.equal(require "samebits".version .. "\n", succeeds("%s --modversion samebits", found))
    -- eval: a path with a space comes back with a backslash.
    succeeds("flags=$(%s --cflags --libs samebits) && eval \"cc -std=c11 -Wall -Wextra -Werror " ..
             "examples/c/logprob.c -o %s $flags\"", found, quote(files:path "logprob"))
    local linked = succeeds("readelf -d %s", quote(files:path "logprob"))
    assert.truthy(linked:find("[libsamebits.so.1]", 1, true), linked)
    local said = succeeds("%s LD_LIBRARY_PATH=%s/lib %s cpu", CLEAN, quote(prefix),
                          quote(files:path "logprob"))
    assert.matches("\nthe same bits\n$", said)
  end)

  it("leaves a manual page, which is what the help says", function()
    succeeds("luajit tools/gen_man.lua --check")
    succeeds("cmp docs/samebits.1 %s/share/man/man1/samebits.1", quote(prefix))
  end)

  it("makes files that everybody may read, and says what it cannot write", function()
    for mode, name in files_in(prefix):gmatch "(%S+) (%./[^\n]+)\n" do
      if mode:sub(1, 1) ~= "l" then
        local program = name:find "^%./bin/" or name:find "%.so%.%d+$"
        assert.equal((program and "-rwxr-xr-x " or "-rw-r--r-- ") .. name, mode .. " " .. name)
      end
    end
    local said, status = make "install PREFIX=/dev/null/no"
    assert.is_true(status ~= 0)
    assert.truthy(said:find("/dev/null", 1, true), said)
  end)

  it("wants absolute paths", function()
    for _, words in ipairs { "install PREFIX=here", "install LUADIR=here", "install DESTDIR=here",
                             "uninstall PREFIX=here" } do
      local said, status = make(words)
      assert.is_true(status ~= 0, words)
      assert.truthy(said:find("'here", 1, true) and said:find("absolute path", 1, true), said)
    end
  end)

  -- The last of these, for it takes away what they look at.
  it("is undone by make uninstall, which leaves what others put there", function()
    succeeds("touch %s/lib/libsamebits.so.0 %s/share/lua/5.1/other.lua %s/include/other.h",
             quote(prefix), quote(prefix), quote(prefix))
    local said, status = make("uninstall PREFIX=" .. quote(prefix))
    assert.equal(0, status, said)
    assert.equal("-rw-r--r-- ./include/other.h\n-rw-r--r-- ./lib/libsamebits.so.0\n" ..
                 "-rw-r--r-- ./share/lua/5.1/other.lua\n", files_in(prefix))
    assert.equal("", succeeds("find %s -type d -name '*samebits*'", quote(prefix)))
  end)
end)

describe("make install with DESTDIR and LIBDIR", function()
  it("stages a tree that may be moved to its place, and is undone", function()
    local stage = files:path "stage"
    local words = ("DESTDIR=%s PREFIX=/opt/same LIBDIR=/opt/same/lib64/sub INCLUDEDIR=/opt/h")
      :format(quote(stage))
    local said, status = make("install " .. words)
    assert.equal(0, status, said)
    local pc = succeeds("cat %s/opt/same/lib64/sub/pkgconfig/samebits.pc", quote(stage))
    assert.matches("^prefix=/opt/same\nlibdir=${prefix}/lib64/sub\nincludedir=/opt/h\n", pc)
    -- Where it was staged is known to nothing in it.
    assert.equal("", (run(("grep -rl %s %s"):format(quote(stage), quote(stage)))))
    local moved = files:path "moved"
    succeeds("mv %s %s", quote(stage), quote(moved))
    said = succeeds("cd / && %s %s/opt/same/bin/samebits info", CLEAN, quote(moved))
    assert.truthy(said:find(moved .. "/opt/same/share/lua/5.1/samebits/libsamebits.so\n", 1, true),
                  said)
    succeeds("mv %s %s", quote(moved), quote(stage))
    said, status = make("uninstall " .. words)
    assert.equal(0, status, said)
    assert.equal("", files_in(stage))
  end)
end)

describe("make uninstall", function()
  local shared, words

  -- Folders of the system's, with files of others in them.
  before_each(function()
    shared = files:path "a system"
    succeeds("rm -rf %s && mkdir -p %s/doc/other %s/lua/samebits %s/include", quote(shared),
             quote(shared), quote(shared), quote(shared))
    succeeds("cd %s && touch doc/README.md.gz doc/other/README.md lua/samebits/mine.lua " ..
             "include/a.h", quote(shared))
    words = ("PREFIX=%s DOCDIR=%s/doc LUADIR=%s/lua INCLUDEDIR=%s/include"):format(
      quote(shared), quote(shared), quote(shared), quote(shared))
  end)

  local function makes(target)
    local said, status = make(target .. " " .. words)
    assert.equal(0, status, said)
    return said
  end

  it("removes what was installed, and nothing else", function()
    local function all()
      return succeeds("cd %s && find . -printf '%%M %%p %%l\n' | LC_ALL=C sort", quote(shared))
    end
    local before = all()
    makes "install"
    makes "install"
    makes "uninstall"
    assert.equal(before, all())
  end)

  it("removes what an older checkout installed, and install does so first", function()
    succeeds("touch %s/lua/samebits/older.lua %s/docs/older.md", quote(tree), quote(tree))
    makes "install"
    succeeds("cd %s && test -e lua/samebits/older.lua && test -e doc/docs/older.md", quote(shared))
    succeeds("rm %s/lua/samebits/older.lua %s/docs/older.md", quote(tree), quote(tree))
    makes "install"
    succeeds("cd %s && ! test -e lua/samebits/older.lua && ! test -e doc/docs/older.md",
             quote(shared))
    assert.matches("lua/samebits/mine.lua", files_in(shared))
  end)

  it("takes away an install that was broken off, too", function()
    local before = files_in(shared)
    succeeds("mkdir %s/bin && mkdir %s/bin/samebits", quote(shared), quote(shared))
    succeeds("touch %s/bin/samebits/in_the_way", quote(shared))
    local said, status = make("install " .. words)
    assert.is_true(status ~= 0, said)
    succeeds("rm -r %s/bin", quote(shared))
    makes "uninstall"
    assert.equal(before, files_in(shared))
  end)

  it("says where nothing was installed", function()
    local said, status = make("uninstall " .. words)
    assert.is_true(status ~= 0)
    assert.truthy(said:find("nothing was installed with these variables: there is no " .. shared ..
                            "/lua/samebits/", 1, true), said)
  end)

  it("leaves folders that others have come to use", function()
    makes "install"
    succeeds("touch %s/doc/docs/notes.txt", quote(shared))
    makes "uninstall"
    assert.truthy(files_in(shared):find("./doc/docs/notes.txt", 1, true))
  end)
end)

describe("LuaRocks", function()
  it("makes the rock without a network", function()
    if not shell.has "luarocks" then return pending "luarocks is not installed" end
    local rocks = files:path "rocks"
    local luarocks = ("cd %s && %s luarocks --lua-version 5.1 --tree %s "):format(
      quote(tree), CLEAN, quote(rocks))
    -- No server is asked, whether or not there is one.
    local said, status = run(("%s --only-server=%s make"):format(luarocks,
                                                               quote(files:path "no server")))
    -- LuaRocks wants them for any rock, whether or not it is compiled with them.
    if said:find("Failed finding Lua header files", 1, true) then
      return pending "LuaRocks finds no Lua headers"
    end
    assert.equal(0, status, said)
    assert.truthy(said:find("is now installed in " .. rocks, 1, true), said)
    said = succeeds("cd / && %s %s/bin/samebits info", CLEAN, quote(rocks))
    assert.truthy(said:find(rocks .. "/lib/lua/5.1/samebits/libsamebits.so\n", 1, true), said)
    has_vectors(rocks)
    said = succeeds("cd / && %s %s/bin/samebits selftest --only rows.txt", CLEAN, quote(rocks))
    assert.matches("all bits as expected\n$", said)
    succeeds("%s remove samebits", luarocks)
    assert.falsy(files_in(rocks):find("/samebits", 1, true))
  end)

  it("has a rockspec of the header's version", function()
    local version = require "samebits".version
    local name = ("samebits-%s-1.rockspec"):format(version)
    local spec = setmetatable({}, { __index = {} })
    setfenv(assert(loadfile(name)), spec)()
    assert.equal(version .. "-1", spec.version)
    assert.equal("samebits", spec.package)
  end)
end)

describe("the command line", function()
  it("says which Lua module it lacks, and how to get it", function()
    local said, status = run("LUA_PATH='/nowhere/?.lua' bin/samebits info")
    assert.equal(2, status)
    assert.equal("samebits: the command line needs the Lua module argparse: apt-get install " ..
                 "lua-argparse, or luarocks --lua-version 5.1 install argparse\n", said)
  end)
end)
