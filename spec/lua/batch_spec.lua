-- Batches and the functions that build them: which inputs are accepted or refused, and the
-- messages.

local ffi = require "ffi"
local samebits = require "samebits"
local hex = require "spec.support.hex"

local function zeros(...) return samebits.zeros({ ... }, "float32") end

-- The message of the error that f raises. Its position is this file: the line of the caller.
local function refusal(f)
  local ok, message = pcall(f)
  assert.is_false(ok, "expected an error")
  local rest = message:match "batch_spec%.lua:%d+: (.*)"
  assert.is_truthy(rest, "the error is not at its caller's line: " .. message)
  return rest
end

local function refuses(spec, words)
  local message = refusal(function() local _ = samebits.batch(spec) end)
  assert.is_truthy(message:find(words, 1, true), ("'%s' lacks '%s'"):format(message, words))
end

describe("a batch", function()
  it("tells its layout, shapes and active tokens", function()
    local padded = samebits.batch {
      logits = zeros(2, 3, 5),
      ids = { { 1, 2, -100 }, { 3, 4, 0 } },
      mask = { { 1, 1, 1 }, { 0, 1, 1 } },
    }
    assert.equal("padded", padded.layout)
    assert.same({ 2, 3 }, padded.shape)
    assert.equal(2, padded.sequences)
    assert.equal(5, padded.vocab)
    assert.same({ { 1, 1, 0 }, { 0, 1, 1 } }, padded:active():totable())
    local text = tostring(padded)
    for _, words in ipairs { "padded", "float32 [2, 3, 5]", "int64 [2, 3]", "uint8 [2, 3]",
                             "4 of 6 tokens, 2 sequences" } do
      assert.is_truthy(text:find(words, 1, true), text)
    end

    local packed = samebits.batch { logits = zeros(4, 5), ids = { 1, 2, 3, 4 },
                                    cu_seqlens = { 0, 1, 1, 4 } }
    assert.equal("packed", packed.layout)
    assert.equal(3, packed.sequences)
    assert.same({ 1, 4 }, { packed:bounds(2) })

    local one = samebits.batch { logits = zeros(4, 5), ids = { 1, 2, 3, 4 } }
    assert.equal("one sequence", one.layout)
    assert.equal(1, one.sequences)
    assert.same({ 0, 4 }, { one:bounds(0) })
  end)

  it("has the length of its rows, in every layout and in compiled code", function()
    local padded = samebits.batch { logits = zeros(2, 3, 5), ids = samebits.zeros({ 2, 3 }, "int8"),
                                    rows = { 1, 4 } }
    assert.same({ 6, 6 }, { #padded, padded:len() })
    assert.equal(4, #samebits.batch { logits = zeros(4, 5), ids = { 1, 2, 3, 4 } })
    assert.equal(4, #samebits.batch { logits = zeros(4, 5), ids = { 1, 2, 3, 4 },
                                      cu_seqlens = { 0, 1, 4 } })
    assert.equal(0, #samebits.batch({ logits = zeros(0, 3, 5) }, { ids = false }))
    assert.equal(6, #padded:to "cpu")
    local sum = 0
    for _ = 1, 300 do sum = sum + #padded end
    assert.equal(1800, sum)
  end)

  it("counts rows that are listed, not masked, not ignored and not first where shifted", function()
    local batch = samebits.batch {
      logits = zeros(2, 4, 5),
      ids = { { 1, 1, 7, 1 }, { 1, 1, 1, 1 } },
      ignore_index = 7,
      shift = true,
      mask = { { true, true, true, true }, { true, true, true, false } },
      rows = { 0, 1, 2, 3, 4, 6, 7 },
    }
    assert.same({ { 0, 1, 0, 1 }, { 0, 0, 1, 0 } }, batch:active():totable())
    batch = samebits.batch { logits = zeros(5, 5), ids = { 1, 1, 1, 1, 1 }, shift = 1,
                             cu_seqlens = { 0, 0, 2, 5, 5 } }
    assert.same({ 0, 1, 0, 1, 1 }, batch:active():totable())
  end)

  it("takes any integer dtype for ids, and int64 values that no number holds", function()
    for _, dtype in ipairs { "int8", "uint8", "int16", "int32", "int64" } do
      local batch = samebits.batch { logits = zeros(2, 5),
                                     ids = samebits.tensor({ 3, 4 }, { dtype = dtype }) }
      assert.same({ 3, 4 }, batch.ids:totable())
    end
    local batch = samebits.batch { logits = zeros(1, 5), ids = { -9007199254740993LL },
                                   ignore_index = -9007199254740993LL }
    assert.same({ 0 }, batch:active():totable())
    batch = samebits.batch { logits = zeros(1, 5), ids = { -9007199254740993LL },
                             ignore_index = -9007199254740992LL }
    assert.same({ 1 }, batch:active():totable())
  end)

  it("takes masks of bool and any integer, active where not zero", function()
    for _, dtype in ipairs { "int8", "uint8", "int16", "int32", "int64" } do
      local top = dtype == "int8" and -128 or dtype == "uint8" and 255 or 256
      local mask = samebits.tensor({ 0, top, 1 }, { dtype = dtype })
      local batch = samebits.batch { logits = zeros(3, 5), ids = { 1, 1, 1 }, mask = mask }
      assert.same({ 0, 1, 1 }, batch:active():totable())
    end
    local mask = samebits.tensor({ false, true, true }, { dtype = "bool" })
    local batch = samebits.batch { logits = zeros(3, 5), ids = { 1, 1, 1 }, mask = mask }
    assert.same({ 0, 1, 1 }, batch:active():totable())
  end)

  it("takes logits in place by their strides, and copies only what it cannot", function()
    local base = zeros(4, 6, 32)
    local function taken(view)
      local ids = samebits.zeros({ view.shape[1], view.shape[2] }, "int32")
      return samebits.batch { logits = view, ids = ids }.logits
    end
    for _, view in ipairs {
      base, base:slice(2, 1, 20), base:slice(1, 2, 5), base:slice(0, 1, 3), base:transpose(0, 1),
    } do
      assert.equal(view.ptr, taken(view).ptr)
    end
    -- Columns that are not neighbours; rows that overlap; one sequence seen twice.
    assert.not_equal(base.ptr, taken(base:transpose(1, 2)).ptr)
    for _, strides in ipairs { { 192, 16, 1 }, { 0, 32, 1 } } do
      local view = samebits.tensor(base.ptr, { dtype = "float32", shape = { 2, 3, 32 },
                                               strides = strides, owner = base })
      assert.not_equal(base.ptr, taken(view).ptr)
    end
  end)

  it("spreads a temperature per sequence over its rows", function()
    local function temperatures(spec) return samebits.batch(spec).temperature:totable() end
    local near = function(x) return tonumber(("%.3g"):format(x)) end
    local padded = temperatures { logits = zeros(2, 2, 5), ids = { { 1, 1 }, { 1, 1 } },
                                  temperature = { 0.5, 2 } }
    assert.same({ { 0.5, 0.5 }, { 2, 2 } }, padded)
    local packed = { logits = zeros(3, 5), ids = { 1, 1, 1 }, cu_seqlens = { 0, 1, 3 } }
    packed.temperature = samebits.tensor { 0.5, 9, 2 }
    assert.same({ 0.5, 9, 2 }, temperatures(packed))
    packed.temperature = samebits.tensor { { 0.5, 9 }, { 2, 9 } }:select(1, 0)
    assert.same({ 0.5, 2, 2 }, temperatures(packed))
    -- As many sequences as rows: one per row is meant.
    packed.cu_seqlens, packed.temperature = { 0, 1, 1, 3 }, { 0.5, 1, 2 }
    assert.same({ 0.5, 1, 2 }, temperatures(packed))
    assert.same({ 2, 2, 2 }, temperatures { logits = zeros(3, 5), ids = { 1, 1, 1 },
                                            temperature = { 2 } })
    assert.same({ { 1, 2 }, { 3, 4 } }, temperatures { logits = zeros(2, 2, 5),
                                                       ids = { { 1, 1 }, { 1, 1 } },
                                                       temperature = { { 1, 2 }, { 3, 4 } } })
    local double = samebits.tensor({ 0.7, 0.7 }, { dtype = "float64" })
    assert.equal(0.7, near(temperatures { logits = zeros(2, 5), ids = { 1, 1 },
                                          temperature = double }[1]))
  end)

  it("keeps what it refers to alive", function()
    local batch
    do
      local logits = hex.tensor(hex.values(40000, 3), { 4, 10000 })
      batch = samebits.batch { logits = logits, ids = { 1, 2, 3, 4 }, mask = { 1, 1, 1, 1 },
                               temperature = { 1, 1, 1, 1 }, rows = { 0, 1, 2, 3 } }
    end
    local want = hex.of(samebits.logprob(batch).token)
    for _ = 1, 20 do
      collectgarbage()
      local _ = samebits.tensor(hex.values(40000, 5))
    end
    assert.same(want, hex.of(samebits.logprob(batch).token))
  end)

  it("takes per-row tensors at odd addresses and with strides", function()
    local logits, buffer = zeros(3, 5), ffi.new("uint8_t[64]")
    local odd = samebits.tensor(buffer + 1, { dtype = "int64", shape = { 3 }, owner = buffer })
    for i = 0, 2 do odd:set(i, i) end
    local taken = samebits.batch({ logits = logits, ids = odd }).ids
    assert.same({ 0, 1, 2 }, taken:totable())
    assert.equal(0, tonumber(ffi.cast("uintptr_t", taken.ptr) % 8))
    local wide = samebits.tensor({ { 1, 9 }, { 2, 9 }, { 3, 9 } }, { dtype = "int32" })
    local batch = samebits.batch { logits = logits, ids = wide:select(1, 0) }
    assert.is_true(batch.ids:is_contiguous())
    assert.same({ 1, 2, 3 }, batch.ids:totable())
  end)
end)

describe("a batch refuses", function()
  local logits = zeros(2, 3, 5)
  local ids = { { 1, 2, 3 }, { 1, 2, 3 } }

  it("what is no specification", function()
    refuses(samebits.batch { logits = zeros(1, 5), ids = { 1 } }, "ids = ... }, got batch")
    refuses(nil, "expected a table")
    refuses(logits, "float32 [2, 3, 5]")
    refuses({ logits = logits, ids = ids, temprature = 1 }, "unknown field 'temprature'")
    refuses({ ids = ids }, "logits is missing")
    refuses({ logits = logits }, "ids is missing")
  end)

  it("logits of another kind", function()
    refuses({ logits = 5, ids = ids }, "logits: expected a tensor [B, T, V] or [N, V], got number")
    refuses({ logits = zeros(5), ids = ids }, "logits: shape [5], expected [B, T, V] or [N, V]")
    refuses({ logits = zeros(1, 2, 3, 4), ids = ids }, "logits: shape [1, 2, 3, 4]")
    refuses({ logits = zeros(2, 3, 0), ids = ids }, "a vocabulary of 0")
    refuses({ logits = zeros(0, 0, 2 ^ 20 + 1), ids = ids }, "a vocabulary of 1048577")
    refuses({ logits = samebits.zeros({ 2, 3, 5 }, "float64"), ids = ids }, "logits: dtype float64")
    refuses({ logits = samebits.zeros({ 2, 3, 5 }, "int32"), ids = ids }, "logits: dtype int32")
    refuses({ logits = { { 1, 2 }, { 3 } }, ids = { 0, 0 } }, "logits: ")
  end)

  it("ids of another kind or shape", function()
    refuses({ logits = logits, ids = 3 },
            "ids: expected a tensor of integers or a table, got number")
    refuses({ logits = logits, ids = zeros(2, 3) }, "ids: dtype float32, expected int32 or int64")
    refuses({ logits = logits, ids = samebits.zeros({ 2, 3 }, "bool") }, "ids: dtype bool")
    refuses({ logits = logits, ids = samebits.zeros({ 3, 2 }, "int32") },
            "ids: shape [3, 2], expected [2, 3]")
    refuses({ logits = logits, ids = samebits.zeros({ 6 }, "int32") },
            "ids: shape [6], expected [2, 3]")
    refuses({ logits = logits, ids = { { 1, 2, 3 }, { 1, 2 } } },
            "ids[1] has 2 entries, expected 3")
    refuses({ logits = logits, ids = { { 1, 2, 3 } } }, "ids has 1 entries, expected 2")
    refuses({ logits = logits, ids = { { 1, 2, 3 }, { 1, 2.5, 3 } } }, "ids[1][1] is 2.5")
    refuses({ logits = logits, ids = { { 1, 2, 3 }, { 1, "2", 3 } } },
            "ids[1][1] is 2, expected an integer")
    refuses({ logits = logits, ids = { { 1, 2, 3 }, 4 } }, "ids[1]: expected a table, got number")
    refuses({ logits = logits, ids = { { 1, 2, 0 / 0 }, { 1, 2, 3 } } }, "ids[0][2]")
  end)

  it("masks of floats and of another shape", function()
    refuses({ logits = logits, ids = ids, mask = zeros(2, 3) }, "mask: dtype float32")
    refuses({ logits = logits, ids = ids, mask = samebits.zeros({ 2, 4 }, "uint8") },
            "mask: shape [2, 4], expected [2, 3]")
    refuses({ logits = logits, ids = ids, mask = { { 1, 0, 0.5 }, { 1, 1, 1 } } },
            "mask[0][2] is 0.5")
    refuses({ logits = logits, ids = ids, mask = true }, "mask: expected a tensor")
  end)

  it("masks that are ids", function()
    for _, dtype in ipairs { "int16", "int32", "int64" } do
      local values = { { 1, 0, 3 }, { 0, 7, 9 } }
      refuses({ logits = logits, ids = ids, mask = samebits.tensor(values, { dtype = dtype }) },
              "mask[1][2] is 9, after 3 and 7: a mask holds 0 and 1; are these ids?")
      refuses({ logits = logits, ids = ids, mask = values }, "mask[1][2] is 9, after 3 and 7")
    end
    -- However few they are.
    local few = samebits.tensor({ { 1, 2, 2 }, { 2, 1, 0 } }, { dtype = "int64" })
    refuses({ logits = logits, ids = few, mask = few:to "int32" }, "mask: these are the ids")
    refuses({ logits = logits, ids = few, mask = few:totable() }, "mask: these are the ids")
    local flags = samebits.tensor({ { 1, 0, 1 }, { 1, 1, 0 } }, { dtype = "int64" })
    assert.same({ { 1, 0, 1 }, { 1, 1, 0 } }, samebits.batch { logits = logits, ids = flags,
                                                               mask = flags }:active():totable())
  end)

  it("temperatures of another shape or kind", function()
    refuses({ logits = logits, ids = ids, temperature = { 1, 2, 3 } },
            "temperature has 3 entries, expected 2")
    refuses({ logits = logits, ids = ids, temperature = zeros(3) },
            "temperature: shape [3], expected [2, 3] (one per row) or [2] (one per sequence)")
    refuses({ logits = logits, ids = ids, temperature = "1" }, "temperature: expected a number")
    refuses({ logits = logits, ids = ids, temperature = { 1, "2" } }, "temperature[1] is 2")
    refuses({ logits = logits, ids = ids, temperature = samebits.zeros({ 2 }, "bool") },
            "temperature: dtype bool")
  end)

  it("offsets, row lists, shifts and ignored ids that make no sense", function()
    refuses({ logits = logits, ids = ids, cu_seqlens = { 0, 6 } },
            "cu_seqlens: given with logits [2, 3, 5]")
    local flat = { logits = zeros(3, 5), ids = { 1, 2, 3 } }
    local function with(key, value)
      return { logits = flat.logits, ids = flat.ids, [key] = value }
    end
    refuses(with("cu_seqlens", {}), "cu_seqlens: shape [0]")
    refuses(with("cu_seqlens", 3), "cu_seqlens: expected")
    refuses(with("cu_seqlens", zeros(2)), "cu_seqlens: dtype float32")
    refuses(with("cu_seqlens", { 0, 1.5 }), "cu_seqlens[1] is 1.5")
    refuses(with("rows", 3), "rows: expected")
    refuses(with("rows", { { 1 } }), "rows[0] is table")
    refuses(with("rows", zeros(1)), "rows: dtype float32")
    refuses(with("shift", 2), "shift: expected 0, 1 or a boolean, got 2")
    refuses(with("shift", "yes"), "shift: expected")
    refuses(with("ignore_index", 0.5), "ignore_index: expected an integer, got 0.5")
  end)
end)

describe("pad", function()
  it("pads on either side, ids with -100, other things with 0", function()
    local right, lengths = samebits.pad { { 1, 2, 3 }, {}, { 4 } }
    assert.equal("int64", right.dtype)
    assert.same({ { 1, 2, 3 }, { -100, -100, -100 }, { 4, -100, -100 } }, right:totable())
    assert.same({ 3, 0, 1 }, lengths)
    local left = samebits.pad({ { 1, 2, 3 }, {}, { 4 } },
                              { side = "left", length = 4, value = 0, dtype = "int32" })
    assert.equal("int32", left.dtype)
    assert.same({ { 0, 1, 2, 3 }, { 0, 0, 0, 0 }, { 0, 0, 0, 4 } }, left:totable())
    local logits = samebits.pad { samebits.tensor { { 1, 2 }, { 3, 4 } },
                                  samebits.tensor { { 5, 6 } } }
    assert.same({ { { 1, 2 }, { 3, 4 } }, { { 5, 6 }, { 0, 0 } } }, logits:totable())
    local halves = samebits.pad({ samebits.tensor({ { 1 } }, { dtype = "bfloat16" }),
                                  samebits.zeros({ 2, 1 }, "bfloat16") }, { value = -math.huge })
    assert.same({ { { "3f80" }, { "ff80" } }, { { "0000" }, { "0000" } } }, halves:bits())
    assert.same({ 0, 0 }, (samebits.pad {}).shape)
  end)

  it("takes views", function()
    local t = samebits.tensor { { 1, 2, 3 }, { 4, 5, 6 } }
    assert.same({ { 1, 4 }, { 3, 0 } }, samebits.pad { t:select(1, 0),
                                                       t:select(1, 2):slice(0, 0, 1) }:totable())
  end)

  it("refuses what does not go together", function()
    local function words(...) local args = { ... }
      return refusal(function() local _ = samebits.pad(unpack(args)) end)
    end
    assert.matches("expected a list", words(3))
    assert.matches("unknown option 'sides'", words({}, { sides = "left" }))
    assert.matches("side is top", words({ { 1 } }, { side = "top" }))
    assert.matches("length 1, but a sequence has 2", words({ { 1, 2 } }, { length = 1 }))
    assert.matches("sequences%[1%]: shape %[1, 3%] does not go with %[1, 2%]",
                   words { zeros(1, 2), zeros(1, 3) })
    assert.matches("sequences%[1%]: dtype bfloat16", words { zeros(1, 2),
                                                             samebits.zeros({ 1, 2 }, "bfloat16") })
    assert.matches("sequences%[0%]", words { { 1, "x" } })
    assert.matches("sequences%[1%]: expected a table or a tensor", words { { 1 }, 7 })
  end)
end)

describe("pack", function()
  it("joins sequences and says where they start", function()
    local packed, cu = samebits.pack { { 1, 2 }, {}, { 3 } }
    assert.same({ 1, 2, 3 }, packed:totable())
    assert.same({ 0, 2, 2, 3 }, cu:totable())
    packed, cu = samebits.pack { zeros(2, 4), zeros(3, 4) }
    assert.same({ 5, 4 }, packed.shape)
    assert.same({ 0, 2, 5 }, cu:totable())
    packed, cu = samebits.pack {}
    assert.same({ 0 }, packed.shape)
    assert.same({ 0 }, cu:totable())
  end)
end)

describe("masks", function()
  it("come from lengths", function()
    assert.same({ { 1, 1, 0 }, { 0, 0, 0 }, { 1, 1, 1 } },
                samebits.mask_from_lengths({ 2, 0, 3 }):totable())
    assert.same({ { 0, 0, 1, 1 }, { 0, 1, 1, 1 } }, samebits.mask_from_lengths({ 2, 3 }, 4,
      "left"):totable())
    local lengths = samebits.tensor({ 1, 2 }, { dtype = "int64" })
    assert.same({ { 1, 0 }, { 1, 1 } }, samebits.mask_from_lengths(lengths):totable())
  end)

  it("come from prompt and completion splits", function()
    assert.same({ { 0, 1, 1, 0 }, { 0, 0, 0, 1 }, { 0, 0, 0, 0 } },
                samebits.mask_from_splits({ 1, 3, 2 }, { 3, 4, 2 }):totable())
    assert.same({ { 0, 0, 1, 1 }, { 0, 0, 0, 1 } },
                samebits.mask_from_splits({ 1, 3 }, { 3, 4 }, 4, "left"):totable())
  end)

  it("refuse lengths that do not fit", function()
    assert.matches("T is 2, but a sequence has 3", refusal(function()
      samebits.mask_from_lengths({ 3 }, 2)
    end))
    assert.matches("lengths%[1%]: expected an integer of at least 0, got %-1", refusal(function()
      samebits.mask_from_lengths { 1, -1 }
    end))
    assert.matches("prompt_lengths%[0%] is 4, but total_lengths%[0%] is 3", refusal(function()
      samebits.mask_from_splits({ 4 }, { 3 })
    end))
    assert.matches("2 prompt lengths, but 1 total", refusal(function()
      samebits.mask_from_splits({ 1, 1 }, { 3 })
    end))
    assert.matches("side is middle", refusal(function()
      samebits.mask_from_lengths({ 1 }, 1, "middle")
    end))
  end)
end)

describe("batch_from", function()
  it("refuses sequences that do not hold together", function()
    local function words(spec)
      return refusal(function() local _ = samebits.batch_from(spec) end)
    end
    local good = { logits = zeros(2, 5), ids = { 1, 2 } }
    assert.matches("sequences: expected a list", words {})
    assert.matches("the list is empty", words { sequences = {} })
    assert.matches("unknown field 'side'", words { sequences = { good }, side = "left" })
    assert.matches("layout is up", words { sequences = { good }, layout = "up" })
    assert.matches("length: given with a packed layout",
                   words { sequences = { good }, layout = "packed", length = 9 })
    assert.matches("sequences%[1%]%.ids has 3 entries, expected 2",
                   words { sequences = { good, { logits = zeros(2, 5), ids = { 1, 2, 3 } } } })
    assert.matches("sequences%[1%]%.logits: expected a tensor %[t, V%], got float32 %[5%]",
                   words { sequences = { good, { logits = zeros(5), ids = {} } } })
    assert.matches("sequences%[0%]%.mask has 1 entries",
                   words { sequences = { { logits = zeros(2, 5), ids = { 1, 2 }, mask = { 1 } } } })
    assert.matches("sequences%[0%]%.prompt is 3, but the sequence has 2 positions",
                   words { sequences = { { logits = zeros(2, 5), ids = { 1, 2 }, prompt = 3 } } })
    assert.matches("sequences%[0%]: unknown field 'id'",
                   words { sequences = { { logits = zeros(2, 5), ids = { 1, 2 }, id = 3 } } })
    assert.matches("shape %[2, 6%] does not go with",
                   words { sequences = { good, { logits = zeros(2, 6), ids = { 1, 2 } } } })
  end)
end)
