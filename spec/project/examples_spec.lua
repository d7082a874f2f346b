-- The examples run from any folder, and their claims are true.
--
-- queue: early

local samebits = require "samebits"
local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

local quote = shell.quote

local files
setup(function() files = temporary.folder() end)
teardown(function() files:remove() end)

-- Runs an example from another folder, and returns its output.
local function run(name, arguments)
  local said, status = shell.run(('here=$PWD; cd / && luajit "$here"/examples/%s %s'):format(
                                 name, arguments or ""))
  assert.equal(0, status, said)
  return said
end

local function says(text, words) assert.truthy(text:find(words, 1, true), text) end

local BITS = { bits = true, samebits = true, rank = true, conventional = true, rollout = true,
               replayed = true, trainer = true }

-- The rows of a CSV, by the names in its first line.
local function rows_of(name)
  local names, rows = nil, {}
  for line in files:read(name):gmatch "[^\n]+" do
    local cells, row = {}, {}
    for cell in (line .. ","):gmatch "([^,]*)," do cells[#cells + 1] = cell end
    if names then
      assert.equal(#names, #cells, line)
      for i, key in ipairs(names) do
        row[key] = not BITS[key] and tonumber(cells[i]) or cells[i]
      end
      rows[#rows + 1] = row
    end
    names = names or cells
  end
  return rows
end

-- Each plot is there, as far as gnuplot is.
local function plotted(said, ...)
  for _, name in ipairs { ... } do
    if shell.has "gnuplot" then
      assert.matches("</svg>%s*$", files:read(name))
    else
      says(said, ("no %s: gnuplot is not installed"):format(name:match "[^/]*$"))
    end
  end
end

describe("example", function()
  it("01: the same bits in four batches; another file is refused", function()
    local said = run("01_quickstart.lua",
                     '"$here"/spec/vectors/smollm2.safetensors ' .. quote(files:path "tokens"))
    says(said, "the same bits in all of them")
    local rows = rows_of "tokens/tokens.csv"
    assert.equal(41, #rows)
    assert.equal("bd22609e", rows[4].samebits)
    plotted(said, "tokens/tokens.svg")
    local four = said:match "in four batches\n[^\n]*\n(.*)the same bits"
    local seen = {}
    for line in four:gmatch "[^\n]+" do
      seen[#seen + 1] = line:match "(%x%x%x%x%x%x%x%x  %x+ %.%. %x+)$"
    end
    assert.same({ seen[1], seen[1], seen[1], seen[1] }, seen)
    assert.equal(4, #seen)
    local refused, status = shell.run "luajit examples/01_quickstart.lua README.md"
    assert.equal(1, status)
    says(refused, "README.md")
  end)

  it("02: samebits' bits are the same in every batching, conventional ones are not", function()
    local said = run("02_batch_invariance.lua", quote(files:path "a folder"))
    local rows = rows_of "a folder/batchings.csv"
    assert.equal(5 * 41, #rows)

    -- The first batching's are those of the file as it stands.
    local data = assert(samebits.load "spec/vectors/smollm2.safetensors")
    local want = assert(samebits.logprob { logits = data.logits, ids = data.ids,
                                           mask = data.mask }).token:bits()
    local control, differ = {}, {}
    for i, row in ipairs(rows) do
      local b, t = row.sequence + 1, row.position + 1
      assert.equal(data.ids:get(b - 1, t - 1), row.id)
      assert.equal(want[b][t], row.samebits)
      local key = row.sequence .. " " .. row.position
      if i <= 41 then control[key] = row.conventional end
      differ[row.batching] = (differ[row.batching] or 0) +
                             (control[key] ~= row.conventional and 1 or 0)
    end
    local decoded, alone = differ["as decoded one position at a time"],
                           differ["each sequence alone"]
    assert.is_true(decoded > 0 and alone > 0)
    assert.equal(0, differ["one batch padded on the right"])

    -- The table tells the same.
    for words, count in pairs { ["as decoded, one position at a time"] = decoded,
                                ["each sequence alone"] = alone } do
      local none, some = said:match(words .. " +(%d+) of 41 +(%d+) of 41, by +%d+ ULPs\n")
      assert.equal(0, tonumber(none), said)
      assert.equal(count, tonumber(some), said)
    end
    says(said, "within 0 of 1 by samebits")
    plotted(said, "a folder/samebits_ulps.svg", "a folder/conventional_ulps.svg",
            "a folder/conventional_positions.svg")
  end)

  it("03: on the rollout's policy ratios are 1; batches do not reach the weights", function()
    local said = run("03_grpo.lua", quote(files:path "grpo") .. " 20 1")
    local rows, drifted, reward = rows_of "grpo/grpo.csv", 0, {}
    assert.equal(2 * 20, #rows)
    for _, row in ipairs(rows) do
      if row.path == "samebits" then
        assert.same({ 0, 0, 0 }, { row.unequal, row.ratio, row.kl })
        assert.is_true(row.kl_updated > 0)
        reward[row.step] = row.reward
      else
        drifted = drifted + row.unequal
        assert.equal(row.unequal > 0, row.ratio > 0)
      end
    end
    assert.is_true(drifted > 0)

    -- It learns.
    local before, after = 0, 0
    for i = 1, 5 do before, after = before + reward[i] / 5, after + reward[15 + i] / 5 end
    assert.is_true(after > before + 0.1, ("reward %g, then %g"):format(before, after))

    local function unequal(words)
      return tonumber(said:match(words .. " +(%d+) of 2128 weights differ"))
    end
    assert.equal(0, unequal "of 16 samebits")
    assert.is_true(unequal "of 16 conventional" > 0)
    assert.equal(0, unequal "resumed at step 10 +samebits")
    plotted(said, "grpo/reward.svg", "grpo/ratio.svg", "grpo/kl.svg")
  end)

  it("03: gives the same measurements each time, the conventional ones too", function()
    for _, name in ipairs { "first", "second" } do
      run("03_grpo.lua", quote(files:path(name)) .. " 3 1")
    end
    assert.equal(files:read "first/grpo.csv", files:read "second/grpo.csv")
  end)

  it("04: drift names what is wrong with the dumps, until nothing is", function()
    local said = run("04_drift_dump.lua", quote(files:path "a dump"))
    local found = {}
    for _, row in ipairs(rows_of "a dump/causes.csv") do
      found[row.dump] = found[row.dump] or {}
      found[row.dump][row.cause] = row
    end
    local first, second = found["as dumped"], found["mask mended"]
    -- Two completions end by the pad token's id.
    assert.same({ 39, 2, 1 }, { first.padding.compared, first.padding.only_rollout,
                                first.padding.status })
    assert.same({ 41, 0, 1 }, { second.padding.compared, second.padding.only_rollout,
                                second.padding.status })
    assert.is_true(first.padding.tokens > 0 and second.padding.tokens > first.padding.tokens)
    local op = found["vocabulary cut to its ids"]
    assert.is_nil(op.padding)
    assert.is_true(op.op.different > 0)
    assert.same({ op.op.different, op.op.different, 1 },
                { op.op.tokens, op.op.exactly, op.op.status })
    local none = found["both by samebits"].none
    assert.same({ 41, 0, 0 }, { none.compared, none.different, none.status })
    says(said, "$ samebits drift --worst 3 --html drift.html rollout.safetensors " ..
               "trainer1.safetensors\ndrift: ")
    assert.matches("</html>%s*$", files:read "a dump/drift.html")
    plotted(said, "a dump/positions.svg")
  end)

  it("05: shards give the whole's bits", function()
    local said = run("05_vocab_shards.lua", quote(files:path "shards"))
    says(said, "the same bits in all of them")
    local whole, parts = {}, {}
    for _, row in ipairs(rows_of "shards/shards.csv") do
      local key = row.sequence .. " " .. row.position
      if row.rank == "all" then whole[key] = row.lse
      else parts[key] = (parts[key] or 0) + math.exp(row.lse) end
    end
    for key, lse in pairs(whole) do assert.near(lse, math.log(parts[key]), 1e-5) end
    assert.is_truthy(whole["3 10"])
    plotted(said, "shards/shards.svg")
    says(said, "without the second half: ")
    says(said, "at two temperatures: ")
  end)

  it("06: without the kept sets ratios are what was kept; with them, 1", function()
    local said = run("06_kept_set_replay.lua", quote(files:path "replay"))
    local rows, low, sizes = rows_of "replay/replay.csv", 1, {}
    assert.equal(8 * 41, #rows)
    for _, row in ipairs(rows) do
      assert.equal(row.rollout, row.replayed)
      assert.equal(1, row.ratio_replayed)
      -- The mass is a sum of fp32 logprobs' exponentials, each within 1e-6.
      assert.near(row.mass, row.ratio_all, 2e-6)
      low, sizes[row.kept] = math.min(low, row.ratio_all), true
    end
    assert.is_true(low < 0.9)
    assert.is_true(sizes[1] and sizes[64])

    -- ratios of 1, least, mean, most, and tokens outside their sets; before an update and after.
    local function line(words, from)
      local list = {}
      local at = select(2, said:find(words, said:find(from, 1, true), true))
      for number in said:sub(at + 1):match "^[^\n]*":gmatch "%S+" do
        list[#list + 1] = tonumber(number)
      end
      return list
    end
    local before, after = "the policy that sampled", "after an update"
    local replay = "against the kept sets, replayed"
    assert.same({ 328, 1, 1, 1, 0 }, line(replay, before))
    assert.equal(("%.6f"):format(low), ("%.6f"):format(line("against all ids", before)[2]))
    local own = line("against its own top-p sets", after)
    assert.equal(0, own[2])
    assert.is_true(own[5] > 0)
    assert.is_true(line(replay, after)[2] > 0)
    assert.equal(0, line(replay, after)[5])
    plotted(said, "replay/ratios.svg")
  end)

  it("07: the temperature and its sequences are found, and then the bits are the same", function()
    local said = run("07_temperature_mismatch.lua", quote(files:path "tau"))
    local rows, off = rows_of "tau/temperature.csv", 0
    assert.equal(41, #rows)
    for _, row in ipairs(rows) do
      -- What the file's metadata tells of its sampler.
      assert.equal(row.sequence == 1 and 1 or 0.8, row.temperature)
      assert.equal(row.rollout, row.trainer)
      assert.equal(1, row.ratio_after)
      off = off + (row.ratio_before ~= 1 and 1 or 0)
      if row.sequence == 1 then assert.equal(1, row.ratio_before) end
    end
    assert.equal(31, off)
    says(said, "temperature 0.8 explains 31 of 31 tokens to the last bit; by sequence: " ..
               "0.8, 1, 0.8, 0.8\n")
    says(said, "ratios, trainer over rollout: 1 to 1\n")
    plotted(said, "tau/ratios.svg")
  end)

  it("08: an exact head has the bits of the trainer in every shape and cut", function()
    local said = run("08_exact_head.lua", quote(files:path "head"))
    local rows = rows_of "head/exact_head.csv"
    assert.equal(41, #rows)
    local drifted = 0
    for _, row in ipairs(rows) do
      assert.equal(row.samebits, row.rank)
      assert.equal(0, row.exact)
      drifted = drifted + (row.bf16 ~= 0 and 1 or 0) + (row.float32 ~= 0 and 1 or 0)
    end
    assert.is_true(drifted > 41)
    -- Two shapes of rollouts, 1, 2, 3 and 5 ranks of the vocabulary and of D; then the others.
    local exact, conventional = said:match "^(.-)\nconventional head(.*)$"
    local same, some = 0, 0
    for count in exact:gmatch " (%d+) of 41\n" do
      assert.equal("0", count, said)
      same = same + 1
    end
    for count in conventional:gmatch " (%d+) of 41" do some = some + (count ~= "0" and 1 or 0) end
    assert.same({ 10, 8 }, { same, some }, said)
    plotted(said, "head/exact_head.svg")
  end)

  it("09: a step's division reaches no bit of samebits, and many of its twin", function()
    local said = run("09_micro_batches.lua", quote(files:path "divided") .. " 1")
    local divisions, drifted = 0, 0
    for path, losses, gradients, weights in
        said:gmatch "(%l+) +%d[^\n]- +(%d+) of +%d+ +(%d+) of +%d+ +(%d+) of +%d+\n" do
      local unequal = losses + gradients + weights
      divisions = divisions + 1
      if path == "samebits" then assert.equal(0, unequal) else drifted = drifted + unequal end
    end
    assert.equal(8, divisions)
    assert.is_true(drifted > 100)
    local first = {}
    for _, row in ipairs(rows_of "divided/micro_batches.csv") do
      if row.path == "samebits" then
        first[row.update] = first[row.update] or row.bits
        assert.equal(first[row.update], row.bits)
      end
    end
    assert.equal(2, #first)
  end)

  it("folders are made where none is given", function()
    local said = run "02_batch_invariance.lua"
    local folder = said:match "wrote (/[^\n]*)/batchings.csv\n"
    assert.truthy(io.open(folder .. "/batchings.csv"))
    os.execute("rm -r " .. quote(folder))
  end)

  it("every one is listed in examples/README.md", function()
    local list = shell.run "ls examples/*.lua"
    local readme = io.open "examples/README.md":read "*a"
    for name in list:gmatch "examples/([^\n]+)" do says(readme, ("[%s](%s)"):format(name, name)) end
  end)
end)
