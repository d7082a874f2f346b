-- sb_head_error on every backend: the golden bits, rows of batches, cuts of D and of V, what it
-- says of real rows, and misuse. spec/tolerance/head_spec.lua compares the bounds with errors.

local ffi = require "ffi"
local samebits = require "samebits"
local c_calls = require "spec.support.c_calls"
local errors = require "spec.support.errors"
local heads = require "spec.support.heads"
local refusal = require "spec.support.refusal"
local selftest = require "samebits.selftest"
local vectors = require "samebits.vectors"
local C = require("samebits.lib").C

local FORMATS = { "h24w16", "h24w24" }

heads.each(function(at)
  describe("ctx:head_error on " .. at.name, function()
    local ctx
    before_each(function() ctx = at.context() end)
    local function there(t) return heads.placed(at, t) end
    local function here(t, why) return assert(assert(t, why):to "cpu") end

    -- Bounds of hidden states and weights in memory, in memory.
    local function bounds(hidden, weights, opts, batch)
      local made = { norms = true, keep_bad = true }
      for key, value in pairs(opts) do made[key] = value end
      local spec = { hidden = there(hidden), head = heads.head(at, weights, made) }
      for key, value in pairs(batch or {}) do spec[key] = value end
      return here(ctx:head_error(spec))
    end

    it("gives the golden bits", function()
      local count = 0
      for _, case in ipairs(assert(vectors.read(selftest.directory .. "/heads.txt"))) do
        if case.bound then
          count = count + 1
          local got = bounds(case.hidden.logits:view(1, case.depth),
                             case.weights.logits:view(case.vocab, case.depth),
                             { format = case.format })
          assert.same({ case.bound }, got:bits(), case.name)
        end
      end
      assert.is_true(count > 50)
    end)

    it("does not depend on dtypes, neighbours, ignored rows or shift", function()
      local weights = heads.values({ 50, 70 }, "bfloat16", 41)
      local hidden = heads.values({ 3, 7, 70 }, "bfloat16", 42)
      for _, format in ipairs(FORMATS) do
        local opts = { format = format }
        local whole = bounds(hidden, weights, opts)
        assert.same({ 3, 7 }, whole.shape)
        assert.is_true(samebits.same_bits(bounds(hidden:to "float32", weights:to "float32", opts),
                                          whole))
        local alone = bounds(hidden:slice(0, 1, 2):clone(), weights, opts)
        assert.is_true(samebits.same_bits(alone, whole:slice(0, 1, 2):clone()))
        local mask, spoilt = {}, hidden:clone()
        for b = 1, 3 do
          mask[b] = {}
          for t = 1, 7 do mask[b][t] = (b + t) % 3 == 0 and 0 or 1 end
        end
        for b = 0, 2 do
          for t = 0, 6 do if mask[b + 1][t + 1] == 0 then spoilt:set(0 / 0, b, t, 5) end end
        end
        local masked = bounds(spoilt, weights, opts, { mask = mask })
        local listed = bounds(hidden, weights, opts, { rows = { 2, 3, 11 } })
        local shifted = bounds(hidden, weights, opts, { shift = 1 })
        for b = 0, 2 do
          for t = 0, 6 do
            local row = b * 7 + t
            assert.equal(mask[b + 1][t + 1] == 0 and 0 or whole:get(b, t), masked:get(b, t))
            assert.equal((row == 2 or row == 3 or row == 11) and whole:get(b, t) or 0,
                         listed:get(b, t))
            assert.equal(t == 0 and 0 or whole:get(b, t - 1), shifted:get(b, t))
          end
        end
      end
    end)

    it("leaves bad rows of weights out, and makes bad hidden states NaN", function()
      local weights = heads.values({ 50, 70 }, "float32", 43)
      local hidden = heads.values({ 4, 70 }, "float32", 44)
      local largest, rest = weights:clone(), weights:clone()
      for d = 0, 69 do
        largest:set(1000, 20, d)
        rest:set(0, 20, d)
      end
      local before = bounds(hidden, rest, { format = "h24w16" })
      largest:set(math.huge, 20, 3)
      hidden:set(-math.huge, 1, 69)
      local after = bounds(hidden, largest, { format = "h24w16" })
      assert.equal("7fc00000", after:bits()[2])
      for _, r in ipairs { 0, 2, 3 } do assert.equal(before:get(r), after:get(r)) end
    end)

    -- The sum of the columns' bounds holds for the logits. It may be narrower or wider than that of
    -- whole rows: norms of parts multiply to less, but the largest may be of other ids.
    it("bounds the products of columns and of shards", function()
      local V, D = 48, 70
      local weights = heads.values({ V, D }, "float32", 45)
      local hidden = heads.values({ 5, D }, "float32", 46)
      for _, format in ipairs(FORMATS) do
        local whole = bounds(hidden, weights, { format = format })
        local logits = here(ctx:logits { hidden = there(hidden),
                                         head = heads.head(at, weights, { format = format }) })
        local of_h, of_w = here(ctx:scales(there(hidden))), here(ctx:scales(there(weights)))
        local parts = {}
        for i, cut in ipairs { { 0, 33 }, { 33, D } } do
          local head = heads.head(at, weights:slice(1, cut[1], cut[2]):clone(),
                                  { format = format, norms = true, scales = of_w })
          parts[i] = here(ctx:head_error({ hidden = there(hidden:slice(1, cut[1], cut[2]):clone()),
                                           head = head }, { scales = there(of_h) }))
        end
        local shards = {}
        for i, first in ipairs { 0, 16 } do
          shards[i] = bounds(hidden, weights:slice(0, first, i == 1 and 16 or V):clone(),
                             { format = format, first = first }, { vocab = V })
        end
        for r = 0, 4 do
          local sum = parts[1]:get(r) + parts[2]:get(r)
          assert.is_true(parts[1]:get(r) <= whole:get(r) and parts[2]:get(r) <= whole:get(r))
          for v = 0, V - 1 do
            local exact = 0
            for d = 0, D - 1 do exact = exact + hidden:get(r, d) * weights:get(v, d) end
            local x = logits:get(r, v)
            assert.is_true(math.abs(x - exact) <= sum + errors.spacing(x) / 2)
          end
          assert.is_true(shards[1]:get(r) <= whole:get(r) and shards[2]:get(r) <= whole:get(r))
        end
        of_h:set(of_h:get(3) - 1, 3)
        local head = heads.head(at, weights, { format = format, norms = true, scales = of_w })
        refusal.says(refusal.misuse(function()
          local _ = ctx:head_error({ hidden = there(hidden), head = head },
                                   { scales = there(of_h) })
        end), "row 3")
      end
    end)

    it("follows an update, and is refused without norms", function()
      local weights = heads.values({ 20, 8 }, "float32", 47)
      local hidden = heads.values({ 2, 8 }, "float32", 48)
      local head = heads.head(at, weights, { norms = true })
      local other = heads.values({ 20, 8 }, "float32", 49)
      assert(ctx:head_update(head, there(other)))
      local updated = here(ctx:head_error { hidden = there(hidden), head = head })
      assert.is_true(samebits.same_bits(updated, bounds(hidden, other, {})))
      refusal.says(refusal.misuse(function()
        local _ = ctx:head_error { hidden = there(hidden), head = heads.head(at, weights) }
      end), "the head has no norms")
      refusal.says(refusal.misuse(function()
        local _ = ctx:head_error { logits = there(hidden) }
      end), "the batch has logits, not hidden states")
    end)
  end)
end)

