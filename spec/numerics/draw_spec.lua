-- Draws from shards of the vocabulary against the golden vectors (spec/vectors/draws.txt), on every
-- backend: each message of each shard, byte for byte, and the results.

local selftest = require "samebits.selftest"
local tensor = require "samebits.tensor"
local vectors = require "samebits.vectors"
local draws = require "spec.support.draws"

-- The bytes of a message as hex digits, from the lines of a case.
local function bytes_of(message)
  if not message.sums then return table.concat(message) end
  local bins = {}
  for bin = 0, 255 do
    local sum = message.sums[bin] or ("0"):rep(16)
    bins[bin + 1] = sum:gsub("(..)(..)(..)(..)(..)(..)(..)(..)", "%8%7%6%5%4%3%2%1")
  end
  return table.concat(bins)
end

-- How a case is drawn.
local function how_of(case)
  local asked = case.asked
  local high, low = asked.bits:match "^(........)(........)$"
  local U = tonumber(high, 16) * 0x100000000LL + tonumber(low, 16)
  return { top_k = asked.top_k, top_p = asked.top_p, min_p = asked.min_p, bits = { U } }
end

describe("golden vectors of draws from shards:", function()
  local cases = assert(vectors.read(selftest.directory .. "/draws.txt"))

  it("there are some of each kind", function()
    local rounds = {}
    for _, case in ipairs(cases) do
      rounds[#case.messages] = (rounds[#case.messages] or 0) + 1
    end
    for _, n in ipairs { 1, 2, 3, 7, 11 } do assert.is_true((rounds[n] or 0) > 2, tostring(n)) end
  end)

  draws.each_backend(function(at)
    it("messages and results, on " .. at.name, function()
      for _, case in ipairs(cases) do
        local spec, cuts = { logits = case.logits, temperature = case.tau }, { 0 }
        local what = ("%s:%d"):format(case.path, case.line)
        for _, cut in ipairs(case.cuts) do cuts[#cuts + 1] = cut end
        cuts[#cuts + 1] = case.vocab
        if case.kept then spec.kept = tensor.from_bits({ case.kept }, "int32") end
        local results = draws.of_shards(at, spec, cuts, how_of(case), case.asked.outputs,
                                        function(round, messages)
          for s, message in ipairs(messages) do
            assert.equal(bytes_of(case.messages[round + 1][s]),
                         table.concat(assert(message:to "cpu"):bits()[1]),
                         ("%s: shard %d, round %d"):format(what, s - 1, round))
          end
          return messages
        end)
        for s, got in ipairs(results) do
          assert.equal(case.drawn.token, got.token[0], what)
          assert.equal(case.drawn.logprob, got.logprob:bits()[1], what)
          assert.equal(case.drawn.kept_logprob, got.kept_logprob:bits()[1], what)
          if got.count then assert.equal(case.drawn.count, got.count[0], what) end
          if got.kept then assert.same(case.words[s], got.kept:bits()[1], what) end
        end
      end
    end)
  end)
end)
