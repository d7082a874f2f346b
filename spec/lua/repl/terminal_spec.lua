-- The prompt at a terminal: the program as a person drives it, under tmux.

local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

local SECONDS = 20   -- to wait for what should be there at once

local files
setup(function() files = temporary.folder() end)
teardown(function() files:remove() end)
before_each(function() os.remove(files:path "state/samebits/history") end)

-- A server each: one that has been told to end may still be there.
local opened = 0

-- What libedit and readline hold to the end is no leak of ours.
local SANITIZERS = (os.getenv "ASAN_OPTIONS" or "") .. ":detect_leaks=0"

-- A terminal in which a shell command runs until `close`. env comes last: tmux sets TERM itself.
local function terminal(command, term)
  opened = opened + 1
  local socket = files:path("socket" .. opened)
  local function tmux(words) return shell.run(shell.line("tmux -S %s ", socket) .. words) end
  local said, status = tmux(("-f /dev/null new-session -d -x 90 -y 50 %s"):format(shell.quote((
    "env TERM=%s ASAN_OPTIONS=%s XDG_STATE_HOME=%s/state %s; echo left $?; sleep 60"):format(
    term or "screen", SANITIZERS, shell.quote(files.name), command))))
  assert(status == 0, said)
  local at = {}
  function at.screen() return (tmux "capture-pane -p":gsub("%s+$", "") .. "\n") end
  -- Waits until the screen ends as a pattern says; else fails with what it shows.
  function at.shows(pattern)
    local past = os.time() + SECONDS
    repeat
      local screen = at.screen()
      if screen:find(pattern) then return screen end
      shell.run "sleep 0.02"
    until os.time() > past
    error(("the screen does not show '%s':\n%s"):format(pattern, at.screen()), 2)
  end
  function at.key(name) tmux("send-keys " .. name) end
  function at.resize(columns)
    local text, failed = tmux(("resize-window -x %d -y 50"):format(columns))
    assert(failed == 0, text)
  end
  function at.type(text) tmux("send-keys -l " .. shell.quote(text)) end
  function at.enter(text)
    at.type(text)
    at.key "Enter"
  end
  function at.close() tmux "kill-server" end
  return at
end

-- Runs f(terminal), which is closed whatever happens.
local function with(command, term, f)
  local at = terminal(command, term)
  local ok, why = pcall(f, at)
  at.close()
  if not ok then error(why, 0) end
end

local EDITORS = { libedit = "libedit.so.2", readline = "libreadline.so.8" }

local function missing(editor)
  if not shell.has "tmux" then return "tmux is not installed" end
  if editor and not pcall(require("ffi").load, EDITORS[editor]) then
    return EDITORS[editor] .. " is not installed"
  end
end

describe("a terminal with readline in colours", function()
  it("suggests the rest of a line, which Right takes", function()
    if missing "readline" then return pending(missing "readline") end
    with("SAMEBITS_LINES=readline bin/samebits repl", nil, function(at)
      at.shows "\n> ?\n$"
      at.enter "first = 20 + 1"
      at.shows "\n> first = 20 %+ 1\n>\n$" -- before more is typed, which would be echoed here
      at.type "fir"
      at.shows "\n> first = 20 %+ 1\n$"
      at.key "Enter"
      at.shows "\n> fir\nnil\n>\n$"
      at.type "firs"
      at.key "Right"
      at.enter "+ 3"
      at.enter "_, first"
      at.shows "\n> first = 20 %+ 1%+ 3\n> _, first\nnil, 24\n>\n$"
    end)
  end)
end)

