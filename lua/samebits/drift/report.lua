--- The result of a comparison. Fields (counts are numbers of tokens):
--
-- * `equal`: no token differs, the same ones are active on both sides, and no inputs differ;
-- * `inputs`: what both sides gave, but not alike, in this order: `field` (ids, mask, cu_seqlens,
--   temperature, kept), `different` of `of` tokens (of cu_seqlens: entries), and `first`: `row`,
--   `sequence`, `position` (of cu_seqlens: `index`; of kept also `id`), and what is there,
--   `a` and `b`;
-- * `a`, `b`: `label`, `name`, `source` (a path), `logprobs` and `logits`: whether they were given,
--   `dtype` of the logprobs, `logits_dtype`, `vocab`, `kept` (whether there are kept sets),
--   `temperature` ("per token" where it is not one), `with` (a list: which of ids, mask and
--   cu_seqlens the side gave), `unused` (a list of names in its file);
-- * `shape`, `sequences`, and `tokens`: `compared`, `equal`, `different`, `only_a` and `only_b`
--   (active on that side alone), `inactive`;
-- * `first`: the first token that differs: `row`, `sequence`, `position`, `id`, `a`, `b`, `a_hex`,
--   `b_hex`, `ulps` (nil with a NaN), `difference` (b - a), `ratio`, `cause`, `cause_exact`; and
--   `worst`: a list of such tokens, the largest difference first;
-- * `ulps`: `max` and `histogram`, a list of `low`, `high`, `count`; `difference`: `mean`,
--   `mean_abs`, `max_abs`, `histogram`, and `not_finite`: tokens that differ, but by no number;
-- * `ratio`: of B to A, e^(b - a): `min`, `max`, `mean`, and `bands`, a list of `width`, `inside`,
--   `outside`; `kl`: means of `k1`, `k2`, `k3`; all of the `finite` tokens, which are finite on
--   both sides;
-- * `causes`: a list of `cause`, `text`, `tokens` (each token is given to one cause),
--   `tokens_exactly`, `exactly` and `nearly` (how many it explains, whatever else does) and, where
--   they were fitted, `temperature`, `top_k` (with bounds `top_k_low`, `top_k_high`), `top_p` (with
--   `top_p_low`, `top_p_high`) and `p_temperature`; `unexplained`, and `unexplained_small`: those
--   of them that differ by `near` or less;
-- * `logits`: `compared` and `different` rows, where both sides gave them, and `columns` where one
--   vocabulary is padded: of the first ones, which both have; `op.a` and `op.b`, of a side that
--   gave both logprobs and logits: of the tokens that differ, `checked`, `different` from the
--   contract's, `max_ulps`;
-- * `positions`: a list of `first`, `last`, `compared`, `different`, `mean`, `max`;
--   `worst_sequences`: `sequence`, `tokens`, `different`, `sum` (of differences), `not_finite`;
--   `by_sequence`: the same of more of them, for the page;
--   `sample`: tokens { row, a, b } for a plot;
-- * `verdict`: a word (verdict.lua), and `verdict_text`: why;
-- * `clips`: a list of `eps`, `below` and `above`: tokens whose ratio is outside 1 +- eps; `tails`:
--   histograms of the log ratio (tails.lua); `noise`: the noise floor (noise.lua); `segments`: by
--   round (segments.lua); `not_finite`: `tokens` that are not finite on a side, `nan_both`, and
--   `a` and `b`: `nan`, `minus_infinite`, `plus_infinite`;
-- * `alignment`: of sides in different layouts (align.lua); tokens then have `in_a` and `in_b`,
--   their places there, and sides their `shape`;
-- * `made`: when, where and by what; `files`: `path`, `size`, `sha256` (provenance.lua);
-- * `store`: the tokens one by one (store.lua), unless there are too many; `texts`: a tokenizer, if
--   one was given; `ids` and `layout`, for the exports;
-- * `near`; `notes`: a list of sentences; `version` and `numerics` of the library.

local ffi = require "ffi"
local file = require "samebits.io.file"
local misuse = require "samebits.misuse"
local tally = require "samebits.drift.tally"
local tensor = require "samebits.tensor"
local verdict = require "samebits.drift.verdict"
local version = require "samebits.lib"

local element = tensor.element

local M = {}

local Report = {}
Report.__index = Report

