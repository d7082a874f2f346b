-- sb_partial, sb_merge and sb_finish, called as C calls them: the rules of samebits.h for their
-- arguments; a call that fails writes nothing.

local ffi = require "ffi"
local samebits = require "samebits"
local c_calls = require "spec.support.c_calls"
local hex = require "spec.support.hex"
local C = require("samebits.lib").C

local filled, sized, untouched = c_calls.filled, c_calls.sized, c_calls.untouched
local name_of = c_calls.name_of
local R, V, N = 3, 70, 32 -- rows, ids, and the ids of the first shard

local ctx = assert(c_calls.open())
local function last_error() return c_calls.last_error(ctx) end

-- The library's struct of records; states and targets may be nil.
local function records(kind, states, targets)
  return ffi.new("sb_records", ffi.sizeof "sb_records", kind, states, targets)
end

local function sums(states, targets) return records(C.SB_SUMS, states, targets) end
local function moments(states, targets) return records(C.SB_MOMENTS, states, targets) end

local function bytes_of(array, n) return ffi.string(array, n or ffi.sizeof(array)) end

-- The records of a, or of its first shard.
local function own(a) return sums(a.states, a.targets) end

-- Correct calls. Records are [2][R]: two shards, as an all-gather leaves them.
local function arrays()
  local values = hex.tensor(hex.values(R * V, 4), { R, V })
  local a = {
    values = values, ids = ffi.new("int32_t[?]", R, { 3, 31, 69 }), launch = sized "sb_launch",
    batch = sized "sb_batch", out = sized "sb_logprob_out",
    states = filled("sb_state_record", 2 * R), targets = filled("sb_target_record", 2 * R),
    token = filled("float", R), lse = filled("float", R), sequence = filled("float", 1),
    count = filled("int64_t", 1),
  }
  for _, name in ipairs { "token", "lse", "sequence", "count" } do a.out[name] = a[name] end
  local b = a.batch
  b.logits_dtype, b.ids_dtype, b.logits, b.ids = C.SB_F32, C.SB_I32, values.ptr, a.ids
  b.batch, b.time, b.vocab, b.row_stride, b.temperature, b.ignore_index = 1, R, V, V, 1, -100
  return a
end

local function partial(a, first, n, at)
  a.batch.logits = a.values.ptr + first * 4
  return C.sb_partial(ctx, sums(a.states + at, a.targets + at), a.batch, first, n, a.launch)
end

local function both(a)
  assert.equal(0, tonumber(partial(a, 0, N, 0)), last_error())
  assert.equal(0, tonumber(partial(a, N, V - N, R)), last_error())
  return a
end

local function merge(a)
  return C.sb_merge(ctx, own(a), own(a), 2, R, a.launch)
end

local function finish(a)
  return C.sb_finish(ctx, a.out, a.batch, own(a), a.launch)
end

local function refused(...) c_calls.fails(ctx, ...) end

