-- Lists of kept ids: in every operation they give the bits of the same sets as words.

local ffi = require "ffi"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local hex = require "spec.support.hex"
local kept = require "spec.support.kept"
local prng = require "spec.support.prng"
local shards = require "spec.support.shards"
local with = require "spec.support.with"

local SIZES = { 1, 15, 16, 17, 31, 33, 65, 255, 1025, 4099 }
local DTYPES = { "float32", "float16", "bfloat16" }

local example = kept.example

-- The spec with lists of these flags, of dtypes that a number chooses.
local function listed(spec, flags, n)
  local ids, offsets = kept.lists(flags, n % 2 == 0 and "int32" or "int64",
                                  n % 3 == 0 and "int32" or "int64")
  return with(spec, { kept_ids = ids, kept_offsets = offsets })
end

local function assert_alike(want, got, what)
  for name, t in pairs(want) do
    if samebits.is_tensor(t) then
      assert.same_bits(assert(t:to "cpu"), assert(got[name]:to "cpu"), what .. ": " .. name)
    end
  end
end

local ALL = { outputs = { "token", "lse", "sequence", "count", "outside", "entropy", "saved" } }
local PLAIN = { outputs = { "token", "lse", "sequence", "count", "outside", "saved" } }

ffi.cdef [[
  void *mmap(void *address, size_t length, int protection, int flags, int file, long offset);
  int mprotect(void *address, size_t length, int protection);
  int munmap(void *address, size_t length);
]]

