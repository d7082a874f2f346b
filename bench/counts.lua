-- counts.lua - counts results whose bits differ between the ways to them: tokens that are drawn,
-- terms of policy losses, logits of heads. None may differ.
--
--   export LUA_PATH="$PWD/lua/?.lua;;"
--   luajit bench/counts.lua [--backend NAME] [--draws N] [--terms N] [--logits N] [--flip]
--
-- The backend is cuda unless NAME says otherwise. N is the least number of distinct results: 2^20
-- draws, 10^7 terms and 10^6 logits by default. They are compared with those of the cpu's scalar
-- path, from whole rows and batches, and as many logits again with tools/reference.py (PYTHON names
-- the interpreter).
--
-- Prints a table with a line for each way: how many results were compared and how many differ. The
-- last line is the sum, and the exit status is 0 if it is 0. --flip changes one bit of the first
-- result of each way and comparison, to show that they are seen.

local ffi = require "ffi"
local samebits = require "samebits"
local bits = require "samebits.bits"
local tensor = require "samebits.tensor"

local options = { backend = "cuda", draws = 2 ^ 20, terms = 1e7, logits = 1e6 }
do
  local i = 1
  while arg[i] do
    local name = arg[i]:match "^%-%-(%a+)$"
    if name == "flip" then
      options.flip = true
    elseif name and options[name] and arg[i + 1] then
      i = i + 1
      options[name] = name == "backend" and arg[i] or assert(tonumber(arg[i]))
    else
      io.stderr:write("counts.lua: unknown option ", arg[i], "\n")
      os.exit(2)
    end
    i = i + 1
  end
end

-- Contexts ----------------------------------------------------------------------------------------

local function open(name, opts)
  local ctx, why = samebits.open(name, opts)
  if not ctx then
    io.stderr:write("counts.lua: ", why, "\n")
    os.exit(2)
  end
  return ctx
end

local reference = open("cpu", { isa = "scalar" })
local vectors = open "cpu"
local device = open(options.backend)

local function there(ctx, t) return t and assert(t:to(ctx.device)) end
local function here(t) return assert(t:to "cpu") end

-- Counts ------------------------------------------------------------------------------------------

local kinds, lines, compared, differ = {}, {}, 0, 0

