--- Reports as pages of HTML that need no other file: the style is in them, and the script, if there
-- is one.
--
-- A page says itself what a browser may do with it: use its style, run the one script whose digest
-- it names, and request nothing. So even markup that should have been escaped could not run.

local base64 = require "samebits.text.base64"
local printable = require "samebits.text.printable"
local sha256 = require "samebits.io.sha256"

local M = {}

local STYLE = [[
:root { color-scheme: light dark; --page: #fcfcfb; --card: #ffffff; --ink: #1a1a19;
  --faint: #63625e; --line: #e3e2de; --mark: #2a78d6; --soft: #c4dcf7; --bad: #b3261e;
  --good: #14713d; --flip: #fbe0dd; --warn: #8a5a00; --dull: #6a5a86; }
@media (prefers-color-scheme: dark) { :root { --page: #161615; --card: #1f1f1e; --ink: #f1f0ec;
  --faint: #a9a8a1; --line: #383835; --mark: #5598e7; --soft: #254667; --bad: #f2938c;
  --good: #6fcf97; --flip: #5a2b28; --warn: #e9b949; --dull: #b7a6d8; } }
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
th:last-child, td:last-child { text-align: left; }
tbody:last-child tr:last-child td { border-bottom: 0; }
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
-- @tparam[opt] table more `style`, added to the page's own; `head`, a function that returns the
-- page's head around the title's HTML; `data`, JSON that a script with the id "data" holds, and
-- `script`, which reads it
function M.format(title, is_good, parts, made, more)
  more = more or {}
  title = M.escape(title)
  local policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; " ..
                 "form-action 'none'"
  if more.script then
    policy = ("%s; script-src 'sha256-%s'"):format(policy,
                                                   base64.encode(sha256.bytes(more.script)))
  end
  local head = ('<h1 class="%s">%s</h1>'):format(is_good and "good" or "bad", title)
  local lines = {
    '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
    ('<meta http-equiv="Content-Security-Policy" content="%s">'):format(policy),
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    ("<title>%s</title>\n<style>\n%s%s</style>\n</head>\n<body>"):format(title, STYLE,
                                                                         more.style or ""),
    more.head and more.head(head) or head,
  }
  for _, part in ipairs(parts) do lines[#lines + 1] = part end
  lines[#lines + 1] = ("<p><small>samebits %s, numerics %d</small></p>"):format(made.version,
                                                                               made.numerics)
  if more.script then
    -- < inside of a JSON string has to be an escape, or it could end the element.
    lines[#lines + 1] = ('<script type="application/json" id="data">%s</script>'):format(
      (more.data:gsub("<", "\\u003c")))
    lines[#lines + 1] = ("<script>%s</script>"):format(more.script)
  end
  lines[#lines + 1] = "</body>\n</html>\n"
  return table.concat(lines, "\n")
end

return M
