#!/usr/bin/env luajit
-- accuracy.lua - measures the tables of docs/accuracy.md and writes them between the marks in that
-- file.
--
--     luajit tools/accuracy.lua [--times N] [--vocab V] [--out FILE] [--worst]
--
--   --times   measures N times as many rows as the specs do (default: 4)
--   --vocab   measures this vocabulary only
--   --out     the file that holds the marks (default: docs/accuracy.md)
--   --worst   writes only the table of the worst rows found, which has marks of its own
--
-- PYTHON names an interpreter with PyTorch; without one, the PyTorch columns are omitted. Takes
-- about a minute.

local root = (arg[0]:match("^(.*)/[^/]*$") or ".") .. "/.."
package.path = ("%s/?.lua;%s/lua/?.lua;%s"):format(root, root, package.path)

local ffi = require "ffi"
local samebits = require "samebits"
local comparison = require "spec.support.comparison"
local fp32_softmax = require "spec.support.fp32_softmax"
local tolerance = require "spec.support.tolerance"
local torch = require "spec.support.torch"
local worst = require "spec.support.worst"

local OURS = comparison.OURS

local function fail(format, ...)
  io.stderr:write("accuracy: ", format:format(...), "\n")
  os.exit(1)
end

local function options()
  local known = { ["--times"] = 4, ["--vocab"] = false, ["--out"] = root .. "/docs/accuracy.md",
                  ["--worst"] = false }
  local i = 1
  while arg[i] do
    local name, value = arg[i], arg[i + 1]
    if known[name] == nil then fail("unknown argument '%s'", name) end
    i = i + (name == "--worst" and 1 or 2)
    if name == "--worst" then value = true end
    if not value then fail("%s needs a value", name) end
    if name ~= "--out" and name ~= "--worst" then
      local number = tonumber(value)
      if not number or number < 1 or number % 1 ~= 0 then
        fail("%s %s: not a positive integer", name, value)
      end
      value = number
    end
    known[name] = value
  end
  return known
end

local function read(path)
  local file, why = io.open(path, "rb")
  if not file then fail("%s", why) end
  local text = file:read "*a"
  file:close()
  return text
end

local function write(path, text)
  local file = assert(io.open(path .. ".tmp", "wb"))
  assert(file:write(text))
  assert(file:close())
  assert(os.rename(path .. ".tmp", path))
end

-- A number in scientific notation without a padded exponent: 1.2e-7.
local function short(v)
  if v == 0 then return "0" end
  return (("%.1e"):format(v):gsub("e([+-])0*", "e%1"):gsub("e%+", "e"))
end

local function ulps(v) return v < 999.5 and ("%.3g"):format(v) or short(v) end

local function machine()
  ffi.cdef "const char *gnu_get_libc_version(void);"
  local cpu
  for line in io.lines "/proc/cpuinfo" do cpu = cpu or line:match "^model name%s*: (.*)" end
  local ok, libc = pcall(function() return ffi.string(ffi.C.gnu_get_libc_version()) end)
  return ("%s, %s"):format(cpu or "unknown processor",
                           ok and "glibc " .. libc or "another libc than glibc")
end

-- The errors of all cells, in groups: one group per cell, one per dtype and distribution, and one
-- per dtype.
local function measure(cells, paths, ctx, run)
  local groups = comparison.groups(paths)
  local function pooled(cell, all)
    return cell.dtype .. " | " .. (all and "**all**" or cell.distribution.name)
  end
  local function score(batch) return assert(ctx:logprob(batch)) end
  local truths = {}
  for _, cell in ipairs(cells) do
    local function add(path, got, exact)
      groups.add(cell.name, path, got, exact)
      groups.add(pooled(cell), path, got, exact)
      groups.add(pooled(cell, true), path, got, exact)
    end
    local t, truth = comparison.cell(cell, score, add)
    if run then
      run:add(cell, t, truth)
      truths[cell.name] = { add = add, rows = truth }
    end
  end
  local results = run and run:finish() or {}
  for name, by_path in pairs(results) do
    for path, rows in pairs(by_path) do
      for r, row in ipairs(truths[name].rows) do
        for k, exact in ipairs(row.exact) do truths[name].add(path, rows[r][k], exact) end
      end
    end
  end
  return groups, pooled
end

-- The names that the tables use.
local TITLES = {
  [OURS] = "samebits", sequential = "fp32, sequential", lanes = "fp32, 1024 lanes",
  pairwise = "fp32, pairwise",
  [torch.PATHS[1]] = "PyTorch log_softmax", [torch.PATHS[2]] = "PyTorch logsumexp",
}

-- The text with the part between two marks replaced.
local function replaced(path, text, name, lines)
  local before, after = ("<!-- %s: begin -->\n"):format(name), ("<!-- %s: end -->\n"):format(name)
  local first, last = text:find(before, 1, true), text:find(after, 1, true)
  if not first or not last or last < first then
    fail("%s: the marks are missing: %s%s", path, before, after)
  end
  return text:sub(1, first - 1) .. before .. table.concat(lines, "\n") .. "\n" .. text:sub(last)
