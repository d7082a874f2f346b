--- Writes types/, the LuaCATS definitions of the public API for editors (lua-language-server), from
-- the doc comments of the Lua modules and from the tables of the ops.
--
--     luajit tools/gen_types.lua            writes the files
--     luajit tools/gen_types.lua --check    writes nothing; exits with 1 if a file would change
--
-- One file per public module, so that `require` finds its types. Parameters and results are those
-- of @tparam and @treturn; the fields of an option table are the names in backquotes of its
-- description, and for an op the options and outputs that its table lists. Must run in the root
-- folder.

package.path = "./lua/?.lua;" .. package.path
local api = dofile "tools/api.lua"
local call = require "samebits.op.call"

local FOLDER = "types"

-- Types as doc comments write them.
local TYPES = {
  tensor = "samebits.Tensor", batch = "samebits.Batch|samebits.BatchSpec",
  context = "samebits.Context", head = "samebits.Head", stream = "samebits.Stream",
  table = "table", number = "number",
  string = "string", boolean = "boolean", ["function"] = "function", any = "any",
}

-- Results that are objects; the doc comments call them a report, and so on.
local RESULTS = {
  ["samebits.drift.drift"] = "samebits.DriftReport",
  ["samebits.verify.verify"] = "samebits.VerifyReport",
  ["samebits.Batch:to"] = "samebits.Batch", ["samebits.batch.new"] = "samebits.Batch",
}

-- Fields of objects and of tables of options, by name.
local FIELDS = {
  outputs = "string[]", out = "table", split = "integer", threads = "integer", cluster = "integer",
  table = "integer", one_read = "integer", check = "boolean", stream = "samebits.Stream",
  workspace = "samebits.Tensor", timeout = "number", entropy = "boolean|samebits.Tensor",
  gradient = "table", mask = "samebits.Tensor|table", ids = "samebits.Tensor|table",
  logits = "samebits.Tensor", cu_seqlens = "samebits.Tensor|table", temperature =
    "number|samebits.Tensor|table", kept = "samebits.Tensor|table", ignore_index = "integer",
  kept_ids = "samebits.Tensor|table", kept_offsets = "samebits.Tensor|table",
  rows = "samebits.Tensor|table", vocab = "integer", first = "integer", shift = "boolean|integer",
  minus = "samebits.Tensor", per = '"sequence"|"batch"', title = "string", xlabel = "string",
  ylabel = "string", logx = "boolean", logy = "boolean", logz = "boolean", color =
    "boolean", unicode = "boolean", z = "samebits.Tensor|table",
  width = "integer", height = "integer",
  kind = "string", series = "table[]", dtype = "samebits.Dtype", device = "string",
  shape = "integer[]", strides = "integer[]", seed = "integer", isa = "string", block = "integer",
  copy = "boolean", side = '"right"|"left"', length = "integer", script = "string",
  grad = "samebits.Tensor", saved = "samebits.Tensor", token = "samebits.Tensor",
  hidden = "samebits.Tensor", head = "samebits.Head", format = '"h24w16"|"h24w24"',
  bias = "samebits.Tensor", scale = "number", softcap = "number", scales = "samebits.Tensor",
  keep_bad = "boolean", n = "integer", to = "samebits.Tensor", in_place = "boolean",
  reference = "samebits.Tensor", report = "samebits.DriftReport",
}

-- The same for one class alone.
local OWN = {
  ["samebits.VerifyOptions.rows"] = "integer", ["samebits.DrawSpec.out"] = "string",
  ["samebits.VerifyOptions.fn"] = "fun(batch: samebits.Batch): samebits.Tensor|table",
  ["samebits.VerifyOptions.rounds"] = "integer", ["samebits.VerifyOptions.transforms"] = "string[]",
  ["samebits.VerifyOptions.backend"] = "string",
}

