-- Shards of the vocabulary: for any cut at multiples of 16, any number of shards, and any order and
-- tree of merges, computed by any variant, the bytes and the bits are those of the whole rows.

local samebits = require "samebits"
local backends = require "spec.support.backends"
local hex = require "spec.support.hex"
local prng = require "spec.support.prng"
local shards = require "spec.support.shards"

local SIZES = { 1, 15, 16, 17, 31, 33, 48, 255, 1023, 1025, 4099 }
local DTYPES = { "float32", "float16", "bfloat16" }

-- A batch with everything that a batch may have; some rows are poisoned, empty, or partly absent.
-- Targets lie all over the vocabulary; in the last rows they are absent.
local function example(random, vocab, layout)
  local B, T = 3, 4
  local values = hex.values(B * T * vocab, random:integer(1, 2 ^ 20))
  local ids, mask, temperature = {}, {}, {}
  local function put(row, id, value) values[row * vocab + id + 1] = value end
  for row = 0, B * T - 1 do
    ids[row + 1] = random:integer(0, vocab - 1)
    mask[row + 1] = random:integer(0, 4) > 0 and 1 or 0
    temperature[row + 1] = random:pick { 0.5, 0.7, 1, 3 }
  end
  put(0, random:integer(0, vocab - 1), "7fc00000")
  put(1, random:integer(0, vocab - 1), "7f800000")
  put(2, ids[3], "7fc00001")
  for id = 0, vocab - 1 do put(3, id, "ff800000") end
  for _ = 1, math.floor(vocab / 2) do
    for row = 4, 7 do put(row, random:integer(0, vocab - 1), "ff800000") end
  end
  put(8, ids[9], "ff800000")
  put(9, ids[10], random:pick { 1e30, -1e30, 60000, -60000 })
  ids[12] = -100
  local logits = hex.tensor(values, { B * T, vocab })
  local function of(list, dtype) return samebits.tensor(list, { dtype = dtype }) end
  local spec = { logits = logits, ids = of(ids, "int32"), mask = of(mask, "uint8"),
                 temperature = of(temperature) }
  if layout == "padded" then
    spec.logits = logits:view(B, T, vocab)
    for _, name in ipairs { "ids", "mask", "temperature" } do spec[name] = spec[name]:view(B, T) end
    spec.shift = 1
    spec.rows = { 0, 1, 2, 3, 5, 6, 7, 9, 10, 11 }
  else
    spec.cu_seqlens = { 0, 5, 5, 12 }
  end
  return spec
end

-- The options for records with or without moments.
local function kind(moments)
  if not moments then return {} end
  return { partial = { entropy = true }, finish = { outputs = shards.ALL_OUTPUTS } }
end

local present = {}

