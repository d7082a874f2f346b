--- Checks whether a tensor can be a mask. Any integer except 0 counts as active, so ids given as
-- the mask by mistake would silently make nearly every token active. A mask has few different
-- values, so a tensor that looks like ids is refused. Byte tensors are taken unchecked on any
-- device, as the C library takes them, because ids are wider than a byte.

local ffi = require "ffi"
local misuse = require "samebits.misuse"
local keep = require("samebits.tensor.storage").keep

local M = {}

-- A mask has at most this many different values besides 0 and 1.
local OTHERS = 2

local POINTERS = {
  int16 = "const int16_t *", int32 = "const int32_t *", int64 = "const int64_t *",
}

-- The place of an element, such as "[0][2]".
local function place(t, i)
  local at = {}
  for d = t.ndim, 1, -1 do
    at[d] = ("[%d]"):format(i % t.shape[d])
    i = math.floor(i / t.shape[d])
  end
  return table.concat(at)
end

local function number(x) return (tostring(x):gsub("U?LL$", "")) end

-- Whether integers equal those of another tensor and are not flags.
local function is_copy(values, n, other)
  local kind = other and POINTERS[other.dtype]
  if not kind or other:numel() ~= n then return false end
  local dense, flags = other:contiguous(), true
  local others = ffi.cast(kind, dense.ptr)
  for i = 0, n - 1 do
    if values[i] ~= others[i] then return false end
    flags = flags and (values[i] == 0 or values[i] == 1)
  end
  keep(dense)
  return not flags
end

--- Raises misuse if a tensor in memory cannot be a mask.
-- @tparam string name the mask's name in messages
-- @param t a tensor
-- @param[opt] ids the ids that it masks, a tensor in memory
function M.check(name, t, ids)
  if not POINTERS[t.dtype] then return end
  local dense, n = t:contiguous(), t:numel()
  local values, known, count = ffi.cast(POINTERS[t.dtype], dense.ptr), {}, 0
  if is_copy(values, n, ids) then misuse.raise("%s: these are the ids", name) end
  for i = 0, n - 1 do
    local x = values[i]
    if x ~= 0 and x ~= 1 then
      local seen = false
      for k = 1, count do seen = seen or known[k] == x end
      if not seen then
        count = count + 1
        known[count] = x
        if count > OTHERS then
          misuse.raise("%s%s is %s, after %s and %s: a mask holds 0 and 1; are these ids?", name,
                       place(t, i), number(x), number(known[1]), number(known[2]))
        end
      end
    end
  end
  keep(dense)
end

return M
