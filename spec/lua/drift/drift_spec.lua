-- samebits.drift: each cause found where it was planted, and only there.

local ffi = require "ffi"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local dlpack = require "samebits.dlpack"
local drift_files = require "spec.support.drift_files"
local plant = require "spec.support.plant"
local temporary = require "spec.support.temporary"

local drift, causes, text_of = drift_files.drift, drift_files.causes, drift_files.text_of
local B, T, V = 3, 8, 200
local SHAPE = { B, T }
local logits = plant.logits({ B, T, V }, 1)
local ids = plant.ids(SHAPE, V, 2)
local given = { logits = logits, ids = ids }
local truth = plant.logprobs(given)

-- All tokens that differ are explained exactly, by one cause.
local function blames(report, cause, tokens, text)
  assert.equal(tokens, report.tokens.different)
  assert.same({ [cause] = tokens }, causes(report))
  assert.equal(tokens, report.causes[1].tokens_exactly)
  if text then assert.matches(text, report.causes[1].text) end
  for _, token in ipairs(report.worst) do
    assert.equal(cause, token.cause)
    assert.is_true(token.cause_exact)
  end
  assert.is_truthy(report:text():find("why", 1, true))
end

-- x moved by n ULPs.
local function nudge(x, n)
  local pun = ffi.new "union { float f; int32_t i; }"
  pun.f = x
  pun.i = pun.i + n
  return pun.f
end

-- Another op: off by some ULPs, the same for a row wherever it stands.
local function another_op(values)
  return plant.each(values, function(i, x) return nudge(x, i % 3 + 1) end)
end

describe("drift, equal:", function()
  it("the same bits, from logprobs, from logits, and from one of each", function()
    local again = { logits = logits:clone(), ids = ids }
    for _, pair in ipairs { { truth, truth:clone() }, { given, again }, { given, truth },
                            { truth, given } } do
      local report = drift(pair[1], pair[2])
      assert.is_true(report.equal)
      assert.same({ compared = B * T, equal = B * T, different = 0, only_a = 0, only_b = 0,
                    inactive = 0 }, report.tokens)
      assert.same({}, report.causes)
      assert.is_nil(report.first)
      assert.equal(1, report.ratio.min)
      assert.equal(1, report.ratio.max)
      assert.equal(0, report.kl.k3)
      assert.matches("none: all 24 tokens", tostring(report))
    end
  end)

  it("one token, and none", function()
    assert.is_true(drift(truth:slice(0, 0, 1), truth:slice(0, 0, 1):clone()).equal)
    assert.is_true(drift(samebits.tensor { -1 }, { -1 }).equal)
    assert.equal(1, drift({ { -1 } }, samebits.tensor { { -2 } }).tokens.different)
    for _, shape in ipairs { { 0 }, { 0, 5 }, { 5, 0 } } do
      local report = drift(samebits.zeros(shape), samebits.zeros(shape))
      assert.equal(0, report.tokens.compared)
      assert.matches("no token is active", tostring(report))
    end
  end)

  it("the logits' container has no effect on what is equal", function()
    local narrow = logits:to "bfloat16"
    local report = drift({ logits = narrow, ids = ids },
                         { logits = narrow:to "float32", ids = ids })
    assert.is_true(report.equal)
    assert.equal(0, report.logits.different)
  end)
end)

