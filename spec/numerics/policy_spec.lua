-- Policy losses and group advantages: golden vectors, edges, records, and circumstances that cannot
-- change a bit. Encodings are compared.

local ffi = require "ffi"
local bit = require "bit"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local hex = require "spec.support.hex"
local policy_vectors = require "spec.support.policy_vectors"
local prng = require "spec.support.prng"
local with = require "spec.support.with"

local NAN, ZERO = "7fc00000", "00000000"
local INPUTS = { now = "new", old = "old", ref = "ref", rollout = "rollout", entropy = "entropy" }
local ALL = { "loss", "sequence", "token", "entropy", "record", "metrics" }

local losses, groups = policy_vectors.read()

-- 64-bit words in hex, as the vectors have them.
local function words(t)
  local list, w = {}, ffi.cast("const uint32_t *", t.ptr)
  for i = 0, t:numel() / 8 - 1 do
    local text = (bit.tohex(w[2 * i + 1]) .. bit.tohex(w[2 * i])):gsub("^0+", "")
    list[i + 1] = text == "" and "0" or text
  end
  return list
end

local function total(lengths)
  local n = 0
  for _, length in ipairs(lengths) do n = n + length end
  return n
end

local function ends_of(lengths)
  local ends = { 0 }
  for i, length in ipairs(lengths) do ends[i + 1] = ends[i] + length end
  return ends
end

-- Masks that leave a case's sequences in rows of T, with rubbish around their tokens.
local function padded(random, case, T)
  local places, mask, at = {}, {}, 0
  for b, length in ipairs(case.lengths) do
    mask[b] = {}
    local before = random:integer(0, T - length)
    for t = 1, T do
      local inside = t > before and t <= before + length
      mask[b][t] = inside and 1 or 0
      if inside then
        at = at + 1
        places[at] = (b - 1) * T + t
      end
    end
  end
  return places, mask
end

