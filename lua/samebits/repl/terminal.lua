--- Reads lines by libedit, by GNU readline, or without editing, whichever is available first.
--
-- Both libraries have the same functions. They are searched for when the first line is read, so
-- that nothing depends on either. A terminal that cannot move its cursor (TERM=dumb) gets plain
-- lines. SAMEBITS_LINES (libedit, readline, plain) overrides the choice.
--
-- While a library edits a line, the terminal sends no signal for Ctrl-C. Ctrl-C is then an ordinary
-- key, bound to a command that drops the line.

local ffi = require "ffi"
local interrupt = require "samebits.repl.interrupt"
local posix = require "samebits.io.posix"
local suggest = require "samebits.repl.suggest"

-- Compiled code must not call a function that calls back into Lua.
jit.off(true, true)

ffi.cdef [[
typedef struct samebits_termios {
  uint32_t iflag, oflag, cflag, lflag;
  uint8_t line, cc[32];
  uint32_t ispeed, ospeed;
} samebits_termios;
int samebits_libc_tcgetattr(int fd, samebits_termios *out) __asm__("tcgetattr");
int samebits_libc_tcsetattr(int fd, int when, const samebits_termios *in) __asm__("tcsetattr");
char *samebits_libc_strdup(const char *text) __asm__("strdup");
void samebits_libc_free(void *p) __asm__("free");

typedef char *(*samebits_line_generator)(const char *text, int state);
typedef char **(*samebits_line_completer)(const char *text, int first, int past);
typedef int (*samebits_line_command)(int count, int key);
char *samebits_line_readline(const char *prompt) __asm__("readline");
void samebits_line_add_history(const char *line) __asm__("add_history");
void samebits_line_using_history(void) __asm__("using_history");
void samebits_line_stifle_history(int most) __asm__("stifle_history");
int samebits_line_initialize(void) __asm__("rl_initialize");
int samebits_line_add_defun(const char *name, samebits_line_command f, int key)
  __asm__("rl_add_defun");
char **samebits_line_matches(const char *text, samebits_line_generator f)
  __asm__("rl_completion_matches");
extern samebits_line_completer samebits_line_attempted __asm__("rl_attempted_completion_function");
extern int samebits_line_attempted_over __asm__("rl_attempted_completion_over");
extern int samebits_line_append_character __asm__("rl_completion_append_character");
extern int samebits_line_done __asm__("rl_done");
extern char *samebits_line_buffer __asm__("rl_line_buffer");
typedef void (*samebits_line_action)(void);
void samebits_line_redisplay(void) __asm__("rl_redisplay");
extern samebits_line_action samebits_line_redisplay_function __asm__("rl_redisplay_function");
extern int samebits_line_point __asm__("rl_point");
extern int samebits_line_end __asm__("rl_end");
int samebits_line_insert(const char *text) __asm__("rl_insert_text");
int samebits_line_forward(int count, int key) __asm__("rl_forward_char");
int samebits_line_newline(int count, int key) __asm__("rl_newline");
int samebits_line_bind(const char *keys, samebits_line_command f) __asm__("rl_bind_keyseq");
extern const char *samebits_line_name __asm__("rl_readline_name");
extern const char *samebits_line_breaks __asm__("rl_basic_word_break_characters");
extern const char *samebits_line_completer_breaks __asm__("rl_completer_word_break_characters");
]]

local C = ffi.C
local M = {}

local VINTR = 0              -- its index among the terminal's characters; 0 there: none
local TCSADRAIN = 1
local CTRL_C = 3
local HISTORY = 4000         -- the largest number of lines that the library holds

-- Few characters, because paths are completed, too. In code, the completer finds where a name
-- begins.
local BREAKS = ffi.new("char[16]", " \t\n\"'({,;=")
local NAME = ffi.new("char[16]", "samebits")

-- Plain lines -------------------------------------------------------------------------------------

local Plain = { name = "plain" }
Plain.__index = Plain

function Plain.add() end

--- Returns a line; or nil and "end" or "interrupt".
function Plain.read(_, prompt)
  io.stdout:write(prompt)
  io.stdout:flush()
  interrupt.rearm()
  local line = io.stdin:read "*l"
  if interrupt.came() then
    interrupt.rearm()
    io.stdout:write "\n"
    return nil, "interrupt"
  end
  if not line then return nil, "end" end
  return (line:gsub("\r$", ""))
end

-- Edited lines ------------------------------------------------------------------------------------

local LIBRARIES = { { "libedit.so.2", "libedit" }, { "libreadline.so.8", "readline" } }

local Edited = {}
Edited.__index = Edited

-- The library, its name, and the callbacks that it was given. They are kept forever, as is the
-- completer of the prompt that is reading now.
local library, library_name, asked_for
local callbacks = {}
local complete, dropped, matches

local function attempt(text, first)
  matches = nil
  local word = ffi.string(text)
  -- The line is read from its beginning, because `first` counts characters and libedit may count
  -- wide ones.
  local line = library.samebits_line_buffer
  local before = line ~= nil and ffi.string(line):sub(1, first) or ""
  local list = complete(before, word)
  -- 0: names of files may be completed. Otherwise the list is complete.
  library.samebits_line_attempted_over = list and 1 or 0
  if not list or #list == 0 then return nil end
  -- readline resets this to a blank for every completion.
  library.samebits_line_append_character = 0
  matches = list
  return library.samebits_line_matches(text, callbacks.generate)
end

