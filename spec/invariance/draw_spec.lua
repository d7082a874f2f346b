-- Draws from shards of the vocabulary: for any cut at multiples of 16 and any number of shards,
-- each rank has the token, the logprobs and the number of kept ids of whole rows, and all ranks
-- together have the kept set.

local samebits = require "samebits"
local budget = require "spec.support.budget"
local draws = require "spec.support.draws"
local kept = require "spec.support.kept"
local prng = require "spec.support.prng"
local with = require "spec.support.with"

local SIZES = { 1, 17, 100, 1025, 4099 }
local PER_ROW = {
  { top_k = { 1, 0, 5, 200, 7, 100, 3, 2 ^ 31 - 1 },
    top_p = { 1, 0.5, 0.9, 0.2, 1, 0.99, 0.5, 1 } },
  { min_p = { 0, 1, 0.5, 0.01, 0.2, 0.3, 0.1, 0 }, top_k = 70 },
}
local FILTERS = {}
for _, list in ipairs { draws.FILTERS, PER_ROW } do
  for _, filters in ipairs(list) do FILTERS[#FILTERS + 1] = filters end
end

local function check(want, results, what)
  for s, got in ipairs(results) do
    for _, name in ipairs { "token", "logprob", "kept_logprob", "count" } do
      assert.same_bits(want[name], got[name], ("%s, %s of shard %d"):format(what, name, s - 1))
    end
  end
  assert.same_bits(want.kept, draws.words(results), what)
end

describe("a draw from shards", function()
  local reference
  setup(function() reference = assert(samebits.open("cpu", { isa = "scalar", threads = 1 })) end)
  teardown(function() reference:close() end)

  draws.each_backend(function(at)
    for f, filters in ipairs(FILTERS) do
      it(("has the bits of whole rows, filters %d on %s"):format(f, at.name), function()
        for seed, V in ipairs(SIZES) do
          local random = prng.new(seed + 100 * f)
          local spec, how = draws.example(random, V)
          how = with(how, filters)
          local want = assert(reference:sample(spec, how, { outputs = draws.OUTPUTS }))
          local cuts = draws.cuts(random, V, random:pick { 1, 2, 3, 8 })
          local what = ("filters %d, V = %d, cuts %s"):format(f, V, table.concat(cuts, " "))
          check(want, draws.of_shards(at, spec, cuts, how, draws.OUTPUTS), what)
          if budget.CASES > 6 and V ~= 4099 then
            spec.logits = spec.logits:to "bfloat16"
            check(want, draws.of_shards(at, spec, cuts, how, draws.OUTPUTS), what .. ", bf16")
          end
        end
      end)
    end

    it("is from what is kept, as words or lists, on " .. at.name, function()
      for f, filters in ipairs { {}, { top_k = 9, top_p = 0.9 }, { top_p = 0.8 },
                                 { min_p = 0.1 } } do
        local V = 1025
        local random = prng.new(60 + f)
        local spec, how = draws.example(random, V)
        how = with(how, filters)
        local flags = kept.flags(random, { draws.ROWS, V })
        local want = assert(reference:sample(with(spec, { kept = flags }), how,
                                             { outputs = draws.OUTPUTS }))
        local ids, offsets = kept.lists(flags)
        for _, of in ipairs { { kept = flags }, { kept_ids = ids, kept_offsets = offsets } } do
          local cuts = draws.cuts(random, V, 3)
          local what = ("kept, filters %d, cuts %s"):format(f, table.concat(cuts, " "))
          check(want, draws.of_shards(at, with(spec, of), cuts, how, draws.OUTPUTS), what)
        end
      end
    end)

    it("ignores rows as whole rows do, on " .. at.name, function()
      local V, random = 100, prng.new(77)
      local spec, how = draws.example(random, V)
      for i, more in ipairs { { mask = { 1, 0, 1, 1, 0, 1, 1, 1 } }, { rows = { 0, 3, 7 } },
                              { cu_seqlens = { 0, 3, 3, 8 }, shift = 1 } } do
        for _, filters in ipairs { {}, { top_k = 3 }, { top_p = 0.9 } } do
          local own = with(spec, more)
          local want = assert(reference:sample(own, with(how, filters),
                                               { outputs = draws.OUTPUTS }))
          check(want, draws.of_shards(at, own, { 0, 48, 100 }, with(how, filters), draws.OUTPUTS),
                "rows " .. i)
        end
      end
    end)

    it("has few rounds, and outputs that are asked for, on " .. at.name, function()
      local V, random = 100, prng.new(78)
      local spec, how = draws.example(random, V)
      for _, case in ipairs {
        { {}, { "token" }, { 40, 8 } }, { { top_k = 1 }, { "token" }, { 48 } },
        { { top_k = 5, min_p = 0.1 }, { "token", "kept_logprob" }, { 80 } },
        { { min_p = 0.1 }, { "logprob" }, { 48, 40, 8 } },
        { {}, { "count" }, { 48, 40, 8 } },
        { { top_p = 0.5 }, { "token" }, { 48, 2048, 2048, 2048, 2048, 40, 8 } },
        { { top_k = 65 }, { "token" }, { 48, 2048, 2048, 2048, 2048, 40, 8 } },
      } do
        local filters, outputs, bytes = unpack(case)
        local own = with(how, filters)
        local want = assert(reference:sample(spec, own, { outputs = outputs }))
        local results, draw = draws.of_shards(at, spec, { 0, 16, 100 }, own, outputs)
        assert.same(bytes, draw.bytes)
        for name, t in pairs(want) do assert.same_bits(t, results[2][name]) end
      end
    end)
  end)
end)