backends.each(function(at)
  local ctx = at.context()
  local function there(values, shape)
    return assert(hex.tensor(values, shape):to(ctx.device))
  end

  local function loss(tokens, opts)
    local out, results = assert(ctx:policy_loss(tokens, with({ outputs = ALL }, opts))), {}
    for name, t in pairs(out) do
      t = assert(t:to "cpu")
      results[name] = name == "record" and words(t) or hex.of(t)
    end
    return results
  end

  -- The tokens of a case, packed.
  local function packed(case)
    local n, tokens = total(case.lengths), { cu_seqlens = ends_of(case.lengths) }
    for name, key in pairs(INPUTS) do
      if case[key] or name == "now" then tokens[name] = there(case[key] or {}, { n }) end
    end
    tokens.advantages = there(case.advantages or {}, { #(case.advantages or {}) })
    return tokens
  end

  local function check(case, got, name)
    assert.same({ case.metrics[1] }, got.loss, name)
    assert.same(case.sequence, got.sequence, name)
    assert.same(case.metrics, got.metrics, name)
    assert.same(case.record, got.record, name)
  end

  describe("policy losses on " .. at.name .. ":", function()
    it("golden vectors, packed", function()
      assert.is_true(#losses > 80)
      for _, case in ipairs(losses) do
        local got = loss(packed(case), case.options)
        assert.same(case.by_new or {}, got.token, case.name)
        assert.same(case.by_entropy or {}, got.entropy, case.name)
        check(case, got, case.name)
      end
    end)

    it("golden vectors, padded with rubbish", function()
      local random = prng.new(4)
      for _, case in ipairs(losses) do
        local B, n, T = #case.lengths, total(case.lengths), 5
        for _, length in ipairs(case.lengths) do T = math.max(T, length + 5) end
        local places, mask = padded(random, case, T)
        local per_token = #(case.advantages or {}) == n and n ~= B
        local function spread(values)
          local all = {}
          for i = 1, B * T do all[i] = NAN end
          for i, place in ipairs(places) do all[place] = values[i] end
          return there(all, { B, T })
        end
        local tokens = { mask = samebits.tensor(mask, { dtype = "uint8" }) }
        for name, key in pairs(INPUTS) do
          if case[key] or name == "now" then tokens[name] = spread(case[key] or {}) end
        end
        tokens.advantages = per_token and spread(case.advantages) or
                            there(case.advantages, { B })
        tokens.mask = assert(tokens.mask:to(ctx.device))
        local got = loss(tokens, case.options)
        check(case, got, case.name)
        local active = {}
        for i, place in ipairs(places) do
          active[place] = true
          assert.equal(case.by_new[i], got.token[place], case.name)
          assert.equal(case.by_entropy[i], got.entropy[place], case.name)
        end
        for place, word in ipairs(got.token) do
          if not active[place] then assert.equal(ZERO, word, case.name) end
        end
      end
    end)

    it("without metrics: the same loss and gradients, and the record has the loss alone", function()
      for _, case in ipairs(losses) do
        local got = loss(packed(case), with(case.options, {
          outputs = { "loss", "sequence", "token", "entropy", "record" } }))
        assert.same({ case.metrics[1] }, got.loss, case.name)
        assert.same(case.sequence, got.sequence, case.name)
        assert.same(case.by_new or {}, got.token, case.name)
        assert.same(case.by_entropy or {}, got.entropy, case.name)
        local want = {}
        for i, word in ipairs(case.record) do
          want[i] = (i < 4 or i > 10 and i < 22) and word or "0"
        end
        want[1] = "1" .. (case.record[1]:match "0000000%d$" or "00000000")
        assert.same(want, got.record, case.name)
      end
    end)

    it("micro-batches and ranks have the bits of the step", function()
      local random = prng.new(9)
      for _, opts in ipairs {
        { loss = "clip", norm = "token-mean", beta = 0.1, eps_high = 0.28, dual = 3 },
        { loss = "gspo", norm = "sequence-mean" },
        { loss = "cispo", norm = "constant", constant = 512, weight = "truncate", w_high = 1.5 },
        { loss = "reinforce", norm = "sequence-sum", eta = 0.01, weight = "drop", w_high = 2,
          level = "geometric" },
      } do
        local B, T, flat, mask, tokens = 32, 37, {}, {}, 0
        for _, name in ipairs { "now", "old", "ref", "rollout", "entropy" } do flat[name] = {} end
        for i = 1, B * T do
          local x = -random:uniform() * 4
          flat.now[i], flat.entropy[i] = x, random:uniform()
          for _, name in ipairs { "old", "ref", "rollout" } do
            flat[name][i] = x + random:normal() * 0.3
          end
          mask[i] = random:uniform() < 0.8 and 1 or 0
          tokens = tokens + mask[i]
        end
        flat.advantages = {}
        for b = 1, B do flat.advantages[b] = random:normal() end
        local active = samebits.tensor(mask, { dtype = "uint8" }):view(B, T)
        local all = { mask = assert(active:to(ctx.device)) }
        for name, values in pairs(flat) do
          all[name] = there(values, name == "advantages" and { B } or { B, T })
        end
        local whole = loss(all, opts)
        local step = with(opts, { tokens = tokens, sequences = B })
        for _, each in ipairs { 1, 4, 8 } do
          local records, by_new, by_entropy, sequence = {}, {}, {}, {}
          for first = 0, B - 1, each do
            local part = {}
            for name, t in pairs(all) do part[name] = t:slice(0, first, first + each) end
            local out = assert(ctx:policy_loss(part, with(step, { outputs = ALL })))
            records[#records + 1] = out.record
            for list, name in pairs { [by_new] = "token", [by_entropy] = "entropy",
                                      [sequence] = "sequence" } do
              for _, word in ipairs(hex.of(assert(out[name]:to "cpu"))) do
                list[#list + 1] = word
              end
            end
          end
          assert.same(whole.token, by_new)
          assert.same(whole.entropy, by_entropy)
          assert.same(whole.sequence, sequence)
          for i = #records, 2, -1 do
            local k = random:integer(1, i)
            records[i], records[k] = records[k], records[i]
          end
          local norm = { norm = opts.norm, constant = opts.constant }
          local halves = {}
          for rank = 0, 1 do
            local mine = {}
            for i, record in ipairs(records) do
              if i % 2 == rank then mine[#mine + 1] = record end
            end
            halves[rank + 1] = assert(ctx:policy_merge(mine, norm)).record
          end
          for _, merged in ipairs { assert(ctx:policy_merge(records, norm)),
                                    assert(ctx:policy_merge(halves, norm)) } do
            assert.same(whole.loss, hex.of(assert(merged.loss:to "cpu")))
            assert.same(whole.metrics, hex.of(assert(merged.metrics:to "cpu")))
            assert.same(whole.record, words(assert(merged.record:to "cpu")))
          end
        end
      end
    end)

    it("golden vectors of groups, alone and together", function()
      assert.is_true(#groups > 15)
      local function advantages(rewards, opts)
        local out, results = assert(ctx:group_advantages(rewards, opts)), {}
        for name, t in pairs(out) do results[name] = assert(t:to "cpu") end
        return results
      end
      local function value(text) return text == "nan" and 0 / 0 or tonumber(text) end
      local function same(want, got) return want == got or want ~= want and got ~= got end
      local all, ends = {}, { 0 }
      for i, case in ipairs(groups) do
        local rewards = there(case.rewards or {}, { #(case.rewards or {}) })
        local eps = tonumber(case.eps[1])
        local out = advantages(rewards, { eps = eps })
        assert.same(case.advantages or {}, hex.of(out.advantages), case.name)
        assert.same(case.record, words(out.records), case.name)
        assert.is_true(same(value(case.mean[1]), out.mean[0]), case.name)
        assert.is_true(same(value(case.std[1]), out.std[0]), case.name)
        assert.same(case.population or {},
                    hex.of(advantages(rewards, { eps = eps, population = true }).advantages))
        assert.same(case.unscaled or {}, hex.of(advantages(rewards, { scale = "none" }).advantages))
        for _, word in ipairs(case.rewards or {}) do all[#all + 1] = word end
        ends[i + 1] = #all
      end
      local out = advantages(there(all, { #all }), { offsets = ends, scale = "none" })
      local got, n = hex.of(out.advantages), 0
      for i, case in ipairs(groups) do
        for _, word in ipairs(case.unscaled or {}) do
          n = n + 1
          assert.equal(word, got[n], case.name)
        end
        local own = out.records:slice(0, i - 1, i):clone()
        assert.same(case.record, words(own), case.name)
      end
    end)

    it("groups in parts, on several ranks, have the advantages of the whole", function()
      local random, rewards = prng.new(8), {}
      for i = 1, 4 * 6 do rewards[i] = random:normal() end
      local whole = there(rewards, { 4, 6 })
      for _, scale in ipairs { "group", "step", "none" } do
        local want = hex.of(assert(ctx:group_advantages(whole, { scale = scale }))
                              .advantages:to "cpu")
        local left = there((function()
          local list = {}
          for g = 0, 3 do for i = 1, 2 do list[#list + 1] = rewards[g * 6 + i] end end
          return list
        end)(), { 4, 2 })
        local right = there((function()
          local list = {}
          for g = 0, 3 do for i = 3, 6 do list[#list + 1] = rewards[g * 6 + i] end end
          return list
        end)(), { 4, 4 })
        local records = {}
        for i, part in ipairs { left, right } do
          records[i] = assert(ctx:group_advantages(part, { outputs = { "records" } })).records
        end
        for _, order in ipairs { { records[1], records[2] }, { records[2], records[1] } } do
          local opts = { scale = scale, records = order }
          local a = hex.of(assert(ctx:group_advantages(left, opts)).advantages:to "cpu")
          local b = hex.of(assert(ctx:group_advantages(right, opts)).advantages:to "cpu")
          for g = 0, 3 do
            for i = 1, 2 do assert.equal(want[g * 6 + i], a[g * 2 + i]) end
            for i = 1, 4 do assert.equal(want[g * 6 + 2 + i], b[g * 4 + i]) end
          end
        end
      end
    end)
  end)
end)