for _, editor in ipairs { "libedit", "readline" } do
  describe("a terminal with " .. editor .. ":", function()
    local command = ("SAMEBITS_LINES=%s bin/samebits repl"):format(editor)

    it("completes, goes on over lines, and keeps a history between runs", function()
      if missing(editor) then return pending(missing(editor)) end
      with(command, nil, function(at)
        at.shows "help%(%).*\n> ?\n$"
        at.type "samebits.numer"
        at.key "Tab"
        at.shows "\n> samebits%.numerics\n$"
        at.key "Enter"
        at.shows "numerics\n1\n>\n$"
        at.enter "function twice(x)"
        at.shows "\n>>\n$"
        at.enter "  return 2 * x"
        at.enter "end"
        at.enter "twice(21)"
        at.shows "\n42\n>\n$"
        at.type 'load "spec/vectors/smollm2.s'
        at.key "Tab"
        at.shows "smollm2%.safetensors"
        -- readline closes the quote.
        at.enter(editor == "libedit" and '".ids:len()' or ".ids:len()")
        at.shows "\n4\n>\n$"
        at.type "nothing"
        at.key "C-c"
        at.shows "\n>\n$"
        at.key "C-d"
        at.shows "\nleft 0\n$"
      end)
      assert.equal("samebits.numerics\nfunction twice(x)\30  return 2 * x\30end\ntwice(21)\n" ..
                   'load "spec/vectors/smollm2.safetensors".ids:len()\n',
                   files:read "state/samebits/history")
      with(command, nil, function(at)
        at.shows "\n> ?\n$"
        at.key "Up"
        at.key "Up"
        at.shows "\n> twice%(21%)\n$"
        at.key "Up"
        at.key "Enter"
        at.shows "\n> function twice%(x%)\n  return 2 %* x\nend\n>\n$"
        at.enter "twice(4)"
        at.shows "\n8\n>\n$"
      end)
    end)

    it("Ctrl-C stops a statement, and drops a line or what began before it", function()
      if missing(editor) then return pending(missing(editor)) end
      with(command, nil, function(at)
        at.shows "\n> ?\n$"
        at.enter "print 'now' while true do end"
        at.shows "\nnow\n$"
        at.key "C-c"
        at.shows "\n%^C\ninterrupted\n>\n$"
        at.enter "for i = 1, 2 do"
        at.shows "\n>>\n$"
        at.type "print(i"
        at.shows "\n>> print%(i\n$"
        at.key "C-c"
        at.shows "\n>\n$"
        at.enter "'still ' .. 'here'"
        at.shows '\n"still here"\n>\n$'
        at.enter "quit"
        at.shows "\nleft 0\n$"
      end)
    end)
  end)
end

describe("the width of the terminal", function()
  it("is kept to by values, reports and help, also when it changes", function()
    if missing() then return pending(missing()) end
    with("bin/samebits repl", nil, function(at)
      at.shows "\n> ?\n$"
      at.enter "t = {} for i = 1, 24 do t[i] = 1000 + i end"
      at.enter "t"
      at.shows "\n  1001, 1002, .* 1014,\n  1015,.*\n}\n>\n$"
      at.enter "samebits.tensor(t)"
      at.shows "\n%[1001, 1002, .* 1015,\n 1016,.*%]\n>\n$"
      at.resize(48)
      at.enter "t"
      at.shows "\n  1001, 1002, 1003, 1004, 1005, 1006, 1007,\n  1008,.*\n}\n>\n$"
      at.enter "samebits.tensor(t)"
      at.shows "\n%[1001, .* 1008,\n 1009, .* 1016,\n 1017,.*%]\n>\n$"
      at.enter "help(ctx.topk)"
      at.shows "\nThe first k ids of each row by logit, largest\nfirst; among.*\n>\n$"
      at.enter "drift({ -1 }, { -2 })"
      local screen = at.shows "worst tokens\n.*\n>\n$"
      assert.is_truthy(screen:find("\n    Only logprobs were given: with the logits of\n", 1, true),
                       screen)
      at.key "C-d"
      at.shows "\nleft 0\n$"
    end)
  end)
end)

describe("a terminal that is dumb:", function()
  it("gets plain lines, without a control character", function()
    if missing() then return pending(missing()) end
    if not shell.has "script" then return pending "script is not installed" end
    with(shell.line("script -qec 'bin/samebits repl' %s", files:path "typed"), "dumb", function(at)
      at.shows "help%(%).*\n> ?\n$"
      at.enter "1 + 1"
      at.shows "\n2\n>\n$"
      at.enter "while true do end"
      shell.run "sleep 0.2"
      at.key "C-c"
      at.shows "\ninterrupted\n>\n$"
      at.type "samebits.numer"
      at.key "Tab"
      at.key "C-c"
      assert.is_nil(at.shows("\n>\n$"):find("samebits.numerics", 1, true))
      at.key "C-d"
      at.shows "\nleft 0\n$"
    end)
    assert.is_nil(files:read("typed"):find "\27")
  end)
end)

describe("samebits.debug at a terminal:", function()
  it("says where it stands, shows and sets locals, and goes on", function()
    if missing() then return pending(missing()) end
    local path = files:write("d.lua", [[
package.path = "./lua/?.lua;" .. package.path
local samebits = require "samebits"
local function f(alpha)
  local beta = alpha + 1
  samebits.debug()
  print("beta is", beta)
end
f(1)
]])
    with(shell.line("luajit %s", path), nil, function(at)
      at.shows(("%s:5, in function 'f'\n.*\n> +5 +samebits%%.debug.*\nlocals: alpha, beta\n" ..
                "upvalues: samebits\ndebug> ?\n$"):format(path))
      at.type "alp"
      at.key "Tab"
      at.shows "\ndebug> alpha\n$"
      at.key "Enter"
      at.shows "\n1\ndebug>\n$"
      at.enter "beta = 40"
      at.shows "beta = 40\ndebug>\n$"
      at.key "C-d"
      at.shows "\nbeta is +40\nleft 0\n$"
    end)
  end)
end)