describe("lists of kept ids", function()
  -- Rows of three pages, of which the second may not be touched.
  it("leave other logits unread, on the cpu", function()
    local PAGE, rows = 4096, 4
    local V, bytes = 3 * PAGE / 4, 3 * PAGE * rows
    local base = ffi.cast("char *", ffi.C.mmap(nil, bytes, 3, 0x22, -1, 0)) -- private, anonymous
    local words = ffi.cast("uint32_t *", base)
    for i = 0, V * rows - 1 do words[i] = 0x3f800000 + i % 977 * 8192 end
    local logits = samebits.tensor(base, { dtype = "float32", shape = { rows, V } })
    local list, offsets, targets = {}, { 0 }, {}
    for row = 0, rows - 1 do
      for id = row, PAGE / 4 - 1, 37 do list[#list + 1] = id end
      for id = PAGE / 2, V - 1, 11 do list[#list + 1] = id end
      offsets[#offsets + 1], targets[row + 1] = #list, row % 2 == 0 and row or PAGE / 4 + 5
    end
    local spec = { logits = logits, ids = targets, kept_ids = list, kept_offsets = offsets }
    local ctx = assert(samebits.open "cpu")
    local d = samebits.tensor { 1, 2, 3, 4 }
    local function results()
      local out = assert(ctx:logprob(spec, { outputs = ALL.outputs }))
      local top = assert(ctx:topk(spec, 5))
      local saved = assert(ctx:logprob(spec, { outputs = { "saved" } })).saved
      return { token = out.token, entropy = out.entropy, ids = top.ids,
               grad = assert(ctx:backward(spec, { saved = saved, token = d })),
               kl = assert(ctx:kl(spec, with(spec, { temperature = 2 }))).token }
    end
    local want = results()
    for row = 0, rows - 1 do ffi.C.mprotect(base + (3 * row + 1) * PAGE, PAGE, 0) end
    assert_alike(want, results(), "protected")
    ffi.C.munmap(base, bytes)
    ctx:close()
  end)

  backends.each(function(at)
    for d, dtype in ipairs(DTYPES) do
      it(("have the bits of words, %s on %s"):format(dtype, at.name), function()
        for seed, V in ipairs(SIZES) do
          local random = prng.new(seed)
          local spec, flags = example(random, V)
          spec.logits = kept.poisoned_outside(spec.logits, flags):to(dtype)
          spec.shift = seed % 3 == 0 and 1 or 0
          if seed % 4 == 1 then spec.rows = { 0, 1, 3, 4, 5, 7, 8, 10, 11 } end
          local lists = listed(spec, flags, seed + d)
          for n, opts in ipairs { ALL, PLAIN } do
            for split = 0, seed % 4 do
              local what = ("V = %d, seed %d, outputs %d, split %d"):format(V, seed, n, split)
              opts.split = split > 0 and split or nil
              local want = at.score(with(spec, { kept = flags }), opts)
              assert_alike(want, at.score(lists, opts), what)
            end
          end
        end
      end)
    end

    it("serve several ids, the first ids, gradients and divergences, on " .. at.name, function()
      for seed, V in ipairs { 1, 17, 100, 1025 } do
        local random = prng.new(seed + 60)
        local spec, flags = example(random, V)
        spec.logits = kept.poisoned_outside(spec.logits, flags):to(DTYPES[seed % 3 + 1])
        local words, lists = with(spec, { kept = flags }), listed(spec, flags, seed)
        local what = ("V = %d"):format(V)
        local ctx = at.context()
        local on = ctx.device
        local function both(f) assert_alike(f(words), f(lists), what) end
        both(function(of) return assert(ctx:topk(samebits.batch(of):to(on), 5)) end)
        local ids = { logits = spec.logits, mask = spec.mask, temperature = spec.temperature,
                      ids = {} }
        for b = 1, 3 do
          ids.ids[b] = {}
          for t = 1, 4 do
            ids.ids[b][t] = { spec.ids[b][t], random:integer(0, V - 1), -100 }
          end
        end
        assert_alike(assert(ctx:logprob_ids(samebits.batch(with(ids, { kept = flags })):to(on))),
                     assert(ctx:logprob_ids(samebits.batch(listed(ids, flags, seed)):to(on))),
                     what)
        local d = assert(hex.tensor(hex.values(12, 9), { 3, 4 }):to(on))
        both(function(of)
          return at.score(of, { gradient = { token = d, entropy = d }, outputs = { "token" } })
        end)
        both(function(of)
          local batch = assert(samebits.batch(of):to(on))
          local out = assert(ctx:logprob(batch, { outputs = { "saved", "entropy" } }))
          return { assert(ctx:backward(batch, { saved = out.saved, token = d })) }
        end)
        local other = kept.flags(random, { 3, 4, V }, 1)
        local q = { logits = hex.tensor(hex.values(12 * V, seed), { 3, 4, V }), ids = spec.ids }
        local plain = samebits.batch(q):to(on)
        local q_words, q_lists = with(q, { kept = other }), listed(q, other, seed + 1)
        q_words, q_lists = samebits.batch(q_words):to(on), samebits.batch(q_lists):to(on)
        both(function(of) return assert(ctx:kl(samebits.batch(of):to(on), plain)) end)
        both(function(of) return assert(ctx:kl(plain, samebits.batch(of):to(on))) end)
        local p_words, p_lists = samebits.batch(words):to(on), samebits.batch(lists):to(on)
        assert_alike(assert(ctx:kl(p_words, q_words)), assert(ctx:kl(p_lists, q_lists)), what)
        assert_alike(assert(ctx:kl(p_words, q_words)), assert(ctx:kl(p_words, q_lists)), what)
      end
    end)

    it("may be cut into shards, on " .. at.name, function()
      for seed, V in ipairs { 17, 100, 1025 } do
        local random = prng.new(seed + 40)
        local spec, flags = example(random, V)
        local words, lists = with(spec, { kept = flags }), listed(spec, flags, seed)
        local cuts = shards.cuts(random, V, 4)
        local function here() return at end
        for _, opts in ipairs { {}, { entropy = true } } do
          local a = shards.merged(at, shards.records(here, words, cuts, opts))
          local b = shards.merged(at, shards.records(here, lists, cuts, opts))
          local outputs = { outputs = (opts.entropy and ALL or PLAIN).outputs }
          local want = shards.finished(at, a, words, outputs)
          assert_alike(want, shards.finished(at, b, lists, outputs), "shards")
        end
      end
    end)
  end)
end)
