--- A report as one page. Its plots are part of the page, and it runs no script.

local bit = require "bit"
local page = require "samebits.text.page"
local svg = require "samebits.drift.svg"
local text = require "samebits.drift.text"
local words = require "samebits.drift.words"

local M = {}

local escape, count, number = page.escape, words.count, words.number

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

local function meter(part, whole, open)
  return ('<div class="meter"><span%s style="width:%.1f%%"></span></div>'):format(
    open and ' class="open"' or "", whole > 0 and math.max(100 * part / whole, 1) or 0)
end

local function causes(add, report)
  local whole = report.tokens.different
  add "<section><h2>Why</h2><table>"
  add '<tr><th class="left">cause</th><th>tokens</th><th>exactly</th><th></th></tr>'
  for _, cause in ipairs(report.causes) do
    add('<tr><td class="left"><b>%s</b><br>%s.</td><td>%s of %s</td><td>%s</td><td>%s</td></tr>',
        escape(words.CAUSES[cause.cause]), escape(cause.text), count(cause.tokens), count(whole),
        count(cause.tokens_exactly), meter(cause.tokens, whole))
  end
  if report.unexplained > 0 then
    add('<tr><td class="left"><b>unexplained</b><br>%s</td><td>%s of %s</td><td></td>' ..
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

local function plot(add, title, hint, drawing)
  add("<section><h2>%s</h2>%s<p><small>%s</small></p></section>", escape(title), drawing,
      escape(hint))
end

local function plots(add, report)
  add '<div class="two">'
  local same = ("The %s tokens with the same bits are left out."):format(count(report.tokens.equal))
  local ulps = rows_of(report.ulps.histogram, words.ulp_range)
  if #ulps > 0 then
    plot(add, "ULPs apart", "Tokens by distance. " .. same, svg.bars(ulps, "Tokens by ULPs"))
  end
  local differences = rows_of(report.difference.histogram, words.difference_range)
  if #differences > 0 then
    plot(add, "|B - A|", "Tokens by difference, in nats. " .. same,
         svg.bars(differences, "Tokens by difference"))
  end
  if #report.positions > 1 then
    plot(add, "By position", "Strong: the mean of |B - A| over the tokens. Pale: the largest.",
         svg.positions(report.positions, "Difference by position"))
  end
  if #report.sample > 1 then
    plot(add, "Ratio by token", ("%s tokens%s. Hollow: beyond the axis. Dashed: 1 +- 0.1, 0.01, " ..
         "0.001, where they are in view."):format(count(#report.sample), #report.sample <
         report.finite and ", evenly picked from " .. count(report.finite) or ""),
         svg.ratios(report.sample, "Ratio of B to A by logprob"))
  end
  add "</div>"
end

local function tables(add, report)
  if #report.worst > 0 then
    add "<section><h2>Worst tokens</h2><table><tr>"
    for _, title in ipairs { "sequence", "position", "id", "A", "B", "B - A", "ratio", "ULPs",
                             "cause" } do
      add("<th>%s</th>", title)
    end
    add "</tr>"
    for _, token in ipairs(report.worst) do
      local nearly = token.cause ~= "unexplained" and not token.cause_exact
      add("<tr><td>%d</td><td>%d</td><td>%s</td><td title=\"%s\">%s</td><td title=\"%s\">%s</td>" ..
          "<td>%s</td><td>%s</td><td>%s</td><td>%s%s</td></tr>", token.sequence, token.position,
          token.id and ("%.0f"):format(token.id) or "-", token.a_hex, words.exact(token.a),
          token.b_hex, words.exact(token.b), number(token.difference), words.near_one(token.ratio),
          token.ulps and count(token.ulps) or "-", words.CAUSES[token.cause],
          nearly and " (nearly)" or "")
    end
    add "</table></section>"
  end
  if #report.worst_sequences > 0 and report.sequences > 1 then
    add "<section><h2>Worst sequences</h2><table><tr><th>sequence</th><th>tokens</th>"
    add "<th>differ</th><th>sum of B - A</th><th>ratio of the sequence</th><th></th></tr>"
    for _, s in ipairs(report.worst_sequences) do
      add("<tr><td>%d</td><td>%s</td><td>%s</td><td>%s</td><td>%s</td><td>%s</td></tr>", s.sequence,
          count(s.tokens), count(s.different), number(s.sum), words.near_one(math.exp(s.sum)),
          s.not_finite > 0 and count(s.not_finite) .. " not finite, left out" or "")
    end
    add "</table></section>"
  end
end

function M.format(report)
  local parts = {}
  local function add(format, ...)
    parts[#parts + 1] = select("#", ...) > 0 and format:format(...) or format
  end
  inputs(add, report)
  sides(add, report)
  if report.tokens.different > 0 then
    causes(add, report)
    figures(add, report)
    plots(add, report)
    first(add, report)
    tables(add, report)
  end
  return page.format(text.headline(report), report.equal, parts, report)
end

return M
