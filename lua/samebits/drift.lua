--- Drift: compares two sets of logprobs, or of logits, of the same tokens bit by bit, and explains
-- why they differ.
--
--     local report = samebits.drift("rollout.safetensors", "trainer.safetensors")
--     print(report:text())
--
-- docs/drift.md describes the inputs and the fields of a report.
-- @module samebits.drift

local ffi = require "ffi"
local causes = require "samebits.drift.causes"
local context = require "samebits.context"
local inputs = require "samebits.drift.inputs"
local misuse = require "samebits.misuse"
local provenance = require "samebits.drift.provenance"
local report = require "samebits.drift.report"
local scorer = require "samebits.drift.scorer"
local sets = require "samebits.drift.sets"
local sides = require "samebits.drift.sides"
local stores = require "samebits.drift.store"
local tally = require "samebits.drift.tally"
local temperature = require "samebits.drift.temperature"
local tokenizer = require "samebits.io.tokenizer"
local tensor = require "samebits.tensor"
local constants = require "samebits.cdef"

local raise = misuse.raise

local OPTIONS = {
  ids = true, mask = true, cu_seqlens = true, temperature = true, kept = true, kept_ids = true,
  kept_offsets = true, vocab = true, a = true, b = true, names = true, ignore_index = true,
  shift = true, near = true, worst = true, memory = true, backend = true, threads = true,
  isa = true, progress = true, keep = true, hash = true, tokenizer = true, command = true,
  align = true,
}

local MIB = 2 ^ 20

--- The bytes of logits, of both sides together, that are held at a time unless `memory` says
-- otherwise.
local MEMORY = 256 * MIB
local LEAST = MIB

--- The most tokens that are held one by one, for the heatmap and the exports.
local KEEP = 2 ^ 22

-- The largest number of tokens at a time.
local CHUNK = 65536

local function number(name, value, default, low, high)
  if value == nil then return default end
  if type(value) ~= "number" or not (value >= low and value <= high) then
    raise("drift: %s: expected a number from %g to %g, got %s", name, low, high, tostring(value))
  end
  return value
end

-- True, false, or nil if it was not given.
local function shift_of(value)
  if value == nil then return nil end
  if value == false or value == 0 then return false end
  if value == true or value == 1 then return true end
  raise("drift: shift: expected 0, 1 or a boolean, got %s", tostring(value))
end

local function options(meta)
  if meta == nil then meta = {} end
  if type(meta) ~= "table" or tensor.is_tensor(meta) then
    raise("drift: expected a table of options, got %s", misuse.kind(meta))
  end
  for key in pairs(meta) do
    if not OPTIONS[key] then raise("drift: unknown option '%s'", tostring(key)) end
  end
  if meta.names ~= nil and (type(meta.names) ~= "table" or type(meta.names[1]) ~= "string" or
                            type(meta.names[2]) ~= "string") then
    raise "drift: names: expected two strings"
  end
  if meta.progress ~= nil and type(meta.progress) ~= "function" then
    raise("drift: progress: expected a function, got %s", misuse.kind(meta.progress))
  end
  if meta.align ~= nil and type(meta.align) ~= "boolean" then
    raise("drift: align: expected a boolean, got %s", misuse.kind(meta.align))
  end
  for _, name in ipairs { "tokenizer", "command" } do
    if meta[name] ~= nil and type(meta[name]) ~= "string" then
      raise("drift: %s: expected a string, got %s", name, misuse.kind(meta[name]))
    end
  end
  return {
    keep = number("keep", meta.keep, KEEP, 0, 2 ^ 31),
    hash = number("hash", meta.hash, provenance.HASHED, 0, 2 ^ 53),
    near = number("near", meta.near, 1e-5, 0, 1), worst = number("worst", meta.worst, 10, 0, 1e4),
    memory = number("memory", meta.memory, MEMORY, LEAST, 2 ^ 53),
    ignore_index = number("ignore_index", meta.ignore_index, constants.SB_IGNORE_INDEX,
                          -2 ^ 53, 2 ^ 53),
    shift = shift_of(meta.shift), progress = meta.progress or function() end,
  }, meta
end

-- The number of rows at a time: as many as fit into memory with their logits.
local function chunk_rows(a, b, memory)
  local bytes = 0
  for _, side in ipairs { a, b } do
    if side.logits then bytes = bytes + side.width * side.logits.itemsize end
  end
  return math.max(1, math.min(CHUNK, math.floor(memory / math.max(bytes, 1))))
