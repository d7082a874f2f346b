-- Records exchanged between ranks. NCCL needs one GPU per rank, so these specs use the stand-in of
-- spec/fakes, between processes that share one GPU, or that have none and compute as
-- spec/parity/lanes does. NCCL itself runs with one rank, where there is a GPU.

local samebits = require "samebits"
local backends = require "spec.support.backends"
local children = require "spec.support.children"
local example = require "spec.exchange.example"
local nccl = require "spec.support.nccl"
local refusal = require "spec.support.refusal"
local shards = require "spec.support.shards"
local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

local misuse, says = refusal.misuse, refusal.says

describe("ranks that exchange records", function()
  local files, stand_in, missing, on_gpu
  local want = {} -- of records with moments, or without

  setup(function()
    files = temporary.folder()
    stand_in, missing, on_gpu = nccl.stand_in()
    if missing then return end

    local spec = example.spec()
    local ctx = assert(samebits.open "cpu")
    local cuts = example.cuts(3)
    for _, moments in ipairs { false, true } do
      local list = {}
      for s = 1, 3 do
        list[s] = assert(ctx:partial(shards.shard(spec, cuts[s], cuts[s + 1]),
                                     { entropy = moments }))
      end
      local out = assert(ctx:logprob(spec, { outputs = example.outputs(moments) }))
      want[moments] = example.text(assert(ctx:merge(list)), out)
    end
    ctx:close()
  end)
  teardown(function() files:remove() end)

  -- The output of each rank, for a number of ranks.
  local function said_by(ranks, play, environment)
    os.remove(files:path "id")
    local commands = {}
    for rank = 0, ranks - 1 do
      commands[rank + 1] = ("env %s %s luajit spec/exchange/rank.lua %d %d %s %s"):format(stand_in,
        environment or "", rank, ranks, shell.quote(files.name), play)
    end
    return children.together(commands, files)
  end

  local function all_have_the_bits(ranks, play, environment)
    for rank, said in ipairs(said_by(ranks, play, environment)) do
      assert.equal(want[play == "entropy"] .. "\n", said, "rank " .. rank - 1)
    end
  end

  -- All ranks refuse, with this message.
  local function all_refuse(words, ...)
    for rank, said in ipairs(said_by(...)) do
      local its = type(words) == "table" and words[rank] or words
      assert.is_truthy(said:find("refused: ", 1, true) and said:find(its, 1, true), said)
    end
  end

  for _, ranks in ipairs { 1, 2, 3, 5 } do
    it(("have the bits of whole rows: %d of them"):format(ranks), function()
      if missing then return pending(missing) end
      all_have_the_bits(ranks, "check")
    end)
  end

  it("have them without waiting, in a stream and a workspace of their own", function()
    if missing then return pending(missing) end
    all_have_the_bits(3, "stream")
  end)

  it("have entropy's, too, of records with moments", function()
    if missing then return pending(missing) end
    all_have_the_bits(3, "entropy")
  end)

  it("have them with a communicator that does not block", function()
    if missing then return pending(missing) end
    all_have_the_bits(2, "check", "STANDIN=slow")
  end)

  it("refuse, all of them, a rank of another number of rows, before records move", function()
    if missing then return pending(missing) end
    all_refuse({ "rank 1 has 4 rows of 40 bytes, this one, rank 0, 5 of 40",
                 "rank 0 has 5 rows of 40 bytes, this one, rank 1, 4 of 40",
                 "rank 1 has 4 rows of 40 bytes, this one, rank 2, 5 of 40" }, 3, "rows")
  end)

  it("refuse, all of them, a rank of another number of integers", function()
    if missing then return pending(missing) end
    all_refuse({ "rank 1 has 48 elements of 1 bytes, this one, rank 0, 56 of 1",
                 "rank 0 has 56 elements of 1 bytes, this one, rank 1, 48 of 1" }, 2, "gather")
    all_refuse({ "rank 1 has 6 elements of 8 bytes, this one, rank 0, 7 of 8",
                 "rank 0 has 7 elements of 8 bytes, this one, rank 1, 6 of 8" }, 2, "reduce")
  end)

  it("refuse, all of them, a rank of another temperature", function()
    if missing then return pending(missing) end
    all_refuse("row 0, shard 1: the state is of another temperature", 2, "temperature")
  end)

  it("refuse a workspace that is too small", function()
    if missing then return pending(missing) end
    all_refuse("the workspace has 256 bytes, the call needs 456", 1, "little")
  end)

  it("say what NCCL says", function()
    if missing then return pending(missing) end
    all_refuse("ncclAllGather gave internal error (3): the stand-in refuses", 1, "check",
               "STANDIN=ncclAllGather")
  end)

  -- A rank that waits for what does not come, in the end.
  for what, case in pairs {
    ["for NCCL"] = { "STANDIN=stall", "NCCL is not done within 50 ms: a rank is missing or has" ..
                     " failed; abort the communicator" },
    ["for the other ranks"] = { "STANDIN=lose LANES_STUCK=1",
                                "the other ranks did not all come within 50 ms" },
    ["until NCCL finds that a rank has failed"] = {
      "STANDIN=fail LANES_STUCK=1",
      "ncclAllGather gave remote process exited (6): a rank is gone" },
  } do
    it("wait " .. what .. ", and no longer than the timeout", function()
      if missing then return pending(missing) end
      if case[1]:find "LANES" and on_gpu then return pending "the driver here is CUDA's" end
      all_refuse(case[2], 2, "timeout", case[1])
    end)
  end

  it("wait for an all-reduce no longer than the timeout", function()
    if missing then return pending(missing) end
    all_refuse("NCCL is not done within 50 ms", 1, "lost", "STANDIN=stall")
  end)

  it("wait for NCCL without a check, too", function()
    if missing then return pending(missing) end
    all_refuse("NCCL is not done within 50 ms", 1, "timeout unchecked", "STANDIN=stall")
  end)

  it("need not wait where there is nothing to wait for, whatever the timeout", function()
    if missing then return pending(missing) end
    all_have_the_bits(1, "timeout")
  end)

  it("say where NCCL was looked for", function()
    if missing then return pending(missing) end
    local function why(environment)
      local ok, text = pcall(said_by, 1, "check", environment)
      assert.is_false(ok)
      return text
    end
    says(why "SAMEBITS_NCCL=/nowhere/libnccl.so.2", "there is no NCCL: /nowhere/libnccl.so.2",
         "what SAMEBITS_NCCL names")
    says(why("SAMEBITS_NCCL=" .. shell.quote(require("samebits.lib").path)),
         "is no NCCL, or too old: it lacks ncclGetErrorString")
  end)
end)

