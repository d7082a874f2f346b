--- Writes a JUnit file in addition to the output handler's text. busted has a handler for such
-- files; this one starts it, refuses a path that cannot be written, and keeps the file valid XML
-- even where a message holds control characters or bytes that are not UTF-8, which XML cannot.

local printable = require "samebits.text.printable"

local M = {}

--- Converts text to what XML may hold.
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

--- To be called from a busted helper. The file is empty until busted ends, and complete then.
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
