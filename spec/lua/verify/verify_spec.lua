-- samebits.verify: what it finds in batches of every form, in the control group, and in functions
-- that are not what they should be.

local ffi = require "ffi"
local json = require "dkjson"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local hex = require "spec.support.hex"
local refusal = require "spec.support.refusal"
local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"
local with = require "spec.support.with"
local paths = require "samebits.verify.paths"

local misuse, says = refusal.misuse, refusal.says
local MODEL = "spec/vectors/smollm2.safetensors"

local function path_of(report, kind)
  for p, path in ipairs(report.paths) do
    if path.kind == kind then return path, p end
  end
end

-- The library kept its bits in every transform, each of which compared tokens.
local function assert_kept(report)
  local path, p = path_of(report, "samebits")
  assert.is_true(report.ok, tostring(report))
  assert.equal(0, path.differences)
  for _, line in ipairs(report.transforms) do
    local result = line.results[p]
    assert.is_true(result and result.tokens > 0, line.name)
  end
  return report
end

local function logits_of(shape, dtype)
  local n = 1
  for _, extent in ipairs(shape) do n = n * extent end
  return hex.tensor(hex.values(n, n), shape):to(dtype or "float32")
end

local V = 37

-- Three sequences of up to four tokens.
local function padded(dtype)
  return { logits = logits_of({ 3, 4, V }, dtype),
           ids = { { 1, 2, 3, 4 }, { 5, 6, -100, 99 }, { 36, 0, 9, 9 } },
           mask = { { 1, 1, 1, 1 }, { 1, 1, 1, 0 }, { 0, 1, 1, 1 } } }
end

local function packed()
  return { logits = logits_of({ 9, V }, "float16"), ids = { 1, 2, 3, 4, 5, 6, 7, 8, 9 },
           cu_seqlens = { 0, 4, 4, 9 }, temperature = { 0.5, 1, 2 } }
end