describe("an exchange", function()
  it("is not the cpu's", function()
    local ctx = assert(samebits.open "cpu")
    local id, why, code = ctx:comm_id()
    assert.is_nil(id)
    assert.equal("SB_ERR_BACKEND", code)
    says(why, "the cpu backend has no exchange of records", "sb_merge")
    ctx:close()
  end)

  it("takes a communicator, and records that may be written where they are", function()
    local ctx = assert(samebits.open "cpu")
    local function records(rows)
      return { states = samebits.zeros({ rows, 32 }, "uint8"),
               targets = samebits.zeros({ rows, 8 }, "uint8") }
    end
    local comm = ctx:communicator(records(1).states.ptr) -- never followed: the cpu refuses
    assert.equal("samebits communicator on cpu: a framework's", tostring(comm))
    says(misuse(function() ctx:exchange(records(2), 5) end),
         "exchange: expected a communicator (see ctx:communicator), got number")
    says(misuse(function() ctx:exchange(5, comm) end), "exchange: expected records", "number")
    local every_other = records(4)
    every_other.states = every_other.states:view(2, 2, 32):slice(1, 0, 1):view(2, 32)
    every_other.targets = samebits.zeros({ 2, 8 }, "uint8")
    says(misuse(function() ctx:exchange(every_other, comm) end), "exchange: states: strides")
    says(misuse(function() ctx:exchange(records(2), comm, { split = 2 }) end),
         "unknown option 'split'")
    says(misuse(function() ctx:communicator() end), "communicator: expected", "got nil")
    says(misuse(function() ctx:communicator(samebits.tensor { 1 }) end), "got tensor")
    says(misuse(function() ctx:communicator { id = "abc", ranks = 1, rank = 0 } end),
         "a string of 128 bytes", "one of 3")
    says(misuse(function() ctx:communicator { id = ("x"):rep(128), ranks = 1.5, rank = 0 } end),
         "ranks: expected an integer, got 1.5")
    for _, timeout in ipairs { 0, -1, 0 / 0, "soon", 2 ^ 31 } do
      says(misuse(function() ctx:exchange(records(2), comm, { timeout = timeout }) end),
           "exchange: timeout: expected seconds above 0")
    end
    says(misuse(function() ctx:exchange_workspace_size("five", comm) end),
         "expected records or a number of rows, got")
    says(misuse(function() ctx:all_gather(records(1).states, 5) end),
         "all_gather: expected a communicator")
    says(misuse(function() ctx:all_gather(records(1).states, comm) end),
         "all_gather: a framework's communicator")
    local integers = samebits.zeros({ 4, 4 }, "int64")
    says(misuse(function() ctx:all_reduce(samebits.zeros { 4 }, "add", comm) end),
         "all_reduce: expected a tensor of int32 or int64, got", "sums of floats")
    says(misuse(function() ctx:all_reduce(integers, "min", comm) end),
         'all_reduce: expected "add" or "max", got min')
    says(misuse(function() ctx:all_reduce(integers:transpose(0, 1), "max", comm) end),
         "all_reduce: strides [1, 4]")
    local out, why = ctx:all_reduce(integers, "max", comm)
    assert.is_nil(out)
    says(why, "the cpu backend has no all-reduce")
    out, why = ctx:exchange(records(2), comm)
    assert.is_nil(out)
    says(why, "has no exchange of records")
    assert.is_true(comm:abort())
    says(misuse(function() ctx:exchange(records(2), comm) end), "the communicator is closed")
    assert.is_true(comm:close())
    ctx:close()
  end)

  backends.with("cuda", function(at)
    describe("with NCCL itself, of one rank,", function()
      local ctx, comm, absent
      setup(function()
        ctx = assert(samebits.open(at.context().device))
        local id, why = ctx:comm_id()
        absent = why
        if id then comm = assert(ctx:communicator { id = id, ranks = 1, rank = 0 }) end
      end)
      teardown(function()
        if comm then assert(comm:close()) end
        ctx:close()
      end)

      local function exchanged(opts)
        local spec = example.spec()
        local batch = assert(samebits.batch(spec):to(ctx.device))
        local records = assert(ctx:partial(batch))
        assert(ctx:exchange(records, comm, opts))
        if opts and opts.stream then assert(opts.stream:wait()) end
        local whole = assert(assert(samebits.open "cpu"):partial(spec))
        assert.equal(example.text(whole, samebits.logprob(spec)),
                     example.text(records, assert(ctx:finish(records, batch))))
      end

      it("leaves the records as they are", function()
        if absent then return pending(absent) end
        exchanged()
        local stream = assert(ctx:stream())
        local bytes = assert(ctx:exchange_workspace_size(5, comm))
        assert.equal(256 + 5 * 72, bytes)
        local workspace = assert(samebits.zeros({ bytes }, "uint8", ctx.device))
        exchanged { stream = stream, workspace = workspace, check = false }
        says(misuse(function() exchanged { workspace = workspace:slice(0, 0, 256) } end),
             "the workspace has 256 bytes, the call needs 456")
      end)

      it("leaves integers and bytes as they are", function()
        if absent then return pending(absent) end
        local there = assert(samebits.tensor({ 3, -4, 5 }, { dtype = "int64" }):to(ctx.device))
        assert.equal(there, assert(ctx:all_reduce(there, "add", comm)))
        assert.equal(there, assert(ctx:all_reduce(there, "max", comm, { check = false })))
        local all = assert(assert(ctx:all_gather(there, comm)):to "cpu")
        assert.same({ 1, 3 }, { unpack(all.shape) })
        assert.equal(-4, tonumber(all:get(0, 1)))
      end)

      it("refuses a rank outside its world, and null", function()
        if absent then return pending(absent) end
        local id = assert(ctx:comm_id())
        says(misuse(function() ctx:communicator { id = id, ranks = 1, rank = 1 } end),
             "rank 1 is outside [0, 1)")
        says(misuse(function() ctx:communicator { id = id, ranks = 0, rank = 0 } end),
             "ranks is 0")
      end)
    end)
  end)
end)
