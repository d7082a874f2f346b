--- A batch of three sequences with everything that a batch may have: masked and ignored positions,
-- a temperature for each row, a row list, and cu_seqlens.

local samebits = require "samebits"

local tensor = samebits.tensor
local B, T = 3, 5

--- Takes logits [15, V]; the batch is padded ([3, 5, V]) or packed, and shifted if asked for.
return function(logits, packed, shift)
  local V = logits.shape[2]
  local ids, mask, temperature = {}, {}, {}
  for row = 0, B * T - 1 do
    ids[row + 1], mask[row + 1] = row * 7919 % V, row % 6 == 4 and 0 or 1
    temperature[row + 1] = 0.5 + row % 4 / 2
  end
  ids[2] = -100
  local spec = {
    logits = logits, ids = tensor(ids, { dtype = "int64" }),
    mask = tensor(mask, { dtype = "uint8" }), temperature = tensor(temperature),
    rows = { 0, 1, 2, 4, 5, 7, 8, 9, 11, 14 }, shift = shift,
  }
  if packed then
    spec.cu_seqlens = { 0, 7, 7, 15 }
  else
    spec.logits = logits:view(B, T, V)
    for _, name in ipairs { "ids", "mask", "temperature" } do spec[name] = spec[name]:view(B, T) end
  end
  return spec
end