describe("sb_head_error", function()
  it("tells rows for h24w16 from rows for h24w24", function()
    local ctx = assert(samebits.open "cpu")
    local data = assert(samebits.load(selftest.directory .. "/smollm2_head.safetensors"))
    local head = {}
    for _, format in ipairs(FORMATS) do
      head[format] = ctx:head(data.head:slice(0, 0, 1000), { format = format, norms = true })
    end
    local function typical(hidden, format)
      return ctx:head_error({ hidden = hidden, head = head[format] }):get(0) / math.sqrt(576)
    end
    local row = data.hidden:slice(0, 0, 1):view(12, 576):slice(0, 0, 1):clone()
    assert.is_true(typical(row, "h24w16") < 1e-3)
    assert.is_true(typical(row, "h24w24") < 1e-6)
    row:set(20000, 0, 100)
    assert.is_true(typical(row, "h24w16") > 0.1)
    assert.is_true(typical(row, "h24w24") < 0.01)
  end)

  it("refuses arguments by name, before anything is written", function()
    local own = assert(samebits.open "cpu")
    local ctx = own.handle
    local head = own:head(heads.values({ 20, 8 }, "float32", 50), { norms = true })
    local states = heads.values({ 3, 8 }, "float32", 51)
    local error = c_calls.filled("float", 3)
    local function refused(status, words, change)
      local b = c_calls.sized "sb_batch"
      b.logits_dtype, b.ids_dtype, b.cu_seqlens_dtype, b.hidden_dtype = 1, 4, 4, 1
      b.batch, b.time, b.vocab, b.temperature, b.ignore_index = 1, 3, 20, 1, -100
      b.head, b.hidden, b.hidden_width = head.handle, states.ptr, 8
      local got = C.sb_head_error(ctx, change(b) or error, b, nil, nil)
      assert.equal(status, ffi.string(C.sb_status_name(got)))
      assert.equal(words, ffi.string(C.sb_last_error(ctx)):sub(1, #words))
      assert.is_true(c_calls.untouched(error))
    end
    refused("SB_ERR_ARGUMENT", "the batch has no hidden states and head",
            function(b) b.head, b.hidden, b.logits = nil, nil, states.ptr end)
    refused("SB_ERR_SHAPE", "hidden states have 7 elements, the head's weights 8",
            function(b) b.hidden_width = 7 end)
    refused("SB_ERR_SHAPE", "the shard holds 20 ids", function(b) b.vocab = 19 end)
    refused("SB_ERR_DTYPE", "hidden_dtype is 4", function(b) b.hidden_dtype = 4 end)
    refused("SB_ERR_TEMPERATURE", "temperature 0", function(b) b.temperature = 0 end)
    refused("SB_ERR_ARGUMENT", "error is null",
            function() return ffi.cast("float *", ffi.cast("void *", 0)) end)
    assert.equal("SB_ERR_ARGUMENT",
                 ffi.string(C.sb_status_name(C.sb_head_error(ctx, error, nil, nil, nil))))
  end)
end)
