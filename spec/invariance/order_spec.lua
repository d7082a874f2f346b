-- Several ids per row, their ranks, and the first ids: however the work is divided, each logprob
-- has the bits that its id gets alone, and the order is that of a plain sort.

local ffi = require "ffi"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local hex = require "spec.support.hex"
local kept = require "spec.support.kept"
local prng = require "spec.support.prng"
local refusal = require "spec.support.refusal"
local with = require "spec.support.with"

local misuse, says = refusal.misuse, refusal.says
local SIZES = { 1, 2, 15, 16, 17, 31, 33, 100, 255, 1023, 1025, 4099 }
local DTYPES = { "float32", "float16", "bfloat16" }
local R = 10 -- rows of an example

local function put(logits, row, id, word)
  ffi.cast("uint32_t *", logits.ptr)[row * logits.shape[2] + id] = word
end

-- Rows full of ties; rows with few ids, none, a NaN, +inf, zeros of both signs, huge numbers.
local function example(random, V)
  local values = hex.values(R * V, random:integer(1, 2 ^ 20))
  for i = 1, 3 * V do values[i] = math.floor(values[i] / 4) end
  local logits = hex.tensor(values, { R, V })
  for id = 0, V - 1 do
    if id % 37 ~= 5 then put(logits, 3, id, 0xff800000) end
    put(logits, 4, id, 0xff800000)
    put(logits, 7, id, id % 3 == 0 and 0x80000000 or id % 3 == 1 and 0 or 0xbf800000)
    if id % 5 == 0 then put(logits, 8, id, random:pick { 0x7149f2ca, 0x7149f2cb, 0xf149f2ca }) end
  end
  put(logits, 5, random:integer(0, V - 1), 0x7fc00000)
  put(logits, 6, random:integer(0, V - 1), 0x7f800000)
  local temperature = {}
  for row = 1, R do temperature[row] = random:pick { 0.5, 1, 3 } end
  return { logits = logits, temperature = temperature }
end

