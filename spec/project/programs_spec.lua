-- Programs of the tree that no other spec runs: the command lines of the tools.

local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

-- Runs a command; returns its exit status and output, both streams together.
local function run(command, ...)
  local output, status = shell.run(command, ...)
  return status, output
end

-- The names that a pattern of the shell stands for.
local function files_like(pattern)
  local list, _, output = {}, run("ls " .. pattern)
  for name in output:gmatch "[^\n]+" do list[#list + 1] = name end
  return list
end

describe("tools:", function()
  local files
  setup(function() files = temporary.folder() end)
  teardown(function() files:remove() end)

  it("the shell scripts parse", function()
    local scripts = 0
    for _, name in ipairs(files_like "tools/* .ci/run") do
      local first = io.lines(name)() or ""
      if first == "#!/bin/sh" or name:match "%.sh$" then
        scripts = scripts + 1
        local status, output = run("sh -n %s", name)
        assert.equal(0, status, output)
        if first:sub(1, 2) == "#!" and not name:match "%.sh$" then
          assert.equal(0, (run("test -x %s", name)), name .. " is not executable")
        end
      end
    end
    assert.is_true(scripts >= 5)
  end)

  it("gen_cdef.lua refuses other arguments", function()
    local status, output = run "luajit tools/gen_cdef.lua --chekc"
    assert.equal(1, status)
    assert.matches("unknown argument '%-%-chekc'", output)
  end)

  it("gen_cdef.lua refuses a header that it cannot read right", function()
    run("mkdir -p %s/tools %s/src %s/lua/samebits; cp tools/gen_cdef.lua %s/tools", files.name,
        files.name, files.name, files.name)
    for edit, words in pairs {
      ["/ffi begin/d"] = "the ffi marks are missing",
      ["/#define SB_ABI/d"] = "no #define SB_ABI",
      ["s/#define SB_ABI .*/#define SB_ABI (1 + 1)/"] = "SB_ABI is neither a number nor",
      ["s/ffi begin .*/&\\n#if 1/"] = "a preprocessor line between the ffi marks",
    } do
      run("sed %s src/samebits.h > %s/src/samebits.h", edit, files.name)
      local status, output = run("luajit %s/tools/gen_cdef.lua", files.name)
      assert.equal(1, status, edit)
      assert.truthy(output:find(words, 1, true), output)
      assert.same({}, files_like(shell.quote(files:path "lua/samebits")))
    end
  end)

  it("lint_floats.lua says where, and by its exit status", function()
    assert.same({ 0, "" }, { run "luajit tools/lint_floats.lua" })
    local path = files:write("planted.c", "float f(float x) { return x; }\nx = expf(y);\n")
    local status, output = run("luajit tools/lint_floats.lua %s", path)
    assert.equal(1, status)
    assert.equal(path .. ":2: exp of a library: x = expf(y);\n", output)
  end)
end)
