-- Logits from hidden states, on every backend and instruction set that has heads: the golden
-- vectors, also in cuts of V and of D; and every call on hidden states has the bits of the same
-- call on the logits that sb_logits gives.

local samebits = require "samebits"
local backends = require "spec.support.backends"
local heads = require "spec.support.heads"
local hex = require "spec.support.hex"
local kept_sets = require "spec.support.kept"
local tensor = require "samebits.tensor"
local vectors = require "samebits.vectors"

local FORMATS = { "h24w16", "h24w24" }
local read

-- The golden vectors of heads.
local function cases()
  read = read or assert(vectors.read "spec/vectors/heads.txt")
  return read
end

-- A case as tensors in memory: hidden, weights, and what a head and a batch take besides.
local function read_case(case)
  local function floats(list) return list and hex.tensor(list, { #list }) end
  return { hidden = case.hidden.logits,
           weights = case.weights.logits:reshape(case.vocab, case.depth),
           head = { format = case.format, bias = floats(case.bias), scale = case.scale,
                    softcap = case.cap, keep_bad = true },
           kept = case.kept and tensor.from_bits(case.kept, "int32"):view(1, #case.kept) }
end

heads.each(function(at)
  describe("a head on " .. at.name, function()
    local ctx = at.context()
    local function here(t) return assert(t:to "cpu") end
    local function there(t) return heads.placed(at, t) end

    local function batch_of(case, its, head)
      return { hidden = there(its.hidden), head = head, temperature = case.tau,
               kept = its.kept and there(its.kept) }
    end

    it("gives the golden logits and logprobs", function()
      assert.is_true(#cases() > 100)
      for _, case in ipairs(cases()) do
        local its = read_case(case)
        local spec = batch_of(case, its, heads.head(at, its.weights, its.head))
        assert.same(case.expected, hex.of(here(assert(ctx:logits(spec)))), case.name)
        for _, target in ipairs(case.targets) do
          spec.ids = { target.id }
          local out = assert(ctx:logprob(spec, { outputs = { "token", "lse" } }))
          assert.same({ target.bits }, hex.of(here(out.token)), case.name)
          assert.same({ case.lse }, hex.of(here(out.lse)), case.name)
        end
      end
    end)

    it("gives them if ranks hold columns of D", function()
      for n, case in ipairs(cases()) do
        local its, D = read_case(case), case.depth
        local cut = n % 3 == 0 and 1 or math.floor(D / 2)
        if D > 1 and not its.kept then
          local parts = { { 0, cut }, { cut, D } }
          local of_h, of_w, sums, head
          for _, part in ipairs(parts) do
            part.h = its.hidden:slice(1, part[1], part[2]):clone()
            part.w = its.weights:slice(1, part[1], part[2]):clone()
            local h, w = here(ctx:scales(there(part.h))), here(ctx:scales(there(part.w)))
            of_h = heads.elementwise(math.max, of_h, h)
            of_w = heads.elementwise(math.max, of_w, w)
          end
          for _, part in ipairs(parts) do
            local opts = { scales = of_w }
            for key, value in pairs(its.head) do opts[key] = value end
            head = heads.head(at, part.w, opts)
            local got = ctx:products({ hidden = there(part.h), head = head }, there(of_h))
            sums = heads.elementwise(function(a, b) return a + b end, sums, here(got))
          end
          local got = assert(ctx:combine(there(sums), there(of_h), head))
          assert.same(case.expected, hex.of(here(got)), case.name)
        end
      end
    end)

    -- Hidden states of four dtypes and layouts, and every call beside the same call on logits.
    it("gives every call the bits of its logits", function()
      local V, D = 83, 70
      local weights = { heads.values({ V, D }, "bfloat16", 3),
                        heads.values({ V, D }, "float32", 4) }
      local bias = heads.values({ V }, "float32", 5)
      bias:set(-math.huge, 7)
      for i, dtype in ipairs { "float32", "bfloat16", "float16" } do
        local format = FORMATS[i % 2 + 1]
        local head = heads.head(at, weights[i % 2 + 1], {
          format = format, softcap = i == 2 and 5 or nil, bias = i > 1 and bias or nil,
        })
        local hidden = there(heads.values({ 3, 13, D }, dtype, i))
        local ids, mask, kept, temperature = {}, {}, {}, {}
        for b = 1, 3 do
          ids[b], mask[b], kept[b], temperature[b] = {}, {}, {}, {}
          for t = 1, 13 do
            ids[b][t] = (b * 31 + t * 17) % V
            mask[b][t] = (b + t) % 4 == 0 and 0 or 1
            temperature[b][t] = 0.5 + t / 8
            kept[b][t] = {}
            for v = 1, V do kept[b][t][v] = (v * t + b) % 5 ~= 0 and 1 or 0 end
          end
        end
        -- on_logits: what differs if there are logits; the same as `change` if not given.
        local function both(change, on_logits)
          local common = { ids = ids, mask = mask,
                           temperature = tensor.tensor(temperature, { dtype = "float32" }) }
          local spec, other = { hidden = hidden, head = head }, {}
          other.logits = assert(ctx:logits(spec))
          for key, value in pairs(common) do spec[key], other[key] = value, value end
          for key, value in pairs(change) do spec[key] = value end
          for key, value in pairs(on_logits or change) do other[key] = value end
          return spec, other
        end
        local function same(name, got, expected)
          for key, t in pairs(expected) do
            assert.is_true(samebits.same_bits(here(got[key]), here(t)), name .. " " .. key)
          end
        end
        local list = {}
        list.kept_ids, list.kept_offsets = kept_sets.lists(
          tensor.tensor(kept, { dtype = "bool" }), i == 2 and "int64" or "int32",
          i == 3 and "int32" or "int64")
        for _, change in ipairs { { {} }, { { shift = 1 } }, { { kept = kept } },
                                  { list, { kept = kept } }, { { rows = { 0, 5, 20, 38 } } } } do
          local a, b = both(change[1], change[2])
          local outputs = { outputs = { "token", "lse", "sequence", "count", "entropy",
                                        "saved" } }
          same("logprob", ctx:logprob(a, outputs), ctx:logprob(b, outputs))
          outputs.split = 3
          same("logprob in pieces", ctx:logprob(a, outputs), ctx:logprob(b, outputs))
          same("topk", ctx:topk(a, 5), ctx:topk(b, 5))
          same("kl", ctx:kl(a, b, { split = 2 }), ctx:kl(b, b))
          same("kl of both", ctx:kl(b, a), ctx:kl(b, b))
          same("partial", ctx:partial(a, { entropy = true }), ctx:partial(b, { entropy = true }))
          for _, how in ipairs { {}, { top_k = 4 }, { top_p = 0.8, min_p = 0.02 } } do
            local position = {}
            for r = 1, 3 do
              position[r] = {}
              for t = 1, 13 do position[r][t] = r * 100 + t end
            end
            how.position = there(tensor.tensor(position, { dtype = "int64" }))
            local all = { outputs = { "token", "logprob", "kept_logprob", "count", "kept" } }
            same("sample", ctx:sample(a, how, all), ctx:sample(b, how, all))
            all.outputs = { "token", "logprob", "kept_logprob" }
            same("sample, tokens alone", ctx:sample(a, how, all), ctx:sample(b, how, all))
          end
          local several = {}
          for r = 1, 3 do
            several[r] = {}
            for t = 1, 13 do several[r][t] = { ids[r][t], (t * 5) % V, -100 } end
          end
          a.ids, b.ids = several, several
          same("logprob_ids", ctx:logprob_ids(a), ctx:logprob_ids(b))
          local alone = { outputs = { "logprob", "lse" } }
          same("logprob_ids without ranks", ctx:logprob_ids(a, alone), ctx:logprob_ids(b, alone))
        end
      end
    end)

    -- Sequences of 19 positions, 38 rows: with a mask, kept sets, a row list, temperatures, packed.
    it("gives the gradient by its logits, whole and in chunks", function()
      local V, D, T = 131, 40, 19
      local head = heads.head(at, heads.values({ V, D }, "bfloat16", 21), { softcap = 20 })
      local hidden = there(heads.values({ 2, T, D }, "bfloat16", 22))
      local ids, mask, rows, kept, temperature = {}, {}, {}, {}, {}
      for b = 1, 2 do
        ids[b], mask[b], kept[b], temperature[b] = {}, {}, {}, {}
        for t = 1, T do
          ids[b][t], mask[b][t] = (b * 37 + t * 11) % V, t % 5 == 0 and 0 or 1
          temperature[b][t] = 0.5 + t / 8
          kept[b][t] = {}
          for v = 1, V do kept[b][t][v] = (v * t + b) % 5 ~= 0 and 1 or 0 end
        end
      end
      for i = 1, 2 * T do rows[i] = (i % 7 - 3) / 4 end
      local packed = { hidden = hidden:view(2 * T, D), cu_seqlens = { 0, 7, 7, 38 }, shift = 1,
                       mask = false }
      packed.ids = samebits.tensor(ids, { dtype = "int32" }):view(2 * T)
      local outputs = { outputs = { "entropy", "saved" } }
      for _, change in ipairs { {}, { shift = 1 }, { shift = 1, kept = kept },
                                { rows = { 0, 5, 20, 38 - 1 } }, { temperature = temperature },
                                packed } do
        local a = { hidden = hidden, head = head, ids = ids, mask = mask }
        for key, value in pairs(change) do a[key] = value or nil end
        local b = {}
        for key, value in pairs(a) do b[key] = value end
        b.hidden, b.head = nil, nil
        b.logits = assert(ctx:logits { hidden = a.hidden, head = head })
        local shape = change == packed and { 2 * T } or { 2, T }
        local function derivatives() return there(hex.tensor(rows, shape)) end
        local given = { saved = ctx:logprob(b, outputs).saved, token = derivatives(),
                        entropy = derivatives() }
        local whole = here(ctx:backward(b, given))
        assert.is_true(samebits.same_bits(here(ctx:backward(a, given)), whole))
        for _, chunk in ipairs { { 0, 16 }, { 16, 96 }, { 112, 19 } } do
          local grad = here(ctx:backward(a, given, { first = chunk[1], n = chunk[2] }))
          local expected = whole:slice(#shape, chunk[1], chunk[1] + chunk[2]):clone()
          assert.is_true(samebits.same_bits(grad, expected))
        end
        local by = { token = derivatives(), dtype = "bfloat16" }
        local wide, other = ctx:logprob(a, { gradient = by }), ctx:logprob(b, { gradient = by })
        for key, t in pairs(other) do
          assert.is_true(samebits.same_bits(here(wide[key]), here(t)), key)
        end
        -- Rows of a gradient that are apart, and wider than V.
        if #shape == 2 then
          local before = samebits.zeros { 2, T + 1, V + 5 }
          for t = T - 2, T do before:set(7, 1, t, 3) end
          local apart = there(before)
          local inside = apart:slice(1, 0, T)
          local function holds(expected)
            local all = here(apart)
            local rows_of = all:slice(1, 0, T)
            assert.is_true(samebits.same_bits(rows_of:slice(2, 0, V):clone(), expected))
            assert.is_true(samebits.same_bits(rows_of:slice(2, V, V + 5):clone(),
                                              samebits.zeros { 2, T, 5 }))
            assert.is_true(samebits.same_bits(all:slice(1, T, T + 1):clone(),
                                              before:slice(1, T, T + 1):clone()))
          end
          ctx:logprob(a, { outputs = { "sequence" }, gradient = {
            token = derivatives(), entropy = derivatives(), grad = inside } })
          holds(whole)
          given.entropy = nil
          ctx:backward(a, given, { grad = inside:slice(2, 0, V) })
          holds(here(ctx:backward(b, given)))
        end
      end
    end)

    it("gives shards of the vocabulary the records of whole rows", function()
      local V, D = 130, 33
      local weights = heads.values({ V, D }, "bfloat16", 9)
      local hidden = there(heads.values({ 5, D }, "bfloat16", 10))
      local ids = { 0, 129, 64, 17, 100 }
      local whole = heads.head(at, weights)
      local expected = ctx:logprob { hidden = hidden, head = whole, ids = ids }
      for _, cuts in ipairs { { 0, 16, 130 }, { 0, 64, 80, 128, 130 } } do
        local records = {}
        for i = 1, #cuts - 1 do
          local part = weights:slice(0, cuts[i], cuts[i + 1])
          local head = heads.head(at, part:clone(), { first = cuts[i] })
          records[i] = ctx:partial { hidden = hidden, head = head, ids = ids, vocab = V }
        end
        local finished = ctx:finish(ctx:merge(records),
                                    { hidden = hidden, head = whole, ids = ids })
        for key, t in pairs(expected) do
          assert.is_true(samebits.same_bits(here(finished[key]), here(t)), key)
        end
      end
    end)

    it("updates a head in place, and rounds logits once more", function()
      local weights = heads.values({ 40, 20 }, "float32", 1)
      local more = heads.values({ 40, 20 }, "float32", 2)
      local hidden = there(heads.values({ 3, 20 }, "float32", 3))
      local head, other = heads.head(at, weights), heads.head(at, more, { softcap = 3 })
      assert(ctx:head_update(head, there(more), { softcap = 3 }))
      local got = here(ctx:logits { hidden = hidden, head = head })
      assert.is_true(samebits.same_bits(got, here(ctx:logits { hidden = hidden, head = other })))
      for _, dtype in ipairs { "bfloat16", "float16" } do
        local half = here(ctx:logits({ hidden = hidden, head = head }, { dtype = dtype }))
        assert.is_true(samebits.same_bits(half, got:to(dtype)))
      end
      local part = here(ctx:logits({ hidden = hidden, head = head }, { first = 16, n = 16 }))
      assert.is_true(samebits.same_bits(part, got:slice(1, 16, 32):clone()))
    end)

    it("reads no hidden state of an ignored row", function()
      local V, D = 20, 8
      local head = heads.head(at, heads.values({ V, D }, "float32", 6))
      local values = heads.values({ 4, D }, "float32", 7)
      local clean = ctx:logprob { hidden = there(values), head = head, ids = { 1, 2, 3, 4 },
                                  mask = { 1, 0, 1, 0 } }
      for d = 0, D - 1 do
        values:set(0 / 0, 1, d)
        values:set(0 / 0, 3, d)
      end
      local spec = { hidden = there(values), head = head, ids = { 1, 2, 3, 4 } }
      spec.mask = { 1, 0, 1, 0 }
      local out = ctx:logprob(spec)
      for key, t in pairs(clean) do assert.is_true(samebits.same_bits(here(out[key]), here(t))) end
      spec.mask = nil
      local bits = hex.of(here(ctx:logprob(spec).token))
      assert.equal("7fc00000", bits[2])
      assert.equal("7fc00000", bits[4])
      assert.equal(hex.of(here(clean.token))[3], bits[3])
    end)
  end)
end)

-- More logits than a backend has in memory at once: each row has its own list and values.
describe("samples of many rows of hidden states with lists of kept ids", function()
  local R, V = 131, 49168

  local function rows_of(first, past)
    local ids, offsets, how = {}, { 0 }, { seed = {}, position = {}, top_k = {}, top_p = {} }
    for r = first, past - 1 do
      for i = 0, 3 + r % 16 do ids[#ids + 1] = r + i * 2399 end
      offsets[#offsets + 1] = #ids
      for name, value in pairs { seed = r % 7, position = r * 3, top_k = r % 5 * 2,
                                 top_p = 1 - r % 3 / 4 } do
        how[name][r - first + 1] = value
      end
    end
    return ids, offsets, how
  end

  for _, backend in ipairs { "cpu", "cuda" } do
    backends.with(backend, function(at)
      it("are those of the rows alone, on " .. at.name, function()
        local ctx = at.context()
        local head = heads.head(at, heads.values({ V, 2 }, "bfloat16", 51))
        local hidden = heads.values({ R, 2 }, "bfloat16", 52)
        local function sample(first, past)
          local ids, offsets, how = rows_of(first, past)
          local out = assert(ctx:sample({
            hidden = heads.placed(at, hidden:slice(0, first, past):clone()), head = head,
            kept_ids = heads.placed(at, tensor.tensor(ids, { dtype = "int32" })),
            kept_offsets = heads.placed(at, tensor.tensor(offsets, { dtype = "int32" })),
          }, how, { outputs = { "token", "logprob", "kept_logprob", "count", "kept" } }))
          local results = {}
          for name, t in pairs(out) do results[name] = assert(t:to "cpu") end
          return results
        end
        local all = sample(0, R)
        for _, r in ipairs { 0, 1, 84, 85, 86, 127, 128, 129, 130 } do
          for name, t in pairs(sample(r, r + 1)) do
            assert.same_bits(t, all[name]:slice(0, r, r + 1):clone(), name .. " of row " .. r)
          end
        end
      end)
    end)
  end
end)
