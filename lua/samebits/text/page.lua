--- Reports as pages of HTML that need no other file: the style is in them, and they run no script.

local printable = require "samebits.text.printable"

local M = {}

local STYLE = [[
:root { color-scheme: light dark; --page: #fcfcfb; --card: #ffffff; --ink: #1a1a19;
  --faint: #63625e; --line: #e3e2de; --mark: #2a78d6; --soft: #c4dcf7; --bad: #b3261e;
  --good: #14713d; --flip: #fbe0dd; }
@media (prefers-color-scheme: dark) { :root { --page: #161615; --card: #1f1f1e; --ink: #f1f0ec;
  --faint: #a9a8a1; --line: #383835; --mark: #5598e7; --soft: #254667; --bad: #f2938c;
  --good: #6fcf97; --flip: #5a2b28; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem; background: var(--page);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 1rem; } h2 { font-size: 1.05rem; margin: 0 0 .6rem; }
h1.bad { color: var(--bad); } h1.good { color: var(--good); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 1rem 1.2rem; margin: 0 0 1rem; min-width: 0; overflow-x: auto; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr));
  gap: 1rem; } .two > section { margin: 0; } .two { margin-bottom: 1rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: 1rem; }
.tiles b { display: block; font-size: 1.25rem; font-weight: 600; }
.faint, small { color: var(--faint); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 0; }
dt { color: var(--faint); } dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: right; font-weight: 500; color: var(--faint); border-bottom: 1px solid var(--line);
  padding: .25rem .6rem; white-space: nowrap; }
td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th:last-child, td:last-child { text-align: left; } tr:last-child td { border-bottom: 0; }
td.left, th.left { text-align: left; white-space: normal; }
code { font: 13px/1.4 ui-monospace, monospace; } code i { font-style: normal;
  background: var(--flip); border-radius: 2px; }
.meter { height: 8px; border-radius: 4px; background: var(--line); min-width: 6rem; }
.meter span { display: block; height: 8px; border-radius: 4px; background: var(--mark); }
.meter span.open { background: var(--bad); }
svg { width: 100%; height: auto; display: block; }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); } svg .end { text-anchor: end; }
svg .middle { text-anchor: middle; } svg .faint, svg .end { fill: var(--faint); }
svg .mark { fill: var(--mark); } svg .soft { fill: var(--soft); } svg .dot { fill: var(--mark);
  fill-opacity: .45; } svg .out { fill: none; stroke: var(--mark); }
svg .grid { stroke: var(--line); } svg .axis { stroke: var(--faint); }
svg .band { stroke: var(--bad); stroke-dasharray: 4 4; stroke-opacity: .7; }
@media (max-width: 40rem) { td:has(.meter), th:empty { display: none; } body { padding: .8rem; } }
p { margin: .3rem 0; } ul { margin: .3rem 0; padding-left: 1.2rem; }
]]

local MARKUP = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;",
                 ["'"] = "&#39;" }

--- Escapes text for HTML.
function M.escape(text)
  return (printable.text(tostring(text)):gsub("[&<>\"']", MARKUP))
end

--- Returns a page.
-- @tparam string title plain text
-- @tparam boolean is_good whether the title is good news
-- @tparam table parts lines of HTML
-- @tparam table made `version` and `numerics` of the library
function M.format(title, is_good, parts, made)
  title = M.escape(title)
  local lines = {
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    ("<title>%s</title>\n<style>\n%s</style>\n</head>\n<body>"):format(title, STYLE),
    ('<h1 class="%s">%s</h1>'):format(is_good and "good" or "bad", title),
  }
  for _, part in ipairs(parts) do lines[#lines + 1] = part end
  lines[#lines + 1] = ("<p><small>samebits %s, numerics %d</small></p>\n</body>\n</html>\n"):format(
    made.version, made.numerics)
  return table.concat(lines, "\n")
end

return M
