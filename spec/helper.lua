--- Runs before the first spec file (see .busted): refuses any Lua but LuaJIT, adapts busted to FFI
-- code, loads the library once, adds assertions, and ends the output with one line that a program
-- can read:
--
--     12 passed, 0 failed, 3 skipped
--
-- SB_JUNIT names a JUnit file to write.

if not rawget(_G, "jit") then
  io.stderr:write("samebits needs LuaJIT, and this is ", _VERSION,
                  ": run luajit \"$(command -v busted)\"\n")
  os.exit(1)
end

local busted = require "busted"
local ffi = require "ffi"

-- busted caches the results of ffi.typeof by its first argument alone: typeof("$[?]", float) would
-- be returned for typeof("$[?]", double), too. Only plain declarations may be cached.
local function upvalue(f, wanted)
  for i = 1, 20 do
    local name, value = debug.getupvalue(f, i)
    if name == wanted then return value end
  end
end
local remembered, typeof = ffi.typeof, upvalue(ffi.typeof, "original")
if typeof then
  ffi.typeof = function(declaration, ...)
    if type(declaration) == "string" and select("#", ...) == 0 then
      return remembered(declaration)
    end
    return typeof(declaration, ...)
  end
end

-- What is loaded here stays loaded: spec files share it, and a shared library is opened once.
-- Without libsamebits.so the first one fails, as each spec that requires it will say again; the
-- others do without. For them to say why, the marks of a failed require must go.
for _, name in ipairs { "samebits", "samebits.bits", "samebits.io.npy", "samebits.io.safetensors",
                        "samebits.luassert" } do
  if not pcall(require, name) then
    for loaded, value in pairs(package.loaded) do
      if loaded:find("^samebits") and type(value) ~= "table" then package.loaded[loaded] = nil end
    end
  end
end

local counts = { success = 0, failure = 0, error = 0, pending = 0 }

-- Failures outside of a test: a file that does not load, a describe, a setup, a teardown.
local function outside(element)
  if element.descriptor ~= "it" then counts.error = counts.error + 1 end
  return nil, true
end

busted.subscribe({ "test", "end" }, function(_, _, status)
  counts[status] = counts[status] + 1
  return nil, true
end)
busted.subscribe({ "error" }, outside)
busted.subscribe({ "failure" }, outside)

local junit = os.getenv "SB_JUNIT"
if junit and junit ~= "" then require "spec.support.junit".start(busted, junit) end

-- The last event that busted publishes, whatever its output handler.
busted.subscribe({ "exit" }, function()
  io.stdout:write(("\n%d passed, %d failed, %d skipped\n"):format(
    counts.success, counts.failure + counts.error, counts.pending))
  io.stdout:flush()
  return nil, true
end)