-- The present ids of each row in order, or nil where it is poisoned; and the place of each id.
local function sorted(logits)
  local V, rows, places = logits.shape[2], {}, {}
  local dense = logits:to("float32"):contiguous()
  local x = ffi.cast("const float *", dense.ptr)
  for row = 0, logits.shape[1] - 1 do
    local ids, poisoned = {}, false
    for id = 0, V - 1 do
      local value = x[row * V + id]
      if value ~= value or value == math.huge then poisoned = true end
      if value > -math.huge then ids[#ids + 1] = id end
    end
    table.sort(ids, function(a, b)
      local xa, xb = x[row * V + a], x[row * V + b]
      if xa ~= xb then return xa > xb end
      return a < b
    end)
    if poisoned then ids = {} end
    rows[row], places[row] = ids, {}
    for place, id in ipairs(ids) do places[row][id] = place - 1 end
  end
  return rows, places
end

-- K columns of ids, and the logprobs that each column gets by itself.
local function columns(random, V, K)
  local list = {}
  for row = 1, R do
    list[row] = {}
    for k = 1, K do
      list[row][k] = random:integer(0, 9) == 0 and -100 or random:integer(0, V - 1)
    end
  end
  return list
end

local function check_ids(at, spec, ids, logits, what)
  local got = at.call("logprob_ids", with(spec, { ids = ids }))
  local order, places = sorted(logits)
  local bits = got.logprob:bits()
  for k = 1, #ids[1] do
    local column = {}
    for row = 1, R do column[row] = ids[row][k] end
    local alone = at.score(with(spec, { ids = column }))
    local want = alone.token:bits()
    for row = 1, R do
      local here = ("%s: row %d, entry %d"):format(what, row - 1, k - 1)
      assert.equal(want[row], bits[row][k], here)
      local rank = #order[row - 1] == 0 and -1 or places[row - 1][ids[row][k]] or #order[row - 1]
      if ids[row][k] == -100 then rank = -1 end
      assert.equal(rank, got.rank:get(row - 1, k - 1), here)
    end
  end
  return got
end

local function check_topk(at, spec, k, logits, what)
  local got = at.call("topk", spec, k)
  local order = sorted(logits)
  local first, bits = {}, got.logprob:bits()
  for row = 1, R do
    first[row] = {}
    for i = 1, k do first[row][i] = order[row - 1][i] or -100 end
  end
  -- The bits that the ids get by themselves; at.score's are checked above.
  local alone = at.call("logprob_ids", with(spec, { ids = first }))
  local want = alone.logprob:bits()
  for row = 1, R do
    for i = 1, k do
      local here = ("%s: row %d, place %d"):format(what, row - 1, i - 1)
      local id = order[row - 1][i]
      assert.equal(id or -1, got.ids:get(row - 1, i - 1), here)
      local poisoned = #order[row - 1] == 0
      assert.equal(id and want[row][i] or poisoned and "7fc00000" or "ff800000", bits[row][i], here)
    end
  end
  return got
end

describe("the order of ids", function()
  backends.each(function(at)
    for _, dtype in ipairs(DTYPES) do
      it(("gives logprobs and ranks of K ids, %s on %s"):format(dtype, at.name), function()
        for seed, V in ipairs(SIZES) do
          local random = prng.new(seed)
          local spec = example(random, V)
          spec.logits = spec.logits:to(dtype)
          local ids = columns(random, V, random:pick { 1, 2, 5 })
          check_ids(at, spec, ids, spec.logits, ("V = %d, seed %d"):format(V, seed))
        end
      end)

      it(("gives the first k, %s on %s"):format(dtype, at.name), function()
        for seed, V in ipairs(SIZES) do
          local random = prng.new(seed + 20)
          local spec = example(random, V)
          spec.logits = spec.logits:to(dtype)
          local k = random:pick { 1, 2, 7, 32, 33, 63, 64 }
          check_topk(at, spec, k, spec.logits, ("V = %d, k = %d, seed %d"):format(V, k, seed))
        end
      end)
    end

    -- Rows for which a bound found early says little: every logit is a tie; each leaf exceeds all
    -- before it, or none does; the large logits are in a few neighbouring leaves, or far apart.
    it("gives the first k of rows made against it, on " .. at.name, function()
      local V = 6007
      local rows = {
        function() return 1.5 end,
        function(id) return id / 64 end,
        function(id) return -id / 64 end,
        function(id) return math.floor(id / 48) % 7 end,
        function(id) return math.floor(id / 16) % 200 < 8 and 9 + id % 5 or -3 end,
        function(id) return id % 16 == 15 and id / V or -2 end,
        function(id) return id % 2 == 0 and 0.0 or -0.0 end,
        function(id) return id < V - 30 and -math.huge or -id end,
        function(id) return id > 40 and -math.huge or 3 end,
        function(id) return id % 512 < 3 and id or -id end,
      }
      local list = {}
      for row, value in ipairs(rows) do
        list[row] = {}
        for id = 0, V - 1 do list[row][id + 1] = value(id) end
      end
      local logits = samebits.tensor(list, { dtype = "float32" })
      for _, dtype in ipairs { "float32", "bfloat16" } do
        local spec = { logits = logits:to(dtype) }
        for _, k in ipairs { 1, 33, 64 } do
          check_topk(at, spec, k, spec.logits, ("%s, k = %d"):format(dtype, k))
        end
        local random = prng.new(5)
        check_ids(at, spec, columns(random, V, 5), spec.logits, dtype)
      end
    end)

    it("leaves out what is not kept, on " .. at.name, function()
      for seed, V in ipairs { 17, 100, 1025 } do
        local random = prng.new(seed + 60)
        local spec = example(random, V)
        local flags = kept.flags(random, { R, V })
        local masked = kept.masked(spec.logits, flags)
        local what = ("V = %d, seed %d"):format(V, seed)
        spec.kept = flags
        check_topk(at, spec, 20, masked, what)
        check_ids(at, spec, columns(random, V, 3), masked, what)
      end
    end)

    it("looks at active rows alone, on " .. at.name, function()
      local V, random = 300, prng.new(8)
      local logits = hex.tensor(hex.values(12 * V, 4), { 3, 4, V })
      local ids = {}
      for b = 1, 3 do
        ids[b] = {}
        for t = 1, 4 do ids[b][t] = { random:integer(0, V - 1), -100, random:integer(0, V - 1) } end
      end
      ids[2][2] = { -100, -100, -100 }
      local words = ffi.cast("uint32_t *", logits.ptr)
      for id = 0, V - 1 do words[4 * V + id] = 0x7fc00000 end -- row 5's, shifted
      local spec = { logits = logits, ids = ids, shift = 1, rows = { 0, 1, 2, 5, 6, 7, 11 },
                     mask = { { 1, 1, 1, 1 }, { 1, 1, 0, 1 }, { 1, 1, 1, 1 } } }
      local active = { [1] = true, [2] = true, [7] = true, [11] = true }
      local got = at.call("logprob_ids", spec)
      local lse = got.lse:bits()
      for row = 0, 11 do
        local b, t = math.floor(row / 4), row % 4
        assert.equal(active[row] or false, lse[b + 1][t + 1] ~= "00000000", row)
        for k = 0, 2 do
          local on = active[row] and k ~= 1 or false
          assert.equal(on, got.rank:get(b, t, k) >= 0, row)
          assert.equal(on, got.logprob:bits()[b + 1][t + 1][k + 1] ~= "00000000", row)
        end
      end
      -- Without ids row 5 is active, and NaN.
      spec.ids = nil
      local top = at.call("topk", spec, 2)
      for row = 0, 11 do
        local b, t = math.floor(row / 4), row % 4
        assert.equal(active[row] or false, top.ids:get(b, t, 1) >= 0, row)
        local want = row == 5 and "7fc00000" or "00000000"
        if not active[row] then assert.equal(want, top.logprob:bits()[b + 1][t + 1][1], row) end
      end
    end)

    it("names the id that is out of range, on " .. at.name, function()
      local logits = hex.tensor(hex.values(40, 4), { 2, 20 })
      local batch = at.batch { logits = logits, ids = { { 0, -100, 3 }, { 4, 5, 20 } } }
      local message = misuse(function() at.context():logprob_ids(batch) end)
      says(message, "row 1", "entry 2", "id 20 is outside [0, 20)")
    end)
  end)

  it("is the same for any cut of a large row", function()
    local V, random = 50257, prng.new(3)
    local logits = hex.tensor(hex.values(2 * V, 11), { 2, V }):to "bfloat16"
    local ids = { {}, {} }
    for k = 1, 4 do ids[1][k], ids[2][k] = random:integer(0, V - 1), random:integer(0, V - 1) end
    local want, ranks
    for _, split in ipairs { 1, 2, 7, 64, 65536 } do
      local ctx = assert(samebits.open("cpu", { split = split, threads = split % 3 + 1 }))
      local top = assert(ctx:topk({ logits = logits }, 64))
      local ranked = assert(ctx:logprob_ids { logits = logits, ids = ids })
      ctx:close()
      want, ranks = want or top, ranks or ranked
      assert.same_bits(want.ids, top.ids)
      assert.same_bits(want.logprob, top.logprob)
      assert.same_bits(ranks.rank, ranked.rank)
      assert.same_bits(ranks.logprob, ranked.logprob)
    end
  end)

  describe("from Lua", function()
    local ctx, logits
    setup(function()
      ctx = assert(samebits.open "cpu")
      logits = hex.tensor(hex.values(40, 4), { 2, 20 })
    end)
    teardown(function() ctx:close() end)

    it("takes outputs and out", function()
      local out = assert(ctx:topk({ logits = logits }, 3, { outputs = { "ids" } }))
      assert.is_nil(out.logprob)
      assert.same({ 2, 3 }, out.ids.shape)
      local again = { ids = samebits.zeros({ 2, 3 }, "int32") }
      assert.equal(again, ctx:topk({ logits = logits }, 3, { outputs = { "ids" }, out = again }))
      assert.same_bits(out.ids, again.ids)
      -- The ids of a top-k are ids to score; what is missing is ignored, where -1 says so.
      local full = assert(ctx:topk({ logits = logits }, 64))
      local scored = ctx:logprob_ids { logits = logits, ids = full.ids, ignore_index = -1 }
      for row = 0, 1 do
        for i = 0, 19 do
          assert.equal(full.logprob:get(row, i), scored.logprob:get(row, i))
          assert.equal(i, scored.rank:get(row, i))
        end
        assert.equal(-1, scored.rank:get(row, 20))
      end
    end)

    it("refuses what is no k, no ids, and ids for another call", function()
      for _, k in ipairs { 0, 65, 1.5, "3" } do
        says(misuse(function() ctx:topk({ logits = logits }, k) end), "k: expected an integer")
      end
      says(misuse(function() ctx:logprob_ids { logits = logits } end), "ids is missing")
      says(misuse(function() ctx:logprob_ids { logits = logits, ids = { 1, 2 } } end),
           "ids: shape [2], expected [2, K]")
      local several = { logits = logits, ids = { { 1, 2, 3 }, { 1, 2, 3 } } }
      says(misuse(function() ctx:logprob(several) end), "[2, 3]", "ctx:logprob_ids")
      says(misuse(function() ctx:topk(several, 2) end), "[2, 3]", "several per row")
      local none = samebits.batch({ logits = logits }, { ids = false })
      says(misuse(function() ctx:logprob(none) end), "logprob: the batch has no ids")
      says(misuse(function() ctx:logprob_ids(none) end), "logprob_ids: the batch has no ids")
      says(misuse(function() ctx:topk(none, 2, { outputs = { "rank" } }) end),
           "unknown output 'rank'")
    end)
  end)
end)
