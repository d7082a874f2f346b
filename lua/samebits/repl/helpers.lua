--- The helpers: names that are available at the prompt, and the text of `help` for them.
--
-- They are thin wrappers of the library. But if a call of the library returns nil and a message,
-- they raise the message, so that `d = load "typo.npy"` does not silently become nil.

local bits = require "samebits.bits"
local color = require "samebits.repl.color"
local complete = require "samebits.repl.complete"
local context = require "samebits.context"
local drift = require "samebits.drift"
local formats = require "samebits.io.formats"
local manual = require "samebits.repl.manual"
local posix = require "samebits.io.posix"
local pretty = require "samebits.repl.pretty"
local sources = require "samebits.repl.sources"
local tensor = require "samebits.tensor"
local wrap = require "samebits.text.wrap"

local WRITTEN = 100   -- the columns that texts are written in

local print = print   -- the prompt's own, even if the user replaces print

local M = {}

local function must(value, message)
  if value == nil then error(message, 0) end
  return value
end

-- Calls the library from this file, because a line of the caller would tell a user nothing.
local function calm(f, ...)
  local function finish(ok, ...)
    if not ok then error((...), 0) end
    return ...
  end
  return finish(pcall(f, ...))
end

-- Loads a module that not every installation has.
local function module(name, what)
  local ok, found = pcall(require, name)
  if ok then return found end
  local first = tostring(found):match "^[^\n]*"
  error(("%s: %s cannot be loaded: %s"):format(what, name, (first:gsub(":$", ""))), 0)
end

-- In the order in which help() lists them: name, form of a call, a description of one line, more.
local TEXTS = {
  { "load", 'load "dump.safetensors"', "tensors of a .npy or .safetensors file", [[
load(path)         a tensor (.npy), or a table of tensors by name (.safetensors)
load(path, name)   one tensor of a .safetensors file
load(path, { copy = true })   the same, read at once

Files are mapped, not read: large ones open at once. One that another program writes to or shortens
meanwhile is better copied. Tab completes paths inside quotes.

  > d = load "dump.safetensors"
  > d.logits:slice(0, 0, 2)]] },
  { "logprob", "logprob{ logits =, ids = }", "logprobs of token ids, on the best backend", [[
logprob(batch)         out.token and out.lse, one number per row; out.sequence and out.count, one
logprob(batch, opts)   per sequence
logprob(d)             of all that a file holds, if its tensors are called logits, ids, mask, ...

batch: what samebits.batch makes, or its table: logits [B, T, V] or [N, V]; ids; and, as needed,
mask, temperature, cu_seqlens, kept (or kept_ids and kept_offsets), shift, rows, ignore_index.
opts: help(ctx.logprob).

The bits of out.token depend on each row's logits, its id and the temperature, and on nothing else.
]] },
  { "bits", "bits(-0.5)", "the encoding of a number or a tensor; back from hex", [[
bits(number)            hex of its float32
bits(number, "float16") of another dtype: float64, bfloat16, int64, ...
bits(tensor)            lists of hex, as nested as its shape
bits "bf000000"         the number that has these bits (with a dtype, of it)]] },
  { "ulp", "ulp(a, b)", "how many steps two numbers or tensors are apart", [[
ulp(a, b)              of two numbers, each rounded to float32; nil if one is NaN
ulp(a, b, "bfloat16")  in another dtype
ulp(s, t)              of two tensors: the largest distance, and a report: how many differ, and the
                       first that does

0 means the same number (ulp counts +0 and -0 as one); samebits.same_bits(s, t) means the same bits.
]] },
  { "drift", "drift(a, b)", "which of two sets of logprobs or logits differ, and why", [[
drift(a, b)         a, b: tensors, paths of .npy or .safetensors files (FILE:NAME), or tables
drift(a, b, meta)   { logits =, ids =, temperature =, ... } of what is known of a side;
                    meta: what is known of both

Shows the report; r = drift(a, b) keeps it: r.verdict; r:html "page.html" writes a page with a map
of all tokens, r:csv "tokens.csv" the tokens, r:json "report.json" an object. More:
help(samebits.drift).]] },
  { "show", "show(value)", "a value in full: tables, tensors, C structs", [[
show(value, ...)    prints what the prompt would show of each value

The prompt shows the values of an expression by itself; show does it inside of loops and functions.
]] },
  { "plot", "plot(y)", "curves in the terminal, or in a file", [[
plot(y)             y: a list or a tensor of numbers, against 0, 1, 2, ...
plot(y1, y2, ...)   several curves
plot(t)             a heatmap of a tensor of two dimensions
plot(y, { mask = m, logy = true, title = "reward" })
                    options: mask leaves tokens out; also kind, xlabel, ylabel, logx, logz, width,
                    height; out = "a.svg" or "a.png" writes a picture, which needs gnuplot
plot{ kind = "lines", series = { { name = "a", x =, y =, mask =, smooth = } } }
                    more: help "samebits.plot.draw"]] },
  { "help", 'help "logprob"', "this; or more about one of them or another function", [[
help()              lists what is at hand
help "bits"         about a helper
help(ctx.topk)      about a function of the library, from its source; so do help "topk" and ?topk
help "one_read"     which functions have such an option; any other word: what mentions it
help(samebits)      what there is: of a module, of ctx, of a tensor, a batch, a report]] },
}

local BY_NAME = {}
for _, entry in ipairs(TEXTS) do BY_NAME[entry[1]] = entry end

