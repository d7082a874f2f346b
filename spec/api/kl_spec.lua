-- sb_kl, called as C calls it: the rules of samebits.h for its arguments; a call that fails writes
-- nothing; the errors of ctx:kl for misuse; and behaviour that only a GPU can show.

local ffi = require "ffi"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local c_calls = require "spec.support.c_calls"
local graphs = require "spec.support.graphs"
local hex = require "spec.support.hex"
local refusal = require "spec.support.refusal"
local C = require("samebits.lib").C

local misuse, says = refusal.misuse, refusal.says
local filled, sized, untouched = c_calls.filled, c_calls.sized, c_calls.untouched
local NAN, ZERO = "7fc00000", "00000000"
local R, V = 3, 40

local ctx = assert(c_calls.open())
local function last_error() return c_calls.last_error(ctx) end

local function batch_of(values)
  local b = sized "sb_batch"
  b.logits_dtype, b.ids_dtype, b.cu_seqlens_dtype = 1, 4, 4
  b.logits, b.batch, b.time, b.vocab = values.ptr, 1, R, V
  b.temperature, b.ignore_index = 1, -100
  return b
end

local function arrays()
  local a = { values = { hex.tensor(hex.values(R * V, 4), { R, V }),
                         hex.tensor(hex.values(R * V, 5), { R, V }) },
              ids = ffi.new("int32_t[3]", 3, 31, 39), mask = ffi.new("uint8_t[3]", 1, 1, 1),
              offsets = ffi.new("int32_t[3]", 0, 1, 3), floats = ffi.new("float[3]", 1, 1, 1),
              list = ffi.new("int64_t[3]", 0, 1, 2),
              token = filled("float", R), sequence = filled("float", 2),
              out = sized "sb_kl_out", launch = sized "sb_launch" }
  a.p, a.q = batch_of(a.values[1]), batch_of(a.values[2])
  a.out.token, a.out.sequence = a.token, a.sequence
  return a
end

local function call(a) return C.sb_kl(ctx, a.out, a.p, a.q, a.launch) end

local function pack(a)
  for _, b in ipairs { a.p, a.q } do
    b.cu_seqlens, b.rows, b.batch, b.time = a.offsets, R, 2, 0
  end
end

