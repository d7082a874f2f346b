--- Arrays that end at the end of their allocation on a device, or just beyond it, for specs of how
-- far the library reads its arguments.

local samebits = require "samebits"

local ALLOCATION = 2 ^ 21 -- bytes: whatever a driver rounds the sizes of allocations to

--- A contiguous tensor in a device's memory that holds the elements of another, except for the last
-- `missing` bytes (none by default), where the allocation ends.
return function(t, device, missing)
  local bytes, short = t:numel() * t.itemsize, missing or 0
  local memory = samebits.zeros({ ALLOCATION }, "uint8", device)
  local first = ALLOCATION - bytes + short
  local here = assert(t:to "cpu"):contiguous()
  local held = samebits.tensor(here.ptr, { dtype = "uint8", shape = { bytes }, owner = here })
  memory:slice(0, first):copy_(held:slice(0, 0, bytes - short))
  return samebits.tensor(memory.ptr + first, { device = device, dtype = t.dtype, shape = t.shape,
                                               owner = memory })
end
