-- What `help` finds, and the program where its input is no terminal.

local samebits = require "samebits"
local manual = require "samebits.repl.manual"
local posix = require "samebits.io.posix"
local sources = require "samebits.repl.sources"
local wrap = require "samebits.text.wrap"
local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

local files
setup(function() files = temporary.folder() end)
teardown(function() files:remove() end)

describe("help:", function()
  it("of the library's functions comes from their sources", function()
    assert.matches("^open%(backend, opts%)\n\nOpens a backend%.", manual.of(samebits.open, "open"))
    assert.matches("^load%(path, name, opts%)\n\nLoads a file%.", manual.of(samebits.load, "load"))
    local t = samebits.zeros { 1 }
    assert.matches("The view of the indices", manual.of(t.slice, "t.slice"))
    assert.is_nil(manual.of(print))
    assert.is_nil(manual.of(loadstring "return 1"))
  end)

  it("there is of everything public", function()
    for name, value in pairs(samebits) do
      if type(value) == "function" then assert.is_string(manual.of(value, name), name) end
    end
    for _, class in ipairs(sources.CLASSES) do
      for _, method in ipairs(sources.methods(class)) do
        assert.is_table(method.doc, class.name .. ":" .. method.name)
        assert.is_truthy(manual.search(method.name), class.name .. ":" .. method.name)
      end
    end
  end)

  it("keeps to a width: paragraphs and lists flow, columns stay columns, code stays", function()
    local text = [[
one two three four five six seven
eight nine ten

* an item of a list, of several words
  that goes on
name        a text of several words beside a name
            that goes on in the column
    code = stays_as_it_is(however, long, it, is)]]
    assert.equal(text, wrap.page(text, 100))
    assert.equal([[
one two three four five six
seven eight nine ten

* an item of a list, of
  several words that goes on
name        a text of several
            words beside a
            name
            that goes on in
            the column
    code = stays_as_it_is(however, long, it, is)]], wrap.page(text, 29))
  end)
end)