end

local function row_of(cells) return "| " .. table.concat(cells, " | ") .. " |" end

local function head_of(lines, names)
  lines[#lines + 1] = row_of(names)
  lines[#lines + 1] = "|" .. (" --- |"):rep(#names)
end

local function summary(lines, cells, groups, pooled, paths)
  local names = { "dtype", "logits", "tokens" }
  for _, path in ipairs(paths) do names[#names + 1] = TITLES[path] end
  head_of(lines, names)
  local seen = {}
  local function line(key)
    if seen[key] then return end
    seen[key] = true
    local of = groups.at(key)
    local row = { key, ("%d"):format(of[OURS].all:count()) }
    for _, path in ipairs(paths) do
      row[#row + 1] = ("%s / %s"):format(short(of[path].beyond:mean()),
                                         short(of[path].beyond:max()))
    end
    lines[#lines + 1] = row_of(row)
  end
  for _, dtype in ipairs(tolerance.DTYPES) do
    local any
    for _, cell in ipairs(cells) do
      if cell.dtype == dtype then
        any = cell
        line(pooled(cell))
      end
    end
    line(pooled(any, true))
  end
end

local function full(lines, cells, groups, dtype, paths)
  local names = { "V", "logits", "tokens" }
  for _, path in ipairs(paths) do
    names[#names + 1] = TITLES[path] .. ": absolute"
    names[#names + 1] = "ULPs"
  end
  head_of(lines, names)
  for _, cell in ipairs(cells) do
    if cell.dtype == dtype then
      local of = groups.at(cell.name)
      local row = { cell.vocab, cell.distribution.name, ("%d"):format(of[OURS].all:count()) }
      for _, path in ipairs(paths) do
        local e = of[path].all
        row[#row + 1] = ("%s / %s / %s"):format(short(e:percentile(0.5)),
                                                short(e:percentile(0.99)), short(e:max()))
        row[#row + 1] = ("%s / %s / %s"):format(ulps(e:percentile(0.5, "ulps")),
                                                ulps(e:percentile(0.99, "ulps")),
                                                ulps(e:max "ulps"))
      end
      lines[#lines + 1] = row_of(row)
    end
  end
end

-- The table of the rows with the largest known errors.
local function worst_rows(ctx)
  local at = {
    context = function() return ctx end,
    batch = samebits.batch,
    score = function(spec, opts) return assert(ctx:logprob(samebits.batch(spec), opts)) end,
  }
  local lines = {}
  head_of(lines, { "what", "V", "exactly", "error", "bound, with half an ulp", "share" })
  for _, case in ipairs(worst.CASES) do
    local m = worst.measure(case, at)
    lines[#lines + 1] = row_of { case.what, m.vocab, ("%.6g"):format(m.exact), short(m.error),
                                 short(m.bound), ("%.2f"):format(m.error / m.bound) }
  end
  return lines
end

local given = options()
local times, vocab, path = given["--times"], given["--vocab"] or nil, given["--out"]
local ctx = assert(samebits.open "cpu")
local text = read(path)
if given["--worst"] then
  write(path, replaced(path, text, "worst", worst_rows(ctx)))
  return
end
replaced(path, text, "measured", {}) -- fails early if the marks are missing

local run, why = torch.start()
if not run then io.stderr:write("accuracy: ", why, "; its columns are left out\n") end

local paths, narrow = { OURS }, { OURS }
if run then
  for _, name in ipairs(torch.PATHS) do paths[#paths + 1] = name end
  narrow[#narrow + 1] = torch.PATHS[1]
end
for i = #fp32_softmax.NAMES, 1, -1 do paths[#paths + 1] = fp32_softmax.NAMES[i] end
narrow[#narrow + 1], narrow[#narrow + 2] = "pairwise", "sequential"

local cells = tolerance.cells(vocab, times)
local groups, pooled = measure(cells, paths, ctx, run)

local lines = {}
local command = ("luajit tools/accuracy.lua --times %d%s"):format(
  times, vocab and " --vocab " .. vocab or "")
lines[1] = ("`%s`, %s; %s;"):format(command, os.date "%Y-%m-%d", machine())
lines[2] = ("samebits %s, numerics %d; %s."):format(
  samebits.version, samebits.numerics,
  run and "PyTorch " .. run.version .. " on the CPU" or "no PyTorch")
lines[3] = "\n## Summary: error beyond rounding, mean / largest\n"
summary(lines, cells, groups, pooled, paths)
for _, dtype in ipairs(tolerance.DTYPES) do
  lines[#lines + 1] = ("\n## %s logits: error, median / 99 %% / largest\n"):format(dtype)
  full(lines, cells, groups, dtype, narrow)
end
write(path, replaced(path, text, "measured", lines))
