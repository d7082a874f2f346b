--- The result of a verification: for programs, and as a table for people.

local file = require "samebits.io.file"
local misuse = require "samebits.misuse"
local tensor = require "samebits.tensor"
local wrap = require "samebits.text.wrap"

local layout = tensor.layout

local M = {}

local Report = {}
Report.__index = Report

local NARROW = 12 -- columns that the last cell needs before it is wrapped

local function plural(n, word) return ("%d %s%s"):format(n, word, n == 1 and "" or "s") end

-- The place of the first difference or of the worst; nil if there is none.
local function place_of(found, at)
  if not at then return nil end
  return { output = at.output, sequence = at.sequence, position = at.position, id = at.id,
           want = at.want, got = at.got, want_value = at.want_value, got_value = at.got_value,
           ulps = at.ulps, text = found:bits_text(at) }
end

local function result_of(found)
  return { tokens = found.tokens, mismatches = found.mismatches, sequences = found.sums,
           sequence_mismatches = found.sum_mismatches, max_ulps = found.max_ulps,
           max_apart = found.max_apart, differences = found.count, error = found.message,
           first = place_of(found, found.first), worst = place_of(found, found.worst) }
end

-- The combined results of a path.
local function total(path, results)
  local sum = { name = path.name, kind = path.kind, backend = path.backend, context = path.label,
                tokens = 0, mismatches = 0, sequences = 0, sequence_mismatches = 0,
                differences = 0 }
  for _, entry in ipairs(results) do
    local result = entry.result
    for _, name in ipairs { "tokens", "mismatches", "sequences", "sequence_mismatches",
                            "differences" } do
      sum[name] = sum[name] + result[name]
    end
    if result.worst and result.max_ulps > (sum.max_ulps or -1) then
      sum.max_ulps, sum.worst = result.max_ulps, result.worst
      sum.worst.transform = entry.name
    end
    if result.max_apart and result.max_apart > (sum.max_apart or -1) then
      sum.max_apart = result.max_apart
    end
    if result.first and not sum.first then
      sum.first = result.first
      sum.first.transform = entry.name
    end
    if result.error and not sum.error then sum.error = entry.name .. ": " .. result.error end
  end
  sum.ok = sum.differences == 0 and not sum.error
  return sum
end