describe("the program, where the input is no terminal:", function()
  -- Text to its input; its output with both streams, and its status.
  local function run(text, arguments)
    files:write("input", text)
    return shell.run(("XDG_STATE_HOME=%s/state bin/samebits repl %s <%s"):format(
      shell.quote(files.name), arguments or "", shell.quote(files:path "input")))
  end

  it("prints values and nothing else", function()
    assert.same({ "2\n", 0 }, { run "1 + 1" })
    assert.same({ "3\n6\n", 0 }, { run "for i = 1, 2 do\n  x = 3 * i\n  print(x)\nend\n" })
    assert.same({ "5\n5\n", 0 }, { run "local a = 5\na\n_\n" })
    assert.same({ "", 0 }, { run "" })
    assert.same({ '"bf000000"\n-0.5\n2\n', 0 },
                { run 'bits(-0.5)\nbits "bf000000"\nulp(1, 1.0000002)' })
    assert.is_nil(posix.kind_of_path(files:path "state"))
  end)

  it("stops at the first error, with its line", function()
    assert.same({ "1\nstdin:3: oops\n", 1 }, { run "1\n\nerror 'oops'\n2\n" })
    assert.same({ "stdin:2: '=' expected near 'x'\n", 1 }, { run "\nx x\n" })
    assert.same({ "stdin:2: the input ends inside a statement\n", 1 },
                { run "\nfor i = 1, 2 do\n" })
  end)

  it("tells the frames of an error down to what was typed", function()
    local output = run "function f(x) return x.y.z end\nlocal r = f {}\n"
    assert.equal("stdin:1: attempt to index field 'y' (a nil value)\n" ..
                 "  stdin:1 in function 'f'\n  stdin:2 in the main chunk\n", output)
  end)

  it("misuse is told in a line", function()
    assert.same({ "stdin:1: batch: logits is missing\n", 1 }, { run "samebits.batch {}" })
    assert.same({ "batch: ids is missing\n", 1 },
                { run "logprob { logits = samebits.zeros { 1, 2 } }" })
    local output, status = run 'x = load "nowhere.npy"\n'
    assert.same({ "nowhere.npy: No such file or directory\n", 1 }, { output, status })
  end)

  it("the helpers do what the library does", function()
    local output, status = run([[
d = load "spec/vectors/smollm2.safetensors"
out = logprob(d)
again = samebits.logprob { logits = d.logits, ids = d.ids, mask = d.mask }
samebits.same_bits(out.token, again.token)
ulp(out.token, out.token)
bits(out.token[0])[1] == bits(out.token[0][0])
ctx.device == "cpu" or ctx.device
show { 1, 2 }
]])
    assert.equal("true\n0\ntrue\ntrue\n{ 1, 2 }\n", (output:gsub('"cuda:0"', "true")))
    assert.equal(0, status)
  end)

  it("each helper has its help", function()
    local output = run "help()"
    for _, name in ipairs { "load", "logprob", "bits", "ulp", "drift", "show", "plot", "help" } do
      assert.matches("%f[%a]" .. name .. "%f[%A]", output)
      local by_name = run(("help %q"):format(name))
      assert.matches("^" .. name .. "[(%s]", by_name)
      assert.equal(by_name, (run(("help(%s)"):format(name))))
    end
  end)

  it("help of functions, by name or by value, wherever they are", function()
    assert.matches("^samebits%.open%(backend, opts%)", (run "help 'samebits.open'"))
    assert.matches("^samebits%.open%(backend, opts%)", (run "help(samebits.open)"))
    local topk = run "help 'ctx:topk'"
    assert.matches("^ctx:topk%(batch, k, opts%)\n\nThe first k ids of each row", topk)
    assert.matches("\n%* k %(number%): 1 to 64\n", topk)
    for _, topic in ipairs { "'topk'", "(ctx.topk)", "'ctx.topk'", "'topk()'" } do
      assert.equal(topk, (run("help " .. topic)))
    end
    -- What loads a module when it is called is told of as there.
    local verify = run "help 'samebits.verify'"
    assert.matches("^samebits%.verify%(value, options%)\n\nVerifies a batch%.", verify)
    assert.equal(verify, (run "help(samebits.verify)"))
    assert.equal(verify, (run "help 'verify'"))
    -- Two classes have one of this name.
    local to = run "help 'to'"
    assert.matches("batch:to%(device, opts%)\n\nThe batch on another device", to)
    assert.matches("t:to%(target, opts%)\n\nThe tensor in another dtype", to)
    for _, topic in ipairs { "'stream'", "(ctx.stream)", "'ctx.stream'" } do
      assert.matches("^ctx:stream%(pointer%)\n\nA stream on the context's device",
                     (run("help " .. topic)))
    end
    assert.matches("function: built in", (run "help(print)"))
    assert.same({ "help: nothing is known of 'nowhere'; help() lists what is\n", 1 },
                { run "help 'nowhere'" })
    assert.matches("what mentions 'mask_from'.*\nsamebits.mask_from_lengths", (run "?mask_from"))
    assert.equal(topk, (run "?ctx:topk"))
    assert.equal(topk, (run "topk?"))
    assert.equal(run "help()", (run "?"))
    assert.matches("help: the value is nil", (run "help(nothing)"))
  end)

  it("knows tensors: results as a table, ipairs and #", function()
    local said = run [==[
t = samebits.tensor { { 1, 2 }, { 3, 4 } }
for i, row in ipairs(t) do print(i .. " " .. row:sum()) end
for i, v in ipairs { "a" } do print(i .. " " .. v) end
{ token = t, count = samebits.tensor({ 2, 2 }, { dtype = "int64" }), lse = t * 2 }
#"#t" + #{ t }
#t[0]
]==]
    assert.equal([==[
0 3
1 7
1 a
count  int64    [2]     [2, 2]
lse    float32  [2, 2]  [[2, 4], [6, 8]]
token  float32  [2, 2]  [[1, 2], [3, 4]]
3
2
]==], said)
  end)

  it("takes the time of a statement", function()
    local said = run "%time x = 1\nx\n%time x +\n 1"
    local time = "[%d.e+-]+ [mu]?s %(cpu [%d.e+-]+ [mu]?s%)\n"
    assert.matches("^" .. time .. "1\n" .. time .. "2\n$", said)
  end)

  it("help of modules and objects lists what they have", function()
    local said = run "help(samebits)"
    assert.matches("^samebits: token and sequence logprobs", said)
    for _, name in ipairs { "open(backend, opts)", "version", "verify(", "batch(spec, opts)" } do
      assert.is_truthy(said:find("\nsamebits." .. name, 1, true), name)
    end
    assert.equal(said, (run "help 'samebits'"))
    assert.matches("^Plots: in the terminal.*\nsamebits%.plot%.draw%(",
                   (run "help 'samebits.plot'"))
    assert.matches("\nsamebits%.bits%.hex%(", (run "help(samebits.bits)"))
    said = run "help(ctx)"
    assert.matches("^samebits context: .*\nctx:topk%(batch, k, opts%) +The first k ids", said)
    assert.equal(said, (run "help 'ctx'"))
    assert.matches("^tensor float32 %[2%] cpu.*\nx:slice%(dim, from, to%)",
                   (run "x = samebits.zeros { 2 }\nhelp 'x'"))
    said = run "b = samebits.batch { logits = { { 0, 1 } }, ids = { 0 } }\nhelp(b)"
    assert.matches("^samebits.batch, one sequence.*\nbatch:bounds%(b%)", said)
    said = run "r = samebits.drift({ -1 }, { -2 })\nhelp(r)"
    assert.matches("^drift: 1 of 1 tokens.*\nr:html%(path%) +The report as a page", said)
    assert.equal("5\n", (run "help(5)"))
  end)

  it("reports write their pages", function()
    local page = files:path "page.html"
    assert.same({ "true\n", 0 },
                { run(('r = samebits.drift({ -1 }, { -2 })\nr:html %q'):format(page)) })
    assert.matches("^<!doctype html>.*drift: 1 of 1 tokens differ.*</html>\n$",
                   files:read "page.html")
    assert.matches('^nil, "/nowhere/p%.html: No such file', (run(
      'r = samebits.drift({ -1 }, { -2 })\nr:html "/nowhere/p.html"')))
    assert.matches("stdin:1: html: the path is number, not a string",
                   (run "samebits.drift({ -1 }, { -2 }):html(5)"))
  end)

  it("a helper's name is the user's to give, and the program's own `load` stays", function()
    assert.same({ '5\n"function"\n', 0 }, { run "load = 5\nload\ntype(_G.load)" })
  end)

  it("-i runs a script first, with its arguments, and sees its locals", function()
    local path = files:write("s.lua", "#!/usr/bin/luajit\nlocal a, b = ...\nlocal n = 3\n" ..
                                      "print(arg[0] ~= nil, arg[1], b)\n")
    assert.same({ "true\t--x\ty\n\"--x\"\n3\n", 0 },
                { run("a\nn", shell.line("-i %s --x y", path)) })
    assert.equal("true\t1\t-2\n",
                 (shell.run("bin/samebits -i %s 1 -2 </dev/null", path)))
  end)

  it("-i tells a script's failure, sees the locals there, and ends with 1", function()
    local path = files:write("f.lua", "local n = 3\nlocal function deep(x) return x.y.z end\n" ..
                                      "local r = deep {}\n")
    local output, status = run("n\n", shell.line("-i %s", path))
    assert.equal(([[
%s:2: attempt to index field 'y' (a nil value)
  %s:2 in function 'deep'
  %s:3 in the main chunk
3
]]):format(path, path, path), output)
    assert.equal(1, status)
    assert.same({ "samebits: nowhere.lua: No such file or directory\n", 2 },
                { run("", "-i nowhere.lua") })
    assert.matches("^Usage: samebits repl", (run("", "-i")))
    assert.equal(2, select(2, run("", "words")))
  end)

  it("samebits.debug reads and writes the locals of who calls it", function()
    local path = files:write("d.lua", [[
package.path = "./lua/?.lua;" .. package.path
local samebits = require "samebits"
local up = 1
local function f(a)
  local b = a + up
  samebits.debug(a > 1)
  return b, up
end
print(f(1))
print(f(2))
]])
    local input = files:write("lines", "a, b, up\nb = 40\nup = 50\nprint(b, up)\nwhere()\n")
    assert.same({ ("2\t1\n2, 3, 1\n40\t50\n%s:6, in function 'f'\n     4  local function f(a)\n" ..
                   "     5    local b = a + up\n>    6    samebits.debug(a > 1)\n" ..
                   "     7    return b, up\n     8  end\n40\t50\n"):format(path), 0 },
                { shell.run("luajit %s <%s", path, input) })
  end)
end)
