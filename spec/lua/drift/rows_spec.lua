-- samebits.drift.rows: the suppositions about the rows of logits behind a token, and the prediction
-- of each for it.

local ffi = require "ffi"
local samebits = require "samebits"
local plant = require "spec.support.plant"
local rows = require "samebits.drift.rows"
local scorer = require "samebits.drift.scorer"
local sides = require "samebits.drift.sides"

local N, V = 3, 50
local logits, ids = plant.logits({ N, V }, 81), samebits.tensor({ 1, 2, 3 }, { dtype = "int64" })

local function words(t) return ffi.cast("const int32_t *", t.ptr) end

local function logprobs(of) return plant.logprobs { logits = of, ids = ids } end

describe("drift's rows", function()
  local ctx
  setup(function() ctx = assert(samebits.open "cpu") end)
  teardown(function() ctx:close() end)

  -- Which suppositions, as "row of SOURCE for TARGET", predict the other side's bits for how many
  -- rows; those that are left after the screening; and the chunk.
  local function judged(a, b, fits)
    local x, y = logprobs(a.logits), b.logprobs or logprobs(b.logits)
    local first, second = sides.read(a, b, {})
    local score, exactly, probes = scorer.new(ctx, -100, 0), {}, {}
    local function key(h)
      return ("%s of %s for %s"):format(h.row, h.source.label, h.target.label)
    end
    local of = { a = first, b = second, scorer = score, near = 1e-5 }
    function of.judge(_, h, _, got, want)
      exactly[key(h)] = (exactly[key(h)] or 0) + (got == want and 1 or 0)
    end
    local made = rows.new(of, function(_, h) return h end, fits or {})
    local chunk = { first = 0, n = N, a = words(x), b = words(y), flag = ffi.new("uint8_t[?]", N),
                    same = ffi.new("uint8_t[?]", N), held = { x, y },
                    own = { A = words(x), B = words(second.logits and logprobs(b.logits) or y) } }
    for row = 0, N - 1 do
      if chunk.a[row] ~= chunk.b[row] then chunk.flag[row] = 1 end
      probes[row + 1] = { row = row, a = chunk.a[row], b = chunk.b[row] }
    end
    made:screen(probes)
    local left = {}
    for _, h in ipairs(made.list) do left[key(h)] = h end
    made:add(chunk)
    return exactly, left, chunk
  end

  it("blame the target's logit where it alone differs", function()
    local other = plant.rows(logits, function(row, p) p[row + 1] = p[row + 1] + 1 end)
    local exactly, _, chunk = judged({ logits = logits, ids = ids }, { logits = other, ids = ids })
    assert.equal(N, exactly["target of A for B"])
    assert.equal(0, exactly["lse of B for B"])
    assert.same({ 0, 0, 0 }, { chunk.same[0], chunk.same[1], chunk.same[2] })
  end)

  it("blame the other logits where the target's is the same", function()
    local other = plant.rows(logits, function(_, p) p[40] = p[40] + 4 end)
    local exactly = judged({ logits = logits, ids = ids }, { logits = other, ids = ids })
    assert.equal(N, exactly["lse of B for B"])
    assert.equal(0, exactly["target of A for B"])
  end)

  it("tell absent ids at the end, which are padding, from others", function()
    local function without(low, high)
      return plant.rows(logits, function(_, p)
        for id = low, high do p[id] = -math.huge end
      end)
    end
    local exactly = judged({ logits = logits, ids = ids }, { logits = without(45, 49), ids = ids })
    assert.equal(N, exactly["tail of A for B"])
    assert.is_nil(exactly["absent of A for B"])
    exactly = judged({ logits = logits, ids = ids }, { logits = without(20, 24), ids = ids })
    assert.equal(N, exactly["absent of A for B"])
    assert.is_nil(exactly["tail of A for B"])
    exactly = judged({ logits = without(45, 49), ids = ids }, { logits = logits, ids = ids })
    assert.is_number(exactly["tail of B for A"])
    assert.is_nil(exactly["absent of B for A"])
  end)

  it("suppose a rounding only where a probed token agrees with it", function()
    local other = logits:to "bfloat16":to "float32"
    local exactly, left = judged({ logits = logits, ids = ids }, { logprobs = logprobs(other) })
    assert.equal(N, exactly["round of A for B"])
    assert.equal("bfloat16", left["round of A for B"].dtype)
    local far = plant.each(logprobs(logits), function(_, x) return x - 1 end)
    exactly, left = judged({ logits = logits, ids = ids }, { logprobs = far })
    assert.same({}, left)
    assert.same({}, exactly)
  end)

  it("apply the sets that were fitted", function()
    local falling = plant.rows(logits, function(row, p)
      for id = 0, V - 1 do p[id] = -id * (row + 1) / 16 end
    end)
    local cut = plant.rows(falling, function(_, p)
      for id = 7, V - 1 do p[id] = -math.huge end
    end)
    for k, predicted in pairs { [7] = N, [8] = 0 } do
      local exactly, left = judged({ logits = falling, ids = ids }, { logprobs = logprobs(cut) },
                                   { AB = { sets = { { k = k } } } })
      assert.equal(predicted, exactly["set of A for B"])
      assert.equal("top_k", left["set of A for B"].cause)
    end
  end)
end)
