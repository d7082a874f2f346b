-- sb_sample, called as C calls it: the rules of samebits.h for its arguments; a call that fails
-- writes nothing.

local ffi = require "ffi"
local samebits = require "samebits"
local c_calls = require "spec.support.c_calls"
local refusal = require "spec.support.refusal"
local sampling = require "spec.support.sampling"
local C = require("samebits.lib").C

local untouched = c_calls.untouched
local misuse, says = refusal.misuse, refusal.says
local R, V = sampling.ROWS, sampling.VOCAB
local OUTPUTS = { "token", "logprob", "kept_logprob", "count", "kept" }

local ctx = assert(c_calls.open())
local function last_error() return c_calls.last_error(ctx) end

local function arrays()
  local a = sampling.arrays(OUTPUTS)
  a.top_ks = ffi.new("int32_t[?]", R, { 1, 0, 5 })
  a.top_ps = ffi.new("float[?]", R, { 1, 0.5, 0.25 })
  a.min_ps = ffi.new("float[?]", R, { 0, 1, 0.5 })
  a.us = ffi.new("double[?]", R, { 0, 0.5, 0.75 })
  return a
end

local function call(a) return C.sb_sample(ctx, a.out, a.batch, a.how, nil) end

local function refused(status, words, change)
  local a = arrays()
  change(a)
  c_calls.fails(ctx, status, words, call(a))
  for _, name in ipairs(OUTPUTS) do assert.is_true(untouched(a[name]), name) end
end

describe("sb_sample", function()
  it("refuses structs of another size, and null pointers", function()
    refused("SB_ERR_ARGUMENT", "SB_SAMPLE_OUT_INIT", function(a) a.out.size = 8 end)
    refused("SB_ERR_ARGUMENT", "SB_SAMPLING_INIT", function(a) a.how.size = 8 end)
    refused("SB_ERR_ARGUMENT", "sb_batch.size is 4", function(a) a.batch.size = 4 end)
    refused("SB_ERR_ARGUMENT", "logits is null", function(a) a.batch.logits = nil end)
    refused("SB_ERR_TEMPERATURE", "temperature 0 ", function(a) a.batch.temperature = 0 end)
    local a = arrays()
    assert.equal(1, tonumber(C.sb_sample(nil, a.out, a.batch, a.how, nil)))
    assert.equal(1, tonumber(C.sb_sample(ctx, nil, a.batch, a.how, nil)))
    assert.equal("out is null", last_error())
    assert.equal(1, tonumber(C.sb_sample(ctx, a.out, nil, a.how, nil)))
    assert.equal("batch is null", last_error())
    assert.equal(1, tonumber(C.sb_sample(ctx, a.out, a.batch, nil, nil)))
    assert.equal("how is null", last_error())
  end)

  it("refuses values out of range, for all rows or with the row", function()
    local nan = 0 / 0
    for _, case in ipairs {
      { "top_k", "top_ks", { -1, -2 ^ 31 } },
      { "top_p", "top_ps", { 0, -0.5, 1.5, nan, math.huge } },
      { "min_p", "min_ps", { -2 ^ -149, 1.5, nan, -math.huge } },
    } do
      local name, array = case[1], case[2]
      for _, value in ipairs(case[3]) do
        refused("SB_ERR_ARGUMENT", name .. " is ", function(a) a.how[name] = value end)
        refused("SB_ERR_ARGUMENT", "row 1: " .. name .. " is ", function(a)
          a[array][1], a[array][2], a.how[array] = value, value, a[array]
        end)
      end
    end
    for _, value in ipairs { 1, -2 ^ -60, nan, math.huge } do
      refused("SB_ERR_ARGUMENT", "row 2: u is ", function(a) a.us[2], a.how.u = value, a.us end)
    end
  end)

  it("does not look at the values of ignored rows", function()
    local a = arrays()
    a.us[1], a.how.u, a.mask[1] = 7, a.us, 0
    a.top_ps[1], a.how.top_ps = -1, a.top_ps
    assert.equal(0, tonumber(call(a)), last_error())
    assert.equal(-1, a.token[1])
    assert.equal(0, ffi.cast("int32_t *", a.logprob)[1])
    assert.equal(0, a.count[1])
  end)

  it("refuses several rows with the same random bits, unless they are greedy", function()
    refused("SB_ERR_ARGUMENT", "all 3 rows would draw with the same random bits",
            function(a) a.how.positions = nil end)
    refused("SB_ERR_ARGUMENT", "u and bits are given",
            function(a) a.how.u, a.how.bits = a.us, a.numbers end)
    local a = arrays()
    a.how.positions, a.how.top_k = nil, 1
    assert.equal(0, tonumber(call(a)), last_error())
    a.how.top_k, a.batch.time = 0, 1
    assert.equal(0, tonumber(call(a)), last_error())
  end)

  it("writes the outputs that are asked for, all of each", function()
    local all = arrays()
    all.how.top_ks, all.how.top_ps, all.how.min_ps = all.top_ks, all.top_ps, all.min_ps
    assert.equal(0, tonumber(call(all)), last_error())
    for _, name in ipairs(OUTPUTS) do
      assert.is_false(untouched(all[name]), name)
      local one = arrays()
      one.how = all.how
      for _, other in ipairs(OUTPUTS) do one.out[other] = other == name and one[name] or nil end
      assert.equal(0, tonumber(call(one)), last_error())
      local size = ffi.sizeof(all[name])
      assert.equal(ffi.string(all[name], size), ffi.string(one[name], size), name)
    end
    for row = 0, R - 1 do
      assert.truthy(all.token[row] >= 0 and all.token[row] < V)
      assert.equal(0, bit.rshift(all.kept[row * 2 + 1], V - 32)) -- bits past the vocabulary
    end
  end)
end)