local function side_of(side)
  return {
    label = side.label, name = side.name, source = side.source,
    logprobs = side.logprobs ~= nil, logits = side.logits ~= nil,
    dtype = side.dtype, logits_dtype = side.logits_dtype, vocab = side.vocab,
    temperature = tensor.is_tensor(side.temperature) and "per token" or side.temperature,
    shape = side.map and side.shape or nil, kept = side.kept ~= nil, with = side.with,
    unused = side.unused,
  }
end

-- A token's place in a side's own layout, of sides that were aligned. at: 1 for A, 3 for B.
local function place_in(run, row, at)
  if not run.layout.origin then return nil end
  local sequence, position = select(at, run.layout.origin(row))
  return sequence and { sequence = sequence, position = position } or nil
end

local function token_of(run, entry, compare)
  local ids = run.a.ids or run.b.ids
  local sequence, position = run.layout.place(entry.row)
  local a, b = tally.value(entry.a), tally.value(entry.b)
  local ratio = compare(a, b)
  return {
    row = entry.row, sequence = sequence, position = position,
    id = ids and tonumber(ids:get(entry.row)) or nil, a = a, b = b,
    a_hex = tally.hex(entry.a), b_hex = tally.hex(entry.b), ulps = tally.ulps(entry.a, entry.b),
    difference = b - a, ratio = ratio, cause = entry.cause, cause_exact = entry.cause_exact,
    by = entry.by, in_a = place_in(run, entry.row, 1), in_b = place_in(run, entry.row, 3),
  }
end

