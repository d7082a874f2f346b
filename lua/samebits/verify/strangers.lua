--- Strangers: sequences that are put beside those of a batch. Their contents must not affect their
-- neighbours, and their own results are ignored.

local ffi = require "ffi"
local tensor = require "samebits.tensor"

local M = {}

local LARGEST = { float32 = 0x1.fffffep127, bfloat16 = 0x1.fep127, float16 = 65504 }

-- A row's logits, by the case's `wild`.
local FILL = {
  nan = function(p, V)
    ffi.fill(p, 4 * V)
    ffi.cast("uint32_t *", p)[V - 1] = 0x7fc00000
  end,
  inf = function(p, V)
    ffi.fill(p, 4 * V)
    p[V - 1] = math.huge
  end,
  absent = function(p, V) for id = 0, V - 1 do p[id] = -math.huge end end,
  huge = function(p, V, dtype)
    for id = 0, V - 1 do p[id] = LARGEST[dtype] end
    p[V - 1] = -LARGEST[dtype]
  end,
}

local MOST = 4

local function stranger(case)
  local length = math.min(2, case.T)
  local values = tensor.zeros({ length, case.V }, "float32")
  local p = ffi.cast("float *", values.ptr)
  local made = { length = length, ids = {}, temperatures = {}, active = {} }
  for t = 0, length - 1 do
    FILL[case.wild](p + t * case.V, case.V, case.dtype)
    made.ids[t], made.active[t] = 0, true
    made.temperatures[t] = case.tau == "own" and 1 or case.tau
  end
  made.logits = values:to(case.dtype)
  return made
end

--- Adds strangers to a case's sequences: as many as there are sequences, but only a few.
function M.add(case, sequences)
  local before = case.n
  for s = before, before + math.min(before, MOST) - 1 do
    sequences[s], case.n = stranger(case), s + 1
  end
end

return M
