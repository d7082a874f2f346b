-- bin/samebits loads no Lua module and no library from the current folder, which may hold files of
-- other people. Code at the prompt can load them, after all other places.

local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

local quote = shell.quote

-- Every module of others that the command line may ask for, and names that anybody may plant.
local NAMES = { "argparse", "dkjson", "samebits", "samebits/cli", "samebits/repl", "ffi", "bit",
                "say", "luassert" }
local PLANTED = "io.stderr:write 'PLANTED\\n' os.exit(66)\n"

local files, bin

setup(function()
  files = temporary.folder()
  bin = quote(shell.run("pwd -P"):match "[^\n]+" .. "/bin/samebits")
  shell.run(("cd %s && mkdir samebits"):format(quote(files.name)))
  for _, name in ipairs(NAMES) do
    shell.run(("cd %s && mkdir -p %s"):format(quote(files.name), name))
    for _, ending in ipairs { ".lua", "/init.lua", ".so" } do
      files:write(name .. ending, PLANTED)
    end
  end
end)

teardown(function() files:remove() end)

-- Runs the command in the folder of planted files; `assignments` is what precedes it.
local function run(assignments, words)
  return shell.run(("cd %s && %s %s %s"):format(quote(files.name), assignments, bin, words))
end

describe("bin/samebits in a folder of planted modules", function()
  it("runs none of them", function()
    for _, assignments in ipairs {
      "env -u LUA_PATH -u LUA_CPATH", -- LuaJIT's own paths, which begin with ./?.lua and ./?.so
      "env LUA_PATH='./?.lua;?.lua;./?/init.lua;;' LUA_CPATH='./?.so;?.so;;'",
    } do
      for _, words in ipairs { "info", "help", "help drift", "selftest --help",
                               "repl </dev/null" } do
        local said, status = run(assignments, words)
        assert.equal(0, status, said)
        assert.is_nil(said:find("PLANTED", 1, true), said)
      end
      local said, status = run(assignments, "drift none.npy none.npy --json")
      assert.equal(2, status, said)
      assert.truthy(said:find("No such file", 1, true), said)
    end
  end)

  it("says that a module is missing rather than take it from there", function()
    local said, status = run("env LUA_PATH='./?.lua' LUA_CPATH='./?.so'", "info")
    assert.equal(2, status, said)
    assert.truthy(said:find("needs the Lua module argparse", 1, true), said)
  end)

  it("says where a folder's name divides or ends an entry of Lua's paths", function()
    for _, name in ipairs { "a;b", "a?b" } do
      local root = quote(files:path(name))
      local said, status = shell.run(("mkdir -p %s/bin && cp bin/samebits %s/bin && cd %s && " ..
                                      "%s/bin/samebits info"):format(root, root,
                                                                     quote(files.name), root))
      assert.equal(2, status, said)
      assert.matches("^samebits: [^\n]* folder with ; or %? in its name: [^\n]*\n$", said)
    end
  end)

  it("gives a script of the prompt's the modules that lie there, last", function()
    files:write("own.lua", "return 'my own'\n")
    files:write("script.lua", "print(require 'own', (pcall(require, 'dkjson')))\n")
    local said, status = run("env -u LUA_PATH -u LUA_CPATH", "-i script.lua </dev/null")
    assert.equal(0, status, said)
    assert.equal("my own\ttrue\n", said)
  end)
end)
