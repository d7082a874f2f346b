--- Writes the sources from which tools/docs makes its pages to the given folder:
--
--     lua/*.lua       the public names, each with its comment, as plain definitions for LDoc
--     samebits.h.html the C API, and that of the control group

package.path = "./lua/?.lua;" .. package.path
local api = dofile "tools/api.lua"
local out = assert(arg[1], "usage: luajit tools/docs.lua FOLDER")

local function write(name, text)
  local file = assert(io.open(out .. "/" .. name, "wb"))
  assert(file:write(text))
  assert(file:close())
end

local function escaped(text)
  return (text:gsub("&", "&amp;"):gsub("<", "&lt;"):gsub(">", "&gt;"))
end

-- The description of a comment as HTML, which LDoc passes on: paragraphs, lists of "* item", and
-- verbatim text, which is indented by four columns.
local function described(doc)
  local lines, inside = {}, nil
  local function go_to(kind)
    if inside == kind then return end
    if inside then lines[#lines + 1] = "</" .. inside .. ">" end
    if kind then lines[#lines + 1] = "<" .. kind .. ">" end
    inside = kind
  end
  local tags = false
  for i, line in ipairs(doc) do
    tags = tags or line:find "^@" ~= nil
    local text = escaped(line):gsub("`(.-)`", "<code>%1</code>")
    if line:find "^%* " then
      go_to "ul"
      lines[#lines + 1] = "<li>" .. text:sub(3)
    elseif tags then
      if not (inside == "ul" and line:find "^  ") then go_to(nil) end
      lines[#lines + 1] = text
    elseif line:find "^    " then
      go_to "pre"
      lines[#lines + 1] = escaped(line:sub(5))
    elseif line == "" then
      -- Verbatim text may contain empty lines.
      if not (inside == "pre" and (doc[i + 1] or ""):find "^    ") then go_to(nil) end
      lines[#lines + 1] = inside and "" or "<p>"
    else
      if not (inside == "ul" and line:find "^  ") then go_to(nil) end
      lines[#lines + 1] = text
    end
  end
  go_to(nil)
  return lines
end

local function comment(doc)
  local lines = described(doc)
  for i, line in ipairs(lines) do lines[i] = (i == 1 and "--- " or "-- ") .. line end
  return table.concat(lines, "\n") .. "\n"
end

local function definitions(owner, members)
  local parts = {}
  for _, member in ipairs(members) do
    local parameters = member.parameters and
                       (api.told_parameters(member.doc) or member.parameters)
    parts[#parts + 1] = comment(member.doc or { "" }) .. (parameters and
      ("function %s%s%s end\n"):format(owner, member.name, parameters) or
      ("%s%s = nil\n"):format(owner:gsub(":$", "."), member.name))
  end
  return table.concat(parts, "\n")
end

for _, module in ipairs(api.modules()) do
  local head = api.head(module)
  local parts = { comment(head), "local M = {}\n", definitions("M.", api.members(module)) }
  if module == "samebits" then
    for _, class in ipairs(api.CLASSES) do
      -- The head comment of its module describes it. Stream and Event share a module with others.
      local about = class.module ~= "samebits.device" and api.head(class.module) or
                    { ("`ctx:%s()`."):format(class.name:lower()) }
      about[#about + 1] = "@type " .. class.name
      parts[#parts + 1] = comment(about) .. ("local %s = {}\n\n"):format(class.name) ..
                          definitions(class.name .. ":", api.methods(class))
    end
  end
  parts[#parts + 1] = "return M\n"
  write("lua/" .. module .. ".lua", table.concat(parts, "\n"))
end

-- Turns names of the API into links to their declarations.
local function linked(text, known)
  return (escaped(text):gsub("%f[%w_][sS][bB]_[%w_]+", function(name)
    return known[name] and ('<a href="#%s">%s</a>'):format(known[name], name)
  end))
end

local parts, contents, known = {}, {}, {}
local headers = { "samebits.h", "samebits_conventional.h" }
local pages = {}
for i, name in ipairs(headers) do
  pages[i] = api.header("src/" .. name)
  for _, item in ipairs(pages[i].items) do
    for _, declared in ipairs(item.names) do known[declared] = item.names[1] end
  end
end
for i, name in ipairs(headers) do
  parts[#parts + 1] = ('<h1 id="%s">%s</h1>\n<pre class="say">%s</pre>\n'):format(name, name,
    linked(pages[i].head, known))
  contents[#contents + 1] = ('<li><b><a href="#%s">%s</a></b></li>'):format(name, name)
  for _, item in ipairs(pages[i].items) do
    local title = item.doc and #item.names == 0 and item.doc:match "^%-%-%-%- (.-) %-%-%-%-"
    if title then
      parts[#parts + 1] = ("<h2>%s</h2>\n"):format(escaped(title))
      contents[#contents + 1] = ("<li><i>%s</i></li>"):format(escaped(title))
      item.doc = item.doc:gsub("^%-%-%-%- .- %-%-%-%-%s*", "")
    end
    for _, declared in ipairs(item.names) do
      if declared == item.names[1] or declared:find "^sb_" then
        contents[#contents + 1] = ('<li><a href="#%s">%s</a></li>'):format(item.names[1], declared)
      end
    end
    parts[#parts + 1] = ('<div%s><pre class="code">%s</pre><pre class="say">%s</pre></div>\n')
      :format(item.names[1] and (' id="%s"'):format(item.names[1]) or "",
              linked(item.text, known), linked(item.doc or "", known))
  end
end
write("samebits.h.html", [[
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>samebits, the C API</title>
<style>
body { margin: 0; font: 15px/1.45 sans-serif; color: #222; }
nav { position: fixed; top: 0; bottom: 0; left: 0; width: 17em; overflow: auto;
      background: #f0f0f0; font-size: 13px; }
nav ul { list-style: none; padding: 0 1em; }
main { margin-left: 18em; padding: 0 1em 4em; max-width: 56em; }
pre { margin: 0; font: 13px/1.4 monospace; }
pre.code { background: #f4f6fa; border: 1px solid #dde; padding: .6em; margin-top: 1.6em;
           overflow: auto; }
pre.code:empty { display: none; }
pre.say { padding: .6em; white-space: pre-wrap; }
a { color: #1a4f9c; text-decoration: none; }
a:hover { text-decoration: underline; }
</style></head><body>
<nav><ul><li><a href="index.html">The Lua API</a></li>
]] .. table.concat(contents, "\n") .. "\n</ul></nav>\n<main>\n" .. table.concat(parts) ..
"</main></body></html>\n")