--- Makes the report of a run.
function M.new(run)
  local sample, batch = run.sample, run.batch
  local self = setmetatable({
    version = run.version, numerics = run.numerics, seed = run.seed, rounds = run.rounds,
    dtype = batch.logits.dtype, vocab = batch.vocab, shape = batch.logits.shape,
    sampled = { rows = sample.rows, of = sample.total, tokens = sample.tokens,
                sequences = #sample.sequences + 1, of_sequences = sample.of_sequences,
                whole = sample.whole },
    chosen_ids = not batch.ids, transforms = {}, paths = {}, ok = true,
  }, Report)
  for i, line in ipairs(run.lines) do
    local results = {}
    for p = 1, #run.paths do results[p] = line.found[p] and result_of(line.found[p]) or false end
    self.transforms[i] = { name = line.name, about = line.about, results = results }
  end
  for p, path in ipairs(run.paths) do
    local results = {}
    for _, line in ipairs(self.transforms) do
      if line.results[p] then
        results[#results + 1] = { name = line.name, result = line.results[p] }
      end
    end
    self.paths[p] = total(path, results)
    -- The control group is expected to drift.
    if path.kind ~= "conventional" and not self.paths[p].ok then self.ok = false end
  end
  return self
end

-- Text --------------------------------------------------------------------------------------------

local function head(self)
  local sampled = self.sampled
  local lines = { ("%s %s: %s of %s, seed %d"):format(self.dtype, layout.text(self.shape),
    plural(sampled.tokens, "active token"), plural(sampled.sequences, "sequence"), self.seed) }
  if not sampled.whole then
    lines[2] = ("a sample: %d of %s, %d of %s with active tokens"):format(sampled.rows,
      plural(sampled.of, "row"), sampled.sequences, plural(sampled.of_sequences, "sequence"))
  end
  if self.chosen_ids then lines[#lines + 1] = "no ids: each row's likeliest one is scored" end
  return lines
end

-- Whether sums or counts differ although no token does.
local function is_sums_alone(result)
  return result and result.mismatches == 0 and result.differences > 0
end

local function sums_alone(self)
  for _, line in ipairs(self.transforms) do
    for p = 1, #self.paths do
      if is_sums_alone(line.results[p]) then return true end
    end
  end
end

local function cell(result)
  if not result then return "-" end
  if result.error then return "failed" end
  if is_sums_alone(result) then return ("0 (%d)"):format(result.differences) end
  return tostring(result.mismatches)
end

local function tokens_of(results)
  for _, result in ipairs(results) do
    if result then return tostring(result.tokens) end
  end
  return "-"
end

-- The cells of the table; the head row comes first.
local function rows_of(self)
  local rows = { { "transform", "tokens" } }
  for _, path in ipairs(self.paths) do table.insert(rows[1], path.name) end
  table.insert(rows[1], "what differs from one batch of them all")
  for _, line in ipairs(self.transforms) do
    local cells = { line.name, tokens_of(line.results) }
    for p = 1, #self.paths do cells[#cells + 1] = cell(line.results[p]) end
    cells[#cells + 1] = line.about
    rows[#rows + 1] = cells
  end
  return rows
end

-- The last cell may take several lines if the width is limited.
local function row(widths, cells, width)
  local out, before = {}, 0
  for i = 1, #cells - 1 do
    out[i] = ("%" .. (i == 1 and "-" or "") .. widths[i] .. "s"):format(cells[i])
    before = before + widths[i] + 2
  end
  local start = table.concat(out, "  ") .. "  "
  local last = cells[#cells]
  if width and width - before >= NARROW then
    return wrap.words(last, width, start, (" "):rep(before))
  end
  return ((start .. last):gsub("%s+$", ""))
end

local function table_of(self, width)
  local rows, widths = rows_of(self), {}
  for _, cells in ipairs(rows) do
    for i, text in ipairs(cells) do widths[i] = math.max(widths[i] or 0, #text) end
  end
  local lines = {}
  for i, cells in ipairs(rows) do lines[i] = row(widths, cells, width) end
  return lines
end

local function verdict(path)
  local text
  if path.differences == 0 then
    text = ("%s: no bit changed in %s"):format(path.name, plural(path.tokens, "token"))
  else
    text = ("%s: %d of %s and %d of %s changed"):format(path.name, path.mismatches,
      plural(path.tokens, "token"), path.sequence_mismatches, plural(path.sequences, "sum"))
    if path.max_ulps then
      text = ("%s, by at most %.2g, or %s"):format(text, path.max_apart,
                                                   plural(tonumber(path.max_ulps), "ULP"))
    end
  end
  local lines = { text }
  local first = path.first
  if first then
    local where = first.sequence and ("sequence %d"):format(first.sequence) or "a row not active"
    if first.position then
      where = ("%s, position %d, id %d"):format(where, first.position, first.id)
    end
    lines[#lines + 1] = ("  first in '%s', %s of %s:"):format(first.transform, first.output, where)
    lines[#lines + 1] = "  " .. first.text
  end
  if path.error then lines[#lines + 1] = "  failed in " .. path.error end
  return lines
end

--- Returns a table of transforms, tokens and mismatches, and the conclusion. opts: `width`, the
-- columns of a line; by default as many as necessary.
-- @tparam[opt] table opts
-- @treturn string
function Report:text(opts)
  local width = opts and opts.width
  local lines = {}
  local function add(list)
    for _, line in ipairs(list) do
      lines[#lines + 1] = width and wrap.line(line, width) or line
    end
  end
  add(head(self))
  lines[#lines + 1] = ""
  for _, line in ipairs(table_of(self, width)) do lines[#lines + 1] = line end
  lines[#lines + 1] = ""
  if sums_alone(self) then
    add { "(n): no token, but n sums or counts of sequences are not the same" }
  end
  for _, path in ipairs(self.paths) do add(verdict(path)) end
  return table.concat(lines, "\n") .. "\n"
end

--- The report as one JSON object. It needs dkjson. If a path is given, the object is
-- written there, and the result is true, or nil and a message.
-- @tparam[opt] string path
-- @treturn string|boolean the text, or true; or nil and a message
Report.json = misuse.guard(function(self, path)
  return file.deliver("json", require("samebits.verify.json").format(self), path)
end)

--- The report as a page of HTML, which needs no other file. If a path is given, the page is
-- written there, and the result is true, or nil and a message.
-- @tparam[opt] string path
-- @treturn string|boolean the text, or true; or nil and a message
Report.html = misuse.guard(function(self, path)
  local words = { head = head(self), rows = rows_of(self), verdicts = {}, title =
                  self.ok and "verify: no bit changed" or "verify: bits changed" }
  for p, verified in ipairs(self.paths) do words.verdicts[p] = verdict(verified) end
  return file.deliver("html", require("samebits.verify.html").format(self, words), path)
end)

--- Returns the same as `text`, with lines as wide as necessary.
function Report:__tostring() return (self:text():gsub("\n$", "")) end

-- Methods by class, for samebits.repl.sources.
M.classes = { Report = Report }

return M
