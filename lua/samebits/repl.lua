--- The prompt: `samebits repl`, and `samebits.debug()` inside a script.
--
--     samebits.debug()                 -- opens the prompt here, with the locals of this function
--     samebits.debug(ratio > 1.1)      -- only if the condition holds
--
-- docs/repl.md shows how to use it.
-- @module samebits.repl

local call = require "samebits.op.call"
local chunk = require "samebits.repl.chunk"
local color = require "samebits.repl.color"
local complete = require "samebits.repl.complete"
local context = require "samebits.context"
local frames = require "samebits.repl.frame"
local helpers = require "samebits.repl.helpers"
local history = require "samebits.repl.history"
local interrupt = require "samebits.repl.interrupt"
local lib = require "samebits.lib"
local magic = require "samebits.repl.magic"
local posix = require "samebits.io.posix"
local pretty = require "samebits.repl.pretty"
local printable = require "samebits.text.printable"
local tensor = require "samebits.tensor"
local terminal = require "samebits.repl.terminal"
local traceback = require "samebits.repl.traceback"
local wrap = require "samebits.text.wrap"

local print = print   -- the prompt's own, even if the user replaces print

local M = {}

local LEAVE = { exit = true, quit = true, ["exit()"] = true, ["quit()"] = true }

local function complain(text, colored)
  io.stdout:flush()
  local first, rest = printable.lines(text):match "^([^\n]*)(.*)$"
  local width = posix.columns(2)
  if width then first = wrap.line(first, width) end
  io.stderr:write(color.paint(colored, "error", first), color.paint(colored, "faint", rest), "\n")
end

-- Names -------------------------------------------------------------------------------------------

-- Looks names at the prompt up in this order: the prompt's own names (locals, `_`, replaced
-- helpers); the locals and upvalues of a frame; helpers; globals.
local function new_session(frame)
  local self = { own = {}, frame = frame, colored = color.enabled() }
  local globals = frame and frame:globals() or _G
  local env = self.own

  local special = helpers.make(function(name) return env[name] end)
  special.samebits = require "samebits"
  self.help = special.help
  -- Lua's own sees no rows of a tensor.
  function special.ipairs(value)
    if tensor.is_tensor(value) then return value:each() end
    return ipairs(value)
  end
  if frame then
    function special.where() print(frame:where()) end
  end

  local function open_context()
    local ctx, message = context.open()
    if not ctx then error(message, 0) end
    special.ctx = ctx
    return ctx
  end

  self.env = setmetatable(env, {
    __index = function(_, name)
      if frame then
        local found, value = frame:get(name)
        if found then return value end
      end
      local value = special[name]
      if value ~= nil then return value end
      if name == "ctx" and rawget(globals, name) == nil then return open_context() end
      return globals[name]
    end,
    __newindex = function(_, name, value)
      if frame and frame:set(name, value) then return end
      -- A helper is replaced only here, because other code has its own `load`.
      if special[name] ~= nil or name == "ctx" then
        rawset(env, name, value)
      else
        globals[name] = value
      end
    end,
  })

  self.scope = {
    get = function(name) return env[name] end,
    names = function(visit)
      for name in next, env do visit(name) end
      if frame then
        for _, list in ipairs { frame:names() } do
          for _, name in ipairs(list) do visit(name) end
        end
      end
      for name in pairs(special) do visit(name) end
      visit "ctx"
      for name in next, globals do if type(name) == "string" then visit(name) end end
      for name in next, _G do if type(name) == "string" then visit(name) end end
    end,
  }
  return self
end

local function keep(self, name, value) rawset(self.own, name, value) end

-- Running -----------------------------------------------------------------------------------------

-- Calls f. An error, with the frames above f, becomes one text.
local function protected(f)
  return interrupt.call(f, function(err)
    local text = type(err) == "string" and err or pretty.text(err)
    local lines = traceback.lines(f)
    -- A single frame is the typed line, which the message names already.
    if #lines > 1 then text = text .. "\n" .. table.concat(lines, "\n") end
    return text
  end)
end

local function pack(...) return { n = select("#", ...), ... } end

