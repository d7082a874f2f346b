-- Draws of tokens: a row draws the same token alone and in any batch, at any place, in any
-- container and cut; its logprobs are those that the other calls give, and its kept set replays
-- them.

local ffi = require "ffi"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local draws = require "spec.support.draws"
local hex = require "spec.support.hex"
local kept = require "spec.support.kept"
local prng = require "spec.support.prng"
local with = require "spec.support.with"

local NAMES, FILTERS, R, example = draws.OUTPUTS, draws.FILTERS, draws.ROWS, draws.example
local OUTPUTS = { outputs = NAMES }
local SIZES = { 1, 17, 100, 1025, 4099 }

-- The same rows in another order: row i is order[i] of the first.
local function permuted(spec, how, order)
  local V = spec.logits.shape[2]
  local logits = samebits.zeros({ #order, V }, "float32")
  local out = { logits = logits, temperature = {} }
  local own = with(how, { seed = {}, stream = {}, position = {} })
  for i, row in ipairs(order) do
    ffi.copy(logits.ptr + (i - 1) * V * 4, spec.logits.ptr + (row - 1) * V * 4, V * 4)
    out.temperature[i] = spec.temperature[row]
    for _, name in ipairs { "seed", "stream", "position" } do
      own[name][i] = how[name][row]
    end
  end
  return out, own
end

-- Some of the rows 1 .. R, in any order.
local function some_rows(random)
  local order = {}
  for row = 1, R do table.insert(order, random:integer(1, #order + 1), row) end
  for row = R, random:integer(1, R) + 1, -1 do order[row] = nil end
  return order
end

local function check_same(want, got, order, what)
  for _, name in ipairs(NAMES) do
    local w, g = want[name]:bits(), got[name]:bits()
    for i, row in ipairs(order) do assert.same(w[row], g[i], what .. ", " .. name) end
  end
end

-- The logprobs of the tokens by the other calls, and the ids that are kept.
local function check_scores(at, spec, got, what)
  local ids = {}
  for row = 1, R do
    ids[row] = got.token[row - 1] < 0 and -100 or got.token[row - 1]
  end
  local model = at.score(with(spec, { ids = ids })).token:bits()
  local under = at.score(with(spec, { ids = ids, kept = got.kept })).token:bits()
  for row = 1, R do
    if ids[row] >= 0 then
      assert.equal(model[row], got.logprob:bits()[row], what)
      assert.equal(under[row], got.kept_logprob:bits()[row], what)
    else
      assert.equal("7fc00000", got.logprob:bits()[row], what)
      assert.equal("7fc00000", got.kept_logprob:bits()[row], what)
    end
    local count = 0
    for _, word in ipairs(got.kept:bits()[row]) do
      word = tonumber(word, 16)
      while word > 0 do count, word = count + word % 2, math.floor(word / 2) end
    end
    assert.equal(count, got.count[row - 1], what)
  end
end

local function spec_without(spec)
  return { logits = spec.logits, temperature = spec.temperature }
end

describe("a token that is drawn", function()
  local reference
  setup(function() reference = assert(samebits.open("cpu", { isa = "scalar", threads = 1 })) end)
  teardown(function() reference:close() end)

  backends.each(function(at)
    for f, filters in ipairs(FILTERS) do
      it(("is a function of its row alone, filters %d on %s"):format(f, at.name), function()
        for seed, V in ipairs(SIZES) do
          local random = prng.new(seed + 100 * f)
          local spec, how = example(random, V)
          local what = ("filters %d, V = %d"):format(f, V)
          how = with(how, filters)
          local want = assert(reference:sample(spec, how, OUTPUTS))
          local same = { 1, 2, 3, 4, 5, 6, 7, 8 }
          local got = at.call("sample", spec, how, OUTPUTS)
          check_same(want, got, same, what)
          check_scores(at, spec_without(spec), got, what)
          local order = some_rows(random)
          local others, own = permuted(spec, how, order)
          check_same(want, at.call("sample", others, own, OUTPUTS), order, what)
          if V ~= 4099 then
            spec.logits = spec.logits:to "bfloat16"
            check_same(want, at.call("sample", spec, how, OUTPUTS), same, what .. ", bf16")
          end
        end
      end)
    end

    it("is drawn from what is kept, on " .. at.name, function()
      for seed, V in ipairs { 17, 100, 1025 } do
        for f, filters in ipairs(FILTERS) do
          local random = prng.new(seed + 60 + f)
          local spec, how = example(random, V)
          local flags = kept.flags(random, { R, V })
          local masked = { logits = kept.masked(spec.logits, flags),
                           temperature = spec.temperature }
          how = with(how, filters)
          spec.kept = flags
          local want = assert(reference:sample(masked, how, OUTPUTS))
          local got = at.call("sample", spec, how, OUTPUTS)
          for _, name in ipairs { "token", "kept_logprob", "count", "kept" } do
            assert.same_bits(want[name], got[name])
          end
          check_scores(at, spec_without(spec), got, ("kept, filters %d, V = %d"):format(f, V))
        end
      end
    end)
  end)

  it("is the same for any cut of a large row", function()
    local V = 50257
    local logits = hex.tensor(hex.values(2 * V, 11), { 2, V }):to "bfloat16"
    for _, filters in ipairs { {}, { top_k = 50, top_p = 0.9 }, { top_p = 0.7, min_p = 0.01 } } do
      local how, want = with({ seed = 7, position = { 4, 5 } }, filters), nil
      for _, split in ipairs { 1, 2, 7, 64, 65536 } do
        local ctx = assert(samebits.open("cpu", { split = split, threads = split % 3 + 1 }))
        local got = assert(ctx:sample({ logits = logits }, how, OUTPUTS))
        ctx:close()
        want = want or got
        for _, name in ipairs(NAMES) do assert.same_bits(want[name], got[name]) end
      end
    end
  end)
end)
