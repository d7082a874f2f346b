-- samebits.drift: top-k and top-p, found from the other side's logits, alone and with a
-- temperature; and cases that must not be taken for them.

local ffi = require "ffi"
local samebits = require "samebits"
local drift_files = require "spec.support.drift_files"
local plant = require "spec.support.plant"
local prng = require "spec.support.prng"

local drift, causes, text_of = drift_files.drift, drift_files.causes, drift_files.text_of
local N, V = 48, 300

-- A sampler's kept sets, by its textbook: ids by falling logit; the first k of them; of these the
-- fewest whose softmax at a temperature sums up to p. And an id of each, drawn from it.
local function sample(logits, how, seed)
  local rows, vocab = logits.shape[1], logits.shape[2]
  local kept, ids = samebits.zeros({ rows, vocab }, "uint8"), samebits.zeros({ rows }, "int64")
  local flags, x = ffi.cast("uint8_t *", kept.ptr), ffi.cast("float *", logits.ptr)
  local random = prng.new(seed or 9)
  local tau = how.p_temperature or how.temperature or 1
  for row = 0, rows - 1 do
    local p, order = x + row * vocab, {}
    for id = 0, vocab - 1 do order[id + 1] = id end
    table.sort(order, function(i, j)
      if p[i] ~= p[j] then return p[i] > p[j] end
      return i < j
    end)
    local limit, total = how.k or vocab, 0
    if how.ties then
      while limit < vocab and p[order[limit + 1]] == p[order[limit]] do limit = limit + 1 end
    end
    local weight = {}
    for i = 1, limit do
      weight[i] = math.exp((p[order[i]] - p[order[1]]) / tau)
      total = total + weight[i]
    end
    local size, sum = limit, 0
    if how.p then
      size = 0
      while sum < how.p * total do
        size = size + 1
        sum = sum + weight[size]
      end
    else
      sum = total
    end
    local at, drawn = random:uniform() * sum, 1
    for i = 1, size do
      flags[row * vocab + order[i]] = 1
      if at > 0 then drawn = i end
      at = at - weight[i]
    end
    ids:set(order[drawn], row)
  end
  return kept, ids
end

local logits = plant.logits({ N, V }, 31)

-- The logprobs of a sampler that says nothing of its sets; then what the logits say.
local function found(how, of, options)
  of = of or logits
  local kept, ids = sample(of, how)
  local values = plant.logprobs { logits = of, ids = ids, kept = kept,
                                  temperature = how.temperature }
  if how.op then values = plant.each(values, how.op) end
  local report = drift(values, { logits = of, ids = ids }, options)
  return report, values, ids, kept
end

-- All tokens that differ, by one cause that names its setting.
local function blames(report, cause, text)
  assert.same({ [cause] = report.tokens.different }, causes(report))
  assert.is_true(report.tokens.different > N / 2)
  assert.equal(report.tokens.different, report.causes[1].tokens_exactly)
  assert.is_truthy(report.causes[1].text:find(text, 1, true), report.causes[1].text)
  assert.is_truthy(report:text { width = 300 }:find(text, 1, true))
  return report.causes[1]
end

