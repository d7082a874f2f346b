-- samebits.drift.causes: which supposition explains each token that differs, and which evidence is
-- too weak for a cause to be reported.

local ffi = require "ffi"
local samebits = require "samebits"
local causes = require "samebits.drift.causes"
local plant = require "spec.support.plant"
local scorer = require "samebits.drift.scorer"
local sides = require "samebits.drift.sides"
local tally = require "samebits.drift.tally"
local words = require "samebits.drift.words"

local N, V, NEAR = 12, 60, 1e-5
local logits, ids = plant.logits({ N, V }, 91), plant.ids({ N }, V, 92)
local given = { logits = logits, ids = ids }

local function word_p(t) return ffi.cast("const int32_t *", t.ptr) end

describe("drift's causes", function()
  local ctx
  setup(function() ctx = assert(samebits.open "cpu") end)
  teardown(function() ctx:close() end)

  local function values_of(side)
    return side.logprobs or plant.logprobs { logits = side.logits, ids = side.ids,
                                             temperature = side.temperature }
  end

  -- The causes object of two sides, and what it finds.
  local function explained(a, b, fits)
    local first, second, layout = sides.read(a, b, {})
    local x, y = values_of(first), values_of(second)
    local p, q, count = word_p(x), word_p(y), tally.new(layout, 10)
    local flags, on, each = samebits.zeros({ N }, "uint8"), ffi.new("uint8_t[?]", N), {}
    ffi.fill(on, N, 1)
    for _, name in ipairs { "ratio", "k1", "k2", "k3" } do each[name] = ffi.new("float[?]", N) end
    count:add(0, N, p, q, on, on, each, ffi.cast("uint8_t *", flags.ptr))
    count:finish()
    local why = causes.new(first, second, {
      scorer = scorer.new(ctx, -100, 0), near = NEAR, fits = fits or {}, layout = layout,
      tally = count, extent = layout.bounds,
      fetch = function(side, row, n) return values_of(side):slice(0, row, row + n) end,
    })
    why:screen(count.probe)
    local entries = {}
    for _, entry in ipairs(count.worst) do entries[entry.row] = entry end
    why:add { first = 0, n = N, a = p, b = q, flags = flags, wanted = entries }
    local list, unexplained, small = why:finish(entries)
    return list, unexplained, small, count.worst[1]
  end

  it("have a title each", function()
    for _, cause in ipairs(causes.ORDER) do assert.is_string(words.CAUSES[cause], cause) end
  end)

  it("give tokens to the other side's temperature, exactly", function()
    local warm = plant.logprobs { logits = logits, ids = ids, temperature = 0.5 }
    local list, unexplained, _, worst = explained(given, { logprobs = warm, temperature = 0.5 })
    assert.equal(1, #list)
    assert.same({ "temperature", N, N }, { list[1].cause, list[1].tokens, list[1].tokens_exactly })
    assert.equal("B is the logprob of A's logits at temperature 0.5, B's setting", list[1].text)
    assert.equal(0, unexplained)
    assert.same({ "temperature", true }, { worst.cause, worst.cause_exact })
  end)

  it("tell a fitted temperature only where two tokens agree with it", function()
    local truth, warm = plant.logprobs(given), plant.logprobs { logits = logits, ids = ids,
                                                                temperature = 0.5 }
    for n, told in pairs { [1] = false, [2] = true } do
      local some = plant.each(truth, function(i, x) return i < n and warm:get(i) or x end)
      local list, unexplained = explained(given, { logprobs = some }, { AB = { taus = { 0.5 } } })
      assert.equal(told and 1 or 0, #list)
      assert.equal(told and 0 or n, unexplained)
      if told then assert.same({ "temperature", 0.5 }, { list[1].cause, list[1].temperature }) end
    end
  end)

  it("tell logits that differ from an op that does", function()
    local other = plant.each(logits, function(_, x) return x * 1.01 end)
    local list = explained(given, { logits = other, ids = ids })
    assert.same({ "logits", N, 1 }, { list[1].cause, list[1].tokens_exactly, #list })
    local moved = plant.each(plant.logprobs(given), function(_, x) return x * (1 + 2 ^ -22) end)
    list = explained(given, { logits = logits, ids = ids, logprobs = moved })
    assert.same({ "op", N, 1 }, { list[1].cause, list[1].tokens_exactly, #list })
  end)

  it("put a target id that differs first", function()
    local others = ids:clone()
    for i = 0, 3 do others:set((ids:get(i) + 1) % V, i) end
    local list, unexplained = explained(given, { logits = logits, ids = others })
    assert.same({ "id", 4, 4 }, { list[1].cause, list[1].tokens, list[1].tokens_exactly })
    assert.equal(0, unexplained)
  end)

  it("leave the rest unexplained, and count what is small of it", function()
    local truth = plant.logprobs(given)
    local other = plant.each(truth, function(i, x)
      return i == 0 and x - 0.37 or i < 4 and x * (1 + 2 ^ -22) or x
    end)
    local list, unexplained, small, worst = explained(truth, other)
    assert.same({}, list)
    assert.same({ 4, 3 }, { unexplained, small })
    assert.same({ "unexplained", false }, { worst.cause, worst.cause_exact })
  end)
end)
