--- Verifies whether changes around a token change its logprob's bits. It lays the sequences of a
-- batch out in many ways, scores each layout, and counts the tokens whose bits differ from those of
-- one batch of all sequences: for the library, for the control group, which computes as frameworks
-- do, or for a function of your own.
--
--     print(samebits.verify(batch))
--     local report = samebits.verify(batch, { fn = my_logprobs })
--     assert(report.ok, tostring(report))
--
-- A function takes a batch and returns one logprob per row: a tensor or nested tables of the shape
-- of `batch.ids`, or a table with such a `token`. It gets only ordinary batches, which have the
-- layout of the given one and a mask (positions without a token hold zeros), and are neither
-- strided nor reordered.
-- @module samebits.verify

local batches = require "samebits.batch"
local bits = require "samebits.bits"
local cases = require "samebits.verify.case"
local compare = require "samebits.verify.compare"
local hidden = require "samebits.verify.hidden"
local lib = require "samebits.lib"
local misuse = require "samebits.misuse"
local paths = require "samebits.verify.paths"
local prng = require "samebits.verify.prng"
local report_of = require "samebits.verify.report"
local samples = require "samebits.verify.sample"
local strangers = require "samebits.verify.strangers"
local tensor = require "samebits.tensor"
local transforms = require "samebits.verify.transforms"
local variants = require "samebits.variants"

local raise = misuse.raise

local OPTIONS = { fn = true, seed = true, rows = true, rounds = true, backend = true,
                  threads = true, isa = true, transforms = true }

-- The name of the reference that batches and results are compared with.
local REFERENCE = "in one batch"

-- Cases -------------------------------------------------------------------------------------------

-- The n longest sequences of the sample, and the results expected for them.
local function subset(random, sample, n)
  local total, taken = #sample.sequences + 1, {}
  for s = 0, total - 1 do
    if random:integer(1, total - s) <= n - #taken then taken[#taken + 1] = s end
  end
  local sequences = {}
  for i, s in ipairs(taken) do sequences[i - 1] = sample.sequences[s] end
  return sequences
end

-- One temperature, or "own".
local function temperature_of(sequences, n)
  local tau
  for s = 0, n - 1 do
    for t = 0, sequences[s].length - 1 do
      local own = sequences[s].temperatures[t]
      if sequences[s].active[t] and own ~= tau then
        if tau then return "own" end
        tau = own
      end
    end
  end
  return tau or 1
end

