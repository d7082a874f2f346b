-- Empty inputs: no sequences, no positions, no active positions, no ids in a shard. Every call
-- succeeds, writes exactly the values for an empty input, and still checks its arguments.

local ffi = require "ffi"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local hex = require "spec.support.hex"
local refusal = require "spec.support.refusal"
local shards = require "spec.support.shards"

local misuse, says = refusal.misuse, refusal.says

local V = 40
local OUTPUTS = { "token", "lse", "sequence", "count", "outside", "entropy", "saved" }
local SPLITS = { 0, 1, 7, 65536 }

-- Batches without an active row: a description of each, its shape in front of V, and the rest.
local NOTHING = {
  { "no sequences", { 0, 3 } },
  { "no positions", { 3, 0 } },
  { "neither", { 0, 0 } },
  { "one sequence of nothing", { 0 } },
  { "packed, of empty sequences", { 0 }, { cu_seqlens = { 0, 0, 0 } } },
  { "packed, of no sequences", { 0 }, { cu_seqlens = { 0 } } },
  { "rows that are masked", { 2, 2 }, { mask = { { 0, 0 }, { 0, 0 } } } },
  { "an empty row list", { 2, 2 }, { rows = {} } },
  { "rows whose ids are ignored", { 2, 2 }, { ignore_index = 0 } },
  { "first positions, shifted", { 2, 1 }, { shift = 1 } },
}