describe("drift, top-k:", function()
  for _, k in ipairs { 2, 5, 50, 250 } do
    it(("k = %d"):format(k), function()
      local report = found { k = k }
      assert.equal(k, blames(report, "top_k", ("the %d largest logits (top-k)"):format(k)).top_k)
    end)
  end

  it("of the side that has the logits, too", function()
    local kept, ids = sample(logits, { k = 20 })
    local values = plant.logprobs { logits = logits, ids = ids, kept = kept }
    local all = plant.logprobs { logits = logits, ids = ids }
    assert.equal(20, blames(drift(all, { logprobs = values, logits = logits, ids = ids }), "top_k",
                            "B is the logprob of its own logits within the 20").top_k)
  end)

  it("with logits that are equal at the edge, all kept or cut", function()
    local coarse = plant.each(logits, function(_, x) return math.floor(x * 2 + 0.5) / 2 end)
    for _, ties in ipairs { true, false } do
      local report = found({ k = 20, ties = ties }, coarse)
      local cause = blames(report, "top_k", "the 20 largest logits (top-k")
      assert.equal(20, cause.top_k)
      assert.equal(ties, cause.text:find("equal to the last", 1, true) ~= nil)
    end
  end)

  it("greedy: the largest logit alone, so that every value is 0", function()
    local report = found { k = 1 }
    assert.equal(1, blames(report, "top_k", "the largest logit alone (top-k 1)").top_k)
    -- An id that is not the largest is -inf there.
    local kept, ids = sample(logits, { k = 1 })
    for row = 0, N - 1, 3 do ids:set((ids:get(row) + 1) % V, row) end
    report = drift(plant.logprobs { logits = logits, ids = ids, kept = kept },
                   { logits = logits, ids = ids })
    assert.equal(1, blames(report, "top_k", "the largest logit alone").top_k)
  end)

  it("ids outside the set are -inf, and are explained", function()
    local kept, ids = sample(logits, { k = 20 })
    for row = 0, N - 1, 4 do
      for id = 0, V - 1 do if kept:get(row, id) == 0 then ids:set(id, row) end end
    end
    local values = plant.logprobs { logits = logits, ids = ids, kept = kept }
    local report = drift(values, { logits = logits, ids = ids })
    blames(report, "top_k", "the 20 largest")
    assert.equal(N / 4, report.difference.not_finite)
  end)

  it("behind a temperature", function()
    for _, tau in ipairs { 0.6, 1.37 } do
      local cause = blames(found { k = 40, temperature = tau }, "top_k",
                           ("at temperature %.9g, within the 40 largest"):format(tau))
      assert.equal(40, cause.top_k)
      assert.equal(tau, cause.temperature)
    end
  end)

  it("behind a temperature that is given", function()
    local kept, ids = sample(logits, { k = 7, temperature = 0.6 })
    local values = plant.logprobs { logits = logits, ids = ids, kept = kept, temperature = 0.6 }
    local b = { logits = logits, ids = ids, temperature = 0.6 }
    local cause = blames(drift(values, b), "top_k", "the 7 largest")
    assert.equal(7, cause.top_k)
    assert.is_nil(cause.temperature)
    b.temperature = 1
    cause = blames(drift({ logprobs = values, temperature = 0.6 }, b), "top_k", "the 7 largest")
    assert.equal(0.6, cause.temperature)
  end)
end)

