--- Checks golden vectors through the public API, on every backend and instruction set of this
-- machine.

local ffi = require "ffi"
local bit = require "bit"
local posix = require "samebits.io.posix"
local tensor = require "samebits.tensor"
local batches = require "samebits.batch"
local kept_sets = require "samebits.batch.kept"
local vectors = require "samebits.vectors"
local variants = require "samebits.variants"
local shard_draws = require "samebits.selftest.draw"
local head_backward = require "samebits.selftest.head_backward"

local M = {}

--- The files that the public API can be checked with.
M.FILES = { "rows.txt", "generated.txt", "batches.txt", "shards.txt", "order.txt",
            "sample.txt", "constants.txt", "entropy.txt", "gradient.txt", "kl.txt", "heads.txt",
            shard_draws.file, head_backward.file }

-- Files whose checks are in modules of their own.
local OWN = { [shard_draws.file] = shard_draws, [head_backward.file] = head_backward }

--- Whether a file is checked on a variant of the library.
function M.has(at, file) return not OWN[file] or OWN[file].has(at) end

local here = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$" or "."

--- The folder of these files: beside the installed Lua modules, or in the checkout.
M.directory = posix.kind_of_path(here .. "/vectors") and here .. "/vectors" or
              here .. "/../../spec/vectors"

local function hex(t, i)
  return bit.tohex(ffi.cast("const uint32_t *", t.ptr)[i])
end

-- The results of a call in memory; or nil and a message.
local function in_memory(out, why)
  if not out then return nil, why end
  local results = {}
  for name, t in pairs(out) do
    results[name], why = t:to "cpu"
    if not results[name] then return nil, why end
  end
  return results
end

local function score(ctx, batch, opts) return in_memory(ctx:logprob(batch, opts)) end

-- Each check returns nothing, or a description of the difference.

-- A record's bytes, in order.
local function bytes_of(t)
  local copy, why = t:to "cpu"
  if not copy then return nil, why end
  return table.concat(copy:view(-1):bits())
end

-- The target record of a logit, or of none.
local function target_bytes(x)
  if not x then return ("00"):rep(8) end
  return x:gsub("(%x%x)(%x%x)(%x%x)(%x%x)", "%4%3%2%1") .. "01000000"
end

-- Checks the records of the ids first .. first + n - 1 of a row. Returns them and the batch; or nil
-- and a description of the difference.
local function check_records(ctx, case, id, x, part)
  local logits, why = case.logits:slice(1, part.first, part.first + part.n):to(ctx.device)
  if not logits then return nil, why end
  local batch = batches.new { logits = logits, ids = { id }, temperature = case.tau,
                              first = part.first, vocab = case.vocab }
  local records, problem = ctx:partial(batch)
  if not records then return nil, problem end
  local owned = part.first <= id and id < part.first + part.n
  for _, check in ipairs { { "state", records.states, part.state },
                           { "target record", records.targets, target_bytes(owned and x) } } do
    local got, lost = bytes_of(check[2])
    if got ~= check[3] and (check[1] == "state" or x) then
      return nil, lost or ("%s of %d ids from %d on, target %d: expected %s, got %s"):format(
        check[1], part.n, part.first, id, check[3], got)
    end
  end
  return records, batch
end

-- Checks a row and its targets, one call each.
local function check_row(ctx, case)
  if case.state then
    local whole, wrong = check_records(ctx, case, case.targets[1].id, nil,
                                       { first = 0, n = case.vocab, state = case.state })
    if not whole then return wrong end
  end
  local logits, lost = case.logits:to(ctx.device)
  if not logits then return lost end
  for _, target in ipairs(case.targets) do
    local batch = batches.new { logits = logits, ids = { target.id }, temperature = case.tau }
    local out, why = score(ctx, batch, { outputs = { "token", "lse" } })
    if not out then return why end
    if hex(out.token, 0) ~= target.bits then
      return ("logprob of id %d: expected %s, got %s"):format(target.id, target.bits,
                                                             hex(out.token, 0))
    end
    if hex(out.lse, 0) ~= case.lse then
      return ("lse: expected %s, got %s"):format(case.lse, hex(out.lse, 0))
    end
  end
