-- Logprobs whose terms are looked up in a table in shared memory: forced on every batch that the
-- table can serve, they have the cpu's bits; other batches are computed without it.

local ffi = require "ffi"
local bit = require "bit"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local graphs = require "spec.support.graphs"
local hex = require "spec.support.hex"
local prng = require "samebits.verify.prng"

local OUTPUTS = { "token", "lse", "sequence", "count" }
local INF = math.huge

-- The kinds of rows, as f(i, random): the pattern of id i as a bf16.
local word = ffi.new "union { float f; uint32_t b; }"
local function bf16(x)
  word.f = x
  return bit.rshift(bit.tobit(word.b + 0x8000), 16)
end
local cell = samebits.zeros({ 1 }, "bfloat16")
local function f16(pattern)
  ffi.cast("uint16_t *", cell.ptr)[0] = pattern
  local rounded = assert(cell:to "float16")
  return ffi.cast("uint16_t *", rounded.ptr)[0]
end
local function finite(pattern) return bit.band(pattern, 0x7f80) == 0x7f80 and 0xbf80 or pattern end
local function normal(sigma, offset)
  return function(_, random) return bf16(offset + sigma * random:normal()) end
end
local function mixed(list)
  return function(i, random)
    local x = list[(math.floor(i / 16) + (i % 16 == 3 and 1 or 0)) % #list + 1]
    return bf16(x * (1 + random:integer(0, 7) / 100))
  end
end
local KINDS = {
  ["normal"] = normal(3, 0),
  ["flat"] = normal(1 / 16, 0),
  ["sigma 24"] = normal(24, 0),
  ["sigma 90"] = normal(90, 0),
  ["about 60"] = normal(4, 60),
  ["about -60"] = normal(4, -60),
  ["about 1000"] = normal(3, 1000),
  ["a peak"] = function(i, random) return bf16(i == 700 and 60 or 2 * random:normal()) end,
  ["few present"] = function(i, random) return bf16(i % 401 == 5 and random:normal() or -INF) end,
  ["blocks of -inf"] = function(i, random)
    return bf16(math.floor(i / 64) % 3 == 1 and -INF or 3 * random:normal())
  end,
  ["absent"] = function() return 0xff80 end,
  ["a nan"] = function(i, random) return i == 777 and 0x7fc1 or bf16(random:normal()) end,
  ["+inf"] = function(i, random) return i == 900 and 0x7f80 or bf16(random:normal()) end,
  ["the lowest"] = function(i) return i == 8 and bf16(1) or 0xff7f end,
  ["zeros of both signs"] = function(_, random) return random:integer(0, 1) * 0x8000 end,
  ["subnormal"] = function(_, random)
    return random:integer(0, 1) * 0x8000 + random:integer(0, 0x7f)
  end,
  ["tiny"] = function(_, random)
    return random:integer(0, 1) * 0x8000 + random:integer(0, 0x3600)
  end,
  ["any pattern"] = function(_, random) return finite(random:integer(0, 0xffff)) end,
  ["every pattern of the table"] = function(i) return (i * 2 + i % 2 * 0x8000) % 0x42b6 end,
  ["rising"] = function(i) return bf16(i / 16 - 80) end,
  ["falling"] = function(i) return bf16(80 - i / 16) end,
  ["wide"] = mixed { 1e6, -1e6, 3e38, -3e38, 5e7, 2, 4096, -4096, 2839, -2839, 1.5e6 },
}
local NAMES = {}
for name in pairs(KINDS) do NAMES[#NAMES + 1] = name end
table.sort(NAMES)

-- A tensor [R, V] whose rows are of the kinds in turn, with row_stride elements from row to row and
-- NaN between them. It begins at a multiple of 64 bytes, or offset elements behind one. fp16 rows
-- have the bf16 numbers of odd rows, and the bf16 patterns of even ones.
local function logits(R, V, row_stride, dtype, offset)
  local count = (offset or 0) + R * row_stride
  local flat = samebits.zeros({ count + 32 }, dtype or "bfloat16")
  local first = flat.ptr + -ffi.cast("uintptr_t", flat.ptr) % 64
  ffi.fill(first, count * 2, 0xff)
  local words = ffi.cast("uint16_t *", first) + (offset or 0)
  for r = 0, R - 1 do
    local random, kind = prng.new(r + 1), KINDS[NAMES[r % #NAMES + 1]]
    for i = 0, V - 1 do
      local pattern = kind(i, random)
      if dtype == "float16" and r % 2 == 1 then pattern = f16(pattern) end
      words[r * row_stride + i] = pattern
    end
  end
  return samebits.tensor(words, { dtype = dtype or "bfloat16", shape = { R, V },
                                  strides = { row_stride, 1 }, owner = flat })
end

local function ids_of(R, V)
  local ids = {}
  for r = 0, R - 1 do ids[r + 1] = r * 7919 % V end
  return ids
end

-- Logits and ids of 3 sequences of 15 rows, some of which are ignored, and a mask or a row list,
-- which leave out others; and the number of rows.
local function partly_ignored(V)
  local B, T = 3, 15
  local R = B * T
  local ids, mask, rows = ids_of(R, V), {}, {}
  for r = 1, R do
    mask[r] = r % 5 == 2 and 0 or 1
    if r % 7 == 3 then ids[r] = -100 end
    if r % 4 ~= 1 then rows[#rows + 1] = r - 1 end
  end
  return logits(R, V, V):view(B, T, V), samebits.tensor(ids, { dtype = "int64" }):view(B, T),
         samebits.tensor(mask, { dtype = "uint8" }):view(B, T), rows, R
end

describe("a table on a GPU:", function()
  backends.with("cuda", function(at)
    local ctx, device
    backends.own_context(at, function(...) ctx, device = ... end)

    -- The batch on the device; its logits lie there as they lie in memory.
    local function moved(spec)
      local placed = {}
      for name, value in pairs(spec) do placed[name] = value end
      placed.logits = backends.placed(spec.logits, device)
      return assert(samebits.batch(placed):to(device))
    end

    -- The kernel with a table that a call took, or nil.
    local function kernel_of(spec)
      assert(ctx:logprob(moved(spec), { table = 1 }))
      return ctx:plan():match "logprob_%w+_table[_%w]*" or ctx:plan():match "logprob_%w+_unaligned"
    end

    local function same(spec, what, split)
      local want = samebits.logprob(spec)
      local got = assert(ctx:logprob(moved(spec), { table = 1, split = split }))
      for _, name in ipairs(OUTPUTS) do assert.same_bits(want[name], got[name], what) end
    end

    -- Some GPUs have too little shared memory.
    local serves
    setup(function()
      serves = kernel_of { logits = logits(1, 32, 32), ids = { 0 } } ~= nil
    end)
    local function served(what, f)
      it(what, function()
        if not serves then return pending "the table does not fit into shared memory here" end
        f()
      end)
    end

    for _, dtype in ipairs { "bfloat16", "float16" } do
      for _, tau in ipairs { 1, 0.3, 0.7, 1.3, 2, 8, 64, 1 / 64, 1 / 128 } do
        served(("%s rows of every kind have the cpu's bits at temperature %g"):format(dtype, tau),
        function()
          local R, V = 2 * #NAMES + 1, 2048
          local spec = { logits = logits(R, V, V, dtype), ids = ids_of(R, V), temperature = tau }
          assert.equal(dtype == "bfloat16" or tau >= 1 / 64 and tau <= 8, kernel_of(spec) ~= nil)
          same(spec)
        end)
      end
    end

    for _, V in ipairs { 1, 8, 16, 17, 40, 1000, 4111, 50264 } do
      served(("V = %d: one row, two, some"):format(V), function()
        local row_stride = math.ceil(V / 8) * 8
        for _, R in ipairs { 1, 2, 5 } do
          for _, dtype in ipairs { "bfloat16", "float16" } do
            same({ logits = logits(R, V, row_stride, dtype), ids = ids_of(R, V) }, R .. " rows")
          end
        end
      end)
    end

    served("very many rows take the deep shape, for bf16", function()
      local R = 16 * ctx.threads
      for _, case in ipairs {
        { "bfloat16", R - 1, "logprob_bf16_table" }, { "bfloat16", R, "logprob_bf16_table_deep" },
        { "bfloat16", R + 2 * #NAMES, "logprob_bf16_table_deep" },
        { "float16", R, "logprob_f16_table" },
      } do
        local dtype, rows, kernel = unpack(case)
        for _, V in ipairs { 1, 2064, 4112 } do
          if V < 2000 or rows < 600 then
            local stride = math.ceil(V / 8) * 8
            local spec = { logits = logits(rows, V, stride, dtype), ids = ids_of(rows, V) }
            assert.equal(kernel, kernel_of(spec))
            same(spec, ("%s, %d rows, V = %d"):format(dtype, rows, V))
          end
        end
      end
    end)

    served("many rows: whole ones, and others in shares", function()
      for _, R in ipairs { 31, 33, 64, 150 } do
        local V = 320
        same({ logits = logits(R, V, V + 8), ids = ids_of(R, V) }, R .. " rows")
      end
    end)

    served("masks, ignored ids, row lists and shifts", function()
      local V = 640
      local x, ids, mask, rows, R = partly_ignored(V)
      for shift = 0, 1 do
        same({ logits = x, ids = ids, mask = mask, shift = shift == 1 }, "masked")
        same({ logits = x, ids = ids, rows = rows, shift = shift == 1 }, "listed")
        same({ logits = x:view(R, V), ids = ids:view(R), mask = mask:view(R),
               cu_seqlens = { 0, 7, 7, R }, shift = shift == 1 }, "packed")
      end
    end)

    served("no row is active", function()
      local spec = { logits = logits(40, 640, 640), ids = ids_of(40, 640), mask = {} }
      for r = 1, 40 do spec.mask[r] = 0 end
      same(spec)
    end)

    served("bad ids are named, and become NaN without a check", function()
      local V = 640
      for _, R in ipairs { 3, 40 } do
        local spec = { logits = logits(R, V, V), ids = ids_of(R, V) }
        spec.ids[2] = V
        local batch = moved(spec)
        local ok, why = pcall(ctx.logprob, ctx, batch, { table = 1 })
        assert.is_false(ok)
        assert.matches("row 1", tostring(why), 1, true)
        local out = assert(ctx:logprob(batch, { table = 1, check = false }))
        assert.is_false((pcall(ctx.check, ctx)))
        local got = out.token:to("cpu")
        spec.ids[2] = -100
        local want = samebits.logprob(spec).token
        assert.equal("7fc00000", hex.of(got)[2])
        local a, b = hex.of(want), hex.of(got)
        a[2], b[2] = nil, nil
        assert.same(a, b)
      end
    end)

    -- Rows that begin at other addresses than multiples of 16 bytes.
    local SPLITS = { 1, 2, 4, 8, 16 }

    served("unaligned rows have kernels of their own", function()
      local ids = { 1, 2, 3 }
      for dtype, name in pairs { bfloat16 = "logprob_bf16_", float16 = "logprob_f16_" } do
        assert.equal(name .. "table", kernel_of { logits = logits(3, 40, 40, dtype), ids = ids })
        for _, layout in ipairs { { 41, 0 }, { 42, 0 }, { 44, 0 }, { 40, 1 }, { 48, 7 } } do
          local x = logits(3, 40, layout[1], dtype, layout[2])
          assert.equal(name .. "unaligned", kernel_of { logits = x, ids = ids })
        end
      end
    end)

    for _, dtype in ipairs { "bfloat16", "float16" } do
      for _, tau in ipairs { 1, 0.3, 2, 8 } do
        served(("unaligned %s rows of every kind, at temperature %g"):format(dtype, tau), function()
          -- 250 rows: a whole one per warp of the GPU that is the CPU, in 2 trips and a part of one
          for R, V in pairs { [2 * #NAMES] = 2053, [250] = 1051 } do
            local spec = { logits = logits(R, V, V, dtype), ids = ids_of(R, V), temperature = tau }
            for split = 1, 2 do same(spec, ("%d rows, split %d"):format(R, split), split) end
          end
        end)
      end
    end

    for offset = 1, 7 do
      served(("rows %d bytes behind a multiple of 16"):format(2 * offset), function()
        for _, V in ipairs { 1, 7, 8, 9, 15, 16, 17, 24, 25, 33, 511, 513, 520, 527, 1049 } do
          local R = 3
          local x = logits(R, V, math.ceil(V / 8) * 8, V % 2 == 0 and "float16" or nil, offset)
          local spec = { logits = x, ids = ids_of(R, V) }
          for _, split in ipairs { 1, 4 } do
            same(spec, ("V = %d, split %d"):format(V, split), split)
          end
        end
      end)
    end

    served("strides of every kind", function()
      for _, V in ipairs { 1000, 1033 } do
        for more = 1, 9 do
          local spec = { logits = logits(9, V, V + more), ids = ids_of(9, V) }
          same(spec, "stride " .. V + more, more % 2 == 0 and 1 or nil)
        end
      end
    end)

    served("many unaligned rows: rounds of whole ones, shares, and some warps for each", function()
      local V = 1051
      for _, R in ipairs { 1, 17, 64, 130, 250, 256, 257, 600 } do
        for stride = V, V + 1 do
          local spec = { logits = logits(R, V, stride), ids = ids_of(R, V) }
          for _, split in ipairs(R < 64 and SPLITS or { 1, 8 }) do
            same(spec, ("%d rows, split %d"):format(R, split), split)
          end
        end
      end
    end)

    served("unaligned rows that are masked, ignored, listed or shifted", function()
      local x, ids, mask, rows = partly_ignored(641)
      for shift = 0, 1 do
        for split = 1, 2 do
          same({ logits = x, ids = ids, mask = mask, shift = shift == 1 }, "masked", split)
          same({ logits = x, ids = ids, rows = rows, shift = shift == 1 }, "listed", split)
        end
      end
    end)

    for _, stride in ipairs { 1040, 1041 } do
      served(("a call is captured into a graph, stride %d"):format(stride), function()
        local R, V = 2 * #NAMES, 1040
        local there = backends.placed(logits(R, V, stride), device)
        local batch = samebits.batch { logits = there, ids = ids_of(R, V) }
        batch = assert(batch:to(device))
        local opts = { table = 1, check = false, stream = assert(ctx:stream()) }
        local bytes = ctx:workspace_size(batch, opts)
        assert.is_true(bytes > 0)
        opts.workspace = samebits.empty({ bytes }, "uint8", device)
        opts.out = assert(ctx:logprob(batch, opts))
        assert.is_true(ctx:check(opts.stream))
        local graph = graphs.capture(device, opts.stream, function()
          assert(ctx:logprob(batch, opts))
        end)
        local want = samebits.logprob { logits = logits(R, V, stride), ids = ids_of(R, V) }
        for _ = 1, 3 do
          for _, name in ipairs(OUTPUTS) do
            local blank = assert(samebits.zeros(want[name].shape, want[name].dtype):to(device))
            assert(opts.out[name]:copy_(blank))
          end
          graph:launch()
          assert.is_true(ctx:check(opts.stream))
          for _, name in ipairs(OUTPUTS) do assert.same_bits(want[name], opts.out[name]) end
        end
        graph:close()
      end)
    end

    it("batches that it does not serve are computed without it", function()
      local V = 640
      local x = logits(3, V, V)
      for what, spec in pairs {
        ["fp32"] = { logits = x:to "float32" },
        ["temperatures"] = { logits = x, temperature = { 1, 0.5, 2 } },
      } do
        spec.ids = { 1, 2, 3 }
        assert.is_nil(kernel_of(spec), what)
        same(spec, what)
      end
    end)
  end)
end)