describe("drift, top-p:", function()
  for _, p in ipairs { 0.5, 0.9, 0.95 } do
    it(("p = %g"):format(p), function()
      local report, values = found { p = p }
      local cause = blames(report, "top_p", ("the nucleus of p = %g (top-p)"):format(p))
      assert.equal(p, cause.top_p)
      assert.is_true(cause.top_p_low < p and p <= cause.top_p_high)
      assert.is_true(cause.top_p_high - cause.top_p_low < 0.05)
      -- Sets of one id give 0: no masks.
      local zeros = 0
      for row = 0, N - 1 do if values:get(row) == 0 then zeros = zeros + 1 end end
      assert.is_true(p > 0.9 or zeros > 0)
    end)
  end

  it("the interval of p is right: its ends give other sets", function()
    local report, values, ids = found { p = 0.9 }
    local cause = report.causes[1]
    local function equal_at(p)
      local kept = sample(logits, { p = p })
      return samebits.same_bits(values, plant.logprobs { logits = logits, ids = ids, kept = kept })
    end
    local width = cause.top_p_high - cause.top_p_low
    assert.is_true(equal_at(cause.top_p_low + width / 1000))
    assert.is_true(equal_at(cause.top_p_high - width / 1000))
    assert.is_false(equal_at(cause.top_p_low - width / 1000))
    assert.is_false(equal_at(cause.top_p_high + width / 1000))
  end)

  it("behind a temperature", function()
    local cause = blames(found { p = 0.9, temperature = 0.7 }, "top_p",
                         "at temperature 0.7, within the nucleus of p = 0.9 (top-p)")
    assert.equal(0.9, cause.top_p)
    assert.equal(0.7, cause.temperature)
  end)

  it("before a temperature: the nucleus is that of temperature 1", function()
    local cause = blames(found { p = 0.8, temperature = 0.7, p_temperature = 1 }, "top_p",
                         "of p = 0.8 (top-p, taken at temperature 1)")
    assert.equal(0.8, cause.top_p)
    assert.equal(0.7, cause.temperature)
  end)

  it("of what top-k leaves", function()
    local cause = blames(found { k = 12, p = 0.9 }, "top_p", "the nucleus of p = 0.9 (top-p) of " ..
                         "the 12 largest logits (top-k)")
    assert.equal(12, cause.top_k)
    assert.equal(0.9, cause.top_p)
    cause = blames(found { k = 12, p = 0.9, temperature = 1.5 }, "top_p", "of the 12 largest")
    assert.equal(1.5, cause.temperature)
  end)

  it("behind another op: nearly", function()
    local report = found { p = 0.9, op = function(i, x)
      return x == 0 and x or x * (1 + (i % 5 + 1) * 2 ^ -23)
    end }
    local cause = report.causes[1]
    assert.equal("top_p", cause.cause)
    assert.equal(0.9, cause.top_p)
    assert.equal(report.tokens.different, cause.tokens)
    assert.is_true(cause.tokens_exactly < cause.tokens)
  end)

  it("in some sequences alone, beside masked tokens and one that nothing explains", function()
    local kept, ids = sample(logits, { p = 0.9 })
    local values = plant.logprobs { logits = logits, ids = ids, kept = kept }
    local truth = plant.logprobs { logits = logits, ids = ids }
    local masked = 0
    for row = 24, 47 do values:set(truth:get(row), row) end
    for row = 30, 34 do
      if truth:get(row) < -2 then
        values:set(0, row)
        masked = masked + 1
      end
    end
    values:set(-9, 40)
    local report = drift(values, { logits = logits, ids = ids })
    local got = causes(report)
    assert.is_true(masked > 0)
    assert.equal(masked, got.mask)
    assert.equal(1, got.unexplained)
    assert.equal(report.tokens.different - masked - 1, got.top_p)
  end)

  it("nothing depends on how rows are cut into chunks", function()
    local big = plant.logits({ 40, 3000 }, 5)
    local kept, ids = sample(big, { p = 0.9, temperature = 0.7 })
    local values = plant.logprobs { logits = big, ids = ids, kept = kept, temperature = 0.7 }
    local side = { logits = big, ids = ids }
    local whole = drift(values, side)
    blames(whole, "top_p", "p = 0.9")
    assert.equal(text_of(whole), text_of(drift(values, side, { memory = 2 ^ 20 })))
  end)

  it("logits in bf16, where many are equal", function()
    local narrow = logits:to "bfloat16"
    local kept, ids = sample(narrow:to "float32", { p = 0.9 })
    local values = plant.logprobs { logits = narrow, ids = ids, kept = kept }
    local report = drift(values, { logits = narrow, ids = ids })
    local got = causes(report)
    assert.is_true(got.top_p >= report.tokens.different - 1)
    assert.equal(0.9, report.causes[1].top_p)
  end)
end)