-- The fields of objects, which their modules describe in words.
local OBJECTS = {
  Tensor = { "dtype samebits.Dtype", "shape integer[]", "strides integer[]", "ndim integer",
             "itemsize integer", "device string", "ptr ffi.cdata* the first element's address",
             "owner any keeps the memory alive", "[integer] any a row, or an element" },
  Context = { "backend string", "device string", "isa string", "threads integer" },
  Batch = { "logits? samebits.Tensor", "hidden? samebits.Tensor", "head? samebits.Head",
            "ids? samebits.Tensor", "mask? samebits.Tensor", "kept? samebits.Tensor",
            "temperature number|samebits.Tensor", "ignore_index integer",
            "device string", "shape integer[]", "sequences integer", "vocab integer" },
  Head = { "ids integer", "width integer", "first integer", "format string", "scale number",
           "softcap number", "bytes integer", "device string" },
  Stream = { "device string", "handle ffi.cdata*" },
  DriftReport = {}, VerifyReport = { "ok boolean" },
}
local OPERATORS = {
  Tensor = { "add(samebits.Tensor|number): samebits.Tensor",
             "sub(samebits.Tensor|number): samebits.Tensor",
             "mul(samebits.Tensor|number): samebits.Tensor",
             "div(samebits.Tensor|number): samebits.Tensor", "unm: samebits.Tensor",
             "len: integer" },
  Batch = { "len: integer" },
}

local function camel(name)
  return (name:gsub("^%l", string.upper):gsub("_(%l)", string.upper))
end

-- How descriptions begin, and what that says of the type.
local BEGINNINGS = {
  { "^%(%-?%d[%d.e^-]*%)", "number" }, { "^%([%d.^]+ %u?i?%u?%a*%)", "number" },
  { "^%-?%d[%d.e-]* by default", "number" }, { "^true ", "boolean" }, { "^whether ", "boolean" },
  { "^the number of ", "integer" }, { "^a list of .* or a tensor", "table|samebits.Tensor" },
  { "^a list of ", "table" }, { "^tables? of ", "table" },
  { "^a function ", "function" }, { "^the path ", "string" },
  { "^a float32 tensor", "samebits.Tensor" },
}

