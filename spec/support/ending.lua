--- Arrays that end where their allocation on a device ends, or just beyond: for specs of how far
-- the library looks at what it is given.

local samebits = require "samebits"

local ALLOCATION = 2 ^ 21 -- bytes: whatever a driver rounds the sizes of allocations to

--- A tensor of a device's memory that holds another's elements, but for the last `missing` bytes
-- (none by default), where the allocation ends. Contiguous.
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
