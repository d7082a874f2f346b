-- The last matrix product of a model as engines compute it, in fp32 sums whose order depends on the
-- launch; and what ranks do to the tensors that they exchange.

local ffi = require "ffi"
local samebits = require "samebits"

local M = {}

-- The places where n things are cut for a number of ranks, at multiples of `of`.
function M.cuts(n, ranks, of)
  local cuts = {}
  for r = 0, ranks do
    cuts[r + 1] = r == ranks and n or math.floor(n * r / ranks / of) * of
  end
  return cuts
end

-- hidden [B, T, D], head [V, D] and mask [B, T] in memory. With wide, sums are in fp64.
function M.conventional(hidden, head, mask, wide)
  local V, D = head.shape[1], head.shape[2]
  local number = wide and "double[?]" or "float[?]"
  local rows = hidden:to "float32":view(-1, D)
  local columns = head:to "float32":transpose(0, 1):clone()       -- [D, V]
  local active = mask:view(-1)

  -- The sums over the elements first .. past - 1 of each active row: one running sum for each id.
  local function part(first, past)
    local out = samebits.zeros({ rows.shape[1], V }, "float32")
    local sums, to, w, h = ffi.new(number, V), out:pointer(), columns:pointer(), rows:pointer()
    for r = 0, rows.shape[1] - 1 do
      if active:get(r) ~= 0 then
        ffi.fill(sums, ffi.sizeof(sums))
        for d = first, past - 1 do
          local x, at = h[r * D + d], d * V
          for v = 0, V - 1 do sums[v] = sums[v] + x * w[at + v] end
        end
        for v = 0, V - 1 do to[r * V + v] = sums[v] end
      end
    end
    return out
  end

  local known = {}
  local function parts(pieces)
    if not known[pieces] then
      local cuts = M.cuts(D, pieces, 1)
      known[pieces] = {}
      for p = 1, pieces do known[pieces][p] = part(cuts[p], cuts[p + 1]) end
    end
    return known[pieces]
  end

  -- Logits from D cut into pieces, whose sums are rounded to a dtype and then added in fp32.
  return function(dtype, pieces)
    local total
    for _, sums in ipairs(parts(pieces)) do
      sums = sums:to(dtype):to "float32"
      total = total and M.reduce("float *", total, sums, function(a, b) return a + b end) or sums
    end
    return total:to(dtype):view(hidden.shape[1], hidden.shape[2], V)
  end
end

-- Combines two tensors of ranks element by element, as an all-reduce does.
function M.reduce(pointer, a, b, combine)
  local out = a:clone()
  local x, y = ffi.cast(pointer, out.ptr), ffi.cast(pointer, b.ptr)
  for i = 0, out:numel() - 1 do x[i] = combine(x[i], y[i]) end
  return out
end

return M