describe("ctx:sample", function()
  local lua, logits
  sampling.with_context(function(...) lua, logits = ... end)

  it("takes one value for all rows, or a table or tensor of one per row", function()
    local position = samebits.tensor({ 5, 6, 7 }, { dtype = "int64" })
    local a = assert(lua:sample({ logits = logits }, { seed = 3, top_k = 9, position = position }))
    local b = assert(lua:sample({ logits = logits }, {
      seed = { 3, 3, 3 }, stream = 0ULL, top_k = { 9, 9, 9 }, position = { 5, 6, 7 } }))
    assert.same_bits(a.token, b.token)
    assert.same_bits(a.kept_logprob, b.kept_logprob)
    local other = assert(lua:sample({ logits = logits }, { u = { 0.1, 0.5, 0.9 } }))
    local bits = { math.floor(0.1 * 2 ^ 53) * 2048LL, 2LL ^ 63, -1LL - 2LL ^ 60 }
    bits[2] = ffi.cast("int64_t", 0x8000000000000000ULL)
    local same = assert(lua:sample({ logits = logits:slice(0, 0, 2) },
                                   { bits = { bits[1], bits[2] } }))
    assert.equal(other.token[0], same.token[0])
    assert.equal(other.token[1], same.token[1])
  end)

  it("refuses what is none of these", function()
    local function fails(how, ...)
      says(misuse(function() lua:sample({ logits = logits }, how) end), ...)
    end
    fails({ position = { 1, 2 } }, "position", "[2]")
    fails({ position = -1 }, "position", "0 to 2^53")
    fails({ position = 0.5 }, "position", "0 to 2^53")
    fails({ position = "1" }, "position", "0 to 2^53")
    fails({ u = 0.5 }, "u", "expected a float64 tensor")
    fails({ top_k = 1.5 }, "top_k", "1.5")
    fails({ top_p = "a" }, "top_p", "a number")
    fails({ topp = 1 }, "unknown option 'topp'")
    fails({ top_p = 2, position = { 1, 2, 3 } }, "top_p is 2, outside (0, 1]")
    fails({ position = samebits.tensor({ 1, 2, 3 }, { dtype = "int32" }) }, "position", "int64")
  end)
end)