describe("drift, no kept set is blamed for", function()
  -- Nothing but what is said, and no top-k or top-p.
  local function only(report, wanted)
    assert.same({ [wanted] = report.tokens.different }, causes(report))
    assert.is_true(report.tokens.different > 0)
  end

  local ids = plant.ids({ N }, V, 41)
  local given = { logits = logits, ids = ids }
  local truth = plant.logprobs(given)

  it("noise", function()
    only(drift(plant.each(truth, function(i, x) return x + (i * 37 % 11 + 1) * 0.01 end), given),
         "unexplained")
  end)

  it("one offset for all, where any p could be hit", function()
    -- Flat: hundreds of ids lie within a nat, and some nucleus gives any number.
    local flat = plant.each(plant.logits({ N, 4000 }, 43), function(_, x) return x / 30 end)
    local list = plant.ids({ N }, 4000, 44)
    local values = plant.logprobs { logits = flat, ids = list }
    for _, offset in ipairs { 0.05, 0.10536, 0.7 } do
      only(drift(plant.each(values, function(_, x) return x + offset end),
                 { logits = flat, ids = list }), "unexplained")
    end
  end)

  it("one offset for all, where the logits are steep", function()
    only(drift(plant.each(truth, function(_, x) return x + 0.10536 end), given), "unexplained")
  end)

  it("a single token", function()
    local _, values, list = found { k = 20 }
    local own = plant.logprobs { logits = logits, ids = list }
    only(drift(plant.each(own, function(i, x) return i == 5 and values:get(5) or x end),
               { logits = logits, ids = list }), "unexplained")
  end)

  it("sets that are not the largest logits", function()
    local kept = samebits.zeros({ N, V }, "uint8")
    for row = 0, N - 1 do
      for id = 0, V - 1 do if (id * 7 + row) % 3 ~= 0 then kept:set(1, row, id) end end
      kept:set(1, row, ids:get(row))
    end
    only(drift(plant.logprobs { logits = logits, ids = ids, kept = kept }, given), "unexplained")
  end)

  it("another k in every row", function()
    local values = truth:clone()
    for row = 0, N - 1 do
      local one = logits:slice(0, row, row + 1)
      local kept = sample(one, { k = 60 + 4 * row })
      kept:set(1, 0, ids:get(row))
      values:set(plant.logprobs { logits = one, ids = { ids:get(row) }, kept = kept }:get(0), row)
    end
    local got = causes(drift(values, given))
    assert.is_nil(got.top_k)
    assert.is_nil(got.top_p)
  end)

  it("masked tokens, though each has the largest logit", function()
    local _, largest = sample(logits, { k = 1 })
    local own = plant.logprobs { logits = logits, ids = largest }
    only(drift(plant.each(own, function(i, x) return i % 4 == 0 and 0 or x end),
               { logits = logits, ids = largest }), "mask")
  end)

  it("a temperature", function()
    local cool = plant.logprobs { logits = logits, ids = ids, temperature = 0.7 }
    only(drift(cool, given), "temperature")
  end)

  it("kept sets that are given", function()
    local kept, list = sample(logits, { p = 0.9 })
    local values = plant.logprobs { logits = logits, ids = list, kept = kept }
    only(drift({ logprobs = values, kept = kept }, { logits = logits, ids = list }), "kept")
  end)

  it("a rounding on top of small differences, whatever the sizes", function()
    for seed = 1, 4 do
      local random = prng.new(seed)
      local many, rows = random:integer(200, 1500), random:integer(10, 60)
      local some = plant.logits({ rows, many }, 100 + seed)
      local list = plant.ids({ rows }, many, 200 + seed)
      local side = { logits = some, ids = list }
      local function near(values, size)
        return plant.each(values, function(_, x) return x + size(x) end)
      end
      local function ulps(x) return x * random:integer(-3, 3) * 2 ^ -23 end
      local cool = plant.logprobs { logits = some, ids = list, temperature = 0.8 }
      only(drift(near(cool, ulps), side), "temperature")
      for _, values in ipairs {
        near(plant.logprobs(side), ulps),
        near(plant.logprobs(side), function() return 1e-5 * random:normal() end),
        near(plant.logprobs(side), function() return 1e-3 * random:normal() end),
      } do
        only(drift(values, side), "unexplained")
      end
    end
  end)

  it("logits that differ", function()
    local moved = plant.each(logits, function(i, x) return x + (i * 31 % 7 + 1) * 0.01 end)
    only(drift(given, { logits = moved, ids = ids }), "logits")
    local got = causes(drift(given, plant.logprobs { logits = moved, ids = ids }))
    assert.is_nil(got.top_k)
    assert.is_nil(got.top_p)
  end)
end)