-- Runs a compiled chunk and shows its values. Returns true, or false and the error.
local function run(self, f, keeps, timed)
  setfenv(f, self.env)
  -- Typed code is interpreted, because Ctrl-C could not be noticed inside a compiled loop.
  jit.off(f, true)
  local forget = keeps and chunk.keep(f, function(name, value) keep(self, name, value) end)
  local ok, message = protected(function()
    local wall, cpu = posix.seconds(), os.clock()
    local values = pack(f())
    if timed then
      wall, cpu = posix.seconds() - wall, os.clock() - cpu
      local text = ("%s (cpu %s)"):format(magic.seconds(wall), magic.seconds(cpu))
      print(color.paint(self.colored, "faint", text))
    end
    if values.n > 0 then
      keep(self, "_", values[1])
      print(pretty.all(values.n, values, self.colored and color.values or nil))
    end
  end)
  if forget then forget() end
  io.stdout:flush()
  return ok, message
end

-- Compiles one text as chunk.compile does. What is no Lua (see magic.lua) becomes a function, too.
-- The fourth result is whether its time is taken.
local function compile(self, text, name)
  local asked = magic.question(text)
  if asked then
    return function()
      if asked == "" then self.help() else self.help(asked) end
    end, false, nil
  end
  local rest = magic.timed(text:match "^\n*(.*)$")
  local lines = text:match "^\n*"
  local f, keeps, unfinished = chunk.compile(rest and lines .. rest or text, name)
  if not f then return nil, keeps, unfinished end
  return f, keeps, nil, rest ~= nil
end

-- Reads lines from anything but a terminal, chunk after chunk, until the first error.
local function run_input(self)
  local text, first, number = nil, 1, 0
  for line in io.stdin:lines() do
    number = number + 1
    if not text then first = number end
    text = text and text .. "\n" .. line or line
    -- Line feeds in front, so that messages count the lines of the input.
    local f, keeps, unfinished, timed = compile(self, ("\n"):rep(first - 1) .. text, "=stdin")
    if f then
      local ok, message = run(self, f, keeps, timed)
      if not ok then
        complain(message)
        return 1
      end
      text = nil
    elseif not unfinished then
      complain(keeps)
      return 1
    end
  end
  if text then
    complain(("stdin:%d: the input ends inside a statement"):format(first))
    return 1
  end
  return 0
end

-- The conversation --------------------------------------------------------------------------------

-- Keeps typed lines for the arrow keys and for the next session.
local function new_memory(term)
  local path = history.path()
  local lines, why
  if path then lines, why = history.load(path) end
  local last, told
  local function tell(message)
    if not told then complain("samebits: the history is not kept: " .. message) end
    told = true
  end
  if why then
    tell(why)
    path = nil
  end
  for _, line in ipairs(lines or {}) do
    term:add(line)
    last = line
  end
  return function(text)
    if not text:find "%S" or text == last then return end
    last = text
    term:add(text)
    if not path then return end
    local ok, message = history.append(path, { text })
    if not ok then
      tell(message)
      path = nil
    end
  end
end