-- The type that a description tells of: the strings that it lists, or by its first words; nil if it
-- tells of none.
local function told_type(text)
  local at, literals = 1, {}
  while true do
    local literal, past = text:match('^("[%w_+-]+")()', at)
    if not literal then break end
    literals[#literals + 1] = literal
    at = text:match("^ %b()()", past) or past
    at = text:match("^, or ()", at) or text:match("^, ()", at) or text:match("^ or ()", at) or
         #text + 1
  end
  if #literals > 1 then return table.concat(literals, "|") end
  for _, beginning in ipairs(BEGINNINGS) do
    if text:find(beginning[1]) then return beginning[2] end
  end
end

-- A comment's parts: `about`, its lines before the first tag, and its tags, each { kind, type,
-- name, optional, text }.
local function parsed(doc)
  local about, tags, current = {}, {}, nil
  for _, line in ipairs(doc or {}) do
    local kind, option, rest = line:match "^@(t?%l+)(%S*)%s+(.*)$"
    if kind == "module" then
      current = nil
    elseif kind then
      current = { kind = kind, optional = option:find "opt" ~= nil }
      if kind:find "^t" then current.type, rest = rest:match "^(%S+)%s*(.*)$" end
      if kind:find "param" then current.name, rest = rest:match "^(%S+)%s*(.*)$" end
      current.lines = { rest }
      tags[#tags + 1] = current
    elseif current then
      current.lines[#current.lines + 1] = line
    else
      about[#about + 1] = line
    end
  end
  for _, tag in ipairs(tags) do tag.text = table.concat(tag.lines, "\n"):gsub("%s+$", "") end
  while about[#about] == "" do about[#about] = nil end
  return about, tags
end

local function type_of(tag)
  if not tag.type then
    return tag.name == "batch" and TYPES.batch or told_type(tag.text) or "any"
  end
  return (tag.type:gsub("[^|]+", function(name)
    return TYPES[name] or error("no LuaCATS type for " .. name)
  end))
end

local fields_of = api.fields_of

local function comment(lines, indent)
  local out = {}
  for i, line in ipairs(lines) do
    out[i] = (indent or "") .. "---" .. (line ~= "" and " " .. line or "")
  end
  return out
end

local function one_line(text)
  local first = text:gsub("%s*\n%s*", " "):gsub("%s+$", "")
  return first ~= "" and " " .. first or ""
end

-- The file under way.
local out

local function add(format, ...)
  out[#out + 1] = select("#", ...) > 0 and format:format(...) or format
end

local function class(name, fields)
  add("---@class %s", name)
  for _, field in ipairs(fields) do
    add("---@field %s%s %s%s", field.name, field.optional and "?" or "", field.type,
        one_line(field.text or ""))
  end
  add ""
end

local made = {} -- classes of options and results by method: { options =, result = }
local texts = {} -- what is said of a launch option where it is first described

-- The classes of an op's options and results.
local function op_classes(method, op, tags)
  local name, words, results = "samebits." .. camel(method.name), {}, {}
  for _, tag in ipairs(tags) do
    for _, field in ipairs(fields_of(tag.text)) do
      if tag.kind == "tparam" and tag.name == "opts" then
        words[field.name] = field.text
      elseif tag.kind == "treturn" then
        results[#results + 1] = { name = field.name, type = "samebits.Tensor" }
      end
    end
  end
  local fields, listed = {}, {}
  for option in pairs(op.known) do listed[#listed + 1] = option end
  table.sort(listed)
  for _, option in ipairs(listed) do
    local kind = FIELDS[option] or told_type(words[option] or "") or "any"
    if option == "outputs" then
      local names = {}
      for i, output in ipairs(op.names) do names[i] = ('"%s"'):format(output) end
      kind = ("(%s)[]"):format(table.concat(names, "|"))
    elseif option == "out" then
      kind = name .. "Result"
    end
    if not texts[option] or method.name == "logprob" then texts[option] = words[option] end
    local text = words[option] ~= "" and words[option] or texts[option]
    fields[#fields + 1] = { name = option, type = kind, optional = true, text = text }
  end
  if #fields > 0 then class(name .. "Options", fields) end
  local result = {}
  for _, output in ipairs(op.names) do
    result[#result + 1] = { name = output, type = "samebits.Tensor",
                            text = op.output[output].dtype }
  end
  for _, field in ipairs(results) do
    if not op.output[field.name] and not op.known[field.name] then result[#result + 1] = field end
  end
  if op.struct then class(name .. "Result", result) end
  made[method.name] = { options = #fields > 0 and name .. "Options" or nil,
                        result = op.struct and name .. "Result" or nil }
end

-- The class of a table of options that a comment describes; "table" if it names no fields.
local function option_class(name, tag)
  local fields = fields_of(tag.text)
  if #fields == 0 then return "table" end
  for _, field in ipairs(fields) do
    field.type, field.optional = OWN[name .. "." .. field.name] or FIELDS[field.name] or
                                 told_type(field.text) or "any", true
  end
  class(name, fields)
  return name
end

-- The type of a parameter or result that is described "as for `x`", or "as `ctx:x`".
local function like(tag, key)
  local other = tag.text:match "^as for `[%l]*:?([%l_]+)`" or tag.text:match "^as `[%l]*:?([%l_]+)`"
  return other and made[other] and made[other][key] or nil
end

-- full: the public name. owner: what stands before the name in the definition.
local function define(owner, full, member)
  local about, tags = parsed(member.doc)
  local op = call.op_of(member.value)
  if op then op_classes(member, op, tags) end
  local own = op and made[member.name] or {}
  made[member.name] = made[member.name] or {}
  local parameters, lines, nothing = {}, {}, nil
  for _, tag in ipairs(tags) do
    if tag.kind:find "param" then
      local kind = type_of(tag)
      if kind == "table" and tag.name ~= "records" then
        kind = tag.name == "opts" and own.options or like(tag, "options") or
               op and kind or option_class(("samebits.%s%s"):format(camel(full:match "[%l_]+$"),
                                           camel(tag.name)), tag)
        if not op then made[member.name].options = kind end
      end
      parameters[#parameters + 1] = tag.name
      -- The fields of options are described where they are listed.
      local text = kind:find "Options$" and "" or one_line(tag.text)
      lines[#lines + 1] = ("---@param %s%s %s%s"):format(tag.name, tag.optional and "?" or "",
                                                        kind, text)
    elseif tag.kind:find "return" then
      local kind = RESULTS[full] or type_of(tag):gsub("|samebits.BatchSpec$", "")
      if kind == "table" then kind = own.result or like(tag, "result") or kind end
      made[member.name].result = made[member.name].result or kind
      local text = one_line(tag.text)
      nothing = nothing or text:match "nil, a message and the status" or
                text:match "nil, a message and a code" or text:match "nil and a message"
      lines[#lines + 1] = ("---@return %s%s%s"):format(kind, nothing and "?" or "",
                                                      text ~= "" and " #" .. text or "")
    end
  end
  if nothing then
    lines[#lines + 1] = "---@return string? message"
    if nothing:find "code" or nothing:find "status" then
      lines[#lines + 1] = "---@return string? code"
    end
  end
  -- Those that no tag describes.
  if #parameters == 0 then
    for name in (member.parameters or ""):gmatch "[%w_%.]+" do
      parameters[#parameters + 1] = name
      lines[#lines + 1] = ("---@param %s any"):format(name)
    end
  end
  for _, line in ipairs(comment(about)) do add(line) end
  for _, line in ipairs(lines) do add(line) end
  add("function %s%s(%s) end\n", owner, member.name, table.concat(parameters, ", "))
end

local KINDS = { number = "number", string = "string", boolean = "boolean" }

local function head_of(module)
  local lines = {}
  for _, line in ipairs(api.head(module)) do
    if not line:find "^@" then lines[#lines + 1] = line end
  end
  return comment(lines)
end

local function begin(name)
  out = {}
  add("---@meta %s\n", name)
  add "-- Generated by tools/gen_types.lua from the sources: do not edit."
  add "-- luacheck: ignore\n"
end

local function classes()
  local dtypes = {}
  for name in require("samebits.tensor.dtype").names:gmatch "%w+" do
    dtypes[#dtypes + 1] = ('"%s"'):format(name)
  end
  add("---@alias samebits.Dtype %s\n", table.concat(dtypes, "|"))
  for _, described in ipairs(api.CLASSES) do
    local name = "samebits." .. described.name
    if described.module ~= "samebits.device" then
      for _, line in ipairs(head_of(described.module)) do add(line) end
    end
    add("---@class %s", name)
    for _, field in ipairs(OBJECTS[described.name]) do add("---@field %s", field) end
    for _, operator in ipairs(OPERATORS[described.name] or {}) do
      add("---@operator %s", operator)
    end
    add("local %s = {}\n", described.name)
    for _, method in ipairs(api.methods(described)) do
      define(described.name .. ":", ("%s:%s"):format(name, method.name), method)
    end
  end
end

-- Where the definition of a value is that several modules pass on: its full name, for RESULTS.
local NAMES = { batch = "samebits.batch.new", drift = "samebits.drift.drift" }

local function definitions(module)
  begin(module)
  if module == "samebits" then classes() end
  for _, line in ipairs(head_of(module)) do add(line) end
  add("---@class %s", module)
  add "local M = {}\n"
  for _, member in ipairs(api.members(module)) do
    if type(member.value) == "function" then
      local full = module == "samebits" and NAMES[member.name] or module .. "." .. member.name
      if module == "samebits" and member.name == "batch" then
        -- One class for the table of a batch, which many calls take.
        local about, tags = parsed(member.doc)
        tags[1].text = tags[1].text .. "\n" .. table.concat(about, "\n")
        class("samebits.BatchSpec", (function()
          local fields = fields_of(tags[1].text:gsub("\n%* ", "; "))
          local known = {}
          for _, field in ipairs(fields) do
            if FIELDS[field.name] then
              field.type, field.optional = FIELDS[field.name], field.name ~= "logits"
              known[#known + 1] = field
            end
          end
          return known
        end)())
        add("---@param spec samebits.BatchSpec")
        for _, line in ipairs(comment(about)) do add(line) end
        add "---@param opts? { ids: false }\n---@return samebits.Batch"
        add "function M.batch(spec, opts) end\n"
      else
        define("M.", full, member)
      end
    else
      for _, line in ipairs(comment(member.doc or {})) do add(line) end
      if type(member.value) == "table" then
        add("M.%s = require \"%s.%s\"\n", member.name, module, member.name)
      else
        add("---@type %s\nM.%s = nil\n", KINDS[type(member.value)], member.name)
      end
    end
  end
  add "return M"
  return table.concat(out, "\n") .. "\n"
end

-- The assertions of samebits.luassert: they extend luassert's own definitions.
local ASSERTIONS = [[
---@class luassert.internal
local internal = {}

--- Passes if both have the same encodings: +0 and -0 differ. docs/luassert.md describes it.
---@param expected samebits.Tensor|table|number|string|ffi.cdata*
---@param actual samebits.Tensor|table|number|string|ffi.cdata*
---@param message? string
function internal.same_bits(expected, actual, message) end

--- Passes if no number is more than n ULPs away.
---@param expected samebits.Tensor|table|number|ffi.cdata*
---@param actual samebits.Tensor|table|number|ffi.cdata*
---@param n integer
---@param message? string
function internal.within_ulps(expected, actual, n, message) end

--- Passes if a function of batches gives the same bits in whatever batch.
---@param fn fun(batch: samebits.Batch): samebits.Tensor|table
---@param batch samebits.Batch|samebits.BatchSpec
---@param options? table options of `samebits.verify`
---@param message? string
function internal.batch_invariant(fn, batch, options, message) end

return internal
]]

local function assertions()
  begin "samebits.luassert"
  return table.concat(out, "\n") .. "\n" .. ASSERTIONS
end

local files = {}
-- Twice, because a comment may refer to a later one.
for _ = 1, 2 do
  for _, module in ipairs(api.modules()) do
    files[module:gsub("%.", "/") .. ".lua"] = definitions(module)
  end
end
files["samebits/luassert.lua"] = assertions()

local function read(path)
  local file = io.open(path, "rb")
  local text = file and file:read "*a"
  if file then file:close() end
  return text
end

local check = arg[1] == "--check"
if arg[1] and not check then
  io.stderr:write(("gen_types: unknown argument '%s'\n"):format(arg[1]))
  os.exit(1)
end
local stale = {}
local pipe = io.popen("find " .. FOLDER .. " -name '*.lua' 2>/dev/null")
for path in pipe:lines() do
  if not files[path:sub(#FOLDER + 2)] then
    stale[#stale + 1] = path
    if not check then os.remove(path) end
  end
end
pipe:close()
for name, text in pairs(files) do
  local path = FOLDER .. "/" .. name
  if read(path) ~= text then
    stale[#stale + 1] = path
    if not check then
      os.execute("mkdir -p " .. path:match "^(.*)/")
      local file = assert(io.open(path, "wb"))
      assert(file:write(text))
      assert(file:close())
    end
  end
end
if check and #stale > 0 then
  table.sort(stale)
  io.stderr:write("gen_types: stale: ", table.concat(stale, ", "),
                  ": run luajit tools/gen_types.lua\n")
  os.exit(1)
end
