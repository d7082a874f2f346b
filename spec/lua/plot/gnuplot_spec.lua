-- Running gnuplot: what comes back of a script, by programs that stand in for it, and how strings
-- are quoted for it.

local gnuplot = require "samebits.plot.gnuplot"
local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

local files, luajit
setup(function()
  files = temporary.folder()
  luajit = shell.run("command -v luajit"):match "[^\n]+"
end)
teardown(function() files:remove() end)

-- What gnuplot.run and is_installed give in a process whose only program is a gnuplot of this body;
-- without a body it has none. Each value in a line.
local function run(body, script)
  os.remove(files:path "gnuplot")
  if body then
    local path = files:write("gnuplot", "#!/bin/sh\n" .. body .. "\n")
    assert(os.execute("chmod +x " .. shell.quote(path)) == 0)
  end
  local code = files:write("run.lua", ([[
    package.path = "./lua/?.lua;" .. package.path
    local gnuplot = require "samebits.plot.gnuplot"
    local out, message = gnuplot.run(%q)
    io.write(tostring(out), "\n", tostring(message), "\n", tostring(gnuplot.is_installed()))
  ]]):format(script or "plot x"))
  return (shell.run("PATH=%s %s %s", files.name, luajit, code))
end

describe("gnuplot", function()
  it("gives what a script draws, without the user's settings", function()
    assert.equal("-d set title 'a \"b\"'\nnil\ntrue",
                 run('printf "%s " "$1"; read -r line <"$2"; printf "%s" "$line"',
                     "set title 'a \"b\"'\n"))
  end)

  it("leaves no files behind", function()
    run 'echo "$2" >"${0%/*}/name"; echo none'
    local name = files:read("name"):match "[^\n]+"
    assert.is_nil(io.open(name))
  end)

  it("is nil and its complaint in one line where it fails", function()
    local function fails(said) return run(("printf '%s' >&2; exit 1"):format(said)) end
    assert.equal("nil\ngnuplot failed: undefined variable: y\ntrue",
                 fails [[\nplot y\n     ^\n"/tmp/a" line 0: undefined variable: y\n\n]])
    assert.equal("nil\ngnuplot failed: no display\ntrue", fails [[warning\nno display\n]])
    assert.equal("nil\ngnuplot failed: it does not say why\ntrue", fails "")
  end)

  it("is nil and how to install it where it is missing", function()
    assert.equal("nil\n" .. gnuplot.MISSING .. "\nfalse", run(nil))
  end)
end)

describe("gnuplot's strings", function()
  it("are quoted in a line, with nothing that is expanded", function()
    assert.equal("'it''s `x` $y \\n'", gnuplot.quote "it's `x` $y \\n")
    assert.equal("'a b c d'", gnuplot.quote "a\nb\rc\td")
    assert.equal([['\x1b[31m\xff']], gnuplot.quote "\27[31m\255")
    assert.equal("'5%'", gnuplot.quote "5%")
    assert.equal("'2.5'", gnuplot.quote(2.5))
  end)

  it("are no formats where they label an axis", function()
    assert.equal("'5%% of it''s %%d'", gnuplot.label "5% of it's %d")
  end)
end)