-- Counts elements of `got` that differ from those of `want`, in the line of a way.
local function count(kind, way, want, got)
  got = here(got)
  if options.flip then
    got = got:clone()
    local first = ffi.cast("uint8_t *", got.ptr)
    first[0] = bit.bxor(first[0], 1)
  end
  if not lines[kind] then
    kinds[#kinds + 1], lines[kind] = kind, {}
  end
  local its = lines[kind]
  if not its[way] then
    its[way] = { way = way, compared = 0, differ = 0 }
    its[#its + 1] = its[way]
  end
  local same, report = samebits.same_bits(want, got)
  local line, wrong = its[way], same and 0 or report.count or want:numel()
  if wrong > 0 and line.differ == 0 and not options.flip then
    io.stderr:write(kind, ", ", way, ": ", report.message, "\n")
  end
  line.compared, line.differ = line.compared + want:numel(), line.differ + wrong
  compared, differ = compared + want:numel(), differ + wrong
end

-- Random numbers ----------------------------------------------------------------------------------

local state = 1

-- An integer from 0 to n - 1, n <= 2^16.
local function below(n)
  state = bit.tobit(state * 69069 + 1)
  return math.floor(bit.rshift(state, 16) * n / 65536)
end

local function shuffled(n)
  local list = {}
  for i = 0, n - 1 do
    local k = math.floor((below(65536) * 65536 + below(65536)) / 2 ^ 32 * (i + 1))
    list[i] = list[k]
    list[k] = i
  end
  return list
end

-- bf16 numbers of both signs, from 2^-5 to 16.
local function fill(words, n)
  local s = state
  for i = 0, n - 1 do
    s = bit.tobit(s * 69069 + 1)
    words[i] = 0x3d00 + bit.band(bit.rshift(s, 16), 0x3ff) + bit.band(bit.rshift(s, 12), 0x8000)
  end
  state = s
end

local function random_rows(rows, width)
  local t = tensor.empty({ rows, width }, "bfloat16")
  fill(ffi.cast("uint16_t *", t.ptr), rows * width)
  return t
end

-- fp32 numbers: multiples of 2^-12 from `low` on, over a span of 16.
local function random_floats(n, low)
  local t = tensor.empty({ n }, "float32")
  local p = ffi.cast("float *", t.ptr)
  for i = 0, n - 1 do p[i] = low + below(65536) / 4096 end
  return t
end

-- Rows of a tensor in another order: row i of the result is row order[i].
local function gathered(t, order)
  local out = tensor.empty(t.shape, t.dtype)
  local bytes = t:numel() * t.itemsize / t.shape[1]
  for i = 0, t.shape[1] - 1 do ffi.copy(out.ptr + i * bytes, t.ptr + order[i] * bytes, bytes) end
  return out
end

-- Cuts of n rows into calls of uneven sizes: { 0, .., n }.
local function micro_batches(n)
  local cuts = { 0 }
  for _, share in ipairs { 0.02, 0.35, 0.351, 0.8 } do cuts[#cuts + 1] = math.floor(n * share) end
  cuts[#cuts + 1] = n
  return cuts
end

-- Draws -------------------------------------------------------------------------------------------

local DRAWN = { "token", "logprob", "kept_logprob" }
local PER_ROW = { "seed", "stream", "position", "top_k", "top_p", "min_p" }
local TOP_K, TOP_P, MIN_P = { 0, 0, 1, 5, 50, 200 }, { 1, 1, 0.9, 0.5, 0.99 }, { 0, 0, 0.05, 0.3 }

-- How the rows of a call are drawn: tensors of one value per row.
local function how_of(rows, call)
  local how = {}
  for _, name in ipairs { "seed", "stream", "position" } do
    how[name] = tensor.empty({ rows }, "int64")
  end
  how.top_k = tensor.empty({ rows }, "int32")
  how.top_p, how.min_p = tensor.empty({ rows }, "float32"), tensor.empty({ rows }, "float32")
  local function p(name, ctype) return ffi.cast(ctype, how[name].ptr) end
  local seed, stream, position = p("seed", "int64_t *"), p("stream", "int64_t *"),
                                 p("position", "int64_t *")
  local top_k, top_p, min_p = p("top_k", "int32_t *"), p("top_p", "float *"), p("min_p", "float *")
  for r = 0, rows - 1 do
    seed[r], stream[r], position[r] = call, r, below(65536)
    top_k[r] = TOP_K[below(#TOP_K) + 1]
    top_p[r], min_p[r] = TOP_P[below(#TOP_P) + 1], MIN_P[below(#MIN_P) + 1]
  end
  return how
end

local function draw(ctx, logits, how)
  local own = {}
  for _, name in ipairs(PER_ROW) do own[name] = there(ctx, how[name]) end
  return assert(ctx:sample({ logits = there(ctx, logits) }, own, { outputs = DRAWN }))
end

-- The same from shards of the ids, at multiples of 16.
local function draw_from_shards(ctx, logits, how, cuts)
  local draws, own, all = {}, {}, nil
  for _, name in ipairs(PER_ROW) do own[name] = there(ctx, how[name]) end
  for s = 1, #cuts - 1 do
    local part = logits:slice(1, cuts[s], cuts[s + 1]):contiguous()
    draws[s] = assert(ctx:draw({ logits = there(ctx, part), first = cuts[s],
                                 vocab = logits.shape[2] }, own,
                               { shard = s - 1, shards = #cuts - 1, outputs = DRAWN }))
  end
  while draws[1].round < draws[1].rounds do
    local now = {}
    for s, one in ipairs(draws) do now[s] = assert(ctx:draw_round(one, all)) end
    all = now
  end
  return assert(ctx:draw_finish(draws[below(#draws) + 1], all))
end

local function rows_of(t, first, past)
  local part = {}
  for _, name in ipairs(PER_ROW) do part[name] = t[name]:slice(0, first, past):clone() end
  return part
end

local function count_draws(rows, V, call)
  local logits = random_rows(rows, V)
  local words = ffi.cast("uint16_t *", logits.ptr)
  for r = 0, rows - 1, 101 do words[r * V + below(V)] = 0x7fc0 end
  for r = 7, rows - 1, 5 do
    for _ = 1, 9 do words[r * V + below(V)] = 0xff80 end
  end
  local how = how_of(rows, call)
  local want = draw(reference, logits, how)
  local function compare(way, got, change)
    for _, name in ipairs(DRAWN) do
      local expected = want[name]
      count(name == "token" and "draws" or "logprobs of draws", way,
            change and change(expected) or expected, got[name])
    end
  end
  local name = options.backend
  compare("cpu, vectors", draw(vectors, logits, how))
  compare(name, draw(device, logits, how))
  local order, moved = shuffled(rows), {}
  for _, key in ipairs(PER_ROW) do moved[key] = gathered(how[key], order) end
  compare(name .. ", rows in another order", draw(device, gathered(logits, order), moved),
          function(t) return gathered(t, order) end)
  local cuts = micro_batches(rows)
  for i = 1, #cuts - 1 do
    local first, past = cuts[i], cuts[i + 1]
    if past > first then
      compare(name .. ", micro-batches",
              draw(device, logits:slice(0, first, past):clone(), rows_of(how, first, past)),
              function(t) return t:slice(0, first, past):clone() end)
    end
  end
  compare(name .. ", fp32 logits", draw(device, logits:to "float32", how))
  local third = math.floor(V / 48) * 16
  compare(name .. ", 3 shards of the ids",
          draw_from_shards(device, logits, how, { 0, third, 2 * third, V }))
  return rows
end

-- Terms of policy losses --------------------------------------------------------------------------

local LOSS = { norm = "token-mean", beta = 0.1, eps_high = 0.28, dual = 3, weight = "truncate",
               w_high = 1.5 }
local TOKENS = { "old", "ref", "rollout" }

-- A step of packed sequences: logits, ids, the inputs of the loss, and where sequences begin.
local function step_of(rows, V)
  local step = { logits = random_rows(rows, V), ids = tensor.empty({ rows }, "int32"),
                 mask = tensor.empty({ rows }, "uint8"), cu = { 0 } }
  local ids, mask = ffi.cast("int32_t *", step.ids.ptr), ffi.cast("uint8_t *", step.mask.ptr)
  for r = 0, rows - 1 do ids[r], mask[r] = below(V), below(10) > 0 and 1 or 0 end
  for _, name in ipairs(TOKENS) do step[name] = random_floats(rows, -16) end
  while step.cu[#step.cu] < rows do
    step.cu[#step.cu + 1] = math.min(rows, step.cu[#step.cu] + 1 + below(2000))
  end
  step.advantages = random_floats(#step.cu - 1, -8)
  step.active = 0
  for r = 0, rows - 1 do step.active = step.active + mask[r] end
  return step
end

-- The sequences that `list` names by number, from 0 on, one behind the other; and the rows of the
-- step that its rows are.
local function sequences_of(step, list)
  local order, cu, advantages, n = {}, { 0 }, {}, 0
  for i, s in ipairs(list) do
    for r = step.cu[s + 1], step.cu[s + 2] - 1 do
      order[n] = r
      n = n + 1
    end
    cu[i + 1], advantages[i] = n, ffi.cast("float *", step.advantages.ptr)[s]
  end
  local out = { cu = cu, advantages = tensor.tensor(advantages) }
  for _, name in ipairs { "logits", "ids", "mask", unpack(TOKENS) } do
    local t = step[name]
    local shape = { n, t.shape[2] }
    local rows, bytes = tensor.empty(shape, t.dtype), t:numel() * t.itemsize / t.shape[1]
    for i = 0, n - 1 do ffi.copy(rows.ptr + i * bytes, t.ptr + order[i] * bytes, bytes) end
    out[name] = rows
  end
  return out, order
end

local function loss_inputs(ctx, step)
  local given = { advantages = there(ctx, step.advantages), mask = there(ctx, step.mask) }
  for _, name in ipairs(TOKENS) do given[name] = there(ctx, step[name]) end
  return given
end

local function loss_options(totals)
  local opts = { tokens = totals.active, sequences = #totals.cu - 1 }
  for key, value in pairs(LOSS) do opts[key] = value end
  return opts
end

local function batch_of(ctx, step)
  return { logits = there(ctx, step.logits), ids = there(ctx, step.ids),
           mask = there(ctx, step.mask), cu_seqlens = step.cu }
end

-- The loss of logprobs: their terms' derivatives, the sequences' losses, the record.
local function loss_of(ctx, step, totals, now)
  local given = loss_inputs(ctx, step)
  given.now, given.cu_seqlens = now, step.cu
  local out = assert(ctx:policy_loss(given, loss_options(totals)))
  return { now = now, derivative = out.token, sequence = out.sequence, record = out.record }
end

local function scored(ctx, step)
  return assert(ctx:logprob(batch_of(ctx, step), { outputs = { "token", "saved" } }))
end

-- Logprobs from records of shards of the ids.
local function from_shards(ctx, step, cuts)
  local records, batch = {}, nil
  for s = 1, #cuts - 1 do
    batch = batch_of(ctx, step)
    batch.logits = there(ctx, step.logits:slice(1, cuts[s], cuts[s + 1]):contiguous())
    batch.first, batch.vocab = cuts[s], step.logits.shape[2]
    records[s] = assert(ctx:partial(batch))
  end
  return assert(ctx:finish(assert(ctx:merge(records)), batch, { outputs = { "token" } })).token
end

local function count_terms(rows, V)
  local step = step_of(rows, V)
  local lp = scored(reference, step)
  local want = loss_of(reference, step, step, lp.token)
  want.grad = assert(reference:backward(batch_of(reference, step),
                                        { saved = lp.saved, token = want.derivative }))
  local name, sequences = options.backend, #step.cu - 1
  local function compare(way, got, change)
    for _, key in ipairs { "now", "derivative", "sequence", "grad", "record" } do
      if got[key] then
        local kind = ({ now = "logprobs", derivative = "loss terms", sequence = "sequence losses",
                        grad = "gradients of logits", record = "bytes of records" })[key]
        count(kind, way, change and change(key, want[key]) or want[key], got[key])
      end
    end
  end
  compare("cpu, vectors", loss_of(vectors, step, step, scored(vectors, step).token))
  compare(name, loss_of(device, step, step, scored(device, step).token))

  local given = loss_inputs(device, step)
  local one = assert(device:logprob(batch_of(device, step), {
    outputs = { "token" }, gradient = { policy = given, options = loss_options(step) } }))
  compare(name .. ", one call", { now = one.token, grad = one.grad, record = one.record })

  local order = shuffled(sequences)
  local list = {}
  for i = 0, sequences - 1 do list[i + 1] = order[i] end
  local moved, rows_moved = sequences_of(step, list)
  compare(name .. ", sequences in another order",
          loss_of(device, moved, step, scored(device, moved).token),
          function(key, t)
            if key == "record" then return t end
            return gathered(t, key == "sequence" and order or rows_moved)
          end)

  local cuts, records = micro_batches(sequences), {}
  for i = 1, #cuts - 1 do
    local some = {}
    for s = cuts[i], cuts[i + 1] - 1 do some[#some + 1] = s end
    if #some > 0 then
      local part = sequences_of(step, some)
      local got = loss_of(device, part, step, scored(device, part).token)
      records[#records + 1], got.record = got.record, nil
      local first, past = step.cu[cuts[i] + 1], step.cu[cuts[i + 1] + 1]
      compare(name .. ", micro-batches", got, function(key, t)
        if key == "sequence" then return t:slice(0, cuts[i], cuts[i + 1]):clone() end
        return t:slice(0, first, past):clone()
      end)
    end
  end
  local merged = assert(device:policy_merge(records, { norm = LOSS.norm, tokens = step.active }))
  compare(name .. ", micro-batches", { record = merged.record })

  compare(name .. ", 2 shards of the ids",
          loss_of(device, step, step, from_shards(device, step, { 0, 16, V })))
  return rows
end

-- Logits of heads ---------------------------------------------------------------------------------

local SHAPES = { { 576, 2048, 64 }, { 1024, 1000, 129 }, { 4096, 515, 257 }, { 96, 4099, 8 },
                 { 2048, 333, 1000 }, { 63, 16, 1 } } -- D, V, rows

local function head_of(ctx, weights, opts)
  local own = {}
  for key, value in pairs(opts) do
    own[key] = tensor.is_tensor(value) and there(ctx, value) or value
  end
  return assert(ctx:head(there(ctx, weights), own))
end

local function logits_of(ctx, hidden, head, opts)
  return assert(ctx:logits({ hidden = there(ctx, hidden), head = head }, opts))
end

-- From two parts of the columns, as two ranks of D add them up.
local function from_columns(ctx, hidden, weights, format)
  local D, h, w = hidden.shape[2], {}, {}
  local cuts = { 0, math.floor(D / 3), D }
  local function largest(parts)
    local a, b = ffi.cast("int32_t *", parts[1].ptr), ffi.cast("int32_t *", parts[2].ptr)
    for i = 0, parts[1]:numel() - 1 do a[i] = math.max(a[i], b[i]) end
    return parts[1]
  end
  local of_h, of_w = {}, {}
  for i = 1, 2 do
    h[i] = there(ctx, hidden:slice(1, cuts[i], cuts[i + 1]):clone())
    w[i] = there(ctx, weights:slice(1, cuts[i], cuts[i + 1]):clone())
    of_h[i], of_w[i] = here(assert(ctx:scales(h[i]))), here(assert(ctx:scales(w[i])))
  end
  local scales_h, scales_w = there(ctx, largest(of_h)), there(ctx, largest(of_w))
  local sum, head
  for i = 1, 2 do
    head = assert(ctx:head(w[i], { format = format, scales = scales_w }))
    local got = here(assert(ctx:products({ hidden = h[i], head = head }, scales_h)))
    if sum then
      local a, b = ffi.cast("int64_t *", sum.ptr), ffi.cast("int64_t *", got.ptr)
      for k = 0, sum:numel() - 1 do a[k] = a[k] + b[k] end
    else
      sum = got
    end
  end
  return assert(ctx:combine(there(ctx, sum), scales_h, head))
end

local function count_logits(shape, format)
  local D, V, rows = unpack(shape)
  local hidden, weights = random_rows(rows, D), random_rows(V, D)
  local function of(ctx) return head_of(ctx, weights, { format = format }) end
  local want, name = logits_of(reference, hidden, of(reference)), options.backend
  count("logits of heads", "cpu, vectors", want, logits_of(vectors, hidden, of(vectors)))
  local head = of(device)
  count("logits of heads", name, want, logits_of(device, hidden, head))
  count("logits of heads", name .. ", split 5", want, logits_of(device, hidden, head,
                                                                { split = 5 }))
  count("logits of heads", name .. ", fp32 operands", want,
        logits_of(device, hidden:to "float32",
                  head_of(device, weights:to "float32", { format = format })))
  local first = 0
  while first < V do
    local n = math.min(V - first, 16 * (1 + below(40)))
    local part = head_of(device, weights:slice(0, first, first + n):clone(),
                         { format = format, first = first })
    local got = assert(device:logits({ hidden = there(device, hidden), head = part, vocab = V },
                                     { first = first, n = n }))
    count("logits of heads", name .. ", cuts of V", want:slice(1, first, first + n):clone(), got)
    first = first + n
  end
  if D > 2 then
    count("logits of heads", name .. ", cuts of D", want,
          from_columns(device, hidden, weights, format))
  end
  for _, at_once in ipairs { 1, 8, 65 } do
    for r = 0, rows - 1, math.max(at_once, math.floor(rows / 8)) do
      local past = math.min(rows, r + at_once)
      count("logits of heads", ("%s, %d rows at once"):format(name, at_once),
            want:slice(0, r, past):clone(),
            logits_of(device, hidden:slice(0, r, past):clone(), head))
    end
  end
  return want:numel()
end

-- Random heads with biases, scales and caps, by tools/reference.py: 1024 logits a case.
local function count_reference(cases)
  local python = (os.getenv "PYTHON" or "") ~= "" and os.getenv "PYTHON" or "python3"
  local here_is = arg[0]:match "^(.*)/[^/]*$" or "."
  local each, names, running = math.ceil(cases / 8), {}, {}
  for first = 0, cases - 1, each do
    local name = os.tmpname() -- makes a file
    os.remove(name)
    names[#names + 1] = name .. ".safetensors"
    running[#running + 1] = assert(io.popen(("'%s' '%s/../spec/parity/head.py' %d %d '%s' 2>&1")
      :format(python, here_is, 50000 + first, math.min(each, cases - first), names[#names])))
  end
  local function fp32(word) return word ~= "-" and bits.from_hex(word) or nil end
  local logits = 0
  for i, name in ipairs(names) do
    local said = running[i]:read "*a"
    running[i]:close()
    local data, why = samebits.load(name)
    os.remove(name)
    if not data then error(said .. tostring(why), 0) end
    for n, words in pairs(data.metadata) do
      local format, scale, cap = words:match "(%S+) (%S+) (%S+)"
      local want = data["logits." .. n]
      for _, of in ipairs { { "cpu, scalar", reference }, { "cpu, vectors", vectors },
                            { options.backend, device } } do
        local way, ctx = unpack(of)
        local head = head_of(ctx, data["weights." .. n], {
          format = format, bias = data["bias." .. n], scale = fp32(scale), softcap = fp32(cap),
          keep_bad = true })
        count("logits, Python reference", way, want, logits_of(ctx, data["hidden." .. n], head))
      end
      logits = logits + want:numel()
    end
  end
  return logits
end

-- All ---------------------------------------------------------------------------------------------

local WIDTHS = { 512, 257, 1025, 100 }

local function repeated(least, step)
  local done, call = 0, 0
  while done < least do
    call = call + 1
    done = done + step(least - done, call)
    collectgarbage()
  end
  return done
end

local distinct = {}
distinct[1] = repeated(options.draws, function(left, call)
  return count_draws(math.min(left, 65536), WIDTHS[call % #WIDTHS + 1], call)
end)
distinct[2] = repeated(options.terms, function(left)
  return count_terms(math.min(left, 2 ^ 20), 48)
end)
distinct[3] = repeated(options.logits, function(_, call)
  local shape = SHAPES[(call - 1) % #SHAPES + 1]
  return count_logits(shape, math.floor((call - 1) / #SHAPES) % 2 == 0 and "h24w16" or "h24w24")
end)
distinct[4] = count_reference(math.ceil(options.logits / 1024))

print(("%d draws, %d loss terms, %d logits of heads,"):format(unpack(distinct)))
print(("beside the cpu's scalar path, and %d logits beside the Python reference:")
      :format(distinct[4]))
print ""
print "| results | way | compared | differ |"
print "| --- | --- | --- | --- |"
for _, kind in ipairs(kinds) do
  for _, line in ipairs(lines[kind]) do
    print(("| %s | %s | %d | %d |"):format(kind, line.way, line.compared, line.differ))
  end
end
print ""
print(("%d results compared, %d differ"):format(compared, differ))
os.exit(differ == 0, true) -- true: contexts are closed first