describe("drift, attribution:", function()
  it("a temperature, given", function()
    local report = drift({ logits = logits, ids = ids, temperature = 0.7 }, given)
    blames(report, "temperature", B * T)
    assert.equal(0, report.logits.different)
  end)

  it("a temperature, found: of either side, with the logits of either", function()
    local cool = plant.logprobs { logits = logits, ids = ids, temperature = 0.7 }
    local both = { logprobs = truth, logits = logits, ids = ids }
    local odd = { logprobs = cool, logits = logits, ids = ids }
    for _, pair in ipairs { { given, cool }, { both, cool }, { truth, odd }, { cool, given },
                            { both, odd } } do
      local report = drift(pair[1], pair[2])
      blames(report, "temperature", B * T)
      local tau = report.causes[1].temperature
      assert.is_truthy(tau == 0.7 or tau == 1, tau)
    end
  end)

  it("several temperatures, found", function()
    local mixed = plant.logprobs { logits = logits, ids = ids, temperature = { 0.5, 1, 1.25 } }
    local report = drift(given, mixed)
    assert.equal(2 * T, report.tokens.different)
    assert.same({ temperature = 2 * T }, causes(report))
    local taus = {}
    for i, cause in ipairs(report.causes) do taus[i] = cause.temperature end
    table.sort(taus)
    assert.same({ 0.5, 1.25 }, taus)
  end)

  it("a temperature behind another op: nearly", function()
    local cool = another_op(plant.logprobs { logits = logits, ids = ids, temperature = 0.7 })
    local report = drift(given, cool)
    assert.same({ temperature = B * T }, causes(report))
    assert.equal(0.7, report.causes[1].temperature)
    assert.equal(0, report.causes[1].tokens_exactly)
    assert.matches("nearly", report:text())
  end)

  it("no temperature is blamed for noise, or for one token", function()
    local noise = plant.each(truth, function(i, x) return x - (i * 37 % 11 + 1) * 0.01 end)
    assert.same({ unexplained = B * T }, causes(drift(given, noise)))
    local one = plant.each(truth, function(i, x) return i == 5 and x * 1.01 or x end)
    assert.same({ unexplained = 1 }, causes(drift(given, one)))
  end)

  it("the op, where the logits are the same", function()
    local report = drift(given, { logprobs = another_op(truth), logits = logits, ids = ids })
    blames(report, "op", B * T)
    assert.equal(0, report.logits.different)
    assert.same({ checked = B * T, different = B * T, max_ulps = 3 }, report.op.b)
    assert.is_nil(report.op.a)
    assert.equal(3, report.ulps.max)
  end)

  it("the target's logit", function()
    local moved = plant.rows(logits, function(row, p)
      p[ids:get(math.floor(row / T), row % T)] = 1
    end)
    local report = drift(given, { logits = moved, ids = ids })
    blames(report, "target", B * T)
    assert.equal(B * T, report.logits.different)
  end)

  it("the other logits", function()
    local moved = plant.rows(logits, function(row, p)
      p[(ids:get(math.floor(row / T), row % T) + 1) % V] = 9
    end)
    blames(drift(given, { logits = moved, ids = ids }), "lse", B * T)
  end)

  it("logits that differ everywhere", function()
    local moved = plant.rows(logits, function(row, p, n)
      for i = 0, n - 1 do p[i] = p[i] * (1 + ((i * 31 + row) % 7 + 1) * 0.01) end
    end)
    local report = drift(given, { logits = moved, ids = ids })
    blames(report, "logits", B * T)
    assert.matches("already differ in 24 of 24 rows", report:text())
  end)

  it("logits that differ, and another op on top", function()
    local moved = plant.rows(logits, function(row, p, n)
      for i = 0, n - 1 do p[i] = p[i] * (1 + ((i * 31 + row) % 7 + 1) * 0.01) end
    end)
    local values = plant.each(plant.logprobs { logits = moved, ids = ids }, function(_, x)
      return x - 0.25
    end)
    local report = drift(given, { logits = moved, logprobs = values, ids = ids })
    blames(report, "op_and_logits", B * T)
    assert.equal(B * T, report.op.b.different)
  end)

  it("a kept set, given for one side", function()
    local kept = samebits.zeros({ B, T, V }, "uint8")
    local flags = ffi.cast("uint8_t *", kept.ptr)
    for i = 0, kept:numel() - 1 do flags[i] = i % 3 == 0 and 0 or 1 end
    local report = drift({ logits = logits, ids = ids, kept = kept }, given)
    blames(report, "kept", report.tokens.different)
    assert.is_true(report.tokens.different > B * T / 2)
    report = drift(given, plant.logprobs { logits = logits, ids = ids, kept = kept },
                   { b = { kept = kept } })
    blames(report, "kept", report.tokens.different, "within B's kept sets")
    local list, offsets = samebits.kept_lists(kept, V)
    report = drift(given, plant.logprobs { logits = logits, ids = ids, kept = kept },
                   { b = { kept_ids = list, kept_offsets = offsets } })
    blames(report, "kept", report.tokens.different, "within B's kept sets")
  end)

  it("a kept set, left out of the values beside it", function()
    local kept = samebits.zeros({ B, T, V }, "uint8")
    local flags = ffi.cast("uint8_t *", kept.ptr)
    for row = 0, B * T - 1 do
      for id = 0, V - 1 do flags[row * V + id] = id % 4 == 0 and 0 or 1 end
      flags[row * V + ids:get(math.floor(row / T), row % T)] = 1
    end
    local within = plant.logprobs { logits = logits, ids = ids, kept = kept }
    blames(drift(within, { logprobs = truth, logits = logits, ids = ids, kept = kept }), "kept",
           B * T, "its own logits without its kept sets")
  end)

  it("a kept set, seen as -inf in one side's logits", function()
    local masked = plant.rows(logits, function(_, p, n)
      for i = 0, n - 1, 3 do p[i] = -math.huge end
    end)
    local report = drift(given, { logits = masked, ids = ids })
    blames(report, "kept", B * T, "%-inf in B")
    blames(drift({ logits = masked, ids = ids }, given), "kept", B * T, "%-inf in A")
  end)

  it("padding of the vocabulary: more columns, or columns that are -inf elsewhere", function()
    local wide = samebits.zeros({ B, T, V + 24 }, "float32")
    for b = 0, B - 1 do
      for t = 0, T - 1 do wide[b][t]:slice(0, 0, V):copy_(logits[b][t]) end
    end
    blames(drift(given, { logits = wide, ids = ids }), "padding", B * T, "24 behind")
    blames(drift({ logits = wide, ids = ids }, truth, { b = { logits = logits } }), "padding",
           B * T)
    local clean = plant.rows(wide, function(_, p) for i = V, V + 23 do p[i] = -math.huge end end)
    blames(drift({ logits = clean, ids = ids }, { logits = wide, ids = ids }), "padding", B * T,
           "padding, %-inf in A")
    blames(drift({ logits = wide, ids = ids }, { logits = clean, ids = ids }), "padding", B * T,
           "padding, %-inf in B")
    assert.is_true(drift(given, { logits = clean, ids = ids }).equal)
    assert.is_true(drift(given, { logits = wide, ids = ids, vocab = V }).equal)
  end)

  -- Logits with 24 columns more, which hold a number.
  local function widened(narrow, fill)
    local wide = samebits.zeros({ B, T, V + 24 }, "float32")
    for b = 0, B - 1 do
      for t = 0, T - 1 do wide[b][t]:slice(0, 0, V):copy_(narrow[b][t]) end
    end
    return plant.rows(wide, function(_, p) for i = V, V + 23 do p[i] = fill end end)
  end

  local function target_of(row) return ids:get(math.floor(row / T), row % T) end

  it("in a padded vocabulary, the columns that both sides have are compared", function()
    local clean = { logits = widened(logits, -math.huge), ids = ids }
    local noisy = { logits = widened(logits, 0), ids = ids }
    for _, pair in ipairs { { given, clean }, { noisy, given }, { given, noisy } } do
      local report = drift(pair[1], pair[2])
      assert.same({ compared = B * T, different = 0, columns = V }, report.logits)
      if not report.equal then
        blames(report, "padding", B * T)
        local text = report:text { width = 200 }
        assert.is_truthy(text:find("same numbers in all 24 rows, in the first 200 columns, " ..
                                   "which both sides have", 1, true), text)
      end
    end
    -- Equal widths need no word.
    assert.is_nil(drift(given, { logits = plant.each(logits, function(_, x) return x + 1 end),
                                 ids = ids }).logits.columns)
  end)

  it("causes in the columns that both sides have", function()
    local function moved(f) return plant.rows(logits, f) end
    local target = moved(function(row, p) p[target_of(row)] = 1 end)
    local others = moved(function(row, p) p[(target_of(row) + 1) % V] = 9 end)
    local all = moved(function(row, p, n)
      for i = 0, n - 1 do p[i] = p[i] * (1 + ((i * 31 + row) % 7 + 1) * 0.01) end
    end)
    local masked = moved(function(_, p, n) for i = 0, n - 1, 3 do p[i] = -math.huge end end)
    local function wide(narrow) return { logits = widened(narrow, -math.huge), ids = ids } end
    local function plain(narrow) return { logits = narrow, ids = ids } end
    for cause, changed in pairs { target = target, lse = others, logits = all, kept = masked } do
      blames(drift(wide(logits), plain(changed)), cause, B * T)
      blames(drift(plain(logits), wide(changed)), cause, B * T)
    end
    local report = drift(wide(logits), { logprobs = another_op(truth), logits = logits, ids = ids })
    blames(report, "op", B * T)
    assert.equal(V, report.logits.columns)
    report = drift(wide(all), given)
    assert.equal(B * T, report.logits.different)
    assert.is_truthy(report:text { width = 200 }:find("already differ in 24 of 24 rows, in the " ..
      "first 200 columns, which both sides have", 1, true))
  end)

  it("the container of logprobs", function()
    for _, dtype in ipairs { "bfloat16", "float16" } do
      local report = drift(truth, truth:to(dtype))
      blames(report, "container", report.tokens.different, "rounded to " .. dtype)
      blames(drift(truth:to(dtype):to "float32", truth), "container", report.tokens.different,
             "A is B, rounded to " .. dtype)
    end
  end)

  it("no container is blamed where values that small could not tell", function()
    -- x - lse in fp32, of near-certain tokens: so few bits are left that float16 has them, too.
    local small = plant.each(truth, function(i)
      return -2 ^ -10 * (1 + (i * 37 % 23 + 0.3) / 24)
    end)
    local coarse = plant.each(small, function(_, x)
      return math.floor(x * 2 ^ 20 + 0.5) / 2 ^ 20
    end)
    blames(drift(small, coarse), "container", B * T)
    coarse:set(-1.0001, 0, 0)
    assert.same({ unexplained = B * T }, causes(drift(small, coarse)))
  end)

  it("no container is blamed for one token", function()
    local narrow = truth:to "bfloat16":to "float32"
    local report = drift(plant.each(narrow, function(i, x) return i == 5 and nudge(x, 1) or x end),
                         narrow)
    assert.same({ unexplained = 1 }, causes(report))
  end)

  it("no setting is blamed that changes nothing", function()
    local odd = { logits = logits, ids = ids, logprobs = another_op(truth),
                  temperature = { 1, 1, 1 } }
    assert.same({ unexplained = B * T }, causes(drift(odd, truth)))
    assert.equal(B * T, drift(odd, truth).op.a.different)
  end)

  it("no container of logits is blamed for noise of its size", function()
    for seed = 1, 12 do
      local random = require("samebits.verify.prng").new(seed)
      local flat = plant.each(plant.logits({ 60, 1000 }, seed), function(_, x) return x / 20 end)
      local side = { logits = flat, ids = plant.ids({ 60 }, 1000, seed) }
      local report = drift(plant.each(plant.logprobs(side), function(_, x)
        return x + 1e-5 * random:normal()
      end), side)
      assert.same({ unexplained = report.tokens.different }, causes(report))
    end
  end)

  it("the container of logits", function()
    for _, dtype in ipairs { "bfloat16", "float16" } do
      local narrow = { logits = logits:to(dtype), ids = ids }
      local report = drift(given, narrow)
      blames(report, "container", report.tokens.different, "rounded to " .. dtype)
      blames(drift(given, plant.logprobs(narrow)), "container", report.tokens.different,
             "A's logits, rounded to " .. dtype)
    end
  end)

  it("a mask: tokens that are exactly 0 though their logits say otherwise", function()
    local zeroed = plant.each(truth, function(i, x) return i % T >= 6 and 0 or x end)
    local report = drift(given, zeroed)
    blames(report, "mask", 2 * B)
    assert.matches("B is exactly 0 at 6 tokens", report:text())
    -- Without logits it is only mentioned, not blamed.
    report = drift(truth, zeroed)
    assert.same({ unexplained = 2 * B }, causes(report))
    assert.matches("B is exactly 0 at 6 tokens", report:text())
  end)

  it("masks that differ", function()
    local mask = samebits.zeros(SHAPE, "bool")
    for b = 0, B - 1 do for t = 0, 5 do mask:set(true, b, t) end end
    local report = drift({ logprobs = truth, mask = mask },
                         { logprobs = truth, mask = samebits.tensor({ { 1, 1, 1, 1, 1, 1, 1, 0 },
                           { 1, 1, 1, 1, 1, 1, 0, 0 }, { 0, 1, 1, 1, 1, 1, 0, 0 } },
                           { dtype = "uint8" }) })
    assert.is_false(report.equal)
    assert.equal(0, report.tokens.different)
    assert.equal(1, report.tokens.only_a)
    assert.equal(1, report.tokens.only_b)
    assert.equal(17, report.tokens.compared)
    assert.matches("2 active on one side only", report:text())
  end)

  it("other target ids", function()
    local others = ids:clone()
    others:set((ids:get(1, 2) + 1) % V, 1, 2)
    local report = drift(given, { logits = logits, ids = others })
    blames(report, "id", 1)
    assert.equal(1, report.first.sequence)
    assert.equal(2, report.first.position)
  end)

  it("tokens that are a position off", function()
    local shifted = truth:clone()
    for b = 0, B - 1 do shifted[b]:slice(0, 1):copy_(truth[b]:slice(0, 0, T - 1)) end
    local report = drift(truth, shifted)
    blames(report, "position", B * (T - 1), "A's token t %- 1")
  end)

  it("a mixture: each token by its own cause", function()
    local cool = plant.logprobs { logits = logits, ids = ids, temperature = 0.7 }
    local mixed = truth:clone()
    mixed[0]:copy_(cool[0])
    for t = 0, T - 1 do mixed:set(0, 1, t) end
    mixed[2]:set(-7, 3)
    local report = drift(given, mixed)
    assert.same({ temperature = T, mask = T, unexplained = 1 }, causes(report))
    assert.equal(2 * T + 1, report.tokens.different)
  end)
end)