-- Reads one chunk. Returns its function and whether it keeps locals; false if there is nothing to
-- run; nil at the end.
local function read_chunk(self, term, remember, prompt)
  local text
  while true do
    local shown = text and (" "):rep(#prompt - 3) .. ">> " or prompt
    local line, why = term:read(color.prompt(self.colored and term.name ~= "plain", shown))
    if not line then
      if why == "end" and not text then return nil end
      if why == "end" then io.stdout:write "\n" end
      return false
    end
    if not text then
      if not line:find "%S" then return false end
      local word = line:match "^%s*(.-)%s*$"
      if LEAVE[word] and rawget(self.env, word:match "^%a+") == nil and
         rawget(_G, word:match "^%a+") == nil then
        remember(line)
        return nil, true
      end
    end
    text = text and text .. "\n" .. line or line
    local f, keeps, unfinished, timed = compile(self, text, "=prompt")
    if not unfinished then remember(text) end
    if f then return f, keeps, timed end
    if not unfinished then
      complain(keeps, self.colored)
      return false
    end
  end
end

local function converse(self, prompt)
  local term = terminal.open(function(before, word)
    return complete.candidates(before, word, self.scope)
  end)
  local remember = new_memory(term)
  while true do
    interrupt.rearm()
    local f, keeps, timed = read_chunk(self, term, remember, prompt)
    if f == nil then
      if not keeps then io.stdout:write "\n" end
      return
    end
    if f then
      interrupt.rearm()
      local ok, message = run(self, f, keeps, timed)
      -- The terminal has shown ^C without a line end. What ran may have ended normally.
      if interrupt.came() then io.stdout:write(ok and "\n(had ended)\n" or "\n") end
      if not ok then complain(message, self.colored) end
    end
  end
end

-- A conversation at a terminal; otherwise the lines of the input. Returns the exit status.
local function talk(self, prompt, greet)
  if not posix.is_terminal(0) or not posix.is_terminal(1) then return run_input(self) end
  greet()
  converse(self, prompt)
  return 0
end

-- Calls f with Ctrl-C handled, and without the caller's hook, which would affect the prompt.
local function attended(f, ...)
  local hook, mask, count = debug.gethook()
  debug.sethook()
  local restore = interrupt.watch()
  call.after = interrupt.look
  local function finish(ok, ...)
    call.after = nil
    restore()
    if hook then debug.sethook(hook, mask, count) end
    if not ok then error((...), 0) end
    return ...
  end
  return finish(pcall(f, ...))
end

-- Scripts -----------------------------------------------------------------------------------------

-- Runs a script. The prompt can then see the script's outermost locals, whether the script failed
-- or not. Returns true; false after a failure, which was reported; or nil and why there is no such
-- script.
local function run_script(self, path, arguments)
  local file, why = io.open(path, "rb")
  local text
  if file then
    text, why = file:read "*a"
    file:close()
  end
  if not text then return nil, why:find(path, 1, true) and why or ("%s: %s"):format(path, why) end

  _G.arg = { [0] = path, unpack(arguments) }
  text = text:gsub("^#[^\n]*", "")
  local f, keeps = chunk.compile_statements(text, "@" .. path)
  if not f then
    complain(keeps)
    return false
  end
  local function take(name, value) keep(self, name, value) end
  local forget = keeps and chunk.keep(f, take)
  local function start() f(unpack(arguments)) end
  local ok, message = interrupt.call(start, function(err)
    local words = type(err) == "string" and err or pretty.text(err)
    for level = 2, math.huge do
      local info = debug.getinfo(level, "f")
      if not info then break end
      if info.func == f then
        chunk.locals(level, take)
        break
      end
    end
    return table.concat({ words, unpack(traceback.lines(start)) }, "\n")
  end)
  if forget then forget() end
  io.stdout:flush()
  if not ok then complain(message) end
  return ok
end

-- Entries -----------------------------------------------------------------------------------------

local function greet()
  local text = ("samebits %s, numerics %d, %s. help() says what is at hand; Ctrl-D leaves."):format(
    lib.version, lib.numerics, jit.version)
  print(wrap.line(text, posix.columns(1) or #text))
end

--- Runs the prompt.
-- @tparam[opt] table opts `script`: the path of a script to run first, and `arguments`: a list of
-- its arguments
-- @treturn number the exit status: 0, or 1 if the input is not a terminal and a statement, or the
-- script, has failed; or nil and a message if the script cannot be read
function M.run(opts)
  opts = opts or {}
  local self = new_session()
  return attended(function()
    local ran = true
    if opts.script then
      local why
      ran, why = run_script(self, opts.script, opts.arguments or {})
      if ran == nil then return nil, why end
    end
    local status = talk(self, "> ", opts.script and function() end or greet)
    return (ran or posix.is_terminal(0)) and status or 1
  end)
end

--- Opens the prompt inside a script, with the locals and upvalues of the function that calls it.
-- They can be read and given other values. Ctrl-D continues the script.
-- @param[opt] condition if given, the prompt opens only if the condition is true
function M.debug(...)
  if select("#", ...) > 0 and not (...) then return end
  local frame = frames.at(2)
  local self = new_session(frame)
  attended(talk, self, "debug> ", function()
    local locals, upvalues = frame:names()
    print(frame:where())
    if #locals > 0 then print("locals: " .. table.concat(locals, ", ")) end
    if #upvalues > 0 then print("upvalues: " .. table.concat(upvalues, ", ")) end
  end)
end

return M
