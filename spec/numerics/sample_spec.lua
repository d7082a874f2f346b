-- What is drawn: the special values of docs/numerics.md, section "Sampling", case by case, and the
-- distribution of many draws. The golden vectors (spec/vectors/sample.txt) have the bits.

local samebits = require "samebits"
local backends = require "spec.support.backends"
local budget = require "spec.support.budget"
local hex = require "spec.support.hex"
local prng = require "spec.support.prng"
local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

local INF, NAN = math.huge, 0 / 0
local OUTPUTS = { outputs = { "token", "logprob", "kept_logprob", "count", "kept" } }
local LAST = -1LL -- U = 2^64 - 1

-- What one row gives: token, logprob, kept_logprob, count.
local function draw(at, row, how, more)
  local spec = { logits = hex.tensor(row, { 1, #row }) }
  for key, value in pairs(more or {}) do spec[key] = value end
  local out = at.call("sample", spec, how, OUTPUTS)
  return { out.token[0], out.logprob:bits()[1], out.kept_logprob:bits()[1], out.count[0] }
end

local function filled(n, value)
  local row = {}
  for i = 1, n do row[i] = value end
  return row
end

local function with_one(n, id, value, others)
  local row = filled(n, others or -INF)
  row[id + 1] = value
  return row
end

describe("special values:", function()
  backends.each(function(at)
    local NONE = { -1, "7fc00000", "7fc00000", 0 }

    it("ignored, poisoned and empty rows, on " .. at.name, function()
      assert.same({ -1, "00000000", "00000000", 0 }, draw(at, { 1, 2 }, {}, { mask = { 0 } }))
      assert.same(NONE, draw(at, { 1, NAN, 3 }, {}))
      assert.same(NONE, draw(at, { 1, INF, 3 }, { top_k = 1 }))
      assert.same(NONE, draw(at, filled(20, -INF), { top_p = 0.5 }))
      assert.same(NONE, draw(at, { 1, 2, 3 }, {}, { kept = { { 0, 0, 0 } } }))
      assert.same(NONE, draw(at, { 1, NAN, 3 }, {}, { kept = { { 1, 1, 0 } } }))
      local got = draw(at, { 1, NAN, 3 }, { bits = { LAST } }, { kept = { { 1, 0, 1 } } })
      assert.equal(2, got[1])
      assert.equal("7fc00000", got[2])
      assert.not_equal("7fc00000", got[3])
      assert.equal(2, got[4])
    end)

    it("one id present, or all mass in one, on " .. at.name, function()
      for _, U in ipairs { 0LL, LAST, 12345678901LL } do
        for _, id in ipairs { 0, 15, 16, 38 } do
          for _, how in ipairs { {}, { top_k = 3 }, { top_p = 0.5 }, { min_p = 1 } } do
            how.bits = { U }
            assert.same({ id, "00000000", "00000000", 1 }, draw(at, with_one(39, id, -7.5), how))
          end
          assert.equal(id, draw(at, with_one(39, id, 0, -200), { bits = { U } })[1])
        end
      end
    end)

    it("the ends of U, on " .. at.name, function()
      local row = filled(40, 0.5)
      assert.equal(0, draw(at, row, { bits = { 0LL } })[1])
      assert.equal(39, draw(at, row, { bits = { LAST } })[1])
      assert.equal(0, draw(at, row, { u = { 0 } })[1])
      assert.equal(39, draw(at, row, { u = { 1 - 2 ^ -53 } })[1])
      for i = 0, 39 do -- equal logits have equal shares of their leaf, the last leaf half as many
        assert.equal(i, draw(at, row, { u = { (i + 0.5) / 40 } })[1])
      end
      row[1], row[40] = -INF, -INF
      assert.equal(1, draw(at, row, { bits = { 0LL } })[1])
      assert.equal(38, draw(at, row, { bits = { LAST } })[1])
    end)

    it("ties, and filters that leave all or one, on " .. at.name, function()
      local row = filled(50, 3)
      row[11] = 3.5
      for _, case in ipairs {
        { { top_k = 0 }, 50 }, { { top_k = 50 }, 50 }, { { top_k = 2 ^ 31 - 1 }, 50 },
        { { top_k = 49 }, 49 }, { { top_k = 1 }, 1 }, { { top_k = 5 }, 5 }, { { top_p = 1 }, 50 },
        { { top_p = 2 ^ -149 }, 1 }, { { min_p = 0 }, 50 }, { { min_p = 1 }, 1 },
        { { min_p = 2 ^ -149 }, 50 }, { { min_p = 0.5 }, 50 }, { { min_p = 0.625 }, 1 },
      } do
        local got = draw(at, row, case[1])
        assert.equal(case[2], got[4])
      end
      -- The lowest ids stay.
      assert.equal(3, draw(at, row, { top_k = 5, bits = { LAST } })[1] - 7)
      row[11] = 3
      assert.equal(4, draw(at, row, { top_k = 5, bits = { LAST } })[1])
      assert.equal(24, draw(at, row, { top_p = 0.5, bits = { LAST } })[1])
      assert.equal(0, draw(at, row, { top_k = 1, bits = { LAST } })[1])
      local eight = filled(8, 1)
      assert.equal(4, draw(at, eight, { top_p = 0.5 })[4])
      assert.equal(5, draw(at, eight, { top_p = 0.5 + 2 ^ -24 })[4])
      -- -0 and +0 are one logit.
      assert.equal(1, draw(at, { "80000000", 0, "80000000" }, { top_k = 2, bits = { LAST } })[1])
    end)

    it("logits that saturate, on " .. at.name, function()
      local row = { 3e38, 1e30, 1e30, 2e6, -INF }
      assert.equal(3, draw(at, row, { bits = { LAST } })[1])
      assert.equal(4, draw(at, row, { min_p = 1 })[4])
      local got = draw(at, row, { top_k = 2, bits = { LAST } })
      assert.equal(1, got[1])
      assert.equal("bf317218", got[3])
    end)
  end)
end)

-- Statistics ------------------------------------------------------------------------------------

-- Draws n tokens of one row, positions 0 .. n - 1, and returns their counts.
local function counts_of(ctx, row, n, how)
  local counts, per_call = {}, math.min(n, 4096)
  for i = 0, #row - 1 do counts[i] = 0 end
  local rows = {}
  for i = 1, per_call do rows[i] = row end
  local batch = samebits.batch({ logits = rows, temperature = how.temperature }, { ids = false })
  for first = 0, n - 1, per_call do
    local position = {}
    for i = 1, per_call do position[i] = first + i - 1 end
    local token = ctx:sample(batch, { seed = how.seed, position = position, top_k = how.top_k,
                                      top_p = how.top_p, min_p = how.min_p },
                             { outputs = { "token" } }).token
    for i = 0, per_call - 1 do counts[token[i]] = counts[token[i]] + 1 end
  end
  return counts
end

-- The exact probabilities, in fp64, of the ids that stay.
local function probabilities(row, temperature, stays)
  local p, total = {}, 0
  for i, x in ipairs(row) do
    p[i - 1] = stays(i - 1) and math.exp(x / temperature) or 0
    total = total + p[i - 1]
  end
  for i = 0, #row - 1 do p[i] = p[i] / total end
  return p
end

-- Pearson's statistic, and its degrees of freedom; cells of less than 5 expected draws are one.
local function chi_square(counts, p, n)
  local sum, cells, rest, seen = 0, 0, 0, 0
  for i = 0, #p do
    local expected = n * p[i]
    if expected == 0 then assert.equal(0, counts[i]) end
    if expected >= 5 then
      sum, cells = sum + (counts[i] - expected) ^ 2 / expected, cells + 1
    else
      rest, seen = rest + expected, seen + counts[i]
    end
  end
  if rest >= 5 then sum, cells = sum + (seen - rest) ^ 2 / rest, cells + 1 end
  return sum, cells - 1
end

-- Wilson and Hilferty's normal deviate of a chi-square statistic.
local function deviate(sum, freedom)
  local v = 2 / (9 * freedom)
  return ((sum / freedom) ^ (1 / 3) - (1 - v)) / v ^ 0.5
end

describe("many draws", function()
  local n = budget.ALL and 1048576 or 8192
  local row = {}
  for i = 0, 66 do row[i + 1] = (i * 37 % 64) / 16 end
  row[20], row[41] = -INF, -40
  local order = {}
  for i = 0, 66 do order[i + 1] = i end
  table.sort(order, function(a, b)
    local xa, xb = row[a + 1], row[b + 1]
    if xa ~= xb then return xa > xb end
    return a < b
  end)
  local first = {}
  for i = 1, 12 do first[order[i]] = true end

  for name, case in pairs {
    plain = { {}, function() return true end },
    ["temperature 2.5"] = { { temperature = 2.5 }, function() return true end },
    ["top-k 12"] = { { top_k = 12 }, function(id) return first[id] end },
    ["min-p"] = { { min_p = 0.3 },
                  function(id) return row[id + 1] >= row[order[1] + 1] + math.log(0.3) end },
  } do
    it(("follow the distribution, %s"):format(name), function()
      local ctx = assert(samebits.open "cpu")
      local how, stays = case[1], case[2]
      local deviates = 0
      for seed = 1, 2 do
        how.seed = seed
        local counts = counts_of(ctx, row, n, how)
        local z = deviate(chi_square(counts, probabilities(row, how.temperature or 1, stays), n))
        assert.is_true(math.abs(z) < 3.5, ("deviate %g of seed %d"):format(z, seed))
        deviates = deviates + z
      end
      ctx:close()
      assert.is_true(math.abs(deviates) < 4)
    end)
  end

  it("would show a draw that is off by one part in thirty", function()
    local p, counts = {}, {}
    for i = 0, 9 do p[i], counts[i] = 0.1, 0.1 * 1e5 end
    counts[0], counts[1] = counts[0] * (1 + 1 / 30), counts[1] * (1 - 1 / 30)
    assert.is_true(deviate(chi_square(counts, p, 1e5)) > 2)
  end)
end)

-- The Python reference --------------------------------------------------------------------------

-- Rows of random sizes, temperatures and filters, as samebits takes them.
local function random_rows(random, n)
  local rows = {}
  for r = 1, n do
    local V, values = random:pick { 1, 16, 17, 40, 100 }, {}
    for i = 1, V do
      values[i] = random:integer(1, 9) == 1 and -INF or random:integer(-40, 40) / 8
    end
    values[random:integer(1, V)] = 1
    rows[r] = { logits = hex.tensor(values, { 1, V }), temperature = random:pick { 0.5, 1, 2 },
                seed = random:integer(0, 9), stream = r, top_k = random:pick { 0, 0, 3, 30 },
                top_p = random:pick { 1, 1, 0.5, 0.9 }, min_p = random:pick { 0, 0, 0.125 } }
  end
  return rows
end

-- The tokens of each row at the positions 0 .. count - 1, by tools/reference.py.
local function reference_tokens(rows, count)
  local function list(name, form)
    local words = {}
    for r, row in ipairs(rows) do words[r] = form and form(row[name]) or tostring(row[name]) end
    return "[" .. table.concat(words, ",") .. "]"
  end
  local function fp32(x) return '"' .. samebits.tensor({ x }):bits()[1] .. '"' end
  local function encodings(t) return '"' .. table.concat(hex.of(t)) .. '"' end
  local folder, tokens = temporary.folder(), {}
  local path = folder:write("job.json", ('{"dtype":"f32","logits":%s,"temperature":%s,"draws":' ..
    '{"count":%d,"seed":%s,"stream":%s,"top_k":%s,"top_p":%s,"min_p":%s}}'):format(
    list("logits", encodings), list("temperature", fp32), count, list "seed", list "stream",
    list "top_k", list("top_p", fp32), list("min_p", fp32)))
  local said, status = shell.run("python3 tools/reference.py %s", path)
  folder:remove()
  assert.equal(0, status, said:sub(1, 300))
  for its in said:gmatch "%[([%d, ]+)%]" do
    local list_of_row = {}
    for token in its:gmatch "%d+" do list_of_row[#list_of_row + 1] = tonumber(token) end
    tokens[#tokens + 1] = list_of_row
  end
  assert.equal(#rows, #tokens)
  return tokens
end

-- The same by the library, up to 4096 positions in a call.
local function tokens_of(ctx, row, count)
  local tokens, at_once = {}, math.min(count, 4096)
  local all = samebits.zeros { at_once, row.logits.shape[2] }
  for i = 0, at_once - 1 do all[i]:copy_(row.logits[0]) end
  for first = 0, count - 1, at_once do
    local position = {}
    for i = 1, at_once do position[i] = first + i - 1 end
    local how = { position = position }
    for _, name in ipairs { "seed", "stream", "top_k", "top_p", "min_p" } do
      how[name] = row[name]
    end
    local token = assert(ctx:sample({ logits = all, temperature = row.temperature }, how,
                                    { outputs = { "token" } })).token
    for i = 0, at_once - 1 do tokens[#tokens + 1] = token[i] end
  end
  return tokens
end

describe("many draws beside tools/reference.py", function()
  local count = budget.ALL and 32768 or 64 -- of each of 32 rows: 2^20 in tools/test --all

  it("are the same tokens", function()
    local version, found = shell.run "python3 --version"
    if found ~= 0 then return pending("there is no Python: " .. version:match "[^\n]*") end
    local ctx = assert(samebits.open "cpu")
    local rows = random_rows(prng.new(budget.SEED + 1010), 32)
    local wanted = reference_tokens(rows, count)
    for r, row in ipairs(rows) do
      for i, token in ipairs(tokens_of(ctx, row, count)) do
        if token ~= wanted[r][i] then
          error(("row %d, position %d: token %d, the reference has %d"):format(r, i - 1, token,
                                                                               wanted[r][i]))
        end
      end
    end
    ctx:close()
  end)
end)
