--- What a verification found: for programs, and as a table for people.

local layout = require "samebits.layout"

local M = {}

local Report = {}
Report.__index = Report

local function plural(n, word) return ("%d %s%s"):format(n, word, n == 1 and "" or "s") end

local function first_of(found)
  local first = found.first
  if not first then return nil end
  return { output = first.output, sequence = first.sequence, position = first.position,
           id = first.id, want = first.want, got = first.got, want_value = first.want_value,
           got_value = first.got_value, ulps = first.ulps, text = found:bits_text() }
end

local function result_of(found)
  return { tokens = found.tokens, mismatches = found.mismatches, sequences = found.sums,
           sequence_mismatches = found.sum_mismatches, max_ulps = found.max_ulps,
           max_apart = found.max_apart, differences = found.count, error = found.message,
           first = first_of(found) }
end

-- A path's results together.
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
    for _, name in ipairs { "max_ulps", "max_apart" } do
      if result[name] and result[name] > (sum[name] or -1) then sum[name] = result[name] end
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

--- A report of what was run.
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
    -- The control group is there to drift.
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

-- Sums or counts differ, and no token does.
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

local function row(widths, cells)
  local out = {}
  for i, text in ipairs(cells) do
    local left = i == 1 or i == #cells
    out[i] = i == #cells and text or ("%" .. (left and "-" or "") .. widths[i] .. "s"):format(text)
  end
  return (table.concat(out, "  "):gsub("%s+$", ""))
end

local function table_of(self)
  local rows = { { "transform", "tokens" } }
  for _, path in ipairs(self.paths) do table.insert(rows[1], path.name) end
  table.insert(rows[1], "what differs from one batch of them all")
  for _, line in ipairs(self.transforms) do
    local cells = { line.name, tokens_of(line.results) }
    for p = 1, #self.paths do cells[#cells + 1] = cell(line.results[p]) end
    cells[#cells + 1] = line.about
    rows[#rows + 1] = cells
  end
  local widths = {}
  for _, cells in ipairs(rows) do
    for i, text in ipairs(cells) do widths[i] = math.max(widths[i] or 0, #text) end
  end
  local lines = {}
  for i, cells in ipairs(rows) do lines[i] = row(widths, cells) end
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

--- A table of transforms, tokens and mismatches, and what it comes to.
function Report:__tostring()
  local lines = head(self)
  lines[#lines + 1] = ""
  for _, line in ipairs(table_of(self)) do lines[#lines + 1] = line end
  lines[#lines + 1] = ""
  if sums_alone(self) then
    lines[#lines + 1] = "(n): no token, but n sums or counts of sequences are not the same"
  end
  for _, path in ipairs(self.paths) do
    for _, line in ipairs(verdict(path)) do lines[#lines + 1] = line end
  end
  return table.concat(lines, "\n")
end

return M