describe("drift, what is counted:", function()
  it("the first mismatch, ULPs and encodings", function()
    local values = plant.each(truth, function(i, x) return i == 13 and nudge(x, 5) or x end)
    local report = drift(truth, values, { ids = ids })
    local first = report.first
    assert.equal(1, first.sequence)
    assert.equal(5, first.position)
    assert.equal(ids:get(1, 5), first.id)
    assert.equal(truth:bits()[2][6], first.a_hex)
    assert.equal(values:bits()[2][6], first.b_hex)
    assert.equal(5, first.ulps)
    assert.equal(1, report.tokens.different)
    assert.equal(5, report.ulps.max)
    assert.same({ low = 0, high = 0, count = B * T - 1 }, report.ulps.histogram[1])
    assert.same({ low = 5, high = 8, count = 1 }, report.ulps.histogram[#report.ulps.histogram])
    assert.is_truthy(report:text():find(first.a_hex, 1, true))
  end)

  it("+0 and -0 differ, by no ULP", function()
    local report = drift({ 0, -1 }, samebits.tensor({ -0.0, -1 }))
    assert.equal(1, report.tokens.different)
    assert.equal(0, report.first.ulps)
    assert.equal(0, report.ulps.max)
  end)

  it("NaN and -inf: equal where their bits are, else told apart from numbers", function()
    local nan, inf = 0 / 0, math.huge
    local report = drift({ nan, -inf, -1, -inf, nan, -2 }, { nan, -inf, nan, -1, -inf, -2 })
    assert.equal(3, report.tokens.equal)
    assert.equal(3, report.tokens.different)
    assert.equal(3, report.difference.not_finite)
    assert.equal(1, report.finite)
    assert.is_nil(report.first.ulps)
    assert.equal("nan", report.worst[1].b ~= report.worst[1].b and "nan" or "number")
    assert.equal(1, report.ratio.max)
    assert.equal(0, report.kl.k3)
    assert.equal(0, report.difference.max_abs)
    assert.matches("A is NaN at 2 tokens", report:text())
    assert.is_truthy(report:json():find('"nan"', 1, true))
  end)

  it("ratio bands and KL estimates, as ctx:compare and ctx:sums have them", function()
    local steps = { 0, 0.0005, 0.005, 0.05, 0.5, -0.0005, -0.005, -0.05, -0.5 }
    local a = plant.each(samebits.zeros({ 9 }), function(i) return -1 - i / 7 end)
    local b = plant.each(a, function(i, x) return x + steps[i + 1] end)
    local report = drift(a, b)
    local outside = {}
    for i, band in ipairs(report.ratio.bands) do outside[i] = band.outside end
    assert.same({ 6, 4, 2 }, outside)
    local ctx = samebits.open "cpu"
    local each = ctx:compare(a, b)
    for _, name in ipairs { "k1", "k2", "k3" } do
      local mean = ctx:sums(each[name], { outputs = { "mean" } }).mean:get(0)
      assert.equal(samebits.bits.hex(mean), samebits.bits.hex(report.kl[name]))
    end
    assert.equal(each.ratio:get(4), report.ratio.max)
    assert.equal(each.ratio:get(8), report.ratio.min)
    ctx:close()
  end)

  it("nothing depends on how rows are cut into chunks", function()
    local big = plant.logits({ 40, 3000 }, 5)
    local list = plant.ids({ 40 }, 3000, 6)
    local cool = plant.logprobs { logits = big, ids = list, temperature = 1.5 }
    cool = plant.each(cool, function(i, x) return i % 5 == 0 and x - 1 or x end)
    local side = { logits = big, ids = list, cu_seqlens = { 0, 7, 7, 40 } }
    local whole = text_of(drift(side, cool))
    assert.equal(whole, text_of(drift(side, cool, { memory = 2 ^ 20 })))
    assert.equal(whole, text_of(drift(side, cool, { memory = 2 ^ 20, threads = 1 })))
  end)

  it("packed and shifted tokens", function()
    local flat, list = logits:view(B * T, V), ids:view(B * T)
    local cu = samebits.tensor({ 0, 5, 5, 17, 24 }, { dtype = "int32" })
    local want = plant.logprobs { logits = flat, ids = list, cu_seqlens = cu, shift = true }
    local report = drift({ logits = flat, ids = list, cu_seqlens = cu }, want, { shift = true })
    assert.is_true(report.equal)
    assert.equal(21, report.tokens.compared)
    assert.equal(4, report.sequences)
    local values = plant.each(want, function(i, x) return i == 17 + 3 and x - 1 or x end)
    report = drift({ logits = flat, ids = list, cu_seqlens = cu }, values, { shift = true })
    assert.equal(3, report.first.sequence)
    assert.equal(3, report.first.position)
    assert.same({ unexplained = 1 }, causes(report))
  end)

  it("worst tokens and sequences, in order", function()
    local values = plant.each(truth, function(i, x) return x - (i % 5) * 0.1 end)
    local report = drift(truth, values, { worst = 4 })
    assert.equal(4, #report.worst)
    for i, row in ipairs { 4, 9, 14, 19 } do
      assert.is_true(math.abs(report.worst[i].difference) > 0.39)
      assert.is_truthy(row)
    end
    assert.equal(3, #report.worst_sequences)
  end)
end)

describe("drift, where tensors are:", function()
  local cool = plant.logprobs { logits = logits, ids = ids, temperature = 0.7 }

  backends.each_device(function(device)
    it("on " .. device, function()
      local want = text_of(drift(given, cool))
      local far = { logits = assert(logits:to(device)), ids = assert(ids:to(device)) }
      assert.equal(want, text_of(drift(far, assert(cool:to(device)))))
      assert.equal(want, text_of(drift(far, cool, { backend = device })))
    end)
  end)

  it("in the hands of another library", function()
    assert.equal(text_of(drift(given, cool)), text_of(drift(given, dlpack.export(cool))))
  end)
end)

describe("drift, files that change meanwhile:", function()
  local files
  setup(function() files = temporary.folder() end)
  teardown(function() files:remove() end)

  -- The report or error of drift when `change(path)` happens while it is under way.
  local function told(what, change)
    local names = {}
    for i, values in ipairs { truth, another_op(truth) } do
      names[i] = files:path(("%d.npy"):format(i))
      assert(samebits.save(names[i], values))
    end
    local report, why = samebits.drift(names[1], names[2], { progress = function(_, _, phase)
      if phase == what and change then
        change(names[2])
        change = nil
      end
    end })
    assert.is_nil(change)
    assert.is_nil(report)
    return why
  end

  for _, phase in ipairs { "comparing", "explaining" } do
    it("is told with the file's name, " .. phase, function()
      assert.matches("2.npy: changed while it was in use: 225 bytes were 224", told(phase,
        function(path) os.execute(("echo >>'%s'"):format(path)) end))
      assert.matches("2.npy: changed while it was in use: 0 bytes were 224", told(phase,
        function(path) os.execute((": >'%s'"):format(path)) end))
      assert.matches("2.npy: changed while it was in use: it was written to", told(phase,
        function(path) os.execute(("touch -d 2001-01-01 '%s'"):format(path)) end))
      assert.matches("2.npy: changed while it was in use: another file has taken its place",
        told(phase, function(path) assert(samebits.save(path, truth)) end))
      assert.matches("2.npy: changed while it was in use: No such file",
                     told(phase, function(path) os.remove(path) end))
    end)
  end
end)

describe("drift, misuse:", function()
  local function refuses(words, ...)
    local ok, why = pcall(samebits.drift, ...)
    assert.is_false(ok)
    assert.is_truthy(tostring(why):find(words, 1, true), why)
  end

  it("names what does not fit", function()
    refuses("A: expected logprobs or logits", nil, truth)
    refuses("B: expected logprobs or logits", truth, 5)
    refuses("A has tokens [3, 8], B has tokens [2, 8]", truth, truth:slice(0, 0, 2))
    refuses("A: logits are given, but no ids", { logits = logits }, truth)
    refuses("A: neither logprobs nor logits", { ids = ids }, truth)
    refuses("unknown field 'logit'", { logit = logits }, truth)
    refuses("unknown option 'idz'", truth, truth, { idz = ids })
    refuses("A: ids: shape [2, 8], expected [3, 8]", truth, truth, { ids = ids:slice(0, 0, 2) })
    refuses("a mask holds 0 and 1; are these ids?", truth, truth, { mask = ids })
    refuses("A: temperature 0 is outside", { logits = logits, ids = ids, temperature = 0 }, truth)
    refuses("A: vocab is 201", { logits = logits, ids = ids, vocab = 201 }, truth)
    refuses("A: logprobs: dtype int64", ids, ids)
    refuses("holds both log_probs and old_log_probs", { log_probs = truth, old_log_probs = truth },
            truth)
    refuses("near: expected a number", truth, truth, { near = "x" })
    refuses("cu_seqlens[2] is 3", truth:view(24), truth:view(24), { cu_seqlens = { 0, 5, 3, 24 } })
    refuses("cu_seqlens end at 23", truth:view(24), truth:view(24), { cu_seqlens = { 0, 23 } })
    local bad = ids:clone()
    bad:set(V, 2, 1)
    refuses("A: id 200 at sequence 2, position 1 is outside [0, 200)",
            { logits = logits, ids = bad }, truth)
  end)

  it("a file that cannot be used is nil and a message", function()
    local report, why = samebits.drift("/nonexistent.npy", truth)
    assert.is_nil(report)
    assert.matches("nonexistent.npy", why)
    report, why = samebits.drift(truth, truth, { backend = "nonesuch" })
    assert.is_nil(report)
    assert.matches("nonesuch", why)
  end)
end)