-- Other containers that hold the sequences' logits exactly.
local function containers(sequences, n, dtype)
  local list = {}
  for _, name in ipairs { "float32", "bfloat16", "float16" } do
    local exact = name ~= dtype
    for s = 0, exact and n - 1 or -1 do
      local there = sequences[s].logits:to(name)
      exact = exact and bits.same_bits(there:to(dtype), sequences[s].logits)
    end
    if exact then list[#list + 1] = name end
  end
  return list
end

local LAYOUTS = { padded = "right", packed = "packed", ["one sequence"] = "single" }

-- A case of a batch's sequences in which as many fields as possible are as simple as possible.
local function simple(batch, sequences, n, plain)
  local case = cases.new {
    n = n, T = sequences[0].length, V = batch.vocab, dtype = batch.logits.dtype,
    tau = temperature_of(sequences, n), layout = LAYOUTS[batch.layout], plain = plain,
    index = batch.ids and batch.ids.dtype or "int64", shift = plain and batch.shift or 0,
  }
  case.held = case.tau == "own" and "row" or "number"
  if case.layout == "single" and not plain then case.layout = "right" end
  case.room = math.floor(samples.LIMIT / (n * case.T * case.V))
  return case
end

-- Case number `round` of a transform, and its sequences; nil if no case is possible.
local function drawn(transform, round, sample, seed, plain)
  local random = prng.new(seed * 7919 + round * 131 + #transform.name * 17)
  local n = math.min(#sample.sequences + 1, transform.most or 64)
  local sequences = subset(random, sample, n)
  local case = simple(sample.batch, sequences, n, plain)
  case.transform, case.seed = transform.name, random:integer(1, 999999)
  if not plain then
    for _, name in ipairs { "by", "fill", "index" } do
      case[name] = cases.draw(random, case, name)
    end
    case.shift = random:integer(1, 3) == 1 and 1 or 0
  end
  for _, name in ipairs(transform.draws or {}) do
    if not (plain and name == "layout") then case[name] = cases.draw(random, case, name) end
  end
  -- At least once as a decoder works: one position at a time.
  if round == 1 and (transform.name == "steps" or transform.name == "chunks") then
    case.piece = 1
  end
  if transform.name == "outputs" then case.outputs = random:pick { "token", "lse" } end
  if transform.name == "containers" then
    local list = containers(sequences, n, case.dtype)
    if #list == 0 then return nil end
    case.container = random:pick(list)
  end
  if case.wild ~= "none" then strangers.add(case, sequences) end
  return case, sequences
end

local function scores_something(calls)
  for _, made in ipairs(calls) do
    for _, slot in ipairs(made.rows) do
      if slot then return true end
    end
  end
end

local DRAWS = 8

-- The case, its sequences and its calls. If everything happens to be masked, another case is drawn.
local function prepared(transform, round, sample, opts, plain)
  local case, sequences, calls
  for again = 0, DRAWS - 1 do
    case, sequences = drawn(transform, round + again * opts.rounds, sample, opts.seed, plain)
    if not case then return nil end
    calls = transform.calls(case, sequences)
    if scores_something(calls) then break end
  end
  return case, sequences, calls
end

-- References --------------------------------------------------------------------------------------

-- The encodings at each position, by sequence, from the results of an assembled call.
local function from_call(made, out, sequences)
  local expected = {}
  for s in pairs(sequences) do expected[s] = { token = {}, lse = out.lse and {} } end
  for _, name in ipairs { "token", "lse" } do
    local words = out[name] and compare.words(out[name])
    for row, slot in ipairs(made.rows) do
      if slot and words then expected[slot.s][name][slot.t] = words[row - 1] end
    end
  end
  local sums = out.sequence and compare.words(out.sequence)
  for b, sum in ipairs(made.sums) do
    if sum.whole and sums then expected[sum.whole].sum = sums[b - 1] end
  end
  return expected
end

-- A path's results. If it has none, the caller's batch is wrong, which is an error.
local function scored(path, spec)
  local ok, out = pcall(path.score, spec)
  if not ok then raise("verify: %s: %s", path.name, tostring(out)) end
  return out
end

-- The given batch in a form that a path can score: with ids, and with only the rows of the sample.
-- Nil if the path cannot score it.
local function as_given(path, sample)
  local batch, rows = sample.batch, {}
  local list = not sample.whole
  if not batch.ids or path.plain and list or path.kind == "conventional" and batch:has_kept() then
    return nil
  end
  if not list then return batch end
  for s = 0, #sample.sequences do
    local made = sample.sequences[s]
    for t = 0, made.length - 1 do
      if made.active[t] then rows[#rows + 1] = made.first + t end
    end
  end
  table.sort(rows)
  return { logits = batch.logits, ids = batch.ids, mask = batch.mask, kept = batch.kept,
           kept_ids = batch.kept_ids, kept_offsets = batch.kept_offsets,
           temperature = batch.temperature, ignore_index = batch.ignore_index,
           shift = batch.shift, cu_seqlens = batch.cu_seqlens, rows = rows }
end

-- A path's results for the given batch, selected for the sample's tokens in the form that one batch
-- of them would give; nil if it cannot be scored.
local function in_place(path, sample)
  local spec = as_given(path, sample)
  if not spec then return nil end
  local out = scored(path, spec)
  local made = transforms.named.batch.calls(sample.case(path.plain), sample.sequences)[1]
  local there = {}
  for _, name in ipairs { "token", "lse" } do
    if out[name] then
      there[name] = tensor.zeros({ #made.rows }, out[name].dtype)
      local from, to = compare.words(out[name]), compare.words(there[name])
      for row, slot in ipairs(made.rows) do
        if slot then to[row - 1] = from[sample.sequences[slot.s].first + slot.t] end
      end
    end
  end
  if sample.whole and out.sequence then
    there.sequence = tensor.zeros({ #made.sums }, out.sequence.dtype)
    local from, to = compare.words(out.sequence), compare.words(there.sequence)
    for b = 1, #made.sums do to[b - 1] = from[sample.sequences[b - 1].b] end
  end
  return { made = made, out = there }
end

-- The expected results: a path's results for all of the sample's sequences in one batch.
local function reference(path, sample)
  local made = transforms.named.batch.calls(sample.case(path.plain), sample.sequences)[1]
  return from_call(made, scored(path, made.spec), sample.sequences)
end

-- Running -----------------------------------------------------------------------------------------

-- The places of the first difference and the worst in the given batch.
local function locate(found, sequences)
  for _, at in pairs { found.first, found.worst } do
    local made = at.s and not at.sequence and sequences[at.s]
    if made then at.sequence, at.position = made.b, at.t and made.from + at.t end
  end
end

local function run_call(path, transform, case, made, number, entry, found)
  local ok, out
  if transform and transform.score then
    ok, out = pcall(transform.score, path, made, case)
  else
    ok, out = pcall(path.score, made.spec, transform and transform.opts and
                                           transform.opts(case, path))
  end
  if not ok then
    found.message = found.message or tostring(out)
    return
  end
  compare.call(found, made, number, out, entry)
  locate(found, entry.sequences)
end

local function entry_of(path, sequences)
  local entry = { sequences = sequences, expected = {}, nans_alike = path.nans_alike,
                  active_only = path.active_only }
  for s, made in pairs(sequences) do entry.expected[s] = path.expected[made] end
  return entry
end

local function applies(transform, path)
  if path.plain then return transform.plain end
  if transform.contract and path.kind ~= "samebits" then return false end
  if transform.logits and path.of_hidden then return false end
  return not transform.only or transform.only(path)
end

-- Runs one transform on all paths. Returns a line of the report, or nil if it applies to none.
local function run_transform(transform, list, sample, opts)
  local line = { name = transform.name, about = transform.about, found = {} }
  local any = false
  for round = 1, opts.rounds do
    for i, path in ipairs(list) do
      local case, sequences, calls
      if applies(transform, path) then
        case, sequences, calls = prepared(transform, round, sample, opts, path.plain)
      end
      if case then
        any = true
        line.found[i] = line.found[i] or compare.new(REFERENCE)
        local entry = entry_of(path, sequences)
        for number, made in ipairs(calls) do
          run_call(path, transform, case, made, number - 1, entry, line.found[i])
        end
      end
    end
  end
  return any and line or nil
end

-- Scores the given batch in its own place in memory.
local function given(list, sample)
  local line = { name = "in place", about = "the batch where it lies, as it is", found = {} }
  for i, path in ipairs(list) do
    if path.there then
      local found = compare.new(REFERENCE)
      line.found[i] = found
      compare.call(found, path.there.made, 0, path.there.out, entry_of(path, sample.sequences))
      locate(found, sample.sequences)
    end
  end
  return next(line.found) and line
end

-- Scores the same batch by the library on every instruction set and geometry of this machine.
local function on_variants(list, sample)
  local line = { name = "variants", about = "other instruction sets, threads and geometries",
                 found = {} }
  for i, path in ipairs(list) do
    if path.kind == "samebits" and path.backend == "cpu" then
      local found = compare.new(REFERENCE)
      line.found[i] = found
      local case = sample.case(false)
      local made = transforms.named.batch.calls(case, sample.sequences)[1]
      for number, at in ipairs((variants.present())) do
        run_call(paths.samebits(at.context(), path.of_hidden and path.logprob or nil), nil, case,
                 made, number - 1, entry_of(path, sample.sequences), found)
      end
      return line
    end
  end
end

local function wanted(names)
  if names == nil then return transforms.list end
  if type(names) ~= "table" then
    raise("verify: transforms: expected a list of names, got %s", misuse.kind(names))
  end
  local list = {}
  for i, name in ipairs(names) do
    list[i] = transforms.named[name] or
              raise("verify: there is no transform '%s'", tostring(name))
  end
  return list
end

local function count_option(opts, name, default)
  local value = opts[name]
  if value == nil then return default end
  if type(value) ~= "number" or value % 1 ~= 0 or value < 1 or value > 2 ^ 31 then
    raise("verify: %s: expected an integer of at least 1, got %s", name, tostring(value))
  end
  return value
end

local function paths_of(opts, logprob)
  if opts.fn ~= nil then return { paths.of_function(opts.fn) } end
  local list, why, code = paths.present(opts.backend, { threads = opts.threads, isa = opts.isa },
                                        logprob)
  return list, why, code
end

local function run(list, sample, opts)
  for _, path in ipairs(list) do
    path.there = in_place(path, sample)
    local expected = reference(path, sample)
    path.expected = {}
    for s, made in pairs(sample.sequences) do path.expected[made] = expected[s] end
  end
  local lines = {}
  local function add(line) lines[#lines + 1] = line end
  if not opts.only then add(given(list, sample) or nil) end
  for _, transform in ipairs(opts.list) do add(run_transform(transform, list, sample, opts)) end
  if not opts.only then add(on_variants(list, sample)) end
  return lines
end

local function is_callable(f)
  local meta = getmetatable(f)
  return type(f) == "function" or type(meta) == "table" and meta.__call ~= nil
end

local function verify(value, options)
  options = misuse.options("verify", options, OPTIONS)
  if options.fn ~= nil and not is_callable(options.fn) then
    raise("verify: fn: expected a function of a batch, got %s", misuse.kind(options.fn))
  end
  local opts = {
    fn = options.fn, backend = options.backend, threads = options.threads, isa = options.isa,
    seed = count_option(options, "seed", 1), rounds = count_option(options, "rounds", 2),
    list = wanted(options.transforms), only = options.transforms ~= nil,
  }
  local most = count_option(options, "rows")
  local rows, logprob = hidden.take(value)
  if rows and opts.fn then raise "verify: fn: not with hidden states" end
  value = rows or value
  local batch = batches.is_batch(value) and value or batches.build(value, true)
  batch = misuse.try(batch:to "cpu")

  local sample = samples.take(batch, opts.seed, most)
  sample.batch = batch
  function sample.case(plain)
    local case = simple(batch, sample.sequences, #sample.sequences + 1, plain)
    case.transform = "batch"
    return case
  end
  local list = misuse.try(paths_of(opts, logprob))
  local ok, lines = pcall(run, list, sample, opts)
  for _, path in ipairs(list) do path.close() end
  if not ok then error(lines, 0) end
  return report_of.new {
    version = lib.version, numerics = lib.numerics, seed = opts.seed, rounds = opts.rounds,
    sample = sample, batch = batch, paths = list, lines = lines,
  }
end

local M = {}

--- Verifies a batch.
-- @tparam batch batch a batch, or the table to make one from. With hidden states, `head` may be
-- weights [V, D] as well, beside `format`, `bias`, `scale` and `softcap` as for `ctx:head`; there
-- is no control group then. Without ids, each row's likeliest id is scored. Of a large batch, only
-- some rows are taken: as many as have 2^22 logits, but at least 8.
-- @tparam[opt] table options `fn`: the function to verify in place of the library and the control
-- group; `seed` (1): the seed of random choices; `rows`: the largest number of rows to take;
-- `rounds` (2): how often each transform is tried; `transforms`: a list of their names, all by
-- default; `backend`, and on the cpu `threads` and `isa`: the only backend to verify, by default
-- each that can be opened
-- @treturn table a report, whose `text`, `json` and `html` are for people and programs: `ok`: no
-- bit of the library's, or of the function's, has changed; `paths`: a list of the verified paths,
-- each with `name`, `kind` ("samebits", "conventional", "function"), `tokens`, `mismatches`,
-- `max_ulps`, `first`, the first difference, and `worst`, the first that is `max_ulps` away;
-- `transforms`: a list of { name, about, results }, the results by path; or nil and a message
M.verify = misuse.guard(verify)

return M