describe("verify", function()
  it("shows a real model's drift in the control group, and none in the library", function()
    local data = assert(samebits.load(MODEL))
    local report = samebits.verify({ logits = data.logits, ids = data.ids, mask = data.mask },
                                   { rounds = 1 })
    assert_kept(report)
    local control = path_of(report, "conventional")
    assert.is_true(control.mismatches > 0)
    assert.is_false(control.ok)
    assert.is_true(control.max_ulps > 0 and control.max_apart > 0 and control.max_apart < 0.1)
    assert.equal(41, report.sampled.tokens)
    assert.is_true(report.sampled.whole)
    local text = tostring(report)
    says(text, "bfloat16 [4, 12, 49152]: 41 active tokens of 4 sequences",
         "samebits, cpu: no bit changed in ", "each sequence by itself", control.first.text)
    -- The first difference is one: the bits that the batch where it lies gives are among the two.
    local first = control.first
    assert.is_not_equal(first.want, first.got)
    assert.is_true(first.sequence < 4 and first.position < 12)
    assert.equal(tonumber(data.ids:get(first.sequence, first.position)), first.id)
  end)

  local forms = {
    ["padded, float32"] = function() return padded "float32" end,
    ["padded, float16"] = function() return padded "float16" end,
    ["padded, bfloat16"] = function() return padded "bfloat16" end,
    packed = packed,
    ["one sequence"] = function()
      return { logits = logits_of { 5, V }, ids = { 1, 2, 3, 4, 5 }, temperature = 0.7 }
    end,
    shifted = function()
      local spec = padded "float32"
      spec.shift = true
      return spec
    end,
    ["a row list"] = function()
      local spec = padded "float32"
      spec.rows = { 1, 2, 9 }
      return spec
    end,
    ["a view with wide rows"] = function()
      local spec = padded "float32"
      spec.logits = logits_of({ 3, 4, V + 11 }):slice(2, 0, V)
      return spec
    end,
    ["a temperature a row"] = function()
      local spec = padded "float32"
      spec.temperature = { { 1, 1, 0.5, 3 }, { 1, 1, 5000, 5000 }, { 0, 1, 1, 2 } }
      return spec
    end,
    ["one token"] = function() return { logits = logits_of { 1, 1, 1 }, ids = { { 0 } } } end,
    ["kept sets"] = function()
      local spec = padded "float32"
      spec.kept = samebits.zeros({ 3, 4, V }, "bool")
      for row = 0, 11 do
        for id = row % 3, V - 1, 2 do spec.kept:set(true, math.floor(row / 4), row % 4, id) end
      end
      return spec
    end,
  }
  for name, make in pairs(forms) do
    it("takes " .. name, function() assert_kept(samebits.verify(make(), { rounds = 1 })) end)
  end

  it("gives a report as text, JSON and HTML", function()
    local report = samebits.verify(padded(), { rounds = 1, transforms = { "alone", "right" } })
    assert.equal(tostring(report) .. "\n", report:text())
    assert.equal(report.seed, json.decode(report:json()).seed)
    assert.matches("^<!doctype html>.*>right<.*</html>\n$", report:html())
    local files = temporary.folder()
    finally(function() files:remove() end)
    for _, kind in ipairs { "json", "html" } do
      assert.is_true(report[kind](report, files:path(kind)))
      assert.equal(report[kind](report), files:read(kind))
      local written, why = report[kind](report, "/nowhere/report")
      assert.is_nil(written)
      assert.matches("/nowhere/report: No such file", why)
      assert.matches(kind .. ": the path is empty", select(2, pcall(report[kind], report, "")))
    end
  end)

  it("takes a batch, too, and leaves it as it is", function()
    local spec = padded "float32"
    local before = spec.logits:clone()
    local batch = samebits.batch(spec)
    assert_kept(samebits.verify(batch))
    assert.same_bits(before, batch.logits)
  end)

  it("scores each row's likeliest id where there are none", function()
    local spec = padded "float32"
    spec.ids = nil
    ffi.cast("uint32_t *", spec.logits.ptr)[V] = 0x7fc00000
    local report = samebits.verify(spec, { rounds = 1 })
    says(tostring(report), "no ids: each row's likeliest one is scored")
    assert.is_true(report.chosen_ids)
    local first = path_of(report, "conventional").first
    if first and first.id then
      local best = samebits.open("cpu"):topk(samebits.batch(spec, { ids = false }), 1).ids
      assert.equal(best:get(first.sequence, first.position, 0), first.id)
    end
  end)

  it("takes some rows of a large batch, chosen by the seed, and says so", function()
    local spec = { logits = logits_of { 40, 10, V }, ids = samebits.zeros({ 40, 10 }, "int32") }
    local reports = {}
    for i, seed in ipairs { 1, 1, 2 } do
      reports[i] = assert_kept(samebits.verify(spec, { rows = 30, rounds = 1, seed = seed }))
      local sampled = reports[i].sampled
      assert.is_false(sampled.whole)
      assert.is_true(sampled.rows <= 30 and sampled.rows >= 20)
      assert.same({ 400, 40 }, { sampled.of, sampled.of_sequences })
    end
    says(tostring(reports[1]), "a sample: ", "of 400 rows")
    assert.equal(tostring(reports[1]), tostring(reports[2]))
    assert.is_not_equal(tostring(reports[1]), tostring(reports[3]))
  end)

  it("finds the active tokens of a large batch", function()
    local ids = samebits.zeros({ 200, 8 }, "int32")
    ffi.fill(ids.ptr, 200 * 8 * 4, 0xff)
    local spec = { logits = logits_of { 200, 8, 5 }, ids = ids, ignore_index = -1 }
    ids:set(3, 77, 5)
    local report = samebits.verify(spec, { rows = 4, rounds = 1 })
    assert.is_true(report.ok)
    assert.same({ 1, 1 }, { report.sampled.tokens, report.sampled.of_sequences })
  end)

  it("verifies what is behind a device", function()
    local report = samebits.verify(packed(), { backend = backends.LOOPBACK, rounds = 1 })
    assert_kept(report)
    assert.equal("samebits, " .. backends.LOOPBACK, report.paths[1].name)
    local batch = assert(samebits.batch(packed()):to(backends.LOOPBACK))
    assert_kept(samebits.verify(batch, { rounds = 1 }))
  end)

  backends.with("cuda", function(at)
    it("verifies a GPU, where the control group drifts, too", function()
      local data = assert(samebits.load(MODEL))
      local spec = { logits = data.logits, ids = data.ids, mask = data.mask }
      local report = assert_kept(samebits.verify(spec, { backend = at.backend, rounds = 1 }))
      assert.is_true(path_of(report, "conventional").mismatches > 0)
      report = samebits.verify(samebits.batch(spec):to(at.context().device), { rounds = 1 })
      assert.equal(4, #report.paths)
      assert.is_true(report.ok)
    end)
  end)
end)

-- Functions ---------------------------------------------------------------------------------------

-- Each row's logprob in plain Lua, of the rows' own numbers alone; `change(x, row, batch)` gets
-- to spoil it.
local function scorer(change)
  return function(batch)
    local logits = batch.logits:to("float32"):contiguous()
    local x = ffi.cast("const float *", logits.ptr)
    local ids, out = batch.ids:view(-1), samebits.zeros(batch.shape, "float64")
    local to, width = ffi.cast("double *", out.ptr), batch.vocab
    for row = 0, batch.rows_total - 1 do
      local sum = 0
      for id = 0, width - 1 do sum = sum + math.exp(x[row * width + id]) end
      local from = batch.shift == 1 and row - 1 or row
      local id = tonumber(ids:get(row))
      if from >= 0 and id >= 0 and id < width then
        to[row] = x[from * width + id] - math.log(sum)
      end
      if change then to[row] = to[row] + change(row, batch) end
    end
    return out
  end
end

local function changed(spec, fn, opts)
  opts = opts or {}
  opts.fn = fn
  local report, names = samebits.verify(spec, opts), {}
  for _, line in ipairs(report.transforms) do
    if line.results[1] and line.results[1].differences > 0 then names[line.name] = true end
  end
  return report, names
end

describe("verify of a function", function()
  local LEAST = 2 ^ -40

  for name, make in pairs { padded = padded, packed = packed, ["one sequence"] = function()
    return { logits = logits_of { 6, V }, ids = { 1, 2, 3, 4, 5, 6 } }
  end } do
    it("passes one that looks at rows alone: " .. name, function()
      local spec = make()
      spec.temperature = nil
      local report = samebits.verify(spec, { fn = scorer() })
      assert.is_true(report.ok, tostring(report))
      assert.equal(1, #report.paths)
      assert.is_true(#report.transforms >= 10)
      for _, line in ipairs(report.transforms) do
        assert.is_true(line.results[1].tokens > 0, line.name)
      end
      says(tostring(report), "the function: no bit changed in ")
    end)
  end

  it("finds what depends on the batch's size", function()
    local report, names = changed(padded(), scorer(function(_, batch)
      return batch.sequences * LEAST
    end))
    assert.is_false(report.ok)
    assert.same({ true, true }, { names.alone, names.copies })
    assert.is_nil(names["in place"])
    says(tostring(report), "the function: ", "tokens and 0 of 0 sums changed, by at most ",
         "first in 'alone', token of sequence ")
    assert.equal(16, #report.paths[1].first.want)
  end)

  it("finds what depends on the row", function()
    local _, names = changed(padded(), scorer(function(row) return row * LEAST end))
    assert.is_true(names.shuffled and names.alone and names.places)
  end)

  it("finds what depends on the position", function()
    local _, names = changed(padded(), scorer(function(row, batch)
      return row % batch.shape[2] * LEAST
    end))
    assert.is_true(names.left and names.steps and names.chunks)
    assert.is_nil(names.shuffled)
  end)

  it("finds what depends on the neighbours", function()
    local _, names = changed(padded(), scorer(function(row, batch)
      local x = batch.logits:view(-1, batch.vocab):get((row + 1) % batch.rows_total, V - 1)
      return x == x and math.abs(x) < 1e4 and 0 or 1
    end))
    assert.same({ neighbours = true }, names)
  end)

  it("finds what does not heed the mask", function()
    local _, names = changed(padded(), scorer(function(_, batch)
      local n, active = 0, batch:active()
      local flags = ffi.cast("const uint8_t *", active.ptr)
      for row = 0, batch.rows_total - 1 do n = n + flags[row] end
      return n * LEAST
    end))
    assert.is_true(names.masks)
    assert.is_nil(names.shuffled)
  end)

  it("runs the transforms that are named", function()
    local report = changed(padded(), scorer(), { transforms = { "left", "alone" } })
    assert.same({ "left", "alone" }, { report.transforms[1].name, report.transforms[2].name })
    assert.equal(2, #report.transforms)
  end)

  it("takes tables, tensors of other dtypes, and what ctx:logprob gives", function()
    local spec = padded()
    local ctx = assert(samebits.open "cpu")
    assert.is_true(changed(spec, function(batch) return ctx:logprob(batch) end).ok)
    assert.is_true(changed(spec, function(batch) return scorer()(batch):to "float16" end).ok)
    assert.is_true(changed(spec, function(batch) return scorer()(batch):totable() end).ok)
    ctx:close()
  end)

  it("tells of one that fails", function()
    local spec = padded()
    says(misuse(function() samebits.verify(spec, { fn = function() end }) end),
         "the function", "gave nil")
    says(misuse(function()
      samebits.verify(spec, { fn = function() return nil, "no luck" end })
    end), "no luck")
    says(misuse(function() samebits.verify(spec, { fn = function() return { 1, 2 } end }) end),
         "float64 [2]", "[3, 4]")
    says(misuse(function() samebits.verify(spec, { fn = function() return "x" end }) end),
         "gave string")
    local report = changed(spec, function(batch)
      if batch.sequences == 1 then error("one is too few", 0) end
      return scorer()(batch)
    end)
    assert.is_false(report.ok)
    says(tostring(report), "failed in alone: one is too few")
  end)
end)

-- What is wrong -----------------------------------------------------------------------------------

-- The library with a fault: one bit of the first active row of calls with more than `most` rows.
local function faulty(most)
  local samebits_path = paths.samebits
  return function(ctx)
    local self = samebits_path(ctx)
    local score = self.score
    function self.score(spec, opts)
      local out = score(spec, opts)
      local rows = out.token and out.token:numel() or 0
      local words = out.token and ffi.cast("uint32_t *", out.token.ptr)
      for row = 0, rows > most and rows - 1 or -1 do
        if words[row] ~= 0 then
          words[row] = words[row] + 1
          break
        end
      end
      return out
    end
    return self
  end
end

describe("verify", function()
  it("finds a fault of the library's", function()
    local original = paths.samebits
    finally(function() paths.samebits = original end)
    paths.samebits = faulty(15)
    local report = samebits.verify(padded "float32")
    assert.is_false(report.ok)
    local path, p = path_of(report, "samebits")
    assert.is_true(path.mismatches > 0)
    assert.equal(1, path.max_ulps)
    says(tostring(report), "samebits, cpu: ", " changed, by at most ", " 1 ULP\n")
    for _, line in ipairs(report.transforms) do
      if line.name == "alone" then assert.equal(0, line.results[p].mismatches) end
      if line.name == "copies" then assert.is_true(line.results[p].mismatches > 0) end
    end
  end)

  it("is refused what it cannot verify", function()
    local spec = padded "float32"
    local function words(change, opts)
      return misuse(function() samebits.verify(with(spec, change), opts) end)
    end
    says(words { ids = { { 1, 2, 3, 4 }, { 5, 6, 37, 99 }, { 36, 0, 9, 9 } } }, "row 6", "37")
    says(words { mask = samebits.zeros({ 3, 4 }, "bool") }, "no active tokens")
    says(words { ids = samebits.zeros({ 3, 4, 2 }, "int32") }, "[3, 4, 2]", "one id per row")
    says(words { vocab = 64 }, "a shard")
    says(words { temperature = 5000 }, "temperature")
    says(words({}, { seeds = 1 }), "unknown option 'seeds'")
    says(words({}, { seed = 0 }), "seed", "at least 1")
    says(words({}, { rows = 1.5 }), "rows")
    says(words({}, { transforms = { "aloft" } }), "no transform 'aloft'")
    says(words({}, { transforms = "alone" }), "list of names")
    says(words({}, { fn = 3 }), "fn: expected a function")
    says(misuse(function() samebits.verify(3) end), "batch: expected a table")
    says(refusal.message(samebits.verify(spec, { backend = "abacus" })), "abacus")
  end)
end)

-- The command line --------------------------------------------------------------------------------

describe("samebits verify", function()
  local files
  setup(function()
    files = temporary.folder()
    assert(samebits.save(files:path "logits.npy", padded("float32").logits))
    assert(samebits.save(files:path "ids.npy", samebits.tensor(
      { { 1, 2, 3, 4 }, { 5, 6, -100, 7 }, { 36, 0, 9, 9 } }, { dtype = "int64" })))
    local spec = packed()
    assert(samebits.save(files:path "packed.safetensors", {
      logits = spec.logits, ids = samebits.tensor(spec.ids, { dtype = "int32" }),
      cu_seqlens = samebits.tensor(spec.cu_seqlens, { dtype = "int32" }),
      temperature = samebits.tensor(spec.temperature), mask = samebits.zeros({ 9 }, "uint8"),
    }))
  end)
  teardown(function() files:remove() end)

  local function run(words, program)
    local output, status = shell.run(("%s verify %s"):format(program or "bin/samebits", words))
    return status, output
  end

  it("prints a table, or JSON", function()
    local status, output = run(MODEL .. " --rounds 1")
    assert.equal(0, status, output)
    says(output, "transform  ", "samebits, cpu", "conventional, cpu", "\nalone ", "\nshards ",
         "samebits, cpu: no bit changed in ")
    status, output = run(MODEL .. " --rounds 1 --rows 9 --seed 4 --json")
    assert.equal(0, status, output)
    local object = assert(json.decode(output))
    assert.same({ true, 4, 1, 48 }, { object.ok, object.seed, object.rounds, object.sampled.of })
    local path, p = path_of(object, "samebits")
    assert.equal(0, path.differences)
    for _, line in ipairs(object.transforms) do
      assert.is_true(line.results[p].tokens > 0, line.name)
    end
  end)

  it("writes a page, and keeps to the width of the terminal", function()
    local page = files:path "page.html"
    local status, output = run(shell.line("%s --rounds 1 --html %s", files:path "logits.npy", page))
    assert.equal(0, status, output)
    says(files:read "page.html", "<!doctype html>", "verify: no bit changed</h1>",
         "<td class=\"left\">alone</td>", "samebits, cpu: no bit changed in ", "</html>")
    status, output = run(shell.line("%s --rounds 1 --html /nowhere/page.html",
                                    files:path "logits.npy"))
    assert.same({ 2, "samebits: /nowhere/page.html: No such file or directory\n" },
                { status, output })
    for _, width in ipairs { 72, 200 } do
      -- A GPU's columns would take more of it than there is.
      status, output = run(shell.line("%s --rounds 1 --backend cpu", files:path "logits.npy"),
                           ("COLUMNS=%d bin/samebits"):format(width))
      assert.equal(0, status, output)
      local longest, place = 0, files.name:gsub("%p", "%%%0")
      for line in output:gsub(place, ""):gmatch "[^\n]+" do longest = math.max(longest, #line) end
      assert.is_true(longest <= width, output)
      assert.equal(width == 72, output:find("\n" .. (" "):rep(40)) ~= nil, output)
    end
  end)

  it("takes logits alone, ids beside them, and what else a file holds", function()
    local status, output = run(shell.line("%s --rounds 1", files:path "logits.npy"))
    assert.equal(0, status, output)
    says(output, "12 active tokens of 3 sequences", "no ids")
    status, output = run(shell.line("%s --ids %s --rounds 1 --shift", files:path "logits.npy",
                                    files:path "ids.npy"))
    assert.equal(0, status, output)
    says(output, "8 active tokens of 3 sequences")
    -- The mask in the file masks everything.
    local name = files:path "packed.safetensors"
    status, output = run(shell.line("%s", name))
    assert.same({ 2, "samebits: verify: the batch has no active tokens\n" }, { status, output })
    assert(samebits.save(files:path "mask.npy", samebits.tensor({ 1, 1, 1, 1, 0, 1, 1, 1, 1 },
                                                                { dtype = "uint8" })))
    for _, form in ipairs { "", ":logits" } do
      status, output = run(shell.line("%s --mask %s --rounds 1", name .. form,
                                    files:path "mask.npy"))
      assert.equal(0, status, output)
      says(output, "float16 [9, 37]: 8 active tokens of 2 sequences")
    end
  end)

  it("ends with 1 where bits of the library's change", function()
    local program = files:path "faulty.lua"
    local file = assert(io.open(program, "w"))
    file:write(([[
      package.path = "./lua/?.lua;" .. package.path
      local ffi = require "ffi"
      local paths = require "samebits.verify.paths"
      local original = paths.samebits
      function paths.samebits(ctx)
        local self = original(ctx)
        local score = self.score
        function self.score(spec, opts)
          local out = score(spec, opts)
          if out.token and out.token:numel() == %d then
            local words = ffi.cast("uint32_t *", out.token.ptr)
            words[0] = words[0] + 1
          end
          return out
        end
        return self
      end
      os.exit(require "samebits.cli".main(arg), true)
    ]]):format(12))
    file:close()
    local status, output = run(shell.line("%s --rounds 1", files:path "logits.npy"),
                               shell.line("luajit %s", program))
    assert.equal(1, status, output)
    says(output, "samebits, cpu: ", " changed, by at most ")
  end)

  it("ends with 2 and a line where it cannot tell", function()
    for words, message in pairs {
      ["nowhere.npy"] = "nowhere.npy: No such file",
      ["README.md"] = "README.md: neither .npy nor .safetensors",
      [shell.line("%s", files:path "ids.npy")] = "no logits, float32, float16 or bfloat16",
      [MODEL .. shell.line(" --ids %s", files:path "ids.npy")] =
        "ids: shape [3, 4], expected [4, 12]",
      [MODEL .. " --backend abacus"] = "abacus",
      [MODEL .. " --mask nowhere.npy"] = "--mask: nowhere.npy",
    } do
      local status, output = run(words)
      assert.equal(2, status, output)
      assert.matches("^samebits: [^\n]+\n$", output)
      says(output, message)
    end
    local status, output = run(MODEL .. " --seed x")
    assert.equal(2, status)
    says(output, "Usage: samebits verify", "'x' is not an integer")
  end)
end)
