--- A report as one page: its plots, its script and the tokens are part of it. Without its script it
-- still has all plots, and the worst tokens.
--
-- It takes about 1 MB at most, whatever the number of tokens: the map's cells stand for blocks of
-- tokens, and the values of those furthest apart fill the room that is left (cells.lua).

local bit = require "bit"
local cells = require "samebits.drift.cells"
local export = require "samebits.drift.export"
local page = require "samebits.text.page"
local script = require "samebits.drift.script"
local style = require "samebits.drift.style"
local svg = require "samebits.drift.svg"
local text = require "samebits.drift.text"
local words = require "samebits.drift.words"

local M = {}

local escape, count, number = page.escape, words.count, words.number

-- Bytes of a page.
local MOST = 1e6

-- Sequences in the table.
local SEQUENCES = 400

-- How many colours causes have.
local COLORS = 10

-- Causes that say where a difference arises; nothing was computed again to prove them.
local FACTS = { op = true, logits = true, op_and_logits = true }

-- An encoding as bits: sign, exponent, fraction. Bits that the other encoding lacks are marked.
local function bits(hex, other)
  local word, mask = tonumber(hex, 16), bit.bxor(tonumber(hex, 16), tonumber(other, 16))
  local out = {}
  for i = 31, 0, -1 do
    local digit = bit.band(bit.rshift(word, i), 1)
    out[#out + 1] = bit.band(bit.rshift(mask, i), 1) == 1 and ("<i>%d</i>"):format(digit) or digit
    if i == 31 or i == 23 then out[#out + 1] = " " end
  end
  return "<code>" .. table.concat(out) .. "</code>"
end

local function inputs(add, report)
  if #report.inputs == 0 then return end
  add "<section><h2>Inputs that differ</h2><ul>"
  for _, input in ipairs(report.inputs) do add("<li>%s</li>", escape(words.input(input))) end
  add "</ul></section>"
end

local function sides(add, report)
  add "<section><h2>Compared</h2><dl>"
  for _, side in ipairs { report.a, report.b } do
    add("<dt>%s</dt><dd><b>%s</b><br><small>%s</small></dd>", side.label,
        escape(words.title(side)), escape(words.side(side, report.shape)))
  end
  add "</dl>"
  if #report.notes > 0 then
    add "<ul>"
    for _, note in ipairs(report.notes) do add("<li>%s</li>", escape(note)) end
    add "</ul>"
  end
  add "</section>"
end

local function meter(part, whole, open, color)
  return ('<div class="meter"><span%s style="width:%.1f%%%s"></span></div>'):format(
    open and ' class="open"' or "", part > 0 and math.max(100 * part / whole, 1) or 0,
    color and (";background:var(--c%d)"):format(color) or "")
end

local function causes(add, report)
  local whole = report.tokens.different
  add "<section><h2>Why</h2><table>"
  add '<tr><th class="left">cause</th><th>tokens</th><th>exactly</th><th></th></tr>'
  for i, cause in ipairs(report.causes) do
    add('<tr><td class="left"><span class="swatch" style="background:var(--c%d)"></span>' ..
        '<b>%s</b><br>%s.</td><td>%s of %s</td><td>%s</td><td>%s</td></tr>',
        (i - 1) % COLORS, escape(words.CAUSES[cause.cause]), escape(cause.text),
        count(cause.tokens), count(whole),
        count(cause.tokens_exactly), meter(cause.tokens, whole, nil, (i - 1) % COLORS))
  end
  if report.unexplained > 0 then
    add('<tr><td class="left"><span class="swatch" style="background:var(--open)"></span>' ..
        '<b>unexplained</b><br>%s</td><td>%s of %s</td><td></td>' ..
        '<td>%s</td></tr>', escape(words.unexplained(report)), count(report.unexplained),
        count(whole), meter(report.unexplained, whole, true))
  end
  add "</table>"
  for _, fact in ipairs(words.facts(report)) do add("<p>%s</p>", escape(fact)) end
  add("<p><small>Each cause was computed again for every token that differs. Exactly: bit for " ..
      "bit; the others are within %s nats, and an eighth of the difference.</small></p></section>",
      number(report.near))
end

local function tile(add, value, label)
  add("<div><b>%s</b><small>%s</small></div>", escape(value), escape(label))
end

local function figures(add, report)
  if report.finite == 0 then return end
  add '<section><h2>How far</h2><div class="tiles">'
  tile(add, count(report.ulps.max), "ULPs at most")
  tile(add, number(report.difference.max_abs), "largest |B - A|, nats")
  tile(add, number(report.difference.mean_abs), "mean |B - A|")
  tile(add, number(report.difference.mean), "mean of B - A")
  tile(add, words.near_one(report.ratio.min), "smallest ratio of B to A")
  tile(add, words.near_one(report.ratio.max), "largest ratio of B to A")
  for _, band in ipairs(report.ratio.bands) do
    tile(add, words.percent(band.outside, report.finite),
         ("of tokens outside 1 +- %g (%s)"):format(band.width, count(band.outside)))
  end
  for _, name in ipairs { "k1", "k2", "k3" } do
    tile(add, number(report.kl[name]), ("%s of KL(A || B), mean"):format(name))
  end
  add "</div></section>"
end

-- What drift alone would do to a clipped objective, and what the containers would.
local function clips(add, report)
  if report.finite == 0 then return end
  add '<section><h2>Clipped by drift alone</h2><table><tr><th class="left">ratio outside</th>'
  add "<th>tokens</th><th>share</th><th>below</th><th>above</th><th></th></tr>"
  for _, clip in ipairs(report.clips) do
    local n = clip.below + clip.above
    add('<tr><td class="left">1 &plusmn; %s</td><td>%s of %s</td><td>%s</td><td>%s</td>' ..
        '<td>%s</td><td>%s</td></tr>', number(clip.eps), count(n), count(report.finite),
        words.percent(n, report.finite), count(clip.below), count(clip.above),
        meter(n, report.finite, true))
  end
  add "</table>"
  local odd = words.not_finite(report)
  if odd then add("<p>%s</p>", escape(odd)) end
  add('<p><small class="floor">Noise floor: %s</small></p></section>',
      escape(table.concat(words.noise(report), " ")))
end

-- The map of tokens. The script draws it.
local function where(add, packed)
  if not packed then return end
  add '<section class="lively"><h2>Where</h2><div class="where"><div><div class="map">'
  add '<canvas id="map" tabindex="0" role="img" aria-label="Tokens by sequence and position, '
  add 'coloured by cause; the arrow keys move through them"></canvas></div>'
  add '<div id="legend" class="legend"></div>'
  add '<div id="worst" class="worst"><small>worst tokens</small></div></div>'
  add '<div id="card" class="card" aria-live="polite"></div></div>'
  add("<p><small>Rows are sequences, columns are positions%s. Strong colours are far apart. " ..
      "Ringed: the worst tokens.</small></p></section>",
      (packed.per_row > 1 or packed.per_column > 1) and
      (", in blocks of %s by %s, of which the worst token is shown"):format(
        count(packed.per_row), count(packed.per_column)) or "")
end

local function rounds(add, report)
  if #report.segments == 0 then return end
  add '<section><h2>By round</h2><table class="sort"><tr><th>round</th><th>sequences</th>'
  add "<th>tokens</th><th>differ</th><th>mean of B - A</th><th>mean |B - A|</th><th>largest</th>"
  add "<th>outside 1 &plusmn; 0.1</th></tr>"
  for _, round in ipairs(report.segments) do
    add("<tr><td>%d</td><td>%s</td><td>%s</td><td>%s</td><td>%s</td><td>%s</td><td>%s</td>" ..
        "<td>%s</td></tr>", round.round, count(round.sequences), count(round.compared),
        count(round.different), number(round.mean), number(round.mean_abs), number(round.max),
        words.percent(round.outside, round.finite))
  end
  add "</table><p><small>A round is a run of tokens that count; what is masked ends it.</small></p>"
  add "</section>"
end

local function made(add, report)
  add '<section><h2>Made</h2><dl>'
  for _, fact in ipairs(words.made(report)) do
    add('<dt>%s</dt><dd class="path">%s</dd>', escape(fact[1]), escape(fact[2]))
  end
  add "</dl></section>"
end

-- Buckets of tokens that differ, without the empty buckets at both ends.
local function rows_of(buckets, label)
  local low, high
  for i, bucket in ipairs(buckets) do
    if i > 1 and bucket.count > 0 then low, high = low or i, i end
  end
  local rows = {}
  for i = low or 1, high or 0 do rows[#rows + 1] = { label(buckets[i]), buckets[i].count } end
  return words.folded(rows)
end

local function first(add, report)
  local token = report.first
  add("<section><h2>First mismatch</h2><p>Sequence %d, position %d%s: %s.</p><dl>", token.sequence,
      token.position, token.id and (", id %.0f"):format(token.id) or "",
      token.ulps and words.ulps(token.ulps) .. " apart" or "a NaN, which has no distance")
  for _, side in ipairs { { "A", token.a, token.a_hex, token.b_hex },
                          { "B", token.b, token.b_hex, token.a_hex } } do
    add("<dt>%s</dt><dd>%s <code>%s</code><br>%s</dd>", side[1], words.exact(side[2]), side[3],
        bits(side[3], side[4]))
  end
  add "</dl></section>"
end

local function plot(add, title, hint, drawing)
  add("<section><h2>%s</h2>%s<p><small>%s</small></p></section>", escape(title), drawing,
      escape(hint))
end

local function plots(add, report)
  add '<div class="two">'
  local same = ("The %s tokens with the same bits are left out."):format(count(report.tokens.equal))
  local tails = svg.tails(report.tails, report.clips, report.noise.mean, "Log ratio, both tails")
  if tails then
    plot(add, "Both tails", "Tokens by log ratio, on log axes. Dashed: clips. Shaded: the noise " ..
         "floor.", tails)
  end
  if #report.sample > 1 then
    plot(add, "Ratio by token", ("%s tokens%s, on a log axis with both tails."):format(
         count(#report.sample), #report.sample < report.finite and
         ", evenly picked from " .. count(report.finite) or ""),
         svg.ratios(report.sample, "Log ratio of B to A by logprob"))
  end
  if #report.positions > 1 then
    plot(add, "By position", "Strong: the mean of |B - A| over the tokens. Pale: the largest.",
         svg.positions(report.positions, "Difference by position"))
  end
  local differences = rows_of(report.difference.histogram, words.difference_range)
  if #differences > 0 then
    plot(add, "|B - A|", "Tokens by difference, in nats. " .. same,
         svg.bars(differences, "Tokens by difference"))
  end
  local ulps = rows_of(report.ulps.histogram, words.ulp_range)
  if #ulps > 0 then
    plot(add, "ULPs apart", "Tokens by distance. " .. same, svg.bars(ulps, "Tokens by ULPs"))
  end
  first(add, report)
  add "</div>"
end

local function worst_tokens(add, report)
  if #report.worst > 0 then
    add('<section class="%s"><h2>Worst tokens</h2><table><tr>', report.store and "still" or "")
    for _, title in ipairs { "sequence", "position", "id", "A", "B", "B - A", "ratio", "ULPs",
                             "cause" } do
      add("<th>%s</th>", title)
    end
    add "</tr>"
    for _, token in ipairs(report.worst) do
      local nearly = token.cause ~= "unexplained" and not token.cause_exact
      add("<tr><td>%d</td><td>%d</td><td>%s</td><td title=\"%s\">%s</td><td title=\"%s\">%s</td>" ..
          "<td>%s</td><td>%s</td><td>%s</td><td>%s%s</td></tr>", token.sequence, token.position,
          (token.id and ("%.0f"):format(token.id) or "-") ..
          (token.token and " " .. escape(words.token(token.token)) or ""), token.a_hex,
          words.exact(token.a),
          token.b_hex, words.exact(token.b), number(token.difference), words.near_one(token.ratio),
          token.ulps and count(token.ulps) or "-", words.CAUSES[token.cause],
          nearly and " (nearly)" or "")
    end
    add "</table></section>"
  end
end

-- The table of all tokens, which the script fills.
local function all_tokens(add, report, packed)
  if packed then
    add '<section id="tokens-section" class="lively"><h2>Tokens</h2><div class="tools">'
    add('<input id="find" type="search" placeholder="find %scause, id, sequence:position" ' ..
        'aria-label="find tokens">', report.texts and "text, " or "")
    add '<small id="found"></small><button id="save" type="button">save as CSV</button></div>'
    add '<div class="scroll"><table id="tokens"></table></div>'
    add '<p><button id="more" type="button" hidden></button></p>'
    if packed.held < report.tokens.different then
      add("<p><small>This page has the values of the %s tokens furthest apart, of %s that " ..
          "differ; --csv and --jsonl write all.</small></p>", count(packed.held),
          count(packed.different))
    end
    add "</section>"
  end
end

local function sequences(add, report)
  if #report.by_sequence > 0 and report.sequences > 1 then
    add '<section><h2>Sequences</h2><table class="sort"><tr><th>sequence</th>'
    add "<th>tokens</th>"
    add "<th>differ</th><th>sum of B - A</th><th>ratio of the sequence</th><th></th></tr>"
    for i = 1, math.min(#report.by_sequence, SEQUENCES) do
      local s = report.by_sequence[i]
      add("<tr><td>%d</td><td>%s</td><td>%s</td><td>%s</td><td>%s</td><td>%s</td></tr>", s.sequence,
          count(s.tokens), count(s.different), number(s.sum), words.near_one(math.exp(s.sum)),
          s.not_finite > 0 and count(s.not_finite) .. " not finite, left out" or "")
    end
    add "</table>"
    if #report.by_sequence > SEQUENCES then
      add("<p><small>The %d with the largest sums.</small></p>", SEQUENCES)
    end
    add "</section>"
  end
end

-- The packed tokens as JSON, which needs no other module.
local function data_of(report, packed)
  local list = {}
  for i, cause in ipairs(report.causes) do
    list[i] = ('{"name":%s,"text":%s,"color":"--c%d","fact":%s}'):format(
      export.quoted(words.CAUSES[cause.cause]), export.quoted(cause.text), (i - 1) % COLORS,
      tostring(FACTS[cause.cause] == true))
  end
  list[#list + 1] = ('{"name":"unexplained","text":"%s","open":true}'):format(
    (report.a.logits or report.b.logits) and "Nothing that was tried gives this value." or
    "Nothing that was tried gives this value. With logits, more could be tried.")
  local parts = {}
  for _, key in ipairs { "rows", "columns", "per_row", "per_column", "sequences", "longest",
                         "held" } do
    parts[#parts + 1] = ('"%s":%d'):format(key, packed[key])
  end
  for _, key in ipairs { "cells", "sizes", "values", "ids" } do
    parts[#parts + 1] = ('"%s":"%s"'):format(key, packed[key])
  end
  parts[#parts + 1] = ('"texts":[%s]'):format(table.concat(packed.texts, ","))
  if report.layout.origin then
    local origins = {}
    for s = 0, report.layout.sequences - 1 do
      local of_a, of_b = -1, -1
      local low, past = report.layout.bounds(s)
      for row = low, past - 1 do
        local a, _, b = report.layout.origin(row)
        of_a, of_b = a or of_a, b or of_b
      end
      origins[s + 1] = ("[%d,%d]"):format(of_a, of_b)
    end
    parts[#parts + 1] = ('"origins":[%s]'):format(table.concat(origins, ","))
  end
  if packed.lengths then
    parts[#parts + 1] = ('"lengths":[%s]'):format(table.concat(packed.lengths, ","))
  end
  parts[#parts + 1] = ('"near":"%s","causes":[%s]'):format(number(report.near),
                                                          table.concat(list, ","))
  return "{" .. table.concat(parts, ",") .. "}"
end

--- Returns the head of the page: the title, and around it the verdict and the one number.
function M.head(report, title)
  local tokens = report.tokens
  return ('<header><div><span class="verdict %s">%s</span>%s<p>%s</p></div>' ..
          '<div class="headline"><b>%s</b><small>of %s tokens differ</small></div></header>')
    :format(report.verdict, report.verdict, title or "", escape(report.verdict_text),
            words.percent(tokens.different, tokens.compared), count(tokens.compared))
end

local function bytes_of(parts)
  local n = 0
  for _, part in ipairs(parts) do n = n + #part + 1 end
  return n
end

-- Bytes of a page beside its parts, its style and its script.
local REST = 20000

--- Returns the page.
function M.format(report)
  local parts
  local function add(format, ...)
    parts[#parts + 1] = select("#", ...) > 0 and format:format(...) or format
  end
  local differs = report.tokens.different > 0
  local above, plotted, below = {}, {}, {}
  parts = above
  inputs(add, report)
  sides(add, report)
  if differs then causes(add, report) end
  if differs then
    parts = plotted
    clips(add, report)
    figures(add, report)
    plots(add, report)
    rounds(add, report)
    worst_tokens(add, report)
  end
  parts = below
  if differs then sequences(add, report) end
  made(add, report)

  local room = MOST - bytes_of(above) - bytes_of(plotted) - bytes_of(below) - #script - #style -
               REST
  local alone = report.tokens.only_a + report.tokens.only_b
  local packed = (differs or alone > 0) and cells.pack(report, room) or nil
  parts = above
  where(add, packed)
  for _, part in ipairs(plotted) do add("%s", part) end
  all_tokens(add, report, packed)
  for _, part in ipairs(below) do add("%s", part) end
  return page.format(text.headline(report), report.equal, parts, report, {
    style = style, head = function(title) return M.head(report, title) end,
    script = packed and script, data = packed and data_of(report, packed),
  })
end

return M
