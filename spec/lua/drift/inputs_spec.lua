-- samebits.drift: the inputs of both sides that tell which tokens were scored, and how. A
-- difference in them is drift, whatever the values are.

local bit = require "bit"
local ffi = require "ffi"
local json = require "dkjson"
local samebits = require "samebits"
local drift_files = require "spec.support.drift_files"
local plant = require "spec.support.plant"

local drift, text_of = drift_files.drift, drift_files.text_of

local B, T, V = 3, 8, 40
local logits, ids = plant.logits({ B, T, V }, 21), plant.ids({ B, T }, V, 22)
local truth = plant.logprobs { logits = logits, ids = ids }

-- A copy with an element changed.
local function changed(t, value, ...)
  local copy = t:clone()
  copy:set(value, ...)
  return copy
end

-- One field is told to differ, before all else, in all three forms.
local function tells(report, field, different, sentence)
  assert.is_false(report.equal)
  assert.equal(1, #report.inputs)
  assert.equal(field, report.inputs[1].field)
  assert.equal(different, report.inputs[1].different)
  local text = report:text { width = 200 }
  local at = text:find(sentence, 1, true)
  assert.is_truthy(at, text)
  assert.is_true(at < text:find("  A  ", 1, true))
  assert.is_nil(text:find("none: all", 1, true))
  local page = report:html()
  assert.is_true(page:find(sentence, 1, true) < page:find("Compared", 1, true))
  local decoded = json.decode(report:json())
  assert.is_false(decoded.equal)
  assert.equal(field, decoded.inputs[1].field)
  return report.inputs[1]
end

describe("drift, inputs that differ:", function()
  it("ids, where the logprobs are equal", function()
    local others = changed(changed(ids, (ids:get(1, 2) + 1) % V, 1, 2), (ids:get(2, 0) + 3) % V, 2,
                           0)
    local report = drift({ logprobs = truth, ids = ids }, { logprobs = truth, ids = others })
    local input = tells(report, "ids", 2, ("The ids differ at 2 of 24 tokens, first at sequence " ..
      "1, position 2: %d in A, %d in B."):format(ids:get(1, 2), others:get(1, 2)))
    assert.same({ row = 10, sequence = 1, position = 2, a = ids:get(1, 2), b = others:get(1, 2) },
                input.first)
    assert.equal(0, report.tokens.different)
    assert.matches("ids differ; 0 of 24 tokens", tostring(report))
  end)

  it("ids, told before the values that differ", function()
    local others = changed(ids, (ids:get(0, 5) + 1) % V, 0, 5)
    local report = drift({ logits = logits, ids = ids }, { logits = logits, ids = others })
    tells(report, "ids", 1, "The ids differ at 1 of 24 tokens, first at sequence 0, position 5")
    assert.equal("id", report.causes[1].cause)
  end)

  it("ids beyond what a number holds", function()
    local a, b = samebits.zeros({ 2 }, "int64"), samebits.zeros({ 2 }, "int64")
    ffi.cast("int64_t *", a.ptr)[1] = 2 ^ 53
    ffi.cast("int64_t *", b.ptr)[1] = 2LL ^ 53 + 1
    local report = drift({ logprobs = { -1, -2 }, ids = a }, { logprobs = { -1, -2 }, ids = b })
    local input = tells(report, "ids", 1, "9007199254740992 in A, 9007199254740993 in B")
    assert.equal(1, input.first.position)
  end)

  it("equal ids in other containers are equal", function()
    assert.is_true(drift({ logprobs = truth, ids = ids },
                         { logprobs = truth, ids = ids:to "int32" }).equal)
  end)

  it("ids of tokens that count on neither side are not drift", function()
    local mask = samebits.zeros({ B, T }, "uint8")
    for b = 0, B - 1 do for t = 0, 4 do mask:set(1, b, t) end end
    local others = changed(ids, (ids:get(0, 5) + 1) % V, 0, 5)
    local report = drift({ logprobs = truth, ids = ids, mask = mask },
                         { logprobs = truth, ids = others, mask = mask:to "bool" })
    assert.is_true(report.equal)
    assert.same({}, report.inputs)
    -- On one side is enough.
    local wider = changed(mask, 1, 0, 5)
    report = drift({ logprobs = truth, ids = ids, mask = wider },
                   { logprobs = truth, ids = others, mask = mask })
    assert.equal("ids", report.inputs[1].field)
    assert.equal("mask", report.inputs[2].field)
  end)

  it("an id that is ignored on one side", function()
    local report = drift({ logprobs = truth, ids = ids },
                         { logprobs = truth, ids = changed(ids, -100, 2, 7) })
    tells(report, "ids", 1, "-100 in B")
    assert.equal(1, report.tokens.only_a)
  end)

  it("masks", function()
    local all = samebits.zeros({ B, T }, "uint8")
    for i = 0, B * T - 1 do ffi.cast("uint8_t *", all.ptr)[i] = 1 + i % 3 end
    local report = drift({ logprobs = truth, mask = all },
                         { logprobs = truth, mask = changed(all, 0, 1, 7) })
    local input = tells(report, "mask", 1, "The masks differ at 1 of 24 tokens, first at " ..
                        "sequence 1, position 7: it counts in A, not in B.")
    assert.is_true(input.first.a)
    assert.is_false(input.first.b)
    -- Any number but 0 is one truth.
    local ones = all:clone()
    for i = 0, B * T - 1 do ffi.cast("uint8_t *", ones.ptr)[i] = 1 end
    assert.is_true(drift({ logprobs = truth, mask = all }, { logprobs = truth, mask = ones }).equal)
  end)

  it("cu_seqlens", function()
    local flat = truth:view(B * T)
    local report = drift({ logprobs = flat, cu_seqlens = { 0, 8, 16, 24 } },
                         { logprobs = flat, cu_seqlens = { 0, 8, 17, 24 } })
    local input = tells(report, "cu_seqlens", 1, "The cu_seqlens differ in 1 of 4 entries, " ..
                        "first in entry 2: 16 in A, 17 in B.")
    assert.same({ index = 2, a = 16, b = 17 }, input.first)
    -- Fewer entries.
    report = drift({ logprobs = flat, cu_seqlens = { 0, 8, 24 } },
                   { logprobs = flat, cu_seqlens = { 0, 8, 16, 24 } })
    tells(report, "cu_seqlens", 2, "first in entry 2: 24 in A, 16 in B.")
    report = drift({ logprobs = flat, cu_seqlens = { 0, 24 } },
                   { logprobs = flat, cu_seqlens = { 0, 24, 24 } })
    tells(report, "cu_seqlens", 1, "first in entry 2: none in A, 24 in B.")
    -- The container does not matter.
    assert.is_true(drift(
      { logprobs = flat, cu_seqlens = samebits.tensor({ 0, 8, 24 }, { dtype = "int32" }) },
      { logprobs = flat, cu_seqlens = { 0, 8, 24 } }).equal)
  end)

  it("each side's own cu_seqlens say where --shift begins anew", function()
    local flat, list = logits:view(B * T, V), ids:view(B * T)
    local a = plant.logprobs { logits = flat, ids = list, shift = true, cu_seqlens = { 0, 8, 24 } }
    local b = plant.logprobs { logits = flat, ids = list, shift = true, cu_seqlens = { 0, 9, 24 } }
    local report = drift({ logprobs = a, cu_seqlens = { 0, 8, 24 } },
                         { logprobs = b, cu_seqlens = { 0, 9, 24 } }, { shift = true })
    tells(report, "cu_seqlens", 1, "8 in A, 9 in B")
    assert.equal(1, report.tokens.only_a)
    assert.equal(1, report.tokens.only_b)
    assert.equal(0, report.tokens.different)
  end)

  it("cu_seqlens that cannot be are refused by the side's name", function()
    local ok, why = pcall(samebits.drift, { logprobs = truth:view(24), cu_seqlens = { 0, 24 } },
                          { logprobs = truth:view(24), cu_seqlens = { 0, 23 } })
    assert.is_false(ok)
    assert.matches("B: cu_seqlens end at 23, there are 24 tokens", why)
  end)

  it("temperatures, given for both", function()
    local report = drift({ logprobs = truth, temperature = 0.7 },
                         { logprobs = truth, temperature = 1 })
    tells(report, "temperature", 24, "The temperatures differ at 24 of 24 tokens, first at " ..
          "sequence 0, position 0: 0.7 in A, 1 in B.")
    report = drift({ logprobs = truth, temperature = { 0.5, 1, 1 } },
                   { logprobs = truth, temperature = samebits.tensor { 0.5, 1, 0.75 } })
    local input = tells(report, "temperature", 8, "sequence 2, position 0: 1 in A, 0.75 in B.")
    assert.equal(16, input.first.row)
    -- 0.7 and its fp32 are one temperature, as a number and as one per sequence.
    assert.is_true(drift({ logprobs = truth, temperature = 0.7 },
                         { logprobs = truth, temperature = { 0.7, 0.7, 0.7 } }).equal)
    -- A value that only one side gives is not compared.
    assert.is_true(drift({ logprobs = truth, temperature = 0.7 }, truth).equal)
  end)

  it("kept sets, as flags and as words", function()
    local flags = samebits.zeros({ B, T, V }, "uint8")
    local words = samebits.zeros({ B, T, 2 }, "int32")
    local f, w = ffi.cast("uint8_t *", flags.ptr), ffi.cast("int32_t *", words.ptr)
    for row = 0, B * T - 1 do
      for id = 0, V - 1 do
        if (row + id) % 3 ~= 0 then
          f[row * V + id] = 1 + id % 2
          local k = row * 2 + math.floor(id / 32)
          w[k] = bit.bor(w[k], bit.lshift(1, id % 32))
        end
      end
    end
    local a = { logprobs = truth, logits = logits, ids = ids, kept = flags }
    local function other(kept)
      return { logprobs = truth, logits = logits, ids = ids, kept = kept }
    end
    assert.is_true(drift(a, other(words)).equal)
    local fewer = changed(words, bit.band(words:get(1, 4, 1), bit.bnot(4)), 1, 4, 1) -- id 34
    local report = drift(a, other(fewer))
    local input = tells(report, "kept", 1, "The kept sets differ at 1 of 24 tokens, first at " ..
                        "sequence 1, position 4: id 34 is kept in A, not in B.")
    assert.same({ row = 12, sequence = 1, position = 4, id = 34, a = true, b = false }, input.first)
    report = drift(other(fewer), other(words))
    tells(report, "kept", 1, "id 34 is kept in B, not in A.")
  end)

  it("kept sets, as lists of ids", function()
    local words, flags = samebits.zeros({ B, T, 2 }, "int32"), samebits.zeros({ B, T, V }, "uint8")
    for row = 0, B * T - 1 do
      for id = row % 3, V - 1, 3 do
        flags:set(1, math.floor(row / T), row % T, id)
        local word = words:get(math.floor(row / T), row % T, math.floor(id / 32))
        words:set(bit.bor(word, bit.lshift(1, id % 32)), math.floor(row / T), row % T,
                  math.floor(id / 32))
      end
    end
    local list, offsets = samebits.kept_lists(flags, V)
    local a = { logprobs = truth, logits = logits, ids = ids, kept = words }
    local function other(ids_of, offsets_of, with)
      return { logprobs = truth, logits = with ~= false and logits or nil, ids = ids,
               kept_ids = ids_of, kept_offsets = offsets_of }
    end
    assert.is_true(drift(a, other(list, offsets:to "int32")).equal)
    assert.is_true(drift(a, other(list, offsets, false)).equal)
    local more = changed(list, list:get(0) + 1, 0)
    tells(drift(a, other(more, offsets)), "kept", 1, "id 0 is kept in A, not in B.")
    local function refused(what, ids_of, offsets_of)
      local ok, why = pcall(samebits.drift, other(ids_of, offsets_of), truth)
      assert.is_false(ok)
      assert.matches(what, why)
    end
    refused("A: row 0 .*kept id 0 %(entry 1%) is not above", changed(list, 0, 1), offsets)
    refused("A: kept_offsets: missing beside kept_ids", list)
    refused("A: kept_offsets: 23 kept sets, expected one per token, %[3, 8%]",
            list:slice(0, 0, tonumber(offsets:get(B * T - 1))),
            offsets:slice(0, 0, B * T):contiguous())
  end)

  it("kept sets that cannot be are refused, without logits, too", function()
    for _, shape in ipairs { {}, { T }, { B, T } } do
      local kept = samebits.zeros(shape, "uint8")
      local ok, why = pcall(samebits.drift, { logprobs = truth, kept = kept }, truth)
      assert.is_false(ok)
      assert.matches("A: kept: uint8 .*, expected a kept set a token", why)
    end
  end)

  it("what is the same for both is not looked for", function()
    local report = drift(truth, truth, { ids = ids, temperature = 0.7 })
    assert.is_true(report.equal)
    assert.same({}, report.inputs)
  end)

  it("nothing depends on how rows are cut into chunks", function()
    local big, list = plant.logits({ 40, 3000 }, 5), plant.ids({ 40 }, 3000, 6)
    local others = changed(changed(list, 1, 33), 2, 38)
    local a, b = { logits = big, ids = list }, { logits = big, ids = others }
    assert.equal(text_of(drift(a, b)), text_of(drift(a, b, { memory = 2 ^ 20 })))
    assert.equal(2, drift(a, b, { memory = 2 ^ 20 }).inputs[1].different)
  end)
end)