-- Puts the texts of tokens in.
local function read_texts(run, tokens)
  if not run.texts then return end
  local ids = {}
  for _, token in ipairs(tokens) do ids[#ids + 1] = token.id end
  local texts = run.texts:texts(ids)
  for _, token in ipairs(tokens) do token.token = texts[token.id] end
end

local function plural(n, one, several) return n == 1 and one or several end

local function notes_of(run)
  local count, out = run.tally, { unpack(run.layout.notes) }
  local function note(n, ...) if n > 0 then out[#out + 1] = string.format(...) end end
  for _, side in ipairs { run.a, run.b } do
    local at, label = side.label:lower(), side.label
    local zero, positive, nan = count["zero_" .. at], count["positive_" .. at], count["nan_" .. at]
    note(side.inexact or 0, "%s is float64; %d of its values are no fp32 numbers and were rounded.",
         label, side.inexact or 0)
    note(nan, "%s is NaN at %d token%s.", label, nan, plural(nan, "", "s"))
    note(positive, "%s is above 0 at %d token%s: no logprob is.", label, positive,
         plural(positive, "", "s"))
    note(zero, "%s is exactly 0 at %d token%s where %s is not: what masked tokens get.", label,
         zero, plural(zero, "", "s"), label == "A" and "B" or "A")
  end
  local why = run.layout.alignment and "" or " (mask or ignored id)"
  note(count.only_a, "%d token%s active in A only%s.", count.only_a,
       plural(count.only_a, " is", "s are"), why)
  note(count.only_b, "%d token%s active in B only%s.", count.only_b,
       plural(count.only_b, " is", "s are"), why)
  for _, input in ipairs(run.inputs) do
    note(input.field == "ids" and 2 * input.different >= input.of and 1 or 0,
         "If the sequences are the same in another order, align (--align) pairs them by their ids.")
  end
  return out
end

local function op_of(run, label)
  local op = run.op and run.op[label]
  return op and op.checked > 0 and op or nil
end

local function logits_of(run)
  if run.rows_compared == 0 then return nil end
  local out = { compared = run.rows_compared, different = run.rows_different }
  if run.a.vocab ~= run.b.vocab then out.columns = math.min(run.a.vocab, run.b.vocab) end
  return out
end

local function not_finite_of(count)
  local out = { tokens = count.compared - count.finite, nan_both = count.nan_both }
  for _, at in ipairs { "a", "b" } do
    out[at] = { nan = count["nan_" .. at], minus_infinite = count["minus_infinite_" .. at],
                plus_infinite = count["plus_infinite_" .. at] }
  end
  return out
end

--- Makes the report of a finished run (drift.lua).
function M.new(run)
  local count = run.tally
  local finite = math.max(count.finite, 1)
  local function mean(name) return count.sums[name]:total() / finite end

  local pair = tensor.zeros({ 2 }, "float32")
  local p = ffi.cast("float *", pair.ptr)
  local function ratio(a, b)
    if a ~= a or b ~= b then return 0 / 0 end
    p[0], p[1] = a, b
    local each = run.ratio(pair:slice(0, 0, 1), pair:slice(0, 1, 2))
    return element.read.float32(each.ptr, 0)
  end

  local worst = {}
  for i, entry in ipairs(count.worst) do worst[i] = token_of(run, entry, ratio) end
  local worst_sequences = {}
  for i, s in ipairs(count.sequences) do
    s.rank = nil
    if i <= count.keep then worst_sequences[i] = s end
  end
  local bands = {}
  for i, width in ipairs(tally.BANDS) do
    bands[i] = { width = width, inside = count.bands[i], outside = count.finite - count.bands[i] }
  end
  local first = count.first and token_of(run, count.first, ratio) or nil
  read_texts(run, { first })
  read_texts(run, worst)
  local self = {
    equal = count.different == 0 and count.only_a == 0 and count.only_b == 0 and #run.inputs == 0,
    inputs = run.inputs,
    a = side_of(run.a), b = side_of(run.b), shape = run.layout.shape,
    sequences = run.layout.sequences,
    tokens = { compared = count.compared, equal = count.equal, different = count.different,
               only_a = count.only_a, only_b = count.only_b, inactive = count.inactive },
    first = first, worst = worst,
    ulps = { max = count.max_ulps, histogram = count:ulps() },
    difference = { mean = mean "difference", mean_abs = mean "absolute",
                   max_abs = count.max_difference, histogram = count:differences(),
                   not_finite = count.not_finite },
    ratio = { min = count.finite > 0 and count.min_ratio or 1,
              max = count.finite > 0 and count.max_ratio or 1,
              mean = count.finite > 0 and mean "ratio" or 1, bands = bands },
    kl = { k1 = mean "k1", k2 = mean "k2", k3 = mean "k3" }, finite = count.finite,
    causes = run.causes, unexplained = run.unexplained,
    unexplained_small = run.unexplained_small,
    logits = logits_of(run),
    op = { a = op_of(run, "A"), b = op_of(run, "B") },
    positions = count:positions(), worst_sequences = worst_sequences,
    by_sequence = count.sequences, sample = count.sample,
    clips = count.tails.clips, tails = count.tails:histogram(), not_finite = not_finite_of(count),
    noise = count.noise:report({ a = run.a.dtype, b = run.b.dtype }, count.containers),
    segments = count.segments:report(), made = run.made, files = run.files, store = run.store,
    alignment = run.layout.alignment,
    texts = run.texts, ids = run.a.ids or run.b.ids, layout = run.layout,
    near = run.opts.near, notes = notes_of(run), version = version.version,
    numerics = version.numerics,
  }
  self.verdict, self.verdict_text = verdict.of(self)
  return setmetatable(self, Report)
end

--- The report for a terminal. opts: `width` (80 columns), `color` (false).
-- @tparam[opt] table opts
-- @treturn string
function Report:text(opts) return require("samebits.drift.text").format(self, opts or {}) end

--- The report as one JSON object (docs/drift.md describes it). It needs dkjson. If a path
-- is given, the object is written there, and the result is true, or nil and a message.
-- @tparam[opt] string path
-- @treturn string|boolean the text, or true; or nil and a message
Report.json = misuse.guard(function(self, path)
  return file.deliver("json", require("samebits.drift.json").format(self), path)
end)

--- The report as a page of HTML with plots, which needs no other file. If a path is given,
-- the page is written there, and the result is true, or nil and a message.
-- @tparam[opt] string path
-- @treturn string|boolean the text, or true; or nil and a message
Report.html = misuse.guard(function(self, path)
  return file.deliver("html", require("samebits.drift.html").format(self), path)
end)

-- Writes the tokens in a format into a file, or returns them as a string.
local function export(self, format, path)
  if path ~= nil then file.check_path(format, path) end
  local parts = require("samebits.drift.export")[format](self)
  if path ~= nil then return file.write(path, parts) end
  local out = {}
  for i, part in ipairs(parts) do out[i] = ffi.string(part.ptr, part.size) end
  return table.concat(out)
end

--- The tokens that count on a side, as comma-separated values (docs/drift.md has the columns). If a
-- path is given, they are written there, and the result is true, or nil and a message.
Report.csv = misuse.guard(function(self, path) return export(self, "csv", path) end)

--- The same as JSON lines: one object per token.
Report.jsonl = misuse.guard(function(self, path) return export(self, "jsonl", path) end)

--- Returns the report in one line.
function Report:__tostring() return require("samebits.drift.text").headline(self) end

-- Methods by class, for samebits.repl.sources.
M.classes = { Report = Report }

return M
