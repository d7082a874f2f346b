-- sb_policy_loss, sb_policy_merge and sb_group_advantages, called as C calls them: the rules of
-- samebits.h for their arguments; a call that fails writes nothing.

local ffi = require "ffi"
local c_calls = require "spec.support.c_calls"
local C = require("samebits.lib").C

local filled, sized = c_calls.filled, c_calls.sized
local N, B = 6, 2
local NAN = 0 / 0

local ctx = assert(c_calls.open())
local function last_error() return c_calls.last_error(ctx) end

-- Correct calls.
local function arrays()
  local a = {
    x = ffi.new("float[?]", N, { -1, -2, -3, -4, -5, -6 }),
    y = ffi.new("float[?]", N, { -1, -2.5, -3, -4, -4, -6 }),
    advantages = ffi.new("float[?]", B, { 1, -1 }),
    mask = ffi.new("uint8_t[?]", N, { 1, 1, 0, 1, 1, 0 }),
    ends = ffi.new("int64_t[?]", 3, { 0, 2, N }),
    out = sized "sb_policy_out", policy = sized "sb_policy", launch = sized "sb_launch",
    groups = sized "sb_groups", groups_out = sized "sb_groups_out",
    records = ffi.new "sb_policy_record[2]", group = ffi.new "sb_group_record[1]", count = 2,
    made = { loss = filled("float", 1), sequence = filled("float", B), token = filled("float", N),
             entropy = filled("float", N), record = filled("sb_policy_record", 1),
             metrics = filled("sb_policy_metrics", 1), advantages = filled("float", N),
             records = filled("sb_group_record", B), mean = filled("double", B),
             std = filled("double", B) },
  }
  for _, name in ipairs { "loss", "sequence", "token", "entropy", "record", "metrics" } do
    a.out[name] = a.made[name]
  end
  for _, name in ipairs { "advantages", "records", "mean", "std" } do
    a.groups_out[name] = a.made[name]
  end
  local p = a.policy
  p.now, p.old, p.advantages, p.mask, p.batch, p.time = a.x, a.y, a.advantages, a.mask, B, 3
  p.ref, p.entropy, p.rollout = a.y, a.y, a.y
  p.cu_seqlens_dtype, p.loss, p.norm, p.kl = C.SB_I64, C.SB_CLIP, C.SB_TOKEN_MEAN, C.SB_K3
  p.eps_low, p.eps_high, p.upstream = 0.2, 0.2, 1
  local g = a.groups
  g.rewards, g.groups, g.each, g.scale, g.eps = a.x, B, 3, C.SB_GROUP_STD, 1e-4
  g.offsets_dtype, g.shards = C.SB_I64, 1
  for i = 0, 1 do
    a.records[i].parts, a.records[i].counts[0], a.records[i].counts[1] = 255, 4, 1
  end
  return a
end

local function loss(a) return tonumber(C.sb_policy_loss(ctx, a.out, a.policy, a.launch)) end

local function merge(a)
  a.out.sequence, a.out.token, a.out.entropy = a.also, nil, nil
  return tonumber(C.sb_policy_merge(ctx, a.out, a.policy, a.records, a.count, a.launch))
end

local function groups(a)
  return tonumber(C.sb_group_advantages(ctx, a.groups_out, a.groups, a.launch))
end

local function untouched(a)
  for name, array in pairs(a.made) do assert.is_true(c_calls.untouched(array), name) end
end

local function refused(call, status, words, change)
  local a = arrays()
  change(a)
  c_calls.fails(ctx, status, words, call(a))
  untouched(a)
  assert.equal(0, call(arrays()), last_error())
  assert.equal("", last_error())
end