describe("shards of the vocabulary", function()
  backends.each(function(at)
    present[#present + 1] = at

    for _, dtype in ipairs(DTYPES) do
      it(("%s, give the whole rows' bits on %s"):format(dtype, at.name), function()
        for seed, vocab in ipairs(SIZES) do
          for _, layout in ipairs { "padded", "packed" } do
            local random = prng.new(seed)
            local spec = example(random, vocab, layout)
            spec.logits = spec.logits:to(dtype)
            for i = 1, 3 do
              local opts = kind(i == 3)
              local want = at.score(spec, opts.finish)
              local whole = shards.record(at, spec, 0, vocab, opts.partial)
              local cuts = shards.cuts(random, vocab, random:integer(1, 6))
              local what = ("V = %d, %s, cut at %s, seed %d"):format(vocab, layout,
                                                                     table.concat(cuts, " "), seed)
              local list = shards.records(function() return at end, spec, cuts, opts.partial)
              local merged = shards.merged(at, list)
              shards.assert_same_records(whole, merged, what)
              merged = shards.merged_randomly(random, at, list)
              shards.assert_same_records(whole, merged, what .. ", in a tree")
              shards.assert_same(want, shards.finished(at, merged, spec, opts.finish), what)
            end
          end
        end
      end)
    end

    it("hold the target in each shard in turn, on " .. at.name, function()
      local V, cuts = 100, { 0, 16, 16, 64, 96, 100 }
      local logits = hex.tensor(hex.values(V, 9), { 1, V })
      for _, id in ipairs { 0, 15, 16, 63, 64, 95, 96, 99 } do
        local spec = { logits = logits, ids = { id } }
        local list = shards.records(function() return at end, spec, cuts)
        for s, records in ipairs(list) do
          local here = cuts[s] <= id and id < cuts[s + 1]
          local bits = hex.of(logits:slice(1, id, id + 1))[1]
          local bytes = {}
          for byte in (here and bits or "00000000"):gmatch "%x%x" do
            table.insert(bytes, 1, byte)
          end
          for _, byte in ipairs { here and "01" or "00", "00", "00", "00" } do
            bytes[#bytes + 1] = byte
          end
          assert.same(bytes, records.targets:bits()[1], ("id %d, shard %d"):format(id, s - 1))
        end
        shards.assert_same(at.score(spec), shards.finished(at, shards.merged(at, list), spec), id)
      end
    end)
  end)

  it("may be computed by different backends, instruction sets and splits", function()
    for seed = 1, 12 do
      local random = prng.new(seed + 100)
      local vocab = random:pick { 33, 1025, 5000 }
      local spec = example(random, vocab, random:pick { "padded", "packed" })
      local cuts = shards.cuts(random, vocab, random:integer(2, 9))
      local opts = kind(seed % 2 == 0)
      local function any() return random:pick(present) end
      local list = shards.records(any, spec, cuts, opts.partial)
      local merged = shards.merged_randomly(random, any(), list)
      local whole = shards.record(any(), spec, 0, vocab, opts.partial)
      shards.assert_same_records(whole, merged, "seed " .. seed)
      shards.assert_same(any().score(spec, opts.finish),
                         shards.finished(any(), merged, spec, opts.finish), "seed " .. seed)
    end
  end)

  it("may have dtypes of their own", function()
    local random, vocab = prng.new(7), 500
    local logits = hex.tensor(hex.values(3 * vocab, 3), { 3, vocab })
    local spec = { logits = logits, ids = { 1, 250, 499 } }
    local want = samebits.logprob(spec)
    for _ = 1, 5 do
      local cuts, list = shards.cuts(random, vocab, 5), {}
      for s = 1, #cuts - 1 do
        local at = random:pick(present)
        local cut = shards.shard(spec, cuts[s], cuts[s + 1])
        cut.logits = cut.logits:to(random:pick(DTYPES))
        local out = assert(at.context():partial(at.batch(cut)))
        list[s] = { states = assert(out.states:to "cpu"), targets = assert(out.targets:to "cpu") }
      end
      local at = random:pick(present)
      shards.assert_same(want, shards.finished(at, shards.merged(at, list), spec), "dtypes")
    end
  end)

  it("of real vocabularies give the whole rows' bits", function()
    local random = prng.new(3)
    for _, vocab in ipairs { 50257, 151936 } do
      local spec = { logits = hex.tensor(hex.values(2 * vocab, vocab), { 2, vocab }):to "bfloat16",
                     ids = { 17, vocab - 1 } }
      for _, number in ipairs { 2, 8, 64 } do
        local at, opts = random:pick(present), kind(number == 8)
        local list = shards.records(function() return at end, spec,
                                    shards.cuts(random, vocab, number), opts.partial)
        shards.assert_same(at.score(spec, opts.finish),
                           shards.finished(at, shards.merged(at, list), spec, opts.finish),
                           ("V = %d, %d shards"):format(vocab, number))
      end
    end
  end)

  it("need not be of one process's making: padding and strides reach no byte", function()
    local V, R = 200, 5
    local wide = hex.tensor(hex.values(R * 300, 5), { R, 300 })
    local spec = { logits = wide:slice(1, 7, 207), ids = { 0, 50, 100, 150, 199 } }
    local dense = { logits = spec.logits:contiguous(), ids = spec.ids }
    for _, at in ipairs(present) do
      for first = 0, 192, 48 do
        local past = math.min(first + 48, V)
        local function part(s)
          return shards.records(function() return at end, s, { first, past })[1]
        end
        local a, b = part(spec), part(dense)
        assert.same_bits(b.states, a.states)
        assert.same_bits(b.targets, a.targets)
      end
    end
  end)
end)