local KEYS = [[
ctx is the best backend's context, opened when it is first used; samebits the library; _ the last
value shown. An expression shows its values (so does =expression), a statement runs; what is not
complete goes on in the next line. A local at the prompt stays. ?name and name? show help; %time
before a statement tells how long it takes. Tab completes names, fields and methods; Ctrl-C stops
what runs, or drops the line; Ctrl-D leaves.]]

local function overview()
  local lines = {}
  for _, entry in ipairs(TEXTS) do
    lines[#lines + 1] = ("%-28s %s"):format(entry[2], entry[3])
  end
  return table.concat(lines, "\n") .. "\n\n" .. KEYS
end

-- The help on a value; nil for nil.
local function about(value, name, width)
  if value == nil then return nil end
  if type(value) == "function" then
    return manual.of(value, name) or pretty.text(value)
  end
  local public = manual.module_of(value)
  if public then return manual.of_module(public, width) end
  local methods = manual.of_object(value, name, width)
  return methods and pretty.text(value) .. "\n\n" .. methods or pretty.text(value)
end

-- The help on a name that has no value at the prompt, or an error that suggests other names.
local function search(name, width)
  if sources.is_public(name) then return manual.of_module(name, width) end
  -- A function's full name, such as ctx:topk or samebits.plot.draw.
  local owner, last = name:match "^(.*)[.:]([%w_]+)$"
  if owner and sources.is_public(owner) then
    for _, member in ipairs(sources.members(owner)) do
      if member.name == last and member.parameters then return manual.of_member(name, member) end
    end
  end
  for _, class in ipairs(sources.CLASSES) do
    for _, method in ipairs(owner == class.called and sources.methods(class) or {}) do
      if method.name == last then
        return manual.of(method.value, class.called .. ":" .. last)
      end
    end
  end
  local text = manual.search(name, width)
  if text then return text end
  error(("help: nothing is known of '%s'; help() lists what is"):format(name), 0)
end

-- One dimension of numbers.
local function curve(y, i, count, mask)
  if tensor.is_tensor(y) then y = y:reshape(-1):totable() end
  if type(y) ~= "table" then
    error(("plot: argument %d is %s, not a list or a tensor"):format(i, type(y)), 0)
  end
  return { name = count > 1 and ("%d"):format(i) or nil, y = y, mask = mask }
end

-- A table of options: its keys are names.
local function is_options(value)
  return type(value) == "table" and not tensor.is_tensor(value) and type(next(value)) == "string"
end

-- The plot of the arguments of the helper.
local function asked_for(n, ...)
  local given = { ... }
  if n == 1 and is_options(given[1]) and (given[1].series or given[1].z) then return given[1] end
  local asked = {}
  if n > 1 and is_options(given[n]) then
    for key, value in pairs(given[n]) do asked[key] = value end
    n = n - 1
  end
  local first, mask = given[1], asked.mask
  if n == 1 and tensor.is_tensor(first) and first.ndim == 2 and first.shape[1] > 1 and
     asked.kind == nil then
    asked.kind, asked.z = "heatmap", first
    return asked
  end
  asked.kind, asked.series, asked.mask = asked.kind or "lines", {}, nil
  for i = 1, n do asked.series[i] = curve(given[i], i, n, mask) end
  return asked
end

--- Returns the helpers as a table by name. `get` returns the value of a name at the prompt.
function M.make(get)
  local helpers = {}

  function helpers.load(path, name, opts)
    return must(calm(formats.load, path, name, opts))
  end

  function helpers.logprob(batch, opts) return must(calm(context.logprob, batch, opts)) end

  function helpers.bits(value, dtype)
    if tensor.is_tensor(value) then return value:bits() end
    if type(value) == "string" then return calm(bits.from_hex, value, dtype) end
    return calm(bits.hex, value, dtype)
  end

  function helpers.ulp(a, b, dtype)
    if not tensor.is_tensor(a) and not tensor.is_tensor(b) then
      return calm(bits.ulp, a, b, dtype)
    end
    local same, report = calm(bits.same_bits, a, b)
    if same then return 0 end
    -- Tensors of different dtypes or shapes have no distance, and neither have NaNs.
    return report.max_ulps, report
  end

  function helpers.drift(...)
    return must(calm(drift.drift, ...))
  end

  function helpers.show(...)
    for i = 1, select("#", ...) do print(pretty.text((select(i, ...)))) end
  end

  function helpers.plot(...)
    local plot = module("samebits.plot", "plot")
    local asked = {}
    for key, value in pairs(asked_for(select("#", ...), ...)) do asked[key] = value end
    if asked.out == nil then
      asked.width = asked.width or math.min(posix.columns(1) or 78, 160)
      asked.height = asked.height or 20
      if asked.color == nil then asked.color = color.enabled() end
    end
    print((must(calm(plot.draw, asked)):gsub("\n+$", "")))
  end

  function helpers.help(...)
    local width = posix.columns(1) or WRITTEN
    local function tell(text)
      print(color.help(color.enabled(), wrap.page(text:gsub("\n$", ""), width)))
    end
    if select("#", ...) == 0 then return tell(overview()) end
    local topic = ...
    local name = type(topic) == "string" and topic:gsub("%(%)$", "") or nil
    for known, f in pairs(helpers) do
      if BY_NAME[known] and (topic == f or name == known) then return tell(BY_NAME[known][4]) end
    end
    local value = topic
    if name then
      local ok, found = complete.follow(name, get)
      value = ok and found or nil
    end
    if value == nil and not name then error("help: the value is nil; help() lists what is", 0) end
    tell(about(value, name, width) or search(name, width))
  end

  return helpers
end

return M