-- An error must not leave a callback.
local function make_callbacks()
  callbacks.complete = ffi.cast("samebits_line_completer", function(text, first)
    local ok, result = pcall(attempt, text, first)
    return ok and result or nil
  end)
  callbacks.generate = ffi.cast("samebits_line_generator", function(_, state)
    local match = matches and matches[state + 1]
    return match and C.samebits_libc_strdup(match) or nil
  end)
  callbacks.drop = ffi.cast("samebits_line_command", function()
    dropped = true
    library.samebits_line_done = 1
    return 0
  end)
end

-- The columns of a prompt, without its escapes.
local function width_of(prompt) return #prompt:gsub("\1.-\2", "") end

local entries, reading = {}, nil   -- the history; the prompt of the line that is edited

-- What may follow the line, if the cursor is at its end.
local function suggestion()
  if not reading or not reading.suggests then return nil end
  local line, at = library.samebits_line_buffer, library.samebits_line_point
  if line == nil or at ~= library.samebits_line_end then return nil end
  return suggest.rest(entries, ffi.string(line))
end

local function show_suggestion()
  local column = width_of(reading.prompt) + library.samebits_line_end
  local room = (posix.columns(1) or 0) - column - 1
  -- Only in the first row, where the column of the cursor is known.
  if room < 0 or library.samebits_line_point ~= library.samebits_line_end then return end
  io.stdout:write(suggest.drawn(suggestion(), room))
  io.stdout:flush()
end

-- For readline alone.
local function make_suggestions()
  callbacks.redisplay = ffi.cast("samebits_line_action", function()
    library.samebits_line_redisplay()
    if reading and reading.suggests then pcall(show_suggestion) end
  end)
  callbacks.forward = ffi.cast("samebits_line_command", function(count, key)
    local _, rest = pcall(suggestion)
    if type(rest) == "string" then return library.samebits_line_insert(rest) end
    return library.samebits_line_forward(count, key)
  end)
  callbacks.newline = ffi.cast("samebits_line_command", function(count, key)
    if reading and reading.suggests then
      io.stdout:write "\27[K"
      io.stdout:flush()
    end
    return library.samebits_line_newline(count, key)
  end)
  library.samebits_line_redisplay_function = callbacks.redisplay
  for _, keys in ipairs { "\\e[C", "\\eOC", "\\C-f" } do
    library.samebits_line_bind(keys, callbacks.forward)
  end
  for _, keys in ipairs { "\\C-m", "\\C-j" } do
    library.samebits_line_bind(keys, callbacks.newline)
  end
end

-- Finds the library and sets it up, once.
local function prepare()
  if asked_for then return library ~= nil end
  asked_for = true
  local wanted = os.getenv "SAMEBITS_LINES"
  if wanted == "" then wanted = nil end
  for _, candidate in ipairs(LIBRARIES) do
    local ok, loaded = (wanted or candidate[2]) == candidate[2], nil
    if ok then ok, loaded = pcall(ffi.load, candidate[1]) end
    -- A library of that name may be another one, so all the functions that are needed are checked.
    if ok and pcall(function()
      return loaded.samebits_line_readline, loaded.samebits_line_matches,
             loaded.samebits_line_add_defun, loaded.samebits_line_attempted_over
    end) then
      library, library_name = loaded, candidate[2]
      break
    end
  end
  if not library then return false end
  os.setlocale("", "ctype")   -- for letters beyond ASCII on the line
  make_callbacks()
  library.samebits_line_name = NAME
  library.samebits_line_initialize()
  library.samebits_line_using_history()
  library.samebits_line_stifle_history(HISTORY)
  library.samebits_line_attempted = callbacks.complete
  library.samebits_line_append_character = 0
  library.samebits_line_breaks = BREAKS
  library.samebits_line_completer_breaks = BREAKS
  library.samebits_line_add_defun("samebits-drop-line", callbacks.drop, CTRL_C)
  if library_name == "readline" then make_suggestions() end
  return true
end

-- Calls f while the terminal sends no signal for Ctrl-C.
local function without_interrupt_key(f, ...)
  local before, during = ffi.new "samebits_termios", ffi.new "samebits_termios"
  if C.samebits_libc_tcgetattr(0, before) ~= 0 then return f(...) end
  ffi.copy(during, before, ffi.sizeof "samebits_termios")
  during.cc[VINTR] = 0
  C.samebits_libc_tcsetattr(0, TCSADRAIN, during)
  local result = f(...)
  C.samebits_libc_tcsetattr(0, TCSADRAIN, before)
  return result
end

--- Returns a line; or nil and "end" or "interrupt".
function Edited:read(prompt)
  io.stdout:flush()
  complete, dropped = self.complete, false
  -- A suggestion that is not faint would look like typed text.
  reading = { prompt = prompt, suggests = prompt:find("\1", 1, true) ~= nil }
  local line = without_interrupt_key(library.samebits_line_readline, prompt)
  reading = nil
  local text
  if line ~= nil then
    text = ffi.string(line)
    C.samebits_libc_free(line)
  end
  if dropped then
    -- readline has returned to the first column.
    io.stdout:write(library_name == "readline" and "\n" or "^C\n")
    return nil, "interrupt"
  end
  if not text then return nil, "end" end
  return text
end

--- Adds an entry to the lines that the arrow keys show.
function Edited.add(_, entry)
  entries[#entries + 1] = entry
  library.samebits_line_add_history(entry)
end

--- Opens the terminal.
-- @tparam function completer (before, word) to a list of words, or nil if names of files may be
-- completed
-- @return an object with `name`, `read(prompt)` and `add(entry)`
function M.open(completer)
  local term = os.getenv "TERM"
  if term and term ~= "" and term ~= "dumb" and posix.is_terminal(0) and posix.is_terminal(1) and
     prepare() then
    return setmetatable({ name = library_name, complete = completer }, Edited)
  end
  return setmetatable({}, Plain)
end

return M