-- A case for each value of a field of sb_policy that is refused.
local cases = {
  { loss, "SB_ERR_ARGUMENT", "sb_policy_out.size is 3", function(a) a.out.size = 3 end },
  { loss, "SB_ERR_ARGUMENT", "sb_policy_out is null", function(a) a.out = nil end },
  { loss, "SB_ERR_ARGUMENT", "sb_policy.size is 3", function(a) a.policy.size = 3 end },
  { loss, "SB_ERR_ARGUMENT", "sb_policy is null", function(a) a.policy = nil end },
  { loss, "SB_ERR_ARGUMENT", "sb_launch.size is 0", function(a) a.launch.size = 0 end },
  { loss, "SB_ERR_ARGUMENT", "beta is 1", function(a) a.policy.beta, a.policy.ref = 1, nil end },
  { loss, "SB_ERR_ARGUMENT", "eta is 1", function(a) a.policy.eta, a.policy.entropy = 1, nil end },
  { loss, "SB_ERR_ARGUMENT", "rollout is null", function(a)
    a.policy.weight, a.policy.w_high, a.policy.rollout = C.SB_TRUNCATE, 1, nil
  end },
  { loss, "SB_ERR_ARGUMENT", "w_low is 3", function(a)
    a.policy.weight, a.policy.w_low, a.policy.w_high = C.SB_DROP, 3, 2
  end },
  { loss, "SB_ERR_ARGUMENT", "w_high is 0", function(a) a.policy.weight = C.SB_DROP end },
  { loss, "SB_ERR_ARGUMENT", "level is 3", function(a)
    a.policy.weight, a.policy.w_high, a.policy.level = C.SB_DROP, 1, 3
  end },
  { loss, "SB_ERR_ARGUMENT", "constant is 0", function(a) a.policy.norm = C.SB_CONSTANT end },
  { loss, "SB_ERR_ARGUMENT", "dual is 1.1", function(a) a.policy.dual = 1.1 end },
  { loss, "SB_ERR_SHAPE", "time is -1", function(a) a.policy.time = -1 end },
  { loss, "SB_ERR_SHAPE", "batch is -1", function(a) a.policy.batch = -1 end },
  { loss, "SB_ERR_SHAPE", "batch times time is", function(a)
    a.policy.batch, a.policy.time = 2 ^ 10, 2 ^ 21
  end },
  { loss, "SB_ERR_SHAPE", "rows is -1", function(a)
    a.policy.cu_seqlens, a.policy.rows = a.ends, -1
  end },
  { loss, "SB_ERR_DTYPE", "cu_seqlens_dtype is 1", function(a)
    a.policy.cu_seqlens, a.policy.rows, a.policy.cu_seqlens_dtype = a.ends, N, C.SB_F32
  end },
  { loss, "SB_ERR_SHAPE", "cu_seqlens[2] is 6, not the number of rows 7", function(a)
    a.policy.cu_seqlens, a.policy.rows = a.ends, 7
  end },
  { loss, "SB_ERR_SHAPE", "tokens is 3, and 4 tokens are active",
    function(a) a.policy.tokens = 3 end },
  { loss, "SB_ERR_SHAPE", "sequences is 1, and 2 sequences have active tokens",
    function(a) a.policy.sequences = 1 end },
  { loss, "SB_ERR_SHAPE", "tokens is -1", function(a) a.policy.tokens = -1 end },
  { loss, "SB_ERR_ARGUMENT", "now is null", function(a) a.policy.now = nil end },
  { loss, "SB_ERR_ARGUMENT", "advantages is null", function(a) a.policy.advantages = nil end },
  { merge, "SB_ERR_ARGUMENT", "records is null", function(a) a.records = nil end },
  { merge, "SB_ERR_SHAPE", "count is 0", function(a) a.count = 0 end },
  { merge, "SB_ERR_ARGUMENT", "norm is 9", function(a) a.policy.norm = 9 end },
  { merge, "SB_ERR_ARGUMENT", "sequence is given", function(a) a.also = a.made.sequence end },
  { merge, "SB_ERR_STATE", "record 1: no call gives it",
    function(a) a.records[1].sums[3].seen = 8 end },
  { merge, "SB_ERR_STATE", "record 1: no call gives it",
    function(a) a.records[1].counts[7] = 5 end },
  { merge, "SB_ERR_STATE", "record 0: no call gives it", function(a) a.records[0].parts = 2 end },
  { merge, "SB_ERR_STATE", "record 1: its first sum",
    function(a) a.records[1].adds_sequences = 1 end },
  { merge, "SB_ERR_STATE", "record 0: its first sum",
    function(a) a.policy.norm = C.SB_SEQUENCE_MEAN end },
  { merge, "SB_ERR_STATE", "record 1: it has no metrics", function(a) a.records[1].parts = 1 end },
  { merge, "SB_ERR_STATE", "record 1: with it, there are more than 2^30",
    function(a) a.records[1].counts[0] = 2 ^ 30 end },
  { merge, "SB_ERR_SHAPE", "tokens is 7, and 8 tokens", function(a) a.policy.tokens = 7 end },
  { groups, "SB_ERR_ARGUMENT", "sb_groups.size is 3", function(a) a.groups.size = 3 end },
  { groups, "SB_ERR_ARGUMENT", "sb_groups_out is null", function(a) a.groups_out = nil end },
  { groups, "SB_ERR_ARGUMENT", "rewards is null", function(a) a.groups.rewards = nil end },
  { groups, "SB_ERR_ARGUMENT", "eps is -1", function(a) a.groups.eps = -1 end },
  { groups, "SB_ERR_ARGUMENT", "eps is", function(a) a.groups.eps = NAN end },
  { groups, "SB_ERR_ARGUMENT", "scale is 3", function(a) a.groups.scale = 3 end },
  { groups, "SB_ERR_ARGUMENT", "population is 2", function(a) a.groups.population = 2 end },
  { groups, "SB_ERR_SHAPE", "groups is -1", function(a) a.groups.groups = -1 end },
  { groups, "SB_ERR_SHAPE", "each is 67108864", function(a) a.groups.each = 2 ^ 26 end },
  { groups, "SB_ERR_SHAPE", "shards is 0", function(a)
    a.groups.records, a.groups.shards = a.group, 0
  end },
  { groups, "SB_ERR_SHAPE", "offsets[1] is 7", function(a)
    a.groups.offsets, a.groups.rows, a.ends[1] = a.ends, N, 7
  end },
  { groups, "SB_ERR_SHAPE", "offsets[2] is 6, not the number of rewards 7", function(a)
    a.groups.offsets, a.groups.rows = a.ends, 7
  end },
  { groups, "SB_ERR_STATE", "group 0, shard 0", function(a)
    a.groups.groups, a.groups.records, a.group[0].seen = 1, a.group, 8
  end },
}
for field, values in pairs {
  loss = { 0, 5 }, norm = { 0, 5 }, kl = { 0, 6 }, weight = { -1, 3 }, per_token = { 2 },
  eps_low = { -0.1, 1.5, NAN }, eps_high = { -0.1, math.huge, NAN }, beta = { -1, math.huge, NAN },
  eta = { -1, math.huge, NAN }, upstream = { math.huge, NAN }, dual = { -1, 0.5, NAN },
} do
  for _, value in ipairs(values) do
    cases[#cases + 1] = { loss, "SB_ERR_ARGUMENT", field .. " is ",
                          function(a) a.policy[field] = value end }
  end
