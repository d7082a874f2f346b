-- samebits.drift.align: sides in different layouts, paired by their ids, with the causes that they
-- would have in one layout.

local align = require "samebits.drift.align"
local drift_files = require "spec.support.drift_files"
local plant = require "spec.support.plant"
local samebits = require "samebits"

local causes = drift_files.causes
local B, T, V = 4, 12, 60
local LENGTHS = { [0] = 12, 7, 5, 9 }
local logits, ids = plant.logits({ B, T, V }, 81), plant.ids({ B, T }, V, 82)
local mask = samebits.zeros({ B, T }, "uint8")
for b = 0, B - 1 do for t = 0, LENGTHS[b] - 1 do mask:set(1, b, t) end end
local padded = { logits = logits, ids = ids, mask = mask }
local truth = plant.logprobs { logits = logits, ids = ids }
local TOKENS = 12 + 7 + 5 + 9

-- The sequences of values in an order, packed, behind so many tokens that do not count.
local function packed(values, order, prompt)
  local out = { logprobs = {}, ids = {}, mask = {}, cu_seqlens = { 0 } }
  for _, b in ipairs(order or { 2, 0, 3, 1 }) do
    for t = -(prompt or 0), LENGTHS[b] - 1 do
      local n = #out.ids + 1
      out.logprobs[n] = t < 0 and 0 or values:get(b, t)
      out.ids[n] = t < 0 and 1 or tonumber(ids:get(b, t))
      out.mask[n] = t < 0 and 0 or 1
    end
    out.cu_seqlens[#out.cu_seqlens + 1] = #out.ids
  end
  return out
end

local function is_equal(...)
  local report = samebits.drift(...)
  assert.is_true(report.equal, report:text())
  assert.equal(TOKENS, report.tokens.compared)
  assert.same({ a = 4, b = 4, paired = 4, partly = 0, only_a = 0, only_b = 0, repeated = 0 },
              report.alignment)
  return report
end

describe("aligned by ids,", function()
  it("padded and packed sequences in another order are equal", function()
    for _, prompt in ipairs { 0, 3 } do
      local report = is_equal(padded, packed(truth, nil, prompt))
      assert.same({ 4, 12, 28 + 5 }, { report.sequences, report.layout.longest, report.shape[1] })
      assert.is_truthy(report:text():find("logits float32 [4, 12, 60], ids, mask", 1, true))
      is_equal(packed(truth, nil, prompt), padded)
      is_equal(packed(truth, { 0, 1, 2, 3 }), packed(truth, { 3, 2, 1, 0 }, prompt),
               { align = true })
    end
  end)

  it("reordered rows of one shape are, where it is asked for", function()
    local order, moved, ids_there = { 3, 1, 0, 2 }, truth:clone(), ids:clone()
    local mask_there = mask:clone()
    for to, from in ipairs(order) do
      for t = 0, T - 1 do
        moved:set(truth:get(from, t), to - 1, t)
        ids_there:set(ids:get(from, t), to - 1, t)
        mask_there:set(mask:get(from, t), to - 1, t)
      end
    end
    local other = { logprobs = moved, ids = ids_there, mask = mask_there }
    local report = samebits.drift(padded, other)
    assert.is_false(report.equal)
    assert.is_truthy(table.concat(report.notes, "\n"):find("--align", 1, true))
    is_equal(padded, other, { align = true })
  end)

  it("a model's layout, with logits of the position before, is understood on each side", function()
    local model = { logits = logits, ids = ids, mask = mask,
                    logprobs = samebits.zeros { B, T - 1 } }
    local want = plant.logprobs { logits = logits, ids = ids, shift = true }
    for b = 0, B - 1 do
      for t = 1, T - 1 do model.logprobs:set(want:get(b, t), b, t - 1) end
    end
    local list, of, cu = {}, {}, { 0 }
    for b = B - 1, 0, -1 do
      for t = 1, LENGTHS[b] - 1 do
        list[#list + 1], of[#of + 1] = want:get(b, t), tonumber(ids:get(b, t))
      end
      cu[#cu + 1] = #list
    end
    local report = samebits.drift(model, { logprobs = list, ids = of, cu_seqlens = cu })
    assert.is_true(report.equal, report:text())
    assert.equal(TOKENS - 4, report.tokens.compared)
    model.logprobs = nil
    report = samebits.drift(model, { logprobs = list, ids = of, cu_seqlens = cu }, { shift = true,
                            a = { temperature = 0.5 } })
    assert.same({ temperature = TOKENS - 4 }, causes(report))
  end)

  it("causes are those of one layout, with any number of rows at a time", function()
    local cool = plant.logprobs { logits = logits, ids = ids, temperature = 0.7 }
    for _, memory in ipairs { 2 ^ 20, 2 ^ 28 } do
      local report = samebits.drift(packed(cool), padded, { memory = memory })
      assert.same({ temperature = TOKENS }, causes(report))
      assert.equal(TOKENS, report.causes[1].tokens_exactly)
      assert.equal("explained", report.verdict)
    end
    local far = { logits = plant.each(logits, function(i, x) return x + i % 7 / 30 end), ids = ids,
                  mask = mask }
    local list = { logits = {}, ids = {}, cu_seqlens = { 0 } }
    for b = B - 1, 0, -1 do
      for t = 0, LENGTHS[b] - 1 do
        local row = {}
        for id = 0, V - 1 do row[id + 1] = logits:get(b, t, id) end
        list.logits[#list.logits + 1], list.ids[#list.ids + 1] = row, tonumber(ids:get(b, t))
      end
      list.cu_seqlens[#list.cu_seqlens + 1] = #list.ids
    end
    local here = causes(samebits.drift(far, padded))
    assert.same(here, causes(samebits.drift(far, list)))
    is_equal(padded, list)
  end)

  it("temperatures of a sequence go with their tokens", function()
    local taus = { 0.5, 1, 2, 0.8 }
    local scored = plant.logprobs {
      logits = logits, ids = ids,
      temperature = plant.each(samebits.zeros({ B, T }), function(i)
        return taus[math.floor(i / T) + 1]
      end),
    }
    is_equal({ logits = logits, ids = ids, mask = mask, temperature = taus }, packed(scored))
  end)

  it("what one side lacks is active on the other alone, and its places are told", function()
    local some = packed(truth, { 2, 0, 3 })
    some.ids[17] = 59 -- the last one of sequence 0
    some.logprobs[8] = some.logprobs[8] - 1
    local report = samebits.drift(padded, some)
    assert.same({ a = 4, b = 3, paired = 3, partly = 1, only_a = 1, only_b = 0, repeated = 0 },
                report.alignment)
    assert.same({ 12 - 1 + 5 + 9, 1, 8, 1 }, { report.tokens.compared, report.tokens.different,
                                               report.tokens.only_a, report.tokens.only_b })
    assert.same({ sequence = 0, position = 2 }, report.first.in_a)
    assert.same({ sequence = 1, position = 2 }, report.first.in_b)
    assert.is_false(report.equal)
    local line = report:csv():match "different,[^\r]*"
    assert.matches(",0,2,1,2$", line)
    assert.is_truthy(report:html():find('"origins":[[0,1],[1,-1],[2,0],[3,2]]', 1, true))
    local text = report:text { width = 200 }
    for _, words in ipairs { "4 sequences of A and 3 of B make 3 pairs.",
                             "1 sequence is in A only.",
                             "In 1 pair the ids agree only up to a point." } do
      assert.is_truthy(text:find(words, 1, true), text)
    end
  end)

  it("sequences with the same ids are taken in order; those that soon part are not", function()
    local a = { logprobs = { -1, -2, -3, -4, -5, -6 }, ids = { 5, 6, 5, 6, 7, 8 },
                cu_seqlens = { 0, 2, 4, 6 } }
    local b = { logprobs = { { -1, -2 }, { -3, -4 } }, ids = { { 5, 6 }, { 5, 6 } } }
    local report = samebits.drift(a, b)
    assert.same({ 2, 4, 0, 2 }, { report.alignment.paired, report.tokens.equal,
                                  report.tokens.different, report.tokens.only_a })
    assert.equal(2, report.alignment.repeated)
    a = { logprobs = { -1, -2, -3, -4, -5, -6, -7, -8, -9 }, ids = { 1, 2, 3, 4, 5, 6, 7, 8, 9 } }
    b = { logprobs = { { -1, -2, -3, -4, -5, -6, -7, -8, -9, -10, -11 } },
          ids = { { 1, 2, 3, 4, 15, 16, 17, 18, 19, 20, 21 } } }
    assert.equal(0, samebits.drift(a, b).tokens.compared)
    b.ids[1][5], b.ids[1][6] = 5, 6
    assert.equal(6, samebits.drift(a, b).tokens.compared)
  end)

  it("nothing is without ids, or where it is refused", function()
    assert.error_matches(function()
      samebits.drift(padded, { logprobs = { -1, -2 } })
    end, "the same ones are needed, in the same layout")
    assert.error_matches(function()
      samebits.drift(padded, packed(truth), { align = false })
    end, "A has tokens %[4, 12%], B has tokens %[33%]")
    assert.error_matches(function()
      samebits.drift({ -1, -2 }, { -1, -2 }, { align = true })
    end, "A: tokens are aligned by their ids, which are not given")
    assert.error_matches(function() samebits.drift({ -1 }, { -1 }, { align = 1 }) end,
                         "align: expected a boolean")
  end)

  it("layouts that may be the same are left alone", function()
    assert.is_false(align.is_needed({ 2, 5 }, { 2, 4 }))
    assert.is_false(align.is_needed({ 2, 5 }, { 5, 2 }))
    assert.is_true(align.is_needed({ 2, 5 }, { 10 }))
    assert.is_true(align.is_needed({ 2, 5 }, { 3, 5 }))
    assert.is_true(align.is_needed({ 2, 5 }, { 2, 8 }))
  end)
end)
