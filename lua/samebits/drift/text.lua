--- A report as text for a terminal.

local words = require "samebits.drift.words"
local wrap = require("samebits.text.wrap").words

local M = {}

local BOLD, RED, GREEN, PLAIN = "\27[1m", "\27[31m", "\27[32m", "\27[0m"

local count, number = words.count, words.number

--- Returns the report in one line.
function M.headline(report)
  local tokens = report.tokens
  local all = count(tokens.compared)
  if tokens.compared == 0 and tokens.only_a + tokens.only_b == 0 then
    return "drift: no token is active"
  end
  if report.equal then
    return ("drift: none: all %s tokens have the same bits"):format(all)
  end
  local line = ("drift: %s of %s tokens differ (%s)"):format(count(tokens.different), all,
    words.percent(tokens.different, tokens.compared))
  local alone = tokens.only_a + tokens.only_b
  if alone > 0 then
    line = ("%s, %s active on one side only"):format(line, count(alone))
  end
  if #report.inputs > 0 then
    line = line:gsub("^drift:", "%0 " .. words.inputs(report) .. " differ;", 1)
  end
  return line
end

local function bars(add, rows, width)
  local labels, numbers, most = 0, 0, 1
  rows = words.folded(rows)
  for _, row in ipairs(rows) do
    labels, numbers = math.max(labels, #row[1]), math.max(numbers, #count(row[2] or 0))
    most = math.max(most, row[2] or 0)
  end
  local room = math.max(8, math.min(50, width - labels - numbers - 8))
  for _, row in ipairs(rows) do
    local line = ("  %" .. labels .. "s  %" .. numbers .. "s  %s"):format(row[1],
      row[2] and count(row[2]) or "", ("#"):rep(math.ceil(room * (row[2] or 0) / most)))
    add("%s", (line:gsub(" +$", "")))
  end
end

-- The buckets without the empty ones at the end, and without those at the beginning except the
-- first.
local function trimmed(buckets, label)
  local out, low, high = {}, nil, 1
  for i, bucket in ipairs(buckets) do
    if bucket.count > 0 and i > 1 then low, high = low or i, i end
  end
  for i, bucket in ipairs(buckets) do
    if i == 1 or low and i >= low and i <= high then
      out[#out + 1] = { label(bucket), bucket.count }
    end
  end
  return out
end

local function token_place(token)
  return ("sequence %d, position %d%s%s"):format(token.sequence, token.position,
    token.id and (", id %.0f"):format(token.id) or "",
    token.token and " " .. words.token(token.token) or "")
end

local function worst_table(add, report, width)
  local function short(x) return x ~= x and "NaN" or ("%.7g"):format(x) end
  local texts = report.texts ~= nil
  local rows = { { "seq", "pos", "id", "A", "B", "B - A", "ULPs", "cause" } }
  if texts then table.insert(rows[1], 4, "token") end
  for _, token in ipairs(report.worst) do
    local cause = words.CAUSES[token.cause] or ""
    if token.cause ~= "unexplained" and not token.cause_exact then cause = cause .. " (nearly)" end
    rows[#rows + 1] = {
      ("%d"):format(token.sequence), ("%d"):format(token.position),
      token.id and ("%.0f"):format(token.id) or "-", short(token.a), short(token.b),
      number(token.difference), token.ulps and
      (token.ulps < 1e6 and ("%.0f"):format(token.ulps) or number(token.ulps)) or "-", cause,
    }
    if texts then
      table.insert(rows[#rows], 4, token.token and words.token(token.token) or "-")
    end
  end
  local widths = {}
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do widths[i] = math.max(widths[i] or 0, #cell) end
  end
  for _, row in ipairs(rows) do
    local cells = {}
    for i, cell in ipairs(row) do
      cells[i] = i < #row and ("%" .. widths[i] .. "s"):format(cell) or cell
    end
    local line = "  " .. table.concat(cells, "  ")
    if #line > width then line = line:sub(1, math.max(width - 2, 8)) .. ".." end
    add("%s", line)
  end
end

local function causes(add, report, width, bold)
  add ""
  add("%s", bold "why")
  for _, cause in ipairs(report.causes) do
    local title = words.CAUSES[cause.cause]
    local how = ""
    if cause.tokens_exactly < cause.tokens then
      how = cause.tokens_exactly == 0 and ", nearly" or
            (", %s of them exactly"):format(count(cause.tokens_exactly))
    end
    local line = ("%s of %s%s: %s"):format(count(cause.tokens), count(report.tokens.different),
                                           how, title)
    add("%s", wrap(line, width, "  ", "    "))
    add("%s", wrap(cause.text .. ".", width, "    ", "    "))
  end
  if report.unexplained > 0 then
    add("%s", wrap(("%s of %s: unexplained"):format(count(report.unexplained),
                                                    count(report.tokens.different)), width, "  ",
                   "    "))
    add("%s", wrap(words.unexplained(report), width, "    ", "    "))
  end
  for _, fact in ipairs(words.facts(report)) do add("%s", wrap(fact, width, "  ", "  ")) end
  for _, cause in ipairs(report.causes) do
    if cause.tokens_exactly < cause.tokens then
      add("%s", wrap(("Nearly: within %s nats, and an eighth of the difference."):format(
        number(report.near)), width, "  ", "  "))
      break
    end
  end
end

-- Differences, ratios and KL estimates of the tokens that are finite on both sides.
local function how_far(add, report, width, bold)
  add ""
  add("%s", bold "how far")
  if report.finite == 0 then return add "  No token is finite on both sides." end
  local function fact(label, format, ...)
    add("%s", wrap(format:format(...), width, ("  %-10s "):format(label), (" "):rep(13)))
  end
  fact("B - A", "mean %s, mean of |B - A| %s, largest %s%s", number(report.difference.mean),
       number(report.difference.mean_abs), number(report.difference.max_abs),
       report.difference.not_finite > 0 and
       (", not finite at %s"):format(count(report.difference.not_finite)) or "")
  fact("ULPs", "at most %s", count(report.ulps.max))
  fact("ratio B/A", "%s .. %s, mean %s", words.near_one(report.ratio.min),
       words.near_one(report.ratio.max), words.near_one(report.ratio.mean))
  for _, band in ipairs(report.ratio.bands) do
    add("    outside 1 +- %-6g %s of %s (%s)", band.width, count(band.outside),
        count(report.finite), words.percent(band.outside, report.finite))
  end
  for _, clip in ipairs(report.clips) do
    add("%s", wrap(words.clip(clip, report), width, ("    clipped at %-8s"):format(
      number(clip.eps)), (" "):rep(6)))
  end
  fact("KL(A || B)", "k1 %s, k2 %s, k3 %s", number(report.kl.k1), number(report.kl.k2),
       number(report.kl.k3))
  for i, line in ipairs(words.noise(report)) do
    add("%s", wrap(line, width, i == 1 and "  floor      " or (" "):rep(13), (" "):rep(13)))
  end
end

-- Rounds of several turns, one a line.
local function rounds(add, report, width, bold)
  if #report.segments == 0 then return end
  add ""
  add("%s", bold "rounds")
  for _, round in ipairs(report.segments) do
    add("%s", wrap(("%s of %s tokens differ in %s sequence%s; |B - A| mean %s, largest %s; %s " ..
      "outside 1 +- 0.1"):format(count(round.different), count(round.compared),
      count(round.sequences), round.sequences == 1 and "" or "s", number(round.mean_abs),
      number(round.max), words.percent(round.outside, round.finite)), width,
      ("  %-3d "):format(round.round), (" "):rep(6)))
  end
end

local function made(add, report, width, bold)
  add ""
  add("%s", bold "made")
  for _, fact in ipairs(words.made(report, width < 80 and 16 or 64)) do
    add("%s", wrap(fact[2], width, ("  %-9s"):format(fact[1]), (" "):rep(11)))
  end
end

function M.format(report, opts)
  local width = math.max(40, opts.width or 80)
  local lines = {}
  local function add(format, ...)
    lines[#lines + 1] = select("#", ...) > 0 and format:format(...) or format
  end
  local function paint(code, text) return opts.color and code .. text .. PLAIN or text end
  local function bold(text) return paint(BOLD, text) end
  local tokens = report.tokens

  add("%s", paint(BOLD .. (report.verdict == "equal" and GREEN or RED), M.headline(report)))
  add("%s", wrap(report.verdict_text, width, report.verdict .. ": ", "  "))
  add ""
  if #report.inputs > 0 then
    for _, input in ipairs(report.inputs) do
      add("%s", wrap(words.input(input), width, "  ", "  "))
    end
    add ""
  end
  for _, side in ipairs { report.a, report.b } do
    add("  %s  %s", side.label, words.title(side))
    add("%s", wrap(words.side(side, report.shape), width, "     ", "     "))
  end
  for _, note in ipairs(report.notes) do add("%s", wrap(note, width, "  ", "  ")) end
  local odd = words.not_finite(report)
  if odd then add("%s", wrap(odd, width, "  ", "  ")) end
  if report.equal or tokens.different == 0 then
    made(add, report, width, bold)
    return table.concat(lines, "\n") .. "\n"
  end

  causes(add, report, width, bold)

  local first = report.first
  add ""
  add("%s  %s", bold "first", token_place(first))
  add("  A %s  %s", first.a_hex, words.exact(first.a))
  add("  B %s  %s  %s", first.b_hex, words.exact(first.b), first.ulps and
      words.ulps(first.ulps) .. " apart" or "NaN has no distance")

  how_far(add, report, width, bold)
  rounds(add, report, width, bold)

  add ""
  add("%s", bold "ULPs, tokens")
  bars(add, trimmed(report.ulps.histogram, words.ulp_range), width)
  add ""
  add("%s", bold "|B - A|, tokens")
  bars(add, trimmed(report.difference.histogram, words.difference_range), width)

  if #report.worst > 0 then
    add ""
    add("%s", bold "worst tokens")
    worst_table(add, report, width)
  end
  made(add, report, width, bold)
  return table.concat(lines, "\n") .. "\n"
end

return M