end

describe("the calls of samebits.h for policy losses", function()
  it("write the outputs asked for, and no others", function()
    local a = arrays()
    a.out.sequence, a.groups_out.std = nil, nil
    assert.equal(0, loss(a), last_error())
    assert.equal(0, groups(a), last_error())
    assert.equal(4, tonumber(a.made.record[0].counts[0]))
    assert.equal(0, a.made.token[2])
    assert.equal(-2, a.made.mean[0])
    untouched { made = { a.made.sequence, a.made.std } }
  end)

  it("merge in place, and take launch null", function()
    local a = arrays()
    assert.equal(0, loss(a), last_error())
    a.records[0], a.records[1] = a.made.record[0], a.made.record[0]
    a.out.record = a.records + 1
    a.launch = nil
    assert.equal(0, merge(a), last_error())
    assert.equal(8, tonumber(a.records[1].counts[0]))
  end)

  it("take arrays at any address", function()
    local a, b = arrays(), arrays()
    local bytes = ffi.new("uint8_t[?]", 4 * N + 1)
    ffi.copy(bytes + 1, a.x, 4 * N)
    a.policy.now = ffi.cast("float *", bytes + 1)
    a.groups.rewards = a.policy.now
    for _, call in ipairs { loss, groups } do
      assert.equal(0, call(a), last_error())
      assert.equal(0, call(b), last_error())
    end
    for name, array in pairs(a.made) do
      assert.equal(ffi.string(b.made[name], ffi.sizeof(array)),
                   ffi.string(array, ffi.sizeof(array)), name)
    end
  end)

  it("take nothing to do", function()
    local a = arrays()
    a.policy.batch, a.policy.now, a.policy.advantages = 0, nil, nil
    assert.equal(0, loss(a), last_error())
    assert.equal(0, a.made.loss[0])
    a.groups.groups, a.groups.rewards = 0, nil
    assert.equal(0, groups(a), last_error())
    a.groups.groups, a.groups.each = 2, 0
    assert.equal(0, groups(a), last_error())
    assert.equal(0, a.made.std[1])
  end)

  for _, case in ipairs(cases) do
    local call, status, words, change = unpack(case)
    it("refuse: " .. words, function() refused(call, status, words, change) end)
  end

  it("refuse a null context", function()
    local a = arrays()
    assert.equal(C.SB_ERR_ARGUMENT, C.sb_policy_loss(nil, a.out, a.policy, nil))
    assert.equal(C.SB_ERR_ARGUMENT, C.sb_policy_merge(nil, a.out, a.policy, a.records, 1, nil))
    assert.equal(C.SB_ERR_ARGUMENT, C.sb_group_advantages(nil, a.groups_out, a.groups, nil))
    untouched(a)
  end)
end)