local function with(shape, last)
  local out = {}
  for i = 1, #shape do out[i] = shape[i] end
  out[#out + 1] = last
  return out
end

local function described(case)
  local spec = { logits = samebits.zeros(with(case[2], V)), ids = samebits.zeros(case[2], "int32") }
  for key, value in pairs(case[3] or {}) do spec[key] = value end
  if type(spec.rows) == "table" then spec.rows = samebits.zeros({ 0 }, "int64") end
  return spec
end

-- Asserts that all bytes of a tensor are alike.
local function assert_bytes(byte, t, what)
  t = assert(t:to "cpu")
  local want = string.char(byte):rep(t:numel() * t.itemsize)
  assert.equal(want, ffi.string(t.ptr, #want), what)
end

local function assert_zero(t, what) assert_bytes(0, t, what) end

local function assert_ones(t, what)
  t = assert(t:to "cpu")
  for _, x in ipairs(hex.of(t)) do assert.equal("3f800000", x, what) end
end

backends.each(function(at)
  local ctx = at.context()
  local device = ctx.device

  local function there(t) return assert(t:to(device)) end

  -- Once for each kind of nothing, by each cut of the work: body(spec, shape, split).
  local function for_each(name, body)
    it(name, function()
      for _, case in ipairs(NOTHING) do
        for _, split in ipairs(SPLITS) do
          local ok, message = pcall(body, case, case[2], split)
          if not ok then
            error(("%s, split %d: %s"):format(case[1], split, tostring(message)), 0)
          end
        end
      end
    end)
  end

  local function batch_of(case, change)
    local spec = described(case)
    for key, value in pairs(change or {}) do spec[key] = value end
    return at.batch(spec)
  end

  local function shard_of(case, first, past)
    return at.batch(shards.shard(described(case), first, past))
  end

  describe("nothing, on " .. at.name .. ",", function()
    for_each("has no logprobs, entropy or gradients", function(case, shape, split)
      local batch = batch_of(case)
      local out = assert(ctx:logprob(batch, { outputs = OUTPUTS, split = split }))
      for _, key in ipairs(OUTPUTS) do assert_zero(out[key], key) end
      for _, losses in ipairs { { "token" }, { "entropy" }, { "token", "entropy" } } do
        local given = { saved = out.saved }
        for _, loss in ipairs(losses) do given[loss] = there(samebits.zeros(shape)) end
        local grad = assert(ctx:backward(batch, given, { split = split }))
        assert.same(with(shape, V), grad.shape)
        assert_zero(grad, "grad")
      end
      assert(ctx:workspace_size(batch, { split = split }))
    end)

    for_each("has no ids, given or first", function(case, shape, split)
      local several = { ids = samebits.zeros(with(shape, 2), "int32") }
      local out = assert(ctx:logprob_ids(batch_of(case, several), { split = split }))
      assert_zero(out.logprob, "logprob")
      assert_bytes(0xff, out.rank, "rank")
      out = assert(ctx:topk(batch_of(case), 3, { split = split }))
      assert_zero(out.logprob, "logprob")
      assert_bytes(0xff, out.ids, "ids")
      assert_zero(out.lse, "lse")
      assert(ctx:order_workspace_size(batch_of(case), { split = split }))
    end)

    for_each("diverges from nothing, and sums up to it", function(case, shape, split)
      local p, q = batch_of(case), batch_of(case)
      local out = assert(ctx:kl(p, q, { split = split }))
      assert_zero(out.token, "token")
      assert_zero(out.sequence, "sequence")
      assert(ctx:kl_workspace_size(p, q, { split = split }))
      local none = there(samebits.zeros(shape))
      assert.same(shape, assert(ctx:compare(none, none)).ratio.shape)
      out = assert(ctx:sums(none, { cu_seqlens = case[3] and case[3].cu_seqlens }))
      assert_zero(out.sum, "sum")
      assert_zero(out.mean, "mean")
      assert_ones(out.exp_mean, "exp_mean")
    end)

    for_each("has empty records, of all ids, of some and of none", function(case, _, split)
      for _, entropy in ipairs { false, true } do
        local opts, list = { entropy = entropy, split = split }, {}
        for _, cut in ipairs { { 0, V }, { 0, 16 }, { 16, V }, { 0, 0 }, { 16, 16 }, { V, V } } do
          local batch = shard_of(case, cut[1], cut[2])
          local records = assert(ctx:partial(batch, opts))
          for key, t in pairs(records) do assert_zero(t, key) end
          list[#list + 1] = records
          assert(ctx:shard_workspace_size(batch, { split = split }))
        end
        local merged = assert(ctx:merge(list))
        for key, t in pairs(merged) do assert_zero(t, key) end
        local out = assert(ctx:finish(merged, shard_of(case, 0, 0), { split = split }))
        for key, t in pairs(out) do assert_zero(t, key) end
      end
    end)
  end)

  describe("gradients of a shard without ids, on " .. at.name, function()
    local spec, saved, token, entropy
    setup(function()
      spec = { logits = hex.tensor(hex.values(3 * V, 4), { 3, V }), ids = { 20, -100, 39 } }
      saved = assert(ctx:logprob(at.batch(spec), { outputs = { "saved", "entropy" } })).saved
      token = there(samebits.tensor({ 1, -2, 0.5 }, { dtype = "float32" }))
      entropy = there(samebits.tensor({ 0.5, 1, 2 }, { dtype = "float32" }))
    end)

    local function backward(first, opts, change)
      local shard = shards.shard(spec, first, first)
      for key, value in pairs(change or {}) do shard[key] = value end
      return ctx:backward(at.batch(shard), { saved = saved, token = token, entropy = entropy },
                          opts)
    end

    it("write nothing, wherever it begins", function()
      for _, first in ipairs { 0, 7, 16, V } do
        for _, split in ipairs(SPLITS) do
          for _, dtype in ipairs { "float32", "float16", "bfloat16" } do
            assert.same({ 3, 0 }, assert(backward(first, { split = split, dtype = dtype })).shape)
          end
        end
      end
    end)

    it("write nothing of a single row, whose strides do not tell that it is empty", function()
      local one = { logits = spec.logits:slice(0, 0, 1), ids = { 20 } }
      for _, first in ipairs { 0, V } do
        local batch = at.batch(shards.shard(one, first, first))
        local given = { saved = saved:slice(0, 0, 1), token = token:slice(0, 0, 1) }
        assert.same({ 1, 0 }, assert(ctx:backward(batch, given)).shape)
      end
    end)

    it("are zeros where grad's rows are wider", function()
      for _, first in ipairs { 0, 16, V } do
        for _, split in ipairs(SPLITS) do
          local wide = there(samebits.tensor({ { 1, 2, 3, 4 }, { 5, 6, 7, 8 }, { 9, 10, 11, 12 } },
                                             { dtype = "float32" }))
          assert(backward(first, { grad = wide:slice(1, 0, 3), split = split }))
          assert.same({ { 0, 0, 0, 4 }, { 0, 0, 0, 8 }, { 0, 0, 0, 12 } },
                      assert(wide:to "cpu"):totable())
        end
      end
    end)

    it("still check ids, temperatures and saved rows", function()
      for _, grad in ipairs { false, there(samebits.zeros { 3, 5 }) } do
        local opts = { grad = grad or nil }
        for _, first in ipairs { 0, 16, V } do
          local function words(change)
            return misuse(function() backward(first, opts, change) end)
          end
          says(words { ids = { 20, 3, V } }, "row 2", "id 40 is outside [0, 40)")
          says(words { temperature = { 1, 1, 1e9 } }, "row 2", "temperature 1e+09")
          says(words { ids = { 20, 3, 39 } }, "row 1", "no active row leaves such a saved record")
          says(words { temperature = 2 }, "row 0", "another temperature")
        end
      end
    end)
  end)
end)
