--- A report as a page: the paths that were verified, the first differences, and the table of
-- transforms.

local page = require "samebits.text.page"

local M = {}

local escape = page.escape

local function paths(add, report, verdicts)
  add "<section><h2>Verified</h2>"
  for p in ipairs(report.paths) do
    local lines = verdicts[p]
    add("<p><b>%s</b></p>", escape(lines[1]))
    for i = 2, #lines do add("<p><small>%s</small></p>", escape((lines[i]:gsub("^%s+", "")))) end
  end
  add "</section>"
end

local function transforms(add, report, rows)
  add "<section><h2>What was tried</h2><table>"
  for i, cells in ipairs(rows) do
    local kind = i == 1 and "th" or "td"
    local out = {}
    for c, cell in ipairs(cells) do
      out[c] = ("<%s%s>%s</%s>"):format(kind, (c == 1 or c == #cells) and ' class="left"' or "",
                                        escape(cell), kind)
    end
    add("<tr>%s</tr>", table.concat(out))
  end
  add "</table>"
  add("<p><small>Each transform lays the tokens out anew. The numbers are of tokens whose bits " ..
      "differ; in parentheses, of sums and counts where no token does. Rounds of each: %d. " ..
      "Seed: %d.</small></p></section>", report.rounds, report.seed)
end

--- Returns the page. words: `title`; `head`, lines about the batch; `verdicts`, lines by path;
-- `rows`, the cells of the table.
function M.format(report, words)
  local parts = {}
  local function add(format, ...)
    parts[#parts + 1] = select("#", ...) > 0 and format:format(...) or format
  end
  add "<section><h2>Batch</h2>"
  for _, line in ipairs(words.head) do add("<p>%s</p>", escape(line)) end
  add "</section>"
  paths(add, report, words.verdicts)
  transforms(add, report, words.rows)
  return page.format(words.title, report.ok, parts, report)
end

return M