end

local READ = {
  int8 = "const int8_t *", uint8 = "const uint8_t *", bool = "const uint8_t *",
  int16 = "const int16_t *", int32 = "const int32_t *", int64 = "const int64_t *",
}

-- Calls f(i, x) for integers first .. first + n - 1.
local function each_integer(t, first, n, f)
  local slice = t:slice(0, first, first + n):to "cpu":contiguous()
  local p = ffi.cast(READ[slice.dtype], slice.ptr)
  for i = 0, n - 1 do f(i, p[i]) end
end

-- Which rows of a chunk are active on a side: uint8 [n].
local function active(side, first, n, opts)
  local out = tensor.zeros({ n }, "uint8")
  local flags = ffi.cast("uint8_t *", out.ptr)
  ffi.fill(flags, n, 1)
  if side.mask then
    each_integer(side.mask, first, n, function(i, x) if x == 0 then flags[i] = 0 end end)
  end
  if side.ids then
    local ignored = ffi.cast("int64_t", opts.ignore_index)
    each_integer(side.ids, first, n, function(i, x) if x == ignored then flags[i] = 0 end end)
  end
  if opts.shift == 1 then
    for i = 0, n - 1 do
      local _, position = side.layout.place(first + i)
      if position == 0 then flags[i] = 0 end
    end
  end
  return out
end

-- The logprobs of a chunk as fp32: the given ones, or the contract's.
local function values(score, side, first, n, flags)
  if not side.logprobs then return score:rows(side, first, n, flags) end
  return side.logprobs:slice(0, first, first + n):to "cpu":to("float32"):contiguous()
end

local function words(t) return ffi.cast("const int32_t *", t.ptr) end

-- How many of a side's active values fp32 cannot hold. Only float64 has such values.
local function inexact(side, first, n, flags, made)
  if not side.logprobs or side.logprobs.dtype ~= "float64" then return 0 end
  local given = side.logprobs:slice(0, first, first + n):contiguous()
  local p, q = ffi.cast("const double *", given.ptr), ffi.cast("const float *", made.ptr)
  local is_active, w, count = ffi.cast("const uint8_t *", flags.ptr), words(made), 0
  for i = 0, n - 1 do
    if is_active[i] ~= 0 and not tally.is_nan(w[i]) and p[i] ~= q[i] then count = count + 1 end
  end
  return count
end