end

local function batch_of(case)
  local function shaped(values, dtype)
    return values and tensor.tensor(values, { dtype = dtype }):view(case.row_shape)
  end
  local temperature = case.temperature
  if case.temperatures then
    temperature = tensor.from_bits(case.temperatures):view(case.row_shape)
  end
  local logits = case.logits
  if case.padded then
    logits = logits:view { case.padded[1], case.padded[2], case.vocab }
  end
  return batches.new {
    logits = logits, ids = shaped(case.ids, "int64"), mask = shaped(case.mask, "uint8"),
    temperature = temperature, cu_seqlens = case.cu_seqlens, rows = case.row_list,
    shift = case.shift, ignore_index = case.ignore_index,
  }
end

local function check_batch(ctx, case)
  local batch, lost = batch_of(case):to(ctx.device)
  if not batch then return lost end
  local ok, out, why = pcall(score, ctx, batch)
  if case.bad_id then
    local row, id = case.bad_id[1], case.bad_id[2]
    if ok then return ("expected an error that names row %d and id %d, got none"):format(row,
      id) end
    local words = out:gsub("[^%w-]+", " ") .. " "
    if not words:find(("row %d "):format(row), 1, true) or
       not words:find(("id %d "):format(id), 1, true) then
      return ("expected an error that names row %d and id %d, got: %s"):format(row, id, out)
    end
    return
  end
  if not ok then return out end
  if not out then return why end

  for _, name in ipairs { "token", "lse", "sequence" } do
    for i, want in ipairs(case[name]) do
      local got = hex(out[name], i - 1)
      if got ~= want then return ("%s %d: expected %s, got %s"):format(name, i - 1, want, got) end
    end
    if out[name]:numel() ~= #case[name] then
      return ("%s: expected %d values, got %d"):format(name, #case[name], out[name]:numel())
    end
  end
  for b, want in ipairs(case.count) do
    local got = tonumber(out.count:get(b - 1))
    if got ~= want then return ("count %d: expected %d, got %d"):format(b - 1, want, got) end
  end
end

-- Checks whole records with a target's logits that the row need not hold: the largest that can be
-- finished, and the next one, which is refused.
local function check_limit(ctx, case, states, batch)
  local function finish(x)
    local bytes = {}
    for byte in target_bytes(x):gmatch "%x%x" do bytes[#bytes + 1] = byte end
    local targets, lost = tensor.from_bits(bytes, "uint8"):view(1, #bytes):to(ctx.device)
    if not targets then return nil, lost end
    return ctx:finish({ states = states, targets = targets }, batch, { outputs = { "token" } })
  end
  local out, why = in_memory(finish(case.limit.x))
  if not out then return why end
  if hex(out.token, 0) ~= case.limit.bits then
    return ("logprob of the logit %s: expected %s, got %s"):format(case.limit.x, case.limit.bits,
                                                                   hex(out.token, 0))
  end
  local ok, message = pcall(finish, case.limit.refused)
  if ok then return ("the target's logit %s: expected an error, got none"):format(
    case.limit.refused) end
  if not tostring(message):find("(" .. case.limit.refused .. ") is larger", 1, true) then
    return "expected an error about the target's logit, got: " .. tostring(message)
  end
end

-- Checks a row cut into shards, for each of its targets: every record, the merged ones, and the
-- results.
local function check_shards(ctx, case)
  for _, target in ipairs(case.records) do
    local list, batch = {}, nil
    for s, part in ipairs(case.shards) do
      list[s], batch = check_records(ctx, case, target.id, target.x, part)
      if not list[s] then return batch end
    end
    local merged, why = ctx:merge(list)
    if not merged then return why end
    local got, lost = bytes_of(merged.states)
    if got ~= case.state then
      return lost or ("merged state: expected %s, got %s"):format(case.state, got)
    end
    got, lost = bytes_of(merged.targets)
    if got ~= target_bytes(target.x) then
      return lost or ("merged target %d: expected %s, got %s"):format(target.id,
                                                                      target_bytes(target.x), got)
    end
    local out, problem = ctx:finish(merged, batch, { outputs = { "token", "lse" } })
    if not out then return problem end
    for name, want in pairs { token = target.bits, lse = case.lse } do
      local t, gone = out[name]:to "cpu"
      if not t then return gone end
      if hex(t, 0) ~= want then
        return ("%s of id %d: expected %s, got %s"):format(name, target.id, want, hex(t, 0))
      end
    end
    local wrong = case.limit and check_limit(ctx, case, merged.states, batch)
    if wrong then return wrong end
  end
end

-- Checks several ids per row, their ranks, and the first ids; also each id alone. sets: the row's
-- kept set, as fields of a batch.
local function check_order_in(ctx, case, sets)
  local ids, n, k = {}, #case.entries, #case.first
  for i, entry in ipairs(case.entries) do ids[i] = entry.id end
  local spec = { logits = case.logits, ids = { ids }, temperature = case.tau, kept = sets.kept,
                 kept_ids = sets.kept_ids, kept_offsets = sets.kept_offsets }
  local batch, lost = batches.new(spec):to(ctx.device)
  if not batch then return lost end
  local out, why = in_memory(ctx:logprob_ids(batch))
  if not out then return why end
  local function differs(what, want, got)
    if want ~= got then return ("%s: expected %s, got %s"):format(what, want, got) end
  end
  for i = 1, n do
    local entry, what = case.entries[i], ("id %d"):format(ids[i])
    local wrong = differs("logprob of " .. what, entry.bits, hex(out.logprob, i - 1)) or
                  differs("rank of " .. what, entry.rank, out.rank:get(0, i - 1))
    if wrong then return wrong end
    spec.ids = { ids[i] }
    batch, lost = batches.new(spec):to(ctx.device)
    if not batch then return lost end
    local alone, problem = score(ctx, batch)
    if not alone then return problem end
    wrong = differs("logprob by itself of " .. what, entry.bits, hex(alone.token, 0)) or
            differs("lse", case.lse, hex(alone.lse, 0))
    if wrong then return wrong end
  end
  local top
  top, why = in_memory(ctx:topk(batch, k))
  if not top then return why end
  for i, first in ipairs(case.first) do
    local wrong = differs(("place %d"):format(i - 1), first.id, top.ids:get(0, i - 1)) or
                  differs(("logprob of place %d"):format(i - 1), first.bits,
                          hex(top.logprob, i - 1))
    if wrong then return wrong end
  end
  return differs("lse of the first", case.lse, hex(top.lse, 0)) or
         differs("lse of several", case.lse, hex(out.lse, 0))
end

-- The same with the kept set as words and as a list.
local function check_order(ctx, case)
  if not case.kept then return check_order_in(ctx, case, {}) end
  local words = tensor.from_bits(case.kept, "int32"):view(1, #case.kept)
  local ids, offsets = kept_sets.lists(words, case.vocab)
  local wrong = check_order_in(ctx, case, { kept_ids = ids, kept_offsets = offsets })
  if wrong then return "as a list: " .. wrong end
  return check_order_in(ctx, case, { kept = words })
end

local uint64 = ffi.typeof "uint64_t"

-- The int64_t of 16 hex digits.
local function word64(text)
  local high, low = tonumber(text:sub(1, 8), 16), tonumber(text:sub(9), 16)
  return ffi.cast("int64_t", uint64(high) * 2 ^ 32 + uint64(low))
end

-- The case's row once for each draw, so that one call makes all of them.
local function repeated(case, rows)
  local row = case.logits:numel() * case.logits.itemsize
  local logits = tensor.empty({ rows, case.vocab }, case.logits.dtype)
  for i = 0, rows - 1 do ffi.copy(logits.ptr + i * row, case.logits.ptr, row) end
  local spec = { logits = logits, temperature = case.tau }
  if case.kept then
    local words = {}
    for i = 1, rows do words[i] = case.kept end
    spec.kept = tensor.from_bits(words, "int32")
  end
  return batches.build(spec, true)
end

local OUTPUTS = { outputs = { "token", "logprob", "kept_logprob", "count", "kept" } }

local function sample(ctx, case, how)
  local batch, why = repeated(case, #(how.bits or how.position)):to(ctx.device)
  if not batch then return nil, why end
  return in_memory(ctx:sample(batch, how, OUTPUTS))
end

-- Checks that the three numbers of random bits give the draw of these bits.
local function check_seeded(ctx, case)
  local by_number, by_bits = { seed = {}, stream = {}, position = {} }, { bits = {} }
  for i, seeded in ipairs(case.seeded) do
    for name, list in pairs(by_number) do list[i] = word64(seeded[name]) end
    by_bits.bits[i] = word64(seeded.bits)
  end
  local got, why = sample(ctx, case, by_number)
  local want, lost = sample(ctx, case, by_bits)
  if not got or not want then return why or lost end
  for i = 0, #case.seeded - 1 do
    if got.token[i] ~= want.token[i] then
      return ("seeded %d: expected token %d, got %d"):format(i, want.token[i], got.token[i])
    end
  end
end

local function check_draws(ctx, case)
  local how = { bits = {}, top_k = {}, top_p = {}, min_p = {} }
  for i, draw in ipairs(case.draws) do
    for name, list in pairs(how) do list[i] = name == "bits" and word64(draw.bits) or draw[name] end
  end
  local out, why = sample(ctx, case, how)
  if not out then return why end
  for i, draw in ipairs(case.draws) do
    local got = { token = out.token:get(i - 1), count = out.count:get(i - 1),
                  logprob = hex(out.logprob, i - 1), kept_logprob = hex(out.kept_logprob, i - 1) }
    for name, value in pairs(got) do
      if value ~= draw[name] then
        return ("%s of draw %d: expected %s, got %s"):format(name, i - 1, draw[name], value)
      end
    end
  end
  return case.seeded and check_seeded(ctx, case)
end

-- Checks the record with moments of a row in two shards, and its finished results.
local function check_moments(ctx, case, logits, want)
  local cut, list = math.floor(case.vocab / 32) * 16, {}
  local function shard(first, past)
    return batches.new { logits = logits:slice(1, first, past), first = first, vocab = case.vocab,
                         ids = { case.vocab - 1 }, temperature = case.tau }
  end
  for s, part in ipairs { { 0, cut }, { cut, case.vocab } } do
    local records, why = ctx:partial(shard(part[1], part[2]), { entropy = true })
    if not records then return why end
    list[s] = records
  end
  local merged, why = ctx:merge(list)
  if not merged then return why end
  local got, lost = bytes_of(merged.moments)
  if got ~= case.moments then
    return lost or ("merged moments: expected %s, got %s"):format(case.moments, got)
  end
  local out, problem = in_memory(ctx:finish(merged, shard(0, 0),
                                            { outputs = { "token", "lse", "entropy" } }))
  if not out then return problem end
  for name, t in pairs(out) do
    if hex(t, 0) ~= hex(want[name], 0) then
      return ("%s: %s from shards, %s without"):format(name, hex(t, 0), hex(want[name], 0))
    end
  end
end

-- Checks a row's entropy, and that requesting it changes no other bit.
local function check_entropy(ctx, case)
  local logits, lost = case.logits:to(ctx.device)
  if not logits then return lost end
  local batch = batches.new { logits = logits, ids = { case.vocab - 1 }, temperature = case.tau }
  local out, why = score(ctx, batch, { outputs = { "token", "lse", "entropy" } })
  if not out then return why end
  if hex(out.entropy, 0) ~= case.entropy_bits then
    return ("entropy: expected %s, got %s"):format(case.entropy_bits, hex(out.entropy, 0))
  end
  local plain, problem = score(ctx, batch)
  if not plain then return problem end
  for _, name in ipairs { "token", "lse" } do
    if hex(out[name], 0) ~= hex(plain[name], 0) then
      return ("%s: %s beside the entropy, %s without"):format(name, hex(out[name], 0),
                                                              hex(plain[name], 0))
    end
  end
  return check_moments(ctx, case, logits, out)
end

-- Checks a row's gradient, written to new memory and, if possible, to the logits' own.
local function check_gradient(ctx, case)
  local logits, lost = case.logits:to(ctx.device)
  if not logits then return lost end
  local batch = batches.new { logits = logits, ids = { case.id }, temperature = case.tau }
  local outputs = { "saved", case.up_entropy and "entropy" }
  local out, why = ctx:logprob(batch, { outputs = outputs })
  if not out then return why end
  local saved, gone = bytes_of(out.saved)
  if saved ~= case.saved then
    return gone or ("saved row: expected %s, got %s"):format(case.saved, saved)
  end
  local given = { saved = out.saved }
  for name, bits in pairs { token = case.up_token, entropy = case.up_entropy } do
    given[name], gone = tensor.from_bits({ bits }):to(ctx.device)
    if not given[name] then return gone end
  end
  for place = 1, case.logits.dtype == case.to and 2 or 1 do
    local opts = { dtype = case.to }
    if place == 2 then
      logits, gone = logits:clone()
      if not logits then return gone end
      batch = batches.new { logits = logits, ids = { case.id }, temperature = case.tau }
      opts = { grad = logits }
    end
    local grad, problem = ctx:backward(batch, given, opts)
    if not grad then return problem end
    grad, gone = grad:to "cpu"
    if not grad then return gone end
    local bits = grad:bits()[1]
    for i, want in ipairs(case.grad) do
      if bits[i] ~= want then
        return ("gradient at %d%s: expected %s, got %s"):format(
          i - 1, place == 2 and ", in place" or "", want, bits[i])
      end
    end
  end
end

-- Checks the divergence of two rows beside ignored rows; as a sum alone; and in pieces.
local function check_kl(ctx, case)
  local rows = {}
  for i, of in ipairs { case, case.other } do
    local wide, lost = tensor.zeros({ 2, case.vocab }, of.logits.dtype):to(ctx.device)
    if not wide then return lost end
    wide:slice(0, 1, 2):copy_(of.logits)
    rows[i] = { logits = wide, temperature = of.tau }
  end
  rows[1].mask = { 0, 1 }
  for name, call in pairs { token = { split = 0, bits = { "00000000", case.kl } },
                            sequence = { split = 3, bits = { case.kl } } } do
    local out, why = in_memory(ctx:kl(rows[1], rows[2], { outputs = { name },
                                                          split = call.split }))
    if not out then return why end
    for i, want in ipairs(call.bits) do
      if hex(out[name], i - 1) ~= want then
        return ("%s %d: expected %s, got %s"):format(name, i - 1, want, hex(out[name], i - 1))
      end
    end
  end
end

-- Checks the logits of a row of hidden, and the logprobs of its targets without them.
local function check_head(ctx, case)
  local function there(t) return assert(t:to(ctx.device)) end
  local bias = case.bias and there(tensor.from_bits(case.bias))
  local head, why = ctx:head(there(case.weights.logits:view(case.vocab, case.depth)), {
    format = case.format, bias = bias, scale = case.scale, softcap = case.cap, keep_bad = true,
  })
  if not head then return why end
  local spec = { hidden = there(case.hidden.logits), head = head, temperature = case.tau }
  if case.kept then
    spec.kept = there(tensor.from_bits(case.kept, "int32"):view(1, #case.kept))
  end
  local logits, lost = ctx:logits(spec)
  if not logits then return lost end
  logits = assert(logits:to "cpu")
  for i, want in ipairs(case.expected) do
    if hex(logits, i - 1) ~= want then
      return ("logit %d: expected %s, got %s"):format(i - 1, want, hex(logits, i - 1))
    end
  end
  for _, target in ipairs(case.targets) do
    spec.ids = { target.id }
    local out, problem = score(ctx, spec, { outputs = { "token", "lse" } })
    if not out then return problem end
    if hex(out.token, 0) ~= target.bits or hex(out.lse, 0) ~= case.lse then
      return ("id %d: expected %s and lse %s, got %s and %s"):format(target.id, target.bits,
        case.lse, hex(out.token, 0), hex(out.lse, 0))
    end
  end
end

local function check_refused(ctx, case)
  local batch, lost = batches.new { logits = tensor.zeros { 1, 1 }, ids = { 0 },
                                    temperature = case.refused }:to(ctx.device)
  if not batch then return lost end
  local ok, message = pcall(ctx.logprob, ctx, batch)
  if ok then return "expected an error, got none" end
  if not tostring(message):find("temperature", 1, true) then
    return "expected an error about the temperature, got: " .. tostring(message)
  end
end

local function check(ctx, case)
  if case.refused then return check_refused(ctx, case) end
  if case.kl then return check_kl(ctx, case) end
  if case.by_logits then return head_backward.check(ctx, case) end
  if case.weights then return check_head(ctx, case) end
  if case.grad then return check_gradient(ctx, case) end
  if case.entropy_bits then return check_entropy(ctx, case) end
  if case.targets then return check_row(ctx, case) end
  if case.shards then return check_shards(ctx, case) end
  if case.entries then return check_order(ctx, case) end
  if case.draws then return check_draws(ctx, case) end
  if case.asked then return shard_draws.check(ctx, case) end
  return check_batch(ctx, case)
end

-- The first of every n elements.
local function some_of(list, n)
  local some = {}
  for i = 1, #list, n do some[#some + 1] = list[i] end
  return some
end

--- Runs the check.
-- @tparam[opt] table opts `directory` of the vectors; `files`: some of FILES; `variants`: some of
-- `variants.list()`, by default all that can be opened; `every`: a number n, to check only one of n
-- cases; `progress`: called with the number of cases done, the number of all cases, and the file's
-- name
-- @treturn table { counts = { { file, variant, cases, failed } }, missing = { { name, why } },
-- failures = { text }, failed }; or nil and a message
function M.run(opts)
  opts = opts or {}
  local directory = opts.directory or M.directory
  local present, missing = opts.variants, {}
  if not present then present, missing = variants.present() end
  if #present == 0 then return nil, "no backend can be opened here" end

  local loaded, total = {}, 0
  for _, file in ipairs(opts.files or M.FILES) do
    local cases, why = vectors.read(directory .. "/" .. file)
    if not cases then return nil, why end
    cases = some_of(cases, opts.every or 1)
    loaded[#loaded + 1] = { file = file, cases = cases }
    total = total + #cases
  end

  local report = { counts = {}, missing = missing, failures = {}, failed = 0 }
  local done = 0
  for _, entry in ipairs(loaded) do
    local counts = {}
    for _, at in ipairs(present) do
      if M.has(at, entry.file) then
        counts[at] = { file = entry.file, variant = at.name, cases = #entry.cases, failed = 0 }
        report.counts[#report.counts + 1] = counts[at]
      end
    end
    for _, case in ipairs(entry.cases) do
      for _, at in ipairs(present) do
        local ok, wrong = true, nil
        if counts[at] then ok, wrong = pcall(check, at.context(), case) end
        if not ok then wrong = ("error: %s"):format(tostring(wrong)) end
        if wrong then
          counts[at].failed = counts[at].failed + 1
          report.failed = report.failed + 1
          report.failures[#report.failures + 1] = ("%s:%d: %s, on %s: %s"):format(entry.file,
            case.line, case.name, at.name, wrong)
        end
      end
      done = done + 1
      if opts.progress and (done % 50 == 0 or done == total) then
        opts.progress(done, total, entry.file)
      end
    end
  end
  return report
end

-- The largest number of failures to show, because a wrong kernel fails everywhere.
local SHOWN = 20

--- Returns a report as text.
function M.text(report)
  local lines = { ("%-17s %-32s %6s %7s"):format("vectors", "on", "cases", "failed") }
  for _, count in ipairs(report.counts) do
    lines[#lines + 1] = ("%-17s %-32s %6d %7d"):format(count.file, count.variant, count.cases,
                                                      count.failed)
  end
  for _, at in ipairs(report.missing) do
    lines[#lines + 1] = ("not here: %s: %s"):format(at.name, at.why)
  end
  for i = 1, math.min(#report.failures, SHOWN) do
    lines[#lines + 1] = "FAILED " .. report.failures[i]
  end
  if #report.failures > SHOWN then
    lines[#lines + 1] = ("and %d more"):format(#report.failures - SHOWN)
  end
  lines[#lines + 1] = report.failed == 0 and "all bits as expected" or
                      ("%d mismatches"):format(report.failed)
  return table.concat(lines, "\n") .. "\n"
end

return M
