-- The same logits give the same bits in any container: dtype, address, strides, padding.

local ffi = require "ffi"
local samebits = require "samebits"
local backends = require "spec.support.backends"
local hex = require "spec.support.hex"

-- Sizes around a leaf, around the width of a vector instruction, and a few thousand.
local SIZES = { 1, 15, 16, 17, 31, 33, 64, 1023, 1025, 4099 }
local DTYPES = { "float32", "float16", "bfloat16" }

-- A copy of t whose first element is `bytes` past the start of a page and whose rows are `stride`
-- apart, with NaN in everything that is not its own.
local function placed(t, bytes, stride)
  local rows, vocab, size = t.shape[1], t.shape[2], t.itemsize
  local total = bytes + rows * stride * size
  local buffer = ffi.new("uint8_t[?]", total + 4096)
  ffi.fill(buffer, total + 4096, 0xff)
  local base = buffer + (-tonumber(ffi.cast("uintptr_t", buffer)) % 4096) + bytes
  for row = 0, rows - 1 do
    ffi.copy(base + row * stride * size, t.ptr + row * vocab * size, vocab * size)
  end
  return samebits.tensor(base, { dtype = t.dtype, shape = { rows, vocab }, strides = { stride, 1 },
                                 owner = buffer })
end

backends.each(function(at)
  describe("on " .. at.name .. ", bits do not depend on", function()
    local function bits(logits, ids)
      local out = at.score { logits = logits, ids = ids, temperature = 0.7 }
      return { hex.of(out.token), hex.of(out.lse), hex.of(out.sequence) }
    end

    for _, vocab in ipairs(SIZES) do
      it(("dtype, address or stride, V = %d"):format(vocab), function()
        local rows = 3
        local exact = hex.tensor(hex.values(rows * vocab, vocab + 1), { rows, vocab })
        local ids = { 0, vocab - 1, math.floor(vocab / 2) }
        local want = bits(exact, ids)
        for _, dtype in ipairs(DTYPES) do
          local t = exact:to(dtype)
          assert.same(want, bits(t, ids))
          for _, bytes in ipairs { 1, 2, 3, 4, 8, 17, 63, 4096 - t.itemsize } do
            assert.same(want, bits(placed(t, bytes, vocab), ids))
          end
          for _, more in ipairs { 1, 7, 16, 4096 } do
            assert.same(want, bits(placed(t, 2, vocab + more), ids))
          end
        end
      end)
    end

    it("which dimension is the longest in memory", function()
      local B, T, V = 3, 4, 37
      local base = hex.tensor(hex.values(B * T * V, 5), { B, T, V })
      local ids = samebits.tensor({ { 0, 1, 2, 3 }, { 4, 5, 6, 7 }, { 8, 9, 10, 36 } },
                                  { dtype = "int32" })
      local want = at.score { logits = base, ids = ids }
      for _, view in ipairs {
        -- [T, B, V], then [V, B, T] and [B, V, T] in memory.
        base:transpose(0, 1):clone():transpose(0, 1),
        base:transpose(0, 2):clone():transpose(0, 2),
        base:transpose(1, 2):clone():transpose(1, 2),
      } do
        assert.is_false(view:is_contiguous())
        local got = at.score { logits = view, ids = ids }
        for _, name in ipairs { "token", "lse", "sequence", "count" } do
          assert(samebits.same_bits(want[name], got[name]))
        end
      end
    end)

    it("sequences or rows that overlap, and columns that are no neighbours", function()
      local V = 21
      local line = hex.tensor(hex.values(18 * V, 8), { 18 * V })
      local ids = { { 1, 2, 3 }, { 4, 5, 6 }, { 7, 8, 20 } }
      -- Sequence b is rows b .. b + 2; all sequences are one; all rows of a sequence are one; both;
      -- rows that begin inside the one before; every second element; both strides and neither.
      for _, strides in ipairs {
        { V, V, 1 }, { 0, V, 1 }, { 3 * V, 0, 1 }, { 0, 0, 1 }, { V, 5, 1 }, { 6 * V, 2 * V, 2 },
        { 2, 6 * V, 6 }, { 3 * V, V, 0 },
      } do
        local view = samebits.tensor(line.ptr, { dtype = "float32", shape = { 3, 3, V },
                                                 strides = strides, owner = line })
        local got = at.score { logits = view, ids = ids }
        local want = at.score { logits = view:clone(), ids = ids }
        assert(samebits.same_bits(want.token, got.token))
        assert(samebits.same_bits(want.sequence, got.sequence))
      end
    end)

    it("how ids, masks and temperatures are held", function()
      local logits = hex.tensor(hex.values(4 * 40, 6), { 4, 40 })
      local want
      for _, dtype in ipairs { "int32", "int64", "int8", "uint8", "int16" } do
        local out = at.score {
          logits = logits,
          ids = samebits.tensor({ 3, 39, 0, 17 }, { dtype = dtype }),
          mask = samebits.tensor({ 1, 1, 0, 1 }, { dtype = dtype }),
          temperature = samebits.tensor({ 0.5, 1, 2, 4 },
                                        { dtype = dtype == "int8" and "float16" or "float64" }),
        }
        want = want or out
        assert(samebits.same_bits(want.token, out.token))
      end
      local out = at.score {
        logits = logits, ids = { 3, 39, 0, 17 }, mask = { true, true, false, true },
        temperature = { 0.5, 1, 2, 4 },
      }
      assert(samebits.same_bits(want.token, out.token))
    end)
  end)
end)