-- The first pass: everything except causes.
local function compare(run)
  local a, b, layout, opts, score = run.a, run.b, run.layout, run.opts, run.score
  local count = tally.new(layout, opts.worst)
  local given = inputs.new(a, b, layout)
  run.tally, run.chunks = count, {}
  local both = a.logits and b.logits
  for first = 0, layout.rows - 1, run.step do
    scorer.check_files(run.opened)
    local n = math.min(run.step, layout.rows - first)
    local on_a, on_b = active(a, first, n, opts), active(b, first, n, opts)
    for _, pair in ipairs { { a, on_a }, { b, on_b } } do
      if pair[1].logits then scorer.check_ids(pair[1], first, n, pair[2], layout) end
    end
    local p, q = ffi.cast("const uint8_t *", on_a.ptr), ffi.cast("const uint8_t *", on_b.ptr)
    given:add(first, n, p, q)
    local x, y = values(score, a, first, n, on_a), values(score, b, first, n, on_b)
    a.inexact = (a.inexact or 0) + inexact(a, first, n, on_a, x)
    b.inexact = (b.inexact or 0) + inexact(b, first, n, on_b, y)
    local each = run.cpu:compare(x, y)
    if run.store then run.store:put(first, n, words(x), words(y), p, q) end
    local flags = tensor.zeros({ n }, "uint8")
    local different = count:add(first, n, words(x), words(y), p, q, {
      ratio = ffi.cast("const float *", each.ratio.ptr),
      k1 = ffi.cast("const float *", each.k1.ptr), k2 = ffi.cast("const float *", each.k2.ptr),
      k3 = ffi.cast("const float *", each.k3.ptr),
    }, ffi.cast("uint8_t *", flags.ptr))
    if both then
      for i = 0, n - 1 do
        if p[i] ~= 0 and q[i] ~= 0 then
          run.rows_compared = run.rows_compared + 1
          if not score:same_logits(a, b, first + i) then
            run.rows_different = run.rows_different + 1
          end
        end
      end
    end
    if different > 0 then run.chunks[#run.chunks + 1] = { first = first, n = n } end
    score:forget(a, first, n)
    score:forget(b, first, n)
    opts.progress(first + n, layout.rows, "comparing")
  end
  count:finish()
  run.inputs = given:finish()
end

-- Tokens that differ: the worst ones and some evenly chosen, the largest difference first.
local function probes_of(run)
  local seen, out = {}, {}
  for _, list in ipairs { run.tally.worst, run.tally.probe } do
    for _, entry in ipairs(list) do
      if not seen[entry.row] then
        seen[entry.row] = true
        out[#out + 1] = entry
      end
    end
  end
  table.sort(out, function(x, y)
    if x.rank ~= y.rank then return x.rank > y.rank end
    return x.row < y.row
  end)
  return out
end

-- Temperatures, and top-k and top-p, for which the tokens that differ are evidence: { taus, sets },
-- keyed by the labels of two sides: the one with the logits and the one with the values.
local function fit(run)
  local score, fits, probes = run.score, {}, {}
  for _, entry in ipairs(probes_of(run)) do
    if entry.rank < math.huge then probes[#probes + 1] = entry end
  end
  for _, pair in ipairs {
    { run.a, run.b }, { run.b, run.a }, { run.a, run.a }, { run.b, run.b },
  } do
    local side, target = pair[1], pair[2]
    -- A side's own logits if the other side has none.
    local only = not (run.a.logits and run.b.logits)
    if side.logits and (side ~= target or side.logprobs and only) then
      local list, field = {}, target.label:lower()
      for i, entry in ipairs(probes) do
        list[i] = { row = entry.row, value = tally.value(entry[field]),
                    id = tonumber(side.ids:get(entry.row)) }
      end
      local tau = side.temperature
      local function own(row) return type(tau) == "number" and tau or tau:get(row) end
      local found = { sets = {} }
      found.taus = temperature.fit(list, function(row, try) return score:at(side, row, try) end,
                                   own, run.opts.near)
      -- Kept sets that were given are known. The logprobs of a side without given ones are the
      -- contract's.
      if target.logprobs and not side.kept and not target.kept then
        local count = run.tally
        if count["certain_" .. field] == count.compared then
          found.sets[1] = { k = 1, every = true }
        else
          local taus = { unpack(found.taus) }
          if target.temperature ~= tau then table.insert(taus, 1, target.temperature) end
          found.sets = sets.fit(list, function(row, to) score:copy(side, row, to, side.vocab) end,
                                side.vocab, own, taus, run.opts.near)
        end
      end
      fits[side.label .. target.label] = found
    end
  end
  return fits
end

-- A function that returns, for a sequence, its first row that counts on both sides and the row
-- after the last.
local function extents(run)
  local known, low, past
  return function(sequence)
    if sequence == known then return low, past end
    local first, last = run.layout.bounds(sequence)
    known, low, past = sequence, last, first
    for start = first, last - 1, CHUNK do
      local n = math.min(CHUNK, last - start)
      local on_a, on_b = active(run.a, start, n, run.opts), active(run.b, start, n, run.opts)
      local p, q = ffi.cast("const uint8_t *", on_a.ptr), ffi.cast("const uint8_t *", on_b.ptr)
      for i = 0, n - 1 do
        if p[i] ~= 0 and q[i] ~= 0 then low, past = math.min(low, start + i), start + i + 1 end
      end
    end
    return low, past
  end
end

-- The second pass: only chunks in which tokens differ.
local function explain(run)
  local a, b, score, count = run.a, run.b, run.score, run.tally
  local entries = {}
  for _, entry in ipairs(count.worst) do entries[entry.row] = entry end
  if count.first then entries[count.first.row] = count.first end
  local why = causes.new(a, b, {
    scorer = score, near = run.opts.near, fits = fit(run), layout = run.layout, tally = count,
    fetch = function(side, first, n)
      local made = values(score, side, first, n, active(side, first, n, run.opts))
      score:forget(side, first, n)
      return made
    end,
    extent = extents(run), store = run.store,
  })
  why:screen(probes_of(run))
  for k, chunk in ipairs(run.chunks) do
    scorer.check_files(run.opened)
    local first, n = chunk.first, chunk.n
    local on_a = active(a, first, n, run.opts)
    local on_b = active(b, first, n, run.opts)
    local x, y = values(score, a, first, n, on_a), values(score, b, first, n, on_b)
    local flags = tensor.zeros({ n }, "uint8")
    local flag, p, q = ffi.cast("uint8_t *", flags.ptr), words(x), words(y)
    local left, right = ffi.cast("uint8_t *", on_a.ptr), ffi.cast("uint8_t *", on_b.ptr)
    for i = 0, n - 1 do
      if left[i] ~= 0 and right[i] ~= 0 and p[i] ~= q[i] then flag[i] = 1 end
    end
    why:add { first = first, n = n, a = p, b = q, flags = flags, wanted = entries }
    score:forget(a, first, n)
    score:forget(b, first, n)
    run.opts.progress(k, #run.chunks, "explaining")
  end
  run.causes, run.unexplained, run.unexplained_small = why:finish(entries)
  run.op = why.op
end

local function drift(a, b, meta)
  local opts
  opts, meta = options(meta)
  local first, second, layout, opened = sides.read(a, b, meta, opts.shift)
  -- Aligned sides have shifts of their own.
  opts.shift = not layout.alignment and (opts.shift or layout.shift) and 1 or 0
  if meta.names then
    first.name, second.name = first.name or meta.names[1], second.name or meta.names[2]
  end
  local cpu = misuse.try(context.open "cpu")
  local ctx = misuse.try(context.open(meta.backend or "cpu",
                                      { threads = meta.threads, isa = meta.isa }))
  local run = {
    a = first, b = second, layout = layout, opts = opts, cpu = cpu, rows_compared = 0,
    rows_different = 0, step = chunk_rows(first, second, opts.memory), causes = {}, unexplained = 0,
    unexplained_small = 0,
    score = scorer.new(ctx, opts.ignore_index, opts.shift), opened = opened,
    store = layout.rows <= opts.keep and stores.new(layout.rows) or nil,
    made = provenance.made(ctx, meta.command),
    texts = meta.tokenizer and misuse.try(tokenizer.open(meta.tokenizer)) or nil,
  }
  function run.ratio(x, y) return cpu:compare(x, y, { outputs = { "ratio" } }).ratio end
  local ok, result = pcall(function()
    compare(run)
    if run.tally.different > 0 then explain(run) end
    scorer.check_files(opened) -- before they are hashed: a file that was shortened cannot be read
    run.files = provenance.files(opened, opts.hash)
    scorer.check_files(opened)
    return report.new(run)
  end)
  ctx:close()
  cpu:close()
  if not ok then error(result, 0) end
  return result
end

local M = {}

--- Compares two sides, A (the policy that the tokens were sampled from) and B.
-- @param a logprobs [B, T] or [N], or logits [B, T, V] or [N, V]: a tensor, nested lists, a
-- DLManagedTensor *, the path of a .npy or .safetensors file (FILE:NAME names a tensor in it); or a
-- table of the side's fields: `logprobs`, `logits`, `ids`, `mask`, `temperature`, `kept` (or
-- `kept_ids` and `kept_offsets`), `cu_seqlens`, `vocab`, `name`, each in one of these forms;
-- instead of logits `hidden`, `head`, and `format`, `bias`, `scale`, `softcap`
-- @param b as for `a`
-- @tparam[opt] table meta fields that apply to both sides: the same fields; `a` and `b`: tables of
-- fields of one side, for sides that are not tables; `names`: the names of the two; `ignore_index`
-- (-100); `shift`: whether the logits of row t score id t + 1, which shapes may also tell; `near`
-- (1e-5): nats within which a token counts as nearly explained; `worst` (10): the number of worst
-- tokens to list; `memory` (256 MiB): bytes of logits to hold together; `backend` ("cpu"),
-- `threads`, `isa`: where to compute; `progress`: a function of done, total and the current step;
-- `align`: whether tokens are aligned by their ids; by default, if the layouts differ;
-- `tokenizer`: the path of a tokenizer.json or vocab.json, for the texts of ids; `keep` (2^22): the
-- most tokens to hold one by one, for the heatmap and the exports; `hash` (16 MiB): the size up to
-- which files are hashed; `command`: what the report names as the command that made it
-- @treturn table a report; or nil and a message if a file or a backend cannot be used. Inputs that
-- do not fit together are an error.
M.drift = misuse.guard(drift)

return M
