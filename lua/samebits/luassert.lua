--- Assertions about bits, for busted and other users of luassert.
--
--     require "samebits.luassert"
--
--     assert.same_bits(expected, actual)          -- the same encodings: +0 and -0 differ
--     assert.within_ulps(expected, actual, 2)     -- no number is more than 2 ULPs away
--     assert.batch_invariant(logprobs, batch)     -- a function of batches that verify passes
--     assert.is_not.same_bits(expected, actual)
--
-- docs/luassert.md describes them fully. Values are tensors, tables of numbers, FFI arrays, single
-- numbers, or tables of encodings in hex digits. Numbers take the dtype of the tensor or array that
-- they are compared with.

require "samebits.luajit"

local luassert = require "luassert"
local say = require "say"
local arrays = require "samebits.luassert.arrays"
local bits = require "samebits.bits"
local printable = require "samebits.text.printable"
local tensor = require "samebits.tensor"

local layout = tensor.layout

local TEXTS = {
  same_bits = { "Expected the same bits; of each pair the expected one stands first.",
                "Expected other bits than these: %s" },
  within_ulps = { "Expected them to be nearer; of each pair the expected one stands first.",
                  "Expected a larger distance than %s from these: %s" },
  batch_invariant = { "Expected the same bits in whatever batch.",
                      "Expected bits that depend on the batch, %s" },
}

local function register(name, check)
  say:set(("assertion.%s.positive"):format(name), TEXTS[name][1])
  say:set(("assertion.%s.negative"):format(name), TEXTS[name][2])
  luassert:register("assertion", name, check, ("assertion.%s.positive"):format(name),
                    ("assertion.%s.negative"):format(name))
end

-- Runs f. Invalid arguments are an error at the line of the assertion.
local function checked(name, level, f)
  local ok, a, b = pcall(f)
  if not ok then
    local message = tostring(a):gsub(("^%s: "):format(name), ""):gsub("^verify: ", "")
    error(("%s: %s"):format(name, message), (level or 1) + 2)
  end
  return a, b
end

-- These texts are shown unchanged in place of the arguments.
local function show(arguments, ...)
  arguments.n, arguments.nofmt = select("#", ...), {}
  for i = 1, math.max(arguments.n, #arguments) do
    arguments[i], arguments.nofmt[i] = (select(i, ...)), true
  end
end

local function describe(t)
  if t:numel() <= 4 then
    local values = {}
    for i, digits in ipairs(t:reshape(-1):bits()) do values[i] = digits end
    return ("%s %s %s"):format(t.dtype, layout.text(t.shape), table.concat(values, " "))
  end
  return ("%s %s"):format(t.dtype, layout.text(t.shape))
end

local function need(arguments, n)
  if arguments.n < n then
    error(("expected %d arguments, got %d"):format(n, arguments.n), 0)
  end
end

-- An assertion's own message comes before the description of the difference.
local function failure(what, report)
  return printable.lines((what ~= nil and tostring(what) .. ": " or "") .. tostring(report))
end

register("same_bits", function(state, arguments, level)
  local expected, what = nil, arguments[3]
  local same, report = checked("same_bits", level, function()
    need(arguments, 2)
    local actual
    expected, actual = arrays.pair(arguments[1], arguments[2], "expected", "actual")
    return bits.same_bits(expected, actual)
  end)
  if not same then
    state.failure_message = failure(what, report)
  elseif what ~= nil then
    state.failure_message = tostring(what)
  end
  show(arguments, describe(expected))
  return same
end)

register("within_ulps", function(state, arguments, level)
  local expected, n, what = nil, arguments[3], arguments[4]
  local near, report = checked("within_ulps", level, function()
    need(arguments, 3)
    local actual
    expected, actual = arrays.pair(arguments[1], arguments[2], "expected", "actual")
    return bits.within_ulps(expected, actual, n)
  end)
  if not near then
    state.failure_message = failure(what, report)
  elseif what ~= nil then
    state.failure_message = tostring(what)
  end
  show(arguments, ("%d ULP%s"):format(n, n == 1 and "" or "s"), describe(expected))
  return near
end)

-- The parts of a report that a person needs first.
local function invariance(report)
  local path, lines = report.paths[1], {}
  local function add(...) lines[#lines + 1] = string.format(...) end
  if path.differences > 0 then
    add("%d of %d tokens changed, by at most %s ULP%s", path.mismatches, path.tokens,
        tostring(path.max_ulps or "no number of"):gsub("U?LL$", ""),
        path.max_ulps == 1 and "" or "s")
  end
  local function place(what, at)
    add("%s in '%s', sequence %d, position %d, id %d:\n  %s", what, at.transform, at.sequence,
        at.position, at.id, at.text)
  end
  if path.first then place("first", path.first) end
  -- Unless the first difference is equally large.
  if path.worst and path.worst.ulps ~= path.first.ulps then place("worst", path.worst) end
  if path.error then add("it failed in %s", path.error) end
  for _, line in ipairs(report.transforms) do
    local result = line.results[1]
    if result and (result.differences > 0 or result.error) then
      add("  %-12s %6d of %d  %s", line.name, result.mismatches, result.tokens, line.about)
    end
  end
  return table.concat(lines, "\n")
end

register("batch_invariant", function(state, arguments, level)
  local report = checked("batch_invariant", level, function()
    need(arguments, 2)
    local options = {}
    for key, value in pairs(type(arguments[3]) == "table" and arguments[3] or {}) do
      options[key] = value
    end
    options.fn = arguments[1]
    -- Called through pcall, so that messages do not name a line of this file.
    local ok, report, why = pcall(require("samebits.verify").verify, arguments[2], options)
    if not ok or not report then error(ok and why or report, 0) end
    return report
  end)
  local what = type(arguments[3]) ~= "table" and arguments[3] or arguments[4]
  if not report.ok then
    state.failure_message = failure(what, invariance(report))
  elseif what ~= nil then
    state.failure_message = tostring(what)
  end
  show(arguments, ("but %d tokens of %d transforms kept them"):format(report.paths[1].tokens,
                                                                      #report.transforms))
  return report.ok
end)

return luassert
