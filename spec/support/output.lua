--- Prints the output of a run of the specs (see .busted; -o TAP and so on replace it): a mark for
-- each test as it ends, a line for each reason why tests were skipped, and the failures. It prints
-- no reason and no failure message twice. spec/helper.lua adds the closing line.
--
-- busted runs this file before the helper, and perhaps in another Lua than LuaJIT.

local busted = require "busted"
local pretty = require "pl.pretty"
local term = require "term"

local PLAIN = { success = "+", failure = "-", error = "*", pending = "." }
local COLOURS = { success = 32, failure = 31, error = 35, pending = 33 }

-- A list of groups, { key =, ... }, in the order of their first entries.
local function grouped(entries, key_of)
  local groups, at = {}, {}
  for _, entry in ipairs(entries) do
    local key = key_of(entry)
    if not at[key] then
      at[key] = { key = key }
      groups[#groups + 1] = at[key]
    end
    table.insert(at[key], entry)
  end
  return groups
end

-- pending "a name" has its reason in the name; pending "a reason" inside a test has it in the
-- message, behind a place in busted's own files.
local function reason(skip)
  local text = skip.message == nil and skip.element.name or tostring(skip.message)
  if skip.message ~= nil then text = text:gsub("^[^\n]-:%d+: ", "") end
  text = text:gsub("%s+", " ")
  return text:find "%w" and text or "no reason given"
end

local function message(failure)
  local text = failure.message
  if text == nil then return "no message" end
  return type(text) == "string" and text or pretty.write(text)
end

local function place(failure)
  local trace = failure.element.trace
  return trace and trace.short_src and (" -> %s @ %s"):format(trace.short_src, trace.currentline) or
         ""
end

return function(options)
  local handler = require "busted.outputHandlers.base" ()
  local on_terminal = io.type(io.stdout) == "file" and term.isatty(io.stdout)
  local seen_dots = false

  local function colour(status, text)
    return on_terminal and ("\27[%dm%s\27[0m"):format(COLOURS[status], text) or text
  end

  local function mark(status)
    if options.deferPrint then return end
    seen_dots = true
    io.stdout:write(colour(status, PLAIN[status]))
    io.stdout:flush()
  end

  local function skips(list)
    local groups = grouped(list, reason)
    table.sort(groups, function(a, b)
      if #a ~= #b then return #a > #b end
      return a.key < b.key
    end)
    for _, group in ipairs(groups) do
      print(("skipped  %d test%s: %s"):format(#group, #group == 1 and "" or "s", group.key))
      if options.verbose then
        for _, skip in ipairs(group) do print("    " .. skip.name) end
      end
    end
  end

  local function failures(list, status, word)
    for _, group in ipairs(grouped(list, message)) do
      print()
      for _, failure in ipairs(group) do
        if failure.randomseed then print("Random seed: " .. failure.randomseed) end
        print(("%s%s: %s"):format(colour(status, word), place(failure), failure.name))
      end
      print(group.key)
      local trace = group[1].trace
      if options.verbose and trace and trace.traceback then print(trace.traceback) end
    end
  end

  function handler.testEnd(_, _, status)
    mark(status)
    return nil, true
  end

  function handler.outside()
    mark "error"
    return nil, true
  end

  function handler.suiteEnd()
    print((seen_dots and "\n" or "") .. ("%.1f seconds"):format(handler.getDuration()))
    skips(handler.pendings)
    failures(handler.failures, "failure", "Failure")
    failures(handler.errors, "error", "Error")
    return nil, true
  end

  busted.subscribe({ "test", "end" }, handler.testEnd, { predicate = handler.cancelOnPending })
  busted.subscribe({ "suite", "end" }, handler.suiteEnd)
  for _, status in ipairs { "error", "failure" } do
    for _, descriptor in ipairs { "file", "describe" } do
      busted.subscribe({ status, descriptor }, handler.outside)
    end
  end
  return handler
end
