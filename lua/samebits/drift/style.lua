--- The style of a drift report's page, in addition to that of all pages (text/page.lua).

return [==[
:root { --same: #cfe5d7; --idle: #f3f2ef; --only: #b9b7ae; --open: #c62828; --c0: #2a78d6;
  --c1: #d9730d; --c2: #1a8a5f; --c3: #8e44c2; --c4: #0b8a9e; --c5: #c24d8f; --c6: #8a6d00;
  --c7: #5b5bd6; --c8: #9c5b34; --c9: #5c6b7a; }
@media (prefers-color-scheme: dark) { :root { --same: #28442f; --idle: #262625; --only: #5d5c56;
  --open: #ff7b72; --c0: #5598e7; --c1: #f0a04b; --c2: #4cc38a; --c3: #bf7af0; --c4: #4fc3d6;
  --c5: #f08dc4; --c6: #d6b94a; --c7: #9a9af5; --c8: #cf9468; --c9: #9fb0c0; --dots: .7; } }
:root.paper { color-scheme: light; --page: #ffffff; --card: #ffffff; --ink: #1a1a19;
  --faint: #63625e; --line: #e3e2de; --mark: #2a78d6; --soft: #c4dcf7; --bad: #b3261e;
  --good: #14713d; --flip: #fbe0dd; --warn: #8a5a00; --dull: #6a5a86; --same: #cfe5d7;
  --idle: #f3f2ef; --only: #b9b7ae; --open: #c62828; --c0: #2a78d6; --c1: #d9730d; --c2: #1a8a5f;
  --c3: #8e44c2; --c4: #0b8a9e; --c5: #c24d8f; --c6: #8a6d00; --c7: #5b5bd6; --c8: #9c5b34;
  --c9: #5c6b7a; }
header { display: flex; flex-wrap: wrap; gap: .4rem 2rem; align-items: flex-start;
  margin: 0 0 1.2rem; }
header > div:first-child { flex: 1 1 22rem; min-width: 0; } header h1 { margin: .5rem 0 .3rem; }
header p { margin: 0; max-width: 48rem; font-size: 1.02rem; }
.verdict { display: inline-block; padding: .12rem .7rem; border-radius: 99px; color: var(--page);
  background: var(--bad); font-weight: 600; letter-spacing: .02em; }
.verdict.equal { background: var(--good); } .verdict.explained { background: var(--mark); }
.verdict.localized { background: var(--warn); } .verdict.inconclusive { background: var(--dull); }
.headline b { display: block; font-size: 2.6rem; line-height: 1.1; font-weight: 650;
  font-variant-numeric: tabular-nums; }
h3 { font-size: 1rem; margin: 0 0 .5rem; }
button { font: inherit; color: inherit; background: none; border: 1px solid var(--line);
  border-radius: 6px; padding: .1rem .55rem; cursor: pointer; }
button:hover { border-color: var(--faint); }
button[aria-pressed=true] { border-color: var(--ink); }
:focus-visible { outline: 2px solid var(--mark); outline-offset: 1px; }
.live .still, html:not(.live) .lively { display: none; }
.where { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 21rem); gap: 1rem; }
.map { overflow-x: auto; min-width: 0; } canvas { display: block; }
.card { border-left: 1px solid var(--line); padding-left: 1rem; min-width: 0;
  min-height: 15rem; } .card dl { gap: .25rem .8rem; }
.card .hex { margin-left: .6rem; color: var(--faint); } .card .bits { display: block; }
.card .token { margin-left: .6rem; } .card p { margin: .5rem 0 0; }
code.bits { font-size: 12px; overflow-wrap: anywhere; }
.context { line-height: 2; } .context span { border-bottom: 3px solid; white-space: pre-wrap;
  padding: 0 1px; margin-right: 1px; } .context .here { background: var(--flip);
  font-weight: 600; }
.swatch { display: inline-block; width: .75rem; height: .75rem; border-radius: 3px;
  margin-right: .4rem; vertical-align: -1px; }
.legend, .tools, .worst { display: flex; flex-wrap: wrap; gap: .4rem .5rem; align-items: center;
  margin: .7rem 0 0; } .tools { margin: 0 0 .7rem; }
[hidden] { display: none !important; }
.key { border-color: transparent; padding: .05rem .35rem; }
.scale { display: inline-flex; align-items: center; color: var(--faint); font-size: .85rem; }
.scale i { width: .8rem; height: .75rem; } .scale i:first-of-type { margin-left: .4rem; }
.scale i:last-of-type { margin-right: .4rem; }
input[type=search] { font: inherit; color: inherit; background: var(--page); padding: .2rem .5rem;
  border: 1px solid var(--line); border-radius: 6px; flex: 1 1 14rem; min-width: 0; }
.scroll { overflow-x: auto; max-height: 34rem; overflow-y: auto; }
.scroll thead th { position: sticky; top: 0; background: var(--card); }
.sort { border: 0; padding: 0; color: inherit; } [aria-sort=descending] .sort::after {
  content: " \2193"; } [aria-sort=ascending] .sort::after { content: " \2191"; }
#tokens tbody tr { cursor: pointer; } #tokens tbody tr:hover { background: var(--idle); }
td.path, dd.path { overflow-wrap: anywhere; white-space: normal; }
svg .dots { fill: none; stroke: var(--mark); stroke-width: 5; stroke-linecap: round;
  stroke-opacity: var(--dots, .45); } svg .floor { fill: var(--faint);
  fill-opacity: .16; }
@media (max-width: 52rem) { .where { grid-template-columns: minmax(0, 1fr); }
  .card { border-left: 0; border-top: 1px solid var(--line); padding: .8rem 0 0; } }
@media (max-width: 40rem) { th, td { padding: .2rem .4rem; } section { padding: .8rem; }
  .headline b { font-size: 2rem; } table { font-size: 14px; } svg text { font-size: 15px; } }
@media print { body { max-width: none; padding: 0; } section { break-inside: avoid;
  overflow: visible; } .tools, .worst, #more, .card { display: none; } .where { display: block; }
  canvas { max-width: 100%; height: auto !important; } .scroll { max-height: none;
  overflow: visible; } thead { display: table-header-group; } .scroll thead th { position: static; }
  #tokens-section { break-inside: auto; } }
]==]
