-- A checkout in a folder with a space in its name: the commands that the README gives a newcomer
-- work there, and so does the C example's makefile. (spec/support/temporary.lua covers the specs'
-- own folders.)

local lanes = require "spec.support.lanes"
local lines = require "spec.support.lines"
local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

local files, root

local function succeeds(format, ...)
  local said, status = shell.run(format, ...)
  assert.equal(0, status, said)
  return said
end

-- In the copy, without what is set for this run.
local function there(command)
  return succeeds(shell.line("cd %s && unset SB_JUNIT SB_BUILD SB_REQUIRE LUA_PATH; ", root) ..
                  command)
end

setup(function()
  files = temporary.folder()
  root = files:path "check out"
  succeeds("mkdir -p %s/build/obj %s/spec", root, root)
  -- With the times of the files, so that nothing is built anew.
  succeeds("cp -a .busted README.md bin examples kernels lua src tools %s", root)
  succeeds("cp -a build/Makefile build/*.make build/release %s/build", root)
  succeeds("cp -a build/obj/*release %s/build/obj", root)
  succeeds("cd spec && cp -a helper.lua support vectors c fakes fuzz faults %s/spec", root)
end)

teardown(function() files:remove() end)

describe("a checkout in a folder with a space in its name", function()
  it("runs the README's two commands", function()
    succeeds("touch %s/src/api/version.c", root) -- so that something is built
    local said = there "tools/demo"
    assert.truthy(said:find("the same bits in all of them\n", 1, true), said)
    assert.same({}, lines.repeated(said))
    files:write("check out/spec/some_spec.lua", [[
      it("is run", function()
        local samebits = require "samebits"
        assert.same_bits(samebits.logprob { logits = samebits.tensor { { 0, 0 } },
                                            ids = { 1 } }.token, { "bf317218" })
      end)
    ]])
    said = there "tools/test --junit 'a report.xml' spec/some_spec.lua"
    assert.matches("\n1 passed, 0 failed, 0 skipped\n$", said)
    assert.truthy(files:read "check out/a report.xml":find("is run", 1, true))
  end)

  it("shows the compiler's words where the build fails", function()
    succeeds("cp -a %s/src/api/version.c %s/was.c && echo mistake >>%s/src/api/version.c", root,
             root, root)
    local said, status = shell.run("cd %s && tools/demo", root)
    succeeds("mv %s/was.c %s/src/api/version.c && touch %s/src/api/version.c", root, root, root)
    assert.is_true(status ~= 0)
    assert.matches("version%.c:%d+:%d+: error: ", said)
    assert.matches("setup: the build has failed\n$", said)
  end)

  it("builds and runs the C example", function()
    if not shell.has "cc" then return pending "cc is not installed" end
    local function make(format, ...)
      return succeeds("make -C %s/examples/c CFLAGS='-Wall -Wextra -Werror' " .. format, root, ...)
    end
    make ""
    assert.matches("\nthe same bits\n$", succeeds("cd / && %s/examples/c/logprob cpu", root))
    -- With an installed library, all of whose folders have such names.
    succeeds("cd %s && mkdir 'an in' 'a lib' 'the out' && cp src/samebits.h 'an in' && " ..
             "cp -a build/release/libsamebits.so* 'a lib'", root)
    make("INCLUDE=%s/'an in' LIB=%s/'a lib' OUT=%s/'the out'", root, root, root)
    assert.matches("\nthe same bits\n$", succeeds("cd / && %s/'the out'/logprob cpu", root))
    local libraries = succeeds("ldd %s/'the out'/logprob", root)
    assert.truthy(libraries:find("/a lib/libsamebits.so", 1, true), libraries)
    -- What is there already is not built again.
    local again = make ""
    assert.truthy(again:find("up to date", 1, true), again)
  end)

  it("compiles the README's C program by the README's line", function()
    if not shell.has "cc" then return pending "cc is not installed" end
    local readme = files:read "check out/README.md"
    files:write("check out/first.c", readme:match "\n```c\n(.-\n)```\n")
    local said = there(readme:match "\n    (cc first%.c [^\n]*build/release[^\n]*)\n")
    assert.truthy(readme:find("prints `" .. said:gsub("\n$", "") .. "`", 1, true), said)
  end)

  it("makes the kernels' driver for the CPU in such a folder", function()
    local missing = lanes.missing()
    if missing then return pending(missing) end
    succeeds("mkdir %s/spec/parity && cp -a spec/parity/lanes %s/spec/parity", root, root)
    succeeds("%s/spec/parity/lanes/build %s 32 stats.o lanes.o files.o", root,
             files:path "the lanes")
    assert.truthy(io.open(files:path "the lanes/stats.o", "rb")):close()
  end)
end)
