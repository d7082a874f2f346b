-- The pieces of the prompt, and the program where its input is no terminal.

local ffi = require "ffi"
local samebits = require "samebits"
local chunk = require "samebits.repl.chunk"
local complete = require "samebits.repl.complete"
local frames = require "samebits.repl.frame"
local history = require "samebits.repl.history"
local interrupt = require "samebits.repl.interrupt"
local lib = require "samebits.lib"
local manual = require "samebits.repl.manual"
local posix = require "samebits.io.posix"
local pretty = require "samebits.repl.pretty"
local sources = require "samebits.repl.sources"
local wrap = require "samebits.text.wrap"
local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

local files
setup(function() files = temporary.folder() end)
teardown(function() files:remove() end)

describe("chunks:", function()
  local function values(text)
    local f, keeps = assert(chunk.compile(text, "=prompt"))
    setfenv(f, setmetatable({}, { __index = _G }))
    if keeps then chunk.keep(f, function() end) end
    return f()
  end

  it("expressions give their values, with = or without", function()
    for text, want in pairs { ["1 + 1"] = 2, ["=1 + 1"] = 2, [" = 1 + 1"] = 2, ["#'abc'"] = 3,
                              ["return 2"] = 2, ["1 + 1 -- two"] = 2, ["(\n1 + 1)"] = 2 } do
      assert.equal(want, values(text), text)
    end
    assert.same({ 1, 2, 3 }, { values "1, 2, 3" })
    assert.equal(0, select("#", values ""))
    assert.equal(0, select("#", values "-- nothing"))
    assert.equal(0, select("#", values "x = 1"))
  end)

  for _, text in ipairs { "for i = 1, 3 do", "x =", "f(", "{ 1,", "function f()", "[[abc", "= 1 +",
                          "if x then\n  y = 1", "1 +", "repeat", "--[[ a", "local x <nope" } do
    it(("%q goes on in the next line, or is wrong"):format(text), function()
      local f, why, unfinished = chunk.compile(text, "=prompt")
      assert.is_nil(f)
      assert.equal(text ~= "local x <nope", unfinished, why)
    end)
  end

  it("what no further line can mend is wrong at once", function()
    for text, words in pairs { ["x x"] = "near 'x'", ["1 + * 2"] = "near '%*'", ["'abc"] = "string",
                               ["end"] = "near 'end'", ["= x ="] = "near '='" } do
      local f, why, unfinished = chunk.compile(text, "=prompt")
      assert.is_nil(f)
      assert.is_falsy(unfinished, text)
      assert.matches(words, why)
      assert.matches("^prompt:1: ", why)
    end
  end)

  it("bytecode is no text", function()
    local f, why = chunk.compile(string.dump(function() end), "=prompt")
    assert.is_nil(f)
    assert.is_string(why)
  end)

  it("locals of the outermost block are kept, with nil and with inner blocks left out", function()
    local kept = {}
    local function run(text)
      local f, keeps = chunk.compile(text, "=prompt")
      setfenv(f, {})
      local forget = keeps and chunk.keep(f, function(name, value) kept[name] = value end)
      f()
      if forget then forget() end
      return f
    end
    local f = run "local a, b = 5, 6 do local c = 7 end local function g() end"
    assert.same({ 5, 6 }, { kept.a, kept.b })
    assert.is_nil(kept.c)
    assert.is_function(kept.g)
    assert.is_nil(next(getfenv(f)))
    run "local d = 1 return d"
    assert.is_nil(kept.d)
  end)

  it("an error in an expression has its place", function()
    local ok, why = pcall(chunk.compile("error 'oops'", "=prompt"))
    assert.is_false(ok)
    assert.equal("prompt:1: oops", why)
    ok, why = pcall(chunk.compile("\n\nnowhere.near", "=stdin"))
    assert.is_false(ok)
    assert.matches("^stdin:3: ", why)
  end)

  it("become one line where that is the same program", function()
    assert.equal("x = 1", chunk.one_line "x = 1")
    assert.equal("function f(a) return a end", chunk.one_line "function f(a)\n  return a\nend")
    assert.is_nil(chunk.one_line "x = 1 -- one\ny = 2")
    assert.is_nil(chunk.one_line "x = [[\na]]")
    assert.is_nil(chunk.one_line "f\nx x")
  end)
end)

