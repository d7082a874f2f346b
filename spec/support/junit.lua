--- A JUnit file beside what the output handler shows. busted has a handler for such files; this one
-- starts it, refuses a path that cannot be written, and makes the file XML also where a message
-- holds what XML cannot: control characters and bytes that are not UTF-8.

local printable = require "samebits.text.printable"

local M = {}

--- Text as XML may hold it.
M.clean = printable.lines

local function rewrite(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read "*a"
  file:close()
  file = assert(io.open(path, "wb"))
  -- "skipped" is what others call the attribute.
  assert(file:write((M.clean(text):gsub("(<testsuites?[^>]*) skip=", "%1 skipped="))))
  assert(file:close())
end

--- From a helper of busted's; the file is there when busted ends, and empty until then.
function M.start(busted, path)
  local file, why = io.open(path, "wb")
  if not file then error("the JUnit file cannot be written: " .. why, 0) end
  file:close()
  local options = { arguments = { path }, language = "en" }
  require "busted.outputHandlers.junit"(options):subscribe(options)
  busted.subscribe({ "exit" }, function()
    rewrite(path)
    return nil, true
  end)
end

return M