describe("the calls of samebits.h for shards", function()
  local whole = arrays()
  whole.batch.logits = whole.values.ptr
  assert(C.sb_logprob(ctx, whole.out, whole.batch, nil) == 0)

  local function assert_whole(a)
    for _, name in ipairs { "token", "lse", "sequence", "count" } do
      assert.equal(bytes_of(whole[name]), bytes_of(a[name]), name)
    end
  end

  it("merge in place and give what sb_logprob gives", function()
    local a = both(arrays())
    assert.equal(0, tonumber(merge(a)), last_error())
    assert.equal(0, tonumber(finish(a)), last_error())
    assert.equal("", last_error())
    assert_whole(a)
  end)

  it("take records at any address, and launch null", function()
    local a = both(arrays())
    local moved, merged = ffi.new("uint8_t[?]", 40 * 2 * R + 1), ffi.new("uint8_t[?]", 40 * R + 3)
    ffi.copy(moved + 1, a.states, 32 * 2 * R)
    ffi.copy(moved + 1 + 32 * 2 * R, a.targets, 8 * 2 * R)
    local function at(p, count)
      return sums(p, ffi.cast("sb_target_record *", p + 32 * count))
    end
    assert.equal(0, tonumber(C.sb_merge(ctx, at(merged + 3, R), at(moved + 1, 2 * R), 2, R, nil)),
                 last_error())
    assert.equal(0, tonumber(C.sb_finish(ctx, a.out, a.batch, at(merged + 3, R), nil)),
                 last_error())
    assert_whole(a)
    local c = arrays()
    c.batch.logits = c.values.ptr
    assert.equal(0, tonumber(C.sb_partial(ctx, at(merged + 1, R), c.batch, 0, V, nil)),
                 last_error())
    assert.equal(0, tonumber(merge(a)), last_error())
    assert.equal(bytes_of(a.states, 32 * R), bytes_of(merged + 1, 32 * R))
    assert.equal(bytes_of(a.targets, 8 * R), bytes_of(merged + 1 + 32 * R, 8 * R))
  end)

  it("resolve strides of 0 to the shard's", function()
    local a = arrays()
    local shard = samebits.zeros { R, N }
    shard:copy_(a.values:slice(1, 0, N))
    both(a)
    local b = arrays()
    b.batch.logits, b.batch.row_stride = shard.ptr, 0
    assert.equal(0, tonumber(C.sb_partial(ctx, own(b), b.batch, 0, N, nil)))
    assert.equal(bytes_of(a.states, 32 * R), bytes_of(b.states, 32 * R))
  end)

  it("take an empty shard of no logits, and finish looks at none", function()
    local a = both(arrays())
    local b = arrays()
    b.batch.logits, b.batch.row_stride, b.batch.batch_stride = nil, -5, -5
    for _, first in ipairs { 0, 7, V } do
      assert.equal(0, tonumber(C.sb_partial(ctx, own(b), b.batch, first, 0, nil)),
                   last_error())
      for row = 0, R - 1 do
        assert.equal(0, b.states[row].J)
        assert.equal(0x3fb8aa3b, b.states[row].c)
        assert.equal(0, b.targets[row].owners)
      end
    end
    merge(a)
    assert.equal(0, tonumber(C.sb_finish(ctx, a.out, b.batch, own(a), nil)),
                 last_error())
    assert_whole(a)
  end)

  it("need no memory for no rows", function()
    local a = arrays()
    a.batch.time = 0
    assert.equal(0, tonumber(C.sb_partial(ctx, sums(nil, nil), a.batch, 0, N, nil)), last_error())
    assert.equal(0, tonumber(C.sb_merge(ctx, sums(nil, nil), sums(nil, nil), 3, 0, nil)),
                 last_error())
    a.out.token, a.out.lse = nil, nil
    assert.equal(0, tonumber(C.sb_finish(ctx, a.out, a.batch, sums(nil, nil), nil)), last_error())
    assert.equal(0, tonumber(a.count[0]))
    assert.equal(0, a.sequence[0])
  end)

  it("refuse null pointers and structs of the wrong size", function()
    local a = both(arrays())
    local ARGUMENT = "SB_ERR_ARGUMENT"
    assert.equal(ARGUMENT, name_of(C.sb_partial(nil, own(a), a.batch, 0, N, nil)))
    assert.equal(ARGUMENT, name_of(C.sb_merge(nil, own(a), own(a), 2, R, nil)))
    assert.equal(ARGUMENT, name_of(C.sb_finish(nil, a.out, a.batch, own(a), nil)))
    refused(ARGUMENT, "states is null", C.sb_partial(ctx, sums(nil, a.targets), a.batch, 0, N, nil))
    refused(ARGUMENT, "targets is null", C.sb_partial(ctx, sums(a.states, nil), a.batch, 0, N, nil))
    refused(ARGUMENT, "batch is null", C.sb_partial(ctx, own(a), nil, 0, N, nil))
    refused(ARGUMENT, "states is null", C.sb_finish(ctx, a.out, a.batch, sums(nil, a.targets), nil))
    refused(ARGUMENT, "out is null", C.sb_finish(ctx, nil, a.batch, own(a), nil))
    refused(ARGUMENT, "batch is null", C.sb_finish(ctx, a.out, nil, own(a), nil))
    refused(ARGUMENT, "states is null", C.sb_merge(ctx, sums(nil, a.targets), own(a), 2, R, nil))
    refused(ARGUMENT, "from.states is null",
            C.sb_merge(ctx, own(a), sums(nil, a.targets), 2, R, nil))
    refused(ARGUMENT, "from.targets is null",
            C.sb_merge(ctx, own(a), sums(a.states, nil), 2, R, nil))
    refused(ARGUMENT, "sb_records is null", C.sb_partial(ctx, nil, a.batch, 0, N, nil))
    refused(ARGUMENT, "sb_records is null", C.sb_merge(ctx, own(a), nil, 2, R, nil))
    refused(ARGUMENT, "sb_records is null", C.sb_finish(ctx, a.out, a.batch, nil, nil))
    local odd = own(a)
    odd.kind = 3
    refused(ARGUMENT, "kind is 3, not SB_SUMS", C.sb_partial(ctx, odd, a.batch, 0, N, nil))
    refused(ARGUMENT, "from.kind is 3, not SB_SUMS", C.sb_merge(ctx, own(a), odd, 2, R, nil))
    odd.kind = C.SB_MOMENTS
    refused(ARGUMENT, "from.kind is 2, kind is 1", C.sb_merge(ctx, own(a), odd, 2, R, nil))
    odd.size = 4
    refused(ARGUMENT, "sb_records.size is 4", C.sb_finish(ctx, a.out, a.batch, odd, nil))
    a.batch.logits = nil
    refused(ARGUMENT, "logits is null", C.sb_partial(ctx, own(a), a.batch, 0, N, nil))
    a.launch.size = 4
    refused(ARGUMENT, "sb_launch.size is 4", merge(a))
    refused(ARGUMENT, "sb_launch.size is 4", finish(a))
    a.launch.size, a.out.size = ffi.sizeof "sb_launch", 7
    refused(ARGUMENT, "sb_logprob_out.size is 7", finish(a))
  end)

  it("with moments refuse the same, and are 64 bytes", function()
    local a, ARGUMENT = arrays(), "SB_ERR_ARGUMENT"
    local m, t = filled("sb_moment_record", R), filled("sb_target_record", R)
    assert.equal(64, ffi.sizeof "sb_moment_record")
    assert.same({ 32, 56 }, { ffi.offsetof("sb_moment_record", "g"),
                              ffi.offsetof("sb_moment_record", "best") })
    assert.equal(ARGUMENT, name_of(C.sb_partial(nil, moments(m, t), a.batch, 0, V, nil)))
    assert.equal(ARGUMENT, name_of(C.sb_merge(nil, moments(m, t), moments(m, t), 1, R, nil)))
    assert.equal(ARGUMENT, name_of(C.sb_finish(nil, a.out, a.batch, moments(m, t), nil)))
    refused(ARGUMENT, "states is null", C.sb_partial(ctx, moments(nil, t), a.batch, 0, V, nil))
    refused(ARGUMENT, "targets is null", C.sb_partial(ctx, moments(m, nil), a.batch, 0, V, nil))
    a.ids[1] = V
    refused("SB_ERR_ID", "row 1", C.sb_partial(ctx, moments(m, t), a.batch, 0, V, nil))
    assert.is_true(untouched(m) and untouched(t))
    a.ids[1] = 31
    assert.equal(0, tonumber(C.sb_partial(ctx, moments(m, t), a.batch, 0, V, nil)))
    refused(ARGUMENT, "from.states is null",
            C.sb_merge(ctx, moments(m, t), moments(nil, t), 1, R, nil))
    refused("SB_ERR_SHAPE", "reach past",
            C.sb_merge(ctx, moments(m, t), moments(m, t), 2LL ^ 57, 4, nil))
    refused(ARGUMENT, "states is null", C.sb_finish(ctx, a.out, a.batch, moments(nil, t), nil))
    local before = bytes_of(m)
    m[2].reserved = 1
    local damaged = bytes_of(m)
    refused("SB_ERR_STATE", "row 2, shard 0: the moments (",
            C.sb_merge(ctx, moments(m, t), moments(m, t), 1, R, nil))
    refused("SB_ERR_STATE", "row 2: the moments (",
            C.sb_finish(ctx, a.out, a.batch, moments(m, t), nil))
    assert.equal(damaged, bytes_of(m))
    assert.is_true(untouched(a.token))
    m[2].reserved = 0
    assert.equal(0, tonumber(C.sb_merge(ctx, moments(m, t), moments(m, t), 1, R, nil)))
    assert.equal(before, bytes_of(m))
    assert.equal(0, tonumber(C.sb_finish(ctx, a.out, a.batch, moments(m, t), nil)))
  end)

  it("are not exchanged by the cpu", function()
    local a = arrays()
    local comm, id = ffi.new "void *[1]", ffi.new "sb_comm_id"
    assert.equal(128, ffi.sizeof "sb_comm_id")
    comm[0] = a.token
    for _, status in ipairs {
      C.sb_exchange(nil, own(a), R, comm[0], nil), C.sb_comm_new_id(nil, id),
      C.sb_exchange(nil, moments(nil, a.targets), R, comm[0], nil),
      C.sb_all_gather(nil, a.token, a.token, 4, comm[0], nil),
      C.sb_all_reduce(nil, a.token, C.SB_I32, R, C.SB_ADD, comm[0], nil),
      C.sb_comm_destroy(nil, comm[0]),
      C.sb_comm_create(nil, comm, id, 1, 0),
    } do
      assert.equal("SB_ERR_ARGUMENT", name_of(status))
    end
    assert.equal(nil, comm[0]) -- null on failure
    local function is_refused(status)
      refused("SB_ERR_BACKEND", "the cpu backend has no exchange of records", status)
    end
    is_refused(C.sb_exchange(ctx, own(a), R, a.token, nil))
    is_refused(C.sb_exchange(ctx, moments(nil, a.targets), R, a.token, nil))
    refused("SB_ERR_BACKEND", "the cpu backend has no all-gather",
            C.sb_all_gather(ctx, a.token, a.token, 4, a.token, nil))
    refused("SB_ERR_BACKEND", "the cpu backend has no all-reduce",
            C.sb_all_reduce(ctx, a.token, C.SB_I32, R, C.SB_ADD, a.token, nil))
    is_refused(C.sb_comm_new_id(ctx, id))
    is_refused(C.sb_comm_create(ctx, comm, id, 1, 0))
    is_refused(C.sb_comm_destroy(ctx, a.token))
    assert.is_true(untouched(a.states) and untouched(a.targets))
  end)

  it("refuse shapes", function()
    local a = both(arrays())
    local SHAPE, BIG = "SB_ERR_SHAPE", 2LL ^ 62
    refused(SHAPE, "shards is 0", C.sb_merge(ctx, own(a), own(a), 0, R, nil))
    refused(SHAPE, "rows is -1", C.sb_merge(ctx, own(a), own(a), 1, -1, nil))
    refused(SHAPE, "reach past", C.sb_merge(ctx, own(a), own(a), BIG, 4, nil))
    refused(SHAPE, "reach past", C.sb_merge(ctx, own(a), own(a), 1, BIG, nil))
    refused(SHAPE, "-16 ids from 0", partial(a, 0, -16, 0))
    for _, part in ipairs { { BIG, 16 }, { 0, 2LL ^ 63 - 1 }, { 16, 2LL ^ 63 - 1 } } do
      refused(SHAPE, "outside [0, 70)", C.sb_partial(ctx, own(a), a.batch, part[1], part[2], nil))
    end
    refused(SHAPE, "begins at id 1", partial(a, 1, 16, 0))
    refused(SHAPE, "holds 17 ids", partial(a, 0, 17, 0))
    a.batch.row_stride = N - 1
    refused(SHAPE, "row_stride 31 is less than the 32 logits of a row", partial(a, 0, N, 0))
  end)

  it("write nothing when they fail", function()
    local a = arrays()
    a.ids[2] = V
    refused("SB_ERR_ID", "row 2", partial(a, 0, N, 0))
    assert.is_true(untouched(a.states) and untouched(a.targets))

    a = both(arrays())
    a.states[R + 2].J = 5
    local states, targets = bytes_of(a.states), bytes_of(a.targets)
    refused("SB_ERR_STATE", "row 2, shard 1: no state has J = 5", merge(a))
    assert.equal(states, bytes_of(a.states))
    assert.equal(targets, bytes_of(a.targets))

    assert.equal(0, tonumber(merge(both(a))), last_error())
    a.targets[1].x = 0x42c80000 -- 100, where no logit is above 16
    refused("SB_ERR_STATE", "row 1: the target's logit (42c80000) is larger than any", finish(a))
    for _, name in ipairs { "token", "lse", "sequence", "count" } do
      assert.is_true(untouched(a[name]), name)
    end

    a.states[2].J = 5
    refused("SB_ERR_STATE", "row 0: id 3 lies in 0 of", (function()
      a.targets[0].owners, a.targets[0].x = 0, 0
      return finish(a)
    end)())
    for _, name in ipairs { "token", "lse", "sequence", "count" } do
      assert.is_true(untouched(a[name]), name)
    end
  end)

  it("say what workspace they need, and write nothing", function()
    local a, needed = arrays(), ffi.new("uint64_t[1]", 5)
    a.launch.needed = needed
    for _, asked in ipairs {
      function() return partial(a, 0, N, 0) end, function() return merge(a) end,
      function() return finish(a) end,
      function() return C.sb_logprob(ctx, a.out, a.batch, a.launch) end,
    } do
      needed[0] = 5
      assert.equal(0, tonumber(asked()), last_error())
      assert.equal(0, tonumber(needed[0])) -- on the cpu
    end
    assert.is_true(untouched(a.states) and untouched(a.targets) and untouched(a.token))
    a.batch.vocab, needed[0] = 0, 5
    refused("SB_ERR_SHAPE", "vocab is 0", finish(a))
    assert.equal(5, tonumber(needed[0]))
  end)

  it("name the first bad record by row, then by shard", function()
    local a = both(arrays())
    a.states[2].J, a.states[R + 1].J, a.states[1].J = 5, 6, 7
    refused("SB_ERR_STATE", "row 1, shard 0: no state has J = 7", merge(a))
    a.states[1].J = a.states[0].J
    refused("SB_ERR_STATE", "row 1, shard 1: no state has J = 6", merge(a))
  end)
end)