describe("completion:", function()
  local names, scope
  setup(function()
    local t = samebits.zeros { 2, 3 }
    local circle = { first = 1 }
    setmetatable(circle, { __index = circle })
    names = {
      samebits = samebits, t = t, C = lib.C, batch = samebits.batch { logits = t, ids = { 0, 1 } },
      ctx = assert(samebits.open "cpu"), word = "text", circle = circle, empty = {},
      data = { logits = t, ["a b"] = 1, nested = { deep = t } },
      list = { { name = 1 } },
      loud = setmetatable({}, { __index = function() error "was called" end }),
    }
    scope = {
      names = function(visit) for name in pairs(names) do visit(name) end end,
      get = function(name) return names[name] end,
    }
  end)
  teardown(function() names.ctx:close() end)

  local function words(word, before)
    local list = complete.candidates(before or "", word, scope)
    return list and table.concat(list, " ")
  end

  it("of names and keywords", function()
    assert.equal("samebits", words "sam")
    assert.equal("while word", words "w")
    assert.equal("print(word", words "print(wo")
    assert.equal("-t.shape", words "-t.sha")
    assert.equal("", words "")
    assert.equal("", words "nothing_like_it")
  end)

  it("of fields and methods, through __index tables", function()
    assert.equal("samebits.backends samebits.batch samebits.batch_from samebits.bits",
                 words "samebits.b")
    assert.equal("samebits.bits.hex", words "samebits.bits.h")
    assert.equal("ctx:logprob ctx:logprob_ids", words "ctx:log")
    assert.equal("ctx.isa", words "ctx.is")
    assert.equal("", words "ctx:is")
    assert.equal("batch:active", words "batch:a")
    assert.equal("word:format", words "word:fo")
    assert.equal("circle.first", words "circle.f")
    assert.equal("data.logits data.nested", words "data.")
    assert.equal("list[1].name", words "list[1].n")
    assert.equal("x*data.nested.deep", words "x*data.nested.d")
  end)

  it("of tensors and their rows", function()
    assert.equal("t:select t:set t:slice", words "t:s")
    assert.equal("t.shape", words "t.sh")
    assert.equal("t[0]:bits", words "t[0]:b")
    assert.equal("data.nested.deep[1]:is_contiguous", words "data.nested.deep[1]:is")
    assert.equal("", words "t[9]:b")
  end)

  it("of structs and functions of the library", function()
    assert.equal("batch.c.vocab", words "batch.c.vo")
    assert.equal("batch.c.row_count batch.c.row_list batch.c.row_stride batch.c.rows",
                 words "batch.c.row")
    assert.equal("C.sb_logprob C.sb_logprob_backward C.sb_logprob_ids", words "C.sb_logp")
    assert.equal("", words "batch.c:vo")
  end)

  it("finds every member of every struct", function()
    local declared = require "samebits.repl.declared"
    for _, name in ipairs { "sb_batch", "sb_logprob_out", "sb_launch", "sb_saved_row" } do
      local value = ffi.new(name)
      local members = declared.members(value)
      assert.is_true(#members > 3, name)
      for _, member in ipairs(members) do
        assert.has_no.errors(function() return value[member] end)
      end
    end
    assert.is_nil(declared.members(ffi.new "int64_t"))
  end)

  it("inside quotes of keys, and of files by those who know them", function()
    assert.equal("logits", words("l", 'data["'))
    assert.equal("logits", words("l", "print(data [ '"))
    assert.equal("", words("x", 'data["'))
    assert.is_nil(words("dump", 'load "'))
    assert.is_nil(words("dump", "x = 'it\\'s "))
    assert.equal("word", words("wo", "x = 'it' .. "))
    assert.equal("word", words("wo", [[x = "it's" .. ]]))
  end)

  it("calls nothing of the user's", function()
    assert.equal("", words "loud.x")
    assert.equal("", words "loud.x.y")
    assert.equal("", words "empty.x.y")
    assert.equal("", words "nobody.x")
    assert.equal("", words "f().x")
  end)
end)

describe("showing", function()
  it("numbers with the digits that tell them apart", function()
    for text, value in pairs { ["0.1"] = 0.1, ["0.30000000000000004"] = 0.1 + 0.2, ["nan"] = 0 / 0,
                               ["-inf"] = -1 / 0, ["inf"] = 1 / 0, ["-0"] = -1 / (1 / 0),
                               ["1048576"] = 2 ^ 20, ["5LL"] = 5LL,
                               ["18446744073709551615ULL"] = -1ULL } do
      assert.equal(text, pretty.text(value))
    end
  end)

  it("strings quoted, or of several lines as they stand", function()
    assert.equal([["a"]], pretty.text "a")
    assert.equal([['say "a"']], pretty.text 'say "a"')
    assert.equal([["\"it's\""]], pretty.text [["it's"]])
    assert.equal([["a\x00b\tc\x1b"]], pretty.text "a\0b\tc\27")
    assert.equal("a\nb", pretty.text "a\nb\n")
    assert.equal([[{ "a\nb" }]], pretty.text { "a\nb" })
  end)

  it("tables with what is in them, sorted", function()
    assert.equal("{}", pretty.text {})
    assert.equal([[{ 1, "two", a = { b = false }, ["end"] = 3, ["x y"] = 4 }]],
                 pretty.text { 1, "two", ["x y"] = 4, a = { b = false }, ["end"] = 3 })
    assert.equal("{ [0] = 1, [2.5] = 2 }", pretty.text { [0] = 1, [2.5] = 2 })
    local circle = { name = "c" }
    circle.self, circle.list = circle, { circle }
    assert.equal("{\n  list = { { itself, from further out } },\n  name = \"c\",\n" ..
                 "  self = { itself, from further out },\n}", pretty.text(circle))
    assert.equal("{ { { { { ... } } } } }", pretty.text { { { { { 1 } } } } })
    local shared = { 1 }
    assert.equal("{ { 1 }, { 1 } }", pretty.text { shared, shared })
  end)

  it("long ones cut, and says by how much", function()
    local long = {}
    for i = 1, 1000 do long[i] = i end
    local text = pretty.text(long)
    assert.matches("40,\n  %.%.%. %(960 more%),\n}$", text)
    for line in text:gmatch "[^\n]+" do assert.is_true(#line <= 80) end
    assert.matches("%(100 bytes more%)", pretty.text { ("x"):rep(500) })
    for i = 1, 100 do long["k" .. i] = i end
    assert.matches("%(1060 more%)", pretty.text(long))
  end)

  it("tensors, batches and contexts in their own words", function()
    local t = samebits.tensor { { 1, 2 }, { 3, 4 } }
    assert.equal(tostring(t), pretty.text(t))
    assert.equal("{ t = tensor float32 [2, 2] cpu }", pretty.text { t = t })
    assert.equal("{ tensor float32 [2] cpu [1, 2] }", pretty.text { t[0] })
    local batch = samebits.batch { logits = t, ids = { 0, 1 } }
    assert.equal(tostring(batch), pretty.text(batch))
    assert.matches("^sb_batch {\n  size = %d+,", (pretty.text(batch.c):gsub("^struct ", "")))
    assert.matches("vocab = 2LL", pretty.text(batch.c))
  end)

  it("statuses by name, number and meaning", function()
    assert.equal("SB_ERR_ID (4): an active target id outside [0, V)",
                 pretty.text(ffi.new("sb_status", 4)))
    assert.matches("^SB_OK %(0%)", pretty.text(lib.C.sb_probe("cpu", nil, 0)))
  end)

  it("reports in full, and inside of others in a line", function()
    local Report = { text = function() return "line 1\nline 2\n" end }
    Report.__index, Report.__tostring = Report, function() return "short" end
    local report = setmetatable({}, Report)
    assert.equal("line 1\nline 2", pretty.text(report))
    assert.equal("{ short }", pretty.text { report })
    local bad = setmetatable({}, { __tostring = function() error("no words", 0) end })
    assert.matches("no words", pretty.text(bad))
  end)

  it("functions by their place, wrapped ones by the inner", function()
    assert.matches("^function: .*bits%.lua:%d+$", pretty.text(samebits.ulp))
    assert.equal("function: built in", pretty.text(print))
  end)

  it("several values on a line, or on lines", function()
    assert.equal('nil, "no such file", 3', pretty.all(3, { nil, "no such file", 3 }))
    assert.equal("1\na\nb", pretty.all(2, { 1, "a\nb" }))
  end)
end)

describe("frames:", function()
  local outer = 10

  local function inside(a, use)
    local b, hidden = a + outer, "first" -- luacheck: ignore
    do
      local gone = 1 -- luacheck: ignore
    end
    local hidden = "second" -- luacheck: ignore
    local nothing -- luacheck: ignore
    use(frames.at(1))
    return a, b, outer, hidden
  end

  it("locals and upvalues are read, the inner of two first, and nil is found", function()
    local seen = {}
    inside(1, function(frame)
      for _, name in ipairs { "a", "b", "hidden", "nothing", "outer", "gone", "print" } do
        seen[name] = { frame:get(name) }
      end
      seen.names = { frame:names() }
    end)
    assert.same({ a = { true, 1 }, b = { true, 11 }, hidden = { true, "second" },
                  nothing = { true }, outer = { true, 10 }, gone = { false }, print = { false },
                  names = { { "a", "b", "hidden", "nothing", "use" }, { "frames", "outer" } } },
                seen)
  end)

  it("and written, from any depth", function()
    local function deeper(depth, f)
      if depth == 0 then return f() end
      local result = deeper(depth - 1, f)
      return result
    end
    local a, b, up, hidden = inside(1, function(frame)
      deeper(5, function()
        pcall(function() assert.is_true(frame:set("b", 99)) end)
        assert.is_true(frame:set("outer", 20))
        assert.is_true(frame:set("hidden", "third"))
        assert.is_false(frame:set("nowhere", 1))
      end)
    end)
    assert.same({ 1, 99, 20, "third" }, { a, b, up, hidden })
    outer = 10
  end)

  it("inside a coroutine; from another one it is refused", function()
    local got
    coroutine.wrap(function()
      inside(5, function(frame)
        got = { frame:get "b" }
        local ok, why = coroutine.wrap(function() return pcall(frame.get, frame, "b") end)()
        assert.is_false(ok)
        assert.matches("another coroutine", why)
      end)
    end)()
    assert.same({ true, 15 }, got)
  end)

  it("say where they are", function()
    local text
    inside(1, function(frame) text = frame:where() end)
    assert.matches("repl_spec%.lua:%d+, in function 'inside'\n", text)
    assert.matches("\n> *%d+ +use%(frames%.at%(1%)%)\n", text)
  end)
end)

describe("history:", function()
  it("is kept in a file that is its owner's alone, made with its folders", function()
    local path = files:path "a/b/history"
    assert.same({}, history.load(path))
    assert.is_true(history.append(path, { "x = 1", "y" }))
    assert.is_true(history.append(path, {}))
    assert.is_true(history.append(path, { "z" }))
    assert.same({ "x = 1", "y", "z" }, history.load(path))
    assert.equal("-rw------- drwx------ ", (shell.run(
      "cd %s && stat -c %s a/b/history a/b | tr '\\n' ' '", files.name, "%A")))
  end)

  it("keeps the last lines of many, and cuts the file at times", function()
    local lines = {}
    for i = 1, 4500 do lines[i] = "line " .. i end
    local path = files:write("long", table.concat(lines, "\n") .. "\n")
    local got = history.load(path)
    assert.equal(2000, #got)
    assert.equal("line 4500", got[2000])
    assert.equal(got[1], io.lines(path)())
  end)

  it("says why it cannot be kept", function()
    local path = files:write("file", "")
    local ok, why = history.append(path .. "/below/history", { "x" })
    assert.is_nil(ok)
    assert.matches("^" .. path .. "/below/history: ", why)
    ok, why = history.load(files.name)
    assert.is_nil(ok)
    assert.matches("not a regular file", why)
  end)
end)

describe("Ctrl-C:", function()
  ffi.cdef "int samebits_spec_raise(int signal) __asm__(\"raise\");"
  local restore
  before_each(function() restore = interrupt.watch() end)
  after_each(function() restore() end)

  it("ends a loop that never would, even one that catches errors", function()
    local f = loadstring "local raise = ... ; raise(2) while true do pcall(error) end"
    jit.off(f)
    local hook = debug.gethook()
    local ok, why = interrupt.call(function() f(ffi.C.samebits_spec_raise) end, tostring)
    assert.is_false(ok)
    assert.equal(interrupt.MESSAGE, why)
    assert.is_true(interrupt.came())
    assert.equal(hook, (debug.gethook()))
  end)

  it("is forgotten by rearm, and results and errors pass", function()
    ffi.C.samebits_spec_raise(2)
    assert.is_true(interrupt.came())
    interrupt.rearm()
    assert.is_false(interrupt.came())
    assert.same({ true, 1, 2 }, { interrupt.call(function() return 1, 2 end, tostring) })
    assert.same({ false, "e!" }, { interrupt.call(function() error("e", 0) end,
                                                  function(e) return e .. "!" end) })
  end)

  it("leaves a hook of the caller's as it was", function()
    local function hook() end
    debug.sethook(hook, "", 123)
    interrupt.call(function() end, tostring)
    local after, _, count = debug.gethook()
    debug.sethook()
    assert.equal(hook, after)
    assert.equal(123, count)
  end)
end)

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
      assert.matches("^ctx:stream%(%.%.%.%)\n\nA stream on the context's device",
                     (run("help " .. topic)))
    end
    assert.matches("function: built in", (run "help(print)"))
    assert.same({ "help: nothing is known of 'nowhere'; help() lists what is\n", 1 },
                { run "help 'nowhere'" })
    assert.matches("nothing is known of 'mask_from', but of samebits.mask_from_lengths, " ..
                   "samebits.mask_from_splits; help", (run "help 'mask_from'"))
    assert.matches("help: the value is nil", (run "help(nothing)"))
  end)

  it("help of modules and objects lists what they have", function()
    local said = run "help(samebits)"
    assert.matches("^samebits: token and sequence logprobs", said)
    for _, name in ipairs { "open(backend, opts)", "version", "verify(", "batch(spec, opts)" } do
      assert.is_truthy(said:find("\nsamebits." .. name, 1, true), name)
    end
    assert.equal(said, (run "help 'samebits'"))
    assert.matches("^Plots, by gnuplot.*\nsamebits%.plot%.draw%(", (run "help 'samebits.plot'"))
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