describe("sb_kl", function()
  local function refused(status, words, change)
    local a = arrays()
    change(a)
    assert.equal(status, ffi.string(C.sb_status_name(call(a))), last_error())
    assert.equal(words, last_error():sub(1, #words))
    assert.is_true(untouched(a.token) and untouched(a.sequence), last_error())
    if status ~= "SB_ERR_ID" and not words:find("row", 1, true) then
      local needed = ffi.new("uint64_t[1]", 5)
      a.launch.needed = needed
      assert.equal(status, ffi.string(C.sb_status_name(call(a))))
      assert.equal(5, tonumber(needed[0]))
    end
  end

  it("says which batch is at fault, before it writes", function()
    for _, which in ipairs { "p", "q" } do
      for _, case in ipairs {
        { "SB_ERR_ARGUMENT", "logits is null", function(b) b.logits = nil end },
        { "SB_ERR_ARGUMENT", "sb_batch.size is 4", function(b) b.size = 4 end },
        { "SB_ERR_DTYPE", "logits_dtype is 4", function(b) b.logits_dtype = 4 end },
        { "SB_ERR_SHAPE", "row_stride 39 is less", function(b) b.row_stride = V - 1 end },
        { "SB_ERR_SHAPE", "batch_stride is -1", function(b) b.batch_stride = -1 end },
        { "SB_ERR_SHAPE", "kept_stride 1 is less",
          function(b) b.kept, b.kept_stride = ffi.cast("uint32_t *", b.logits), 1 end },
        { "SB_ERR_TEMPERATURE", "temperature 0 ", function(b) b.temperature = 0 end },
        { "SB_ERR_TEMPERATURE", "row 2 (sequence 0, position 2): temperature 4096 ",
          function(b, a) a.floats[2], b.temperatures = 4096, a.floats end },
      } do
        refused(case[1], which .. ": " .. case[2], function(a) case[3](a[which], a) end)
      end
    end
    refused("SB_ERR_ID", "p: row 1 (sequence 0, position 1): id 40 ",
            function(a) a.ids[1], a.p.ids = V, a.ids end)
    refused("SB_ERR_SHAPE", "p: row_list[1] is 3", function(a)
      a.list[1], a.p.row_list, a.p.row_count = 3, a.list, 2
    end)
    refused("SB_ERR_SHAPE", "p: cu_seqlens[2] is 2", function(a)
      pack(a)
      a.offsets[2] = 2
    end)
  end)

  it("refuses batches that do not fit each other", function()
    refused("SB_ERR_SHAPE", "p's vocab is 40, q's is 39", function(a) a.q.vocab = V - 1 end)
    refused("SB_ERR_SHAPE", "p's batch is 1, q's is 0", function(a) a.q.batch = 0 end)
    refused("SB_ERR_SHAPE", "p's time is 3, q's is 2", function(a) a.q.time = 2 end)
    refused("SB_ERR_SHAPE", "p's rows is 3, q's is 2", function(a)
      pack(a)
      a.q.rows = 2
    end)
    refused("SB_ERR_SHAPE", "p is packed, q is padded", function(a)
      pack(a)
      a.q.cu_seqlens, a.q.time = nil, R
    end)
    refused("SB_ERR_ARGUMENT", "p's shift is 1, q's is 0", function(a) a.p.shift = 1 end)
  end)

  it("refuses null pointers and structs of another size", function()
    refused("SB_ERR_ARGUMENT", "sb_kl_out.size is 8", function(a) a.out.size = 8 end)
    refused("SB_ERR_ARGUMENT", "p: sb_launch.size is 4", function(a) a.launch.size = 4 end)
    refused("SB_ERR_ARGUMENT", "p: split is -1", function(a) a.launch.split = -1 end)
    local a = arrays()
    assert.equal(1, tonumber(C.sb_kl(nil, a.out, a.p, a.q, nil)))
    assert.equal(1, tonumber(C.sb_kl(ctx, nil, a.p, a.q, nil)))
    assert.equal("sb_kl_out is null", last_error())
    assert.equal(1, tonumber(C.sb_kl(ctx, a.out, nil, a.q, nil)))
    assert.equal("p: batch is null", last_error())
    assert.equal(1, tonumber(C.sb_kl(ctx, a.out, a.p, nil, nil)))
    assert.equal("q: batch is null", last_error())
  end)

  it("writes the outputs that are asked for, all of each", function()
    local a = arrays()
    pack(a)
    a.q.cu_seqlens = ffi.new("int64_t[3]", 7, 7, 7) -- not looked at
    assert.equal(0, tonumber(call(a)), last_error())
    assert.equal(a.token[0], a.sequence[0])
    for i = 0, R - 1 do assert.is_true(a.token[i] > 0 and a.token[i] < 1e3) end
    for _, only in ipairs { "token", "sequence" } do
      local one = arrays()
      pack(one)
      one.out.token, one.out.sequence = nil, nil
      one.out[only] = one[only]
      assert.equal(0, tonumber(call(one)), last_error())
      assert.equal(ffi.string(a[only], ffi.sizeof(a[only])),
                   ffi.string(one[only], ffi.sizeof(one[only])))
    end
    a.out.token, a.out.sequence = nil, nil
    assert.equal(0, tonumber(call(a)), last_error())
  end)

  it("does not look at q's rows, nor at the logits of ignored ones", function()
    local a, plain = arrays(), arrays()
    assert.equal(0, tonumber(call(plain)))
    a.q.ids, a.q.mask, a.q.row_list = ffi.cast("void *", 16), ffi.cast("void *", 16),
                                      ffi.cast("void *", 16)
    a.q.ids_dtype, a.q.cu_seqlens_dtype, a.q.row_count, a.q.ignore_index = 99, 99, 1e9, 3
    assert.equal(0, tonumber(call(a)), last_error())
    for i = 0, R - 1 do assert.equal(plain.token[i], a.token[i]) end
    -- Nothing is mapped at 16.
    for _, ignore in ipairs {
      function(b) b.mask = a.mask end, function(b) b.row_list, b.row_count = a.list, 0 end,
      function(b) b.ids = a.ids end,
      function(b)
        b.shift, b.time, b.batch = 1, 1, R
        a.q.shift, a.q.time, a.q.batch = 1, 1, R
      end,
    } do
      a.p = batch_of(a.values[1])
      for i = 0, R - 1 do a.mask[i], a.ids[i] = 0, -100 end
      a.p.logits, a.q.logits = ffi.cast("void *", 16), ffi.cast("void *", 16)
      ignore(a.p)
      ffi.fill(a.token, ffi.sizeof(a.token), c_calls.BYTE)
      a.out.sequence = nil
      assert.equal(0, tonumber(call(a)), last_error())
      for i = 0, R - 1 do assert.equal(0, a.token[i]) end
    end
  end)
end)

describe("ctx:kl", function()
  local at = assert(samebits.open "cpu")

  it("tells what is wrong", function()
    local p, q = hex.tensor(hex.values(R * V, 4), { R, V }), samebits.zeros({ R, V + 1 })
    local function says_of(words, ...)
      local arguments, n = { ... }, select("#", ...)
      says(misuse(function() at:kl(unpack(arguments, 1, n)) end), words)
    end
    says_of("kl: q's logits are [3, 41], p's [3, 40]", { logits = p }, { logits = q })
    says_of("kl: q: batch: expected a table", { logits = p })
    says_of("kl: q: batch: expected a table", { logits = p }, p)
    says_of("kl: p: batch: logits is missing", {}, { logits = p })
    says_of("p's shift is 0, q's is 1", { logits = p }, { logits = p, shift = true })
    says_of("outputs: unknown output 'k3'; known: token, sequence", { logits = p }, { logits = p },
            { outputs = { "k3" } })
    says_of("kl: unknown option 'outptus'", { logits = p }, { logits = p }, { outptus = {} })
    says_of("q: row 1 (sequence 0, position 1): temperature 0 ", { logits = p },
            { logits = p, temperature = { 1, 0, 1 } })
    says(misuse(function() samebits.open("cpu").kl({}, {}, {}) end), "call it as ctx:kl(batch)")
    local closed = samebits.open "cpu"
    closed:close()
    says(misuse(function() closed:kl({}, {}) end), "kl: the context is closed")
    assert.equal(0, at:kl_workspace_size({ logits = p }, { logits = p }))
  end)
end)

describe("on a GPU, divergences", function()
  backends.with("cuda", function(variant)
    local gpu, device
    backends.own_context(variant, function(...) gpu, device = ... end)

    local here = samebits.open "cpu"
    local function logits(rows, vocab, seed, dtype)
      return hex.tensor(hex.values(rows * vocab, seed), { rows, vocab }):to(dtype or "float32")
    end

    local function works()
      local p, q = logits(5, 100, 1), logits(5, 100, 2)
      local want = here:kl({ logits = p }, { logits = q })
      local got = assert(gpu:kl({ logits = assert(p:to(device)) },
                                { logits = assert(q:to(device)) }))
      assert.same_bits(want.token, got.token)
      assert.same_bits(want.sequence, got.sequence)
      assert.is_true(gpu:check())
    end

    it("have the cpu's bits in every geometry and at every element offset", function()
      local dtypes = { "float32", "float16", "bfloat16" }
      for i, p_dtype in ipairs(dtypes) do
        for j, q_dtype in ipairs(dtypes) do
          local vocab = ({ 33, 1025, 5003 })[(i + j) % 3 + 1]
          local p, q = logits(3, vocab, i, p_dtype), logits(3, vocab, 10 + j, q_dtype)
          local want = here:kl({ logits = p }, { logits = q, temperature = 0.7 }).token
          for offset = 0, 8 do
            local placed = {}
            for k, t in ipairs { p, q } do
              local before = k == 1 and offset or offset * 3 % 8
              local room = samebits.zeros({ before + 3 * vocab }, t.dtype)
              room:slice(0, before, before + 3 * vocab):copy_(t:view(3 * vocab))
              placed[k] = backends.placed(room, device):slice(0, before, before + 3 * vocab)
                                  :view(3, vocab)
            end
            local geometry = ({ { 0, 0 }, { 1, 32 }, { 7, 96 }, { 65536, 512 } })[offset % 4 + 1]
            local got = assert(gpu:kl({ logits = placed[1] },
                                      { logits = placed[2], temperature = 0.7 },
                                      { split = geometry[1], threads = geometry[2] }))
            assert.same_bits(want, got.token, ("%s, %s, offset %d"):format(p_dtype, q_dtype,
                                                                           offset))
          end
        end
      end
    end)

    it("of host memory are refused by name", function()
      local p, q = logits(3, V, 1), logits(3, V, 2)
      local there = samebits.batch({ logits = assert(p:to(device)) }, { ids = false })
      local other = samebits.batch({ logits = assert(q:to(device)) }, { ids = false })
      for k, batch in ipairs { there, other } do
        local kept = batch.c.logits
        batch.c.logits = p.ptr
        says(misuse(function() gpu:kl(there, other) end), (k == 1 and "p" or "q") .. ": logits (",
             "host memory")
        batch.c.logits = kept
      end
      works()
    end)

    local function bad(fields, other, mask)
      local p, q = { logits = assert(logits(R, V, 1):to(device)), mask = mask },
                   { logits = assert(logits(R, V, 2):to(device)) }
      for key, value in pairs(fields) do p[key] = value end
      for key, value in pairs(other) do q[key] = value end
      return samebits.batch(p, { ids = false }), samebits.batch(q, { ids = false })
    end

    for what, case in pairs {
      ids = { { ids = { 1, V, 2 } }, {}, "p: row 1", "id 40" },
      temperatures = { { temperature = { 1, 0, 1 } }, {}, "p: row 1", "temperature 0" },
      ["temperatures of q"] = { {}, { temperature = { 1, 4096, 1 } }, "q: row 1",
                                "temperature 4096" },
    } do
      it("with bad " .. what .. " are named when the call is checked, and NaN otherwise", function()
        for _, split in ipairs { 1, 3 } do
          local p, q = bad(case[1], case[2])
          says(misuse(function() gpu:kl(p, q, { split = split }) end), case[3], case[4])
          local stream = assert(gpu:stream())
          local out = assert(gpu:kl(p, q, { check = false, split = split, stream = stream }))
          says(misuse(function() gpu:check(stream) end), "row 1")
          assert.is_true(gpu:check(stream))
          local token = hex.of(out.token:to "cpu")
          assert.equal(NAN, token[2])
          assert.is_true(token[1] ~= NAN and token[3] ~= NAN and token[1] ~= ZERO)
          assert.equal(NAN, out.sequence:bits()[1])
        end
        local p, q = bad(case[1], case[2], { 1, 0, 1 }) -- and not looked at in ignored rows
        assert.equal(ZERO, hex.of(assert(gpu:kl(p, q)).token:to "cpu")[2])
        works()
      end)
    end

    it("take the workspace that they ask for, and no smaller one", function()
      local p, q = bad({}, {})
      for _, outputs in ipairs { { "token" }, { "sequence" } } do
        local bytes = gpu:kl_workspace_size(p, q, { split = 3, outputs = outputs })
        assert.is_true(bytes > 0)
        local memory = samebits.empty({ bytes + 256 }, "uint8", device)
        local function with(workspace)
          return function()
            local out = gpu:kl(p, q, { split = 3, outputs = outputs, workspace = workspace })
            return out
          end
        end
        says(misuse(with(memory:slice(0, 0, bytes - 1))), "workspace", ("%d"):format(bytes))
        says(misuse(with(memory:slice(0, 4, bytes + 4))), "workspace", "256")
        assert(with(memory:slice(0, 0, bytes))())
      end
      assert.equal(0, gpu:kl_workspace_size(p, q, { split = 1, outputs = { "token" } }))
      works()
    end)

    for name, opts in pairs { ["whole rows"] = { split = 1, threads = 64 },
                              ["pieces"] = { split = 5 } } do
      it("are captured into a graph: " .. name, function()
        local vocab = 5003
        local there = { assert(logits(R, vocab, 1):to(device)),
                        assert(logits(R, vocab, 2, "bfloat16"):to(device)) }
        local p = samebits.batch({ logits = there[1] }, { ids = false })
        local q = samebits.batch({ logits = there[2], temperature = 0.7 }, { ids = false })
        local stream = assert(gpu:stream())
        opts.stream, opts.check = stream, false
        opts.workspace = samebits.empty({ math.max(1, gpu:kl_workspace_size(p, q, opts)) },
                                        "uint8", device)
        opts.out = assert(gpu:kl(p, q, opts))
        assert.is_true(gpu:check(stream))
        local graph = graphs.capture(device, stream, function() assert(gpu:kl(p, q, opts)) end)
        for _, seed in ipairs { 3, 4, 3 } do
          assert(there[1]:copy_(logits(R, vocab, seed)))
          graph:launch()
          assert.is_true(gpu:check(stream))
          local want = here:kl({ logits = logits(R, vocab, seed) },
                               { logits = logits(R, vocab, 2, "bfloat16"), temperature = 0.7 })
          assert.same_bits(want.token, opts.out.token)
          assert.same_bits(want.sequence, opts.out.sequence)
        end
        graph:close()
        works()
      end)
    end
  end)
end)
