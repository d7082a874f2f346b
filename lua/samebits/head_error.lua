--- How far the logits of a head can be from the exact products of hidden states and weights:
-- docs/numerics.md, section "Linear: a row's own bound".
--
--     local bounds = require("samebits.head_error").bounds(hidden, weights, "h24w16")
--     bounds:get(r)                            -- of every logit of row r, beside half an ulp
--     bounds:get(r) / math.sqrt(width)         -- what to expect of their root mean square
--
-- h24w16 suits rows whose expected error is far below what a logit may be wrong; h24w24 is for the
-- rest. The computation reads every weight: it is a check of a model, not of every batch.
-- @module samebits.head_error

local ffi = require "ffi"
local misuse = require "samebits.misuse"
local tensor = require "samebits.tensor"

local ldexp, floor, abs, ceil, sqrt, max = math.ldexp, math.floor, math.abs, math.ceil, math.sqrt,
                                           math.max
local MAGIC = 1.5 * 2 ^ 52 -- adding and subtracting it rounds to an integer, to nearest even
local BITS = { h24w16 = 16, h24w24 = 24 }

local M = {}

-- E of a row of D fp32 encodings; nil if the row is bad.
local function scale(words, D)
  local most = 0
  for d = 0, D - 1 do
    local word = words[d] % 2147483648
    if word > most then most = word end
  end
  local E = max(-40, floor((most + 0x10200) / 8388608) - 126)
  if E <= 48 then return E end
end

-- size, loss and last of a row. Doubles hold all sums: that of squares in two parts.
local function norms(x, D, E, bits)
  local factor, high, low, R, L = ldexp(1, bits - 1 - E), 0, 0, 0, 0
  for d = 0, D - 1 do
    local u = x[d] * factor
    local n = (u + MAGIC) - MAGIC
    local square = n * n
    local upper = floor(square / 4294967296)
    high, low = high + upper, low + (square - upper * 4294967296)
    local lost = ceil(abs(u - n) * 65536)
    R = R + lost * lost
    local last = (n + 128) % 256 - 128
    L = L + last * last
  end
  local unit = E - bits + 1
  return ldexp(sqrt(high * 4294967296 + low), unit), ldexp(sqrt(R), unit - 16),
         ldexp(sqrt(L), unit)
end

-- A matrix as contiguous fp32 in memory, and its sizes.
local function matrix(name, value)
  if not tensor.is_tensor(value) or #value.shape < 2 or tensor.dtype.of[value.dtype].kind ~= "float"
     or value.dtype == "float64" then
    misuse.raise("head_error.bounds: %s: expected a tensor [.., D] of floats, got %s", name,
                 tensor.describe(value))
  end
  local D = value.shape[#value.shape]
  if D < 1 or D > 32768 then
    misuse.raise("head_error.bounds: %s: D is %d, not in 1 .. 32768", name, D)
  end
  local wide = misuse.try(misuse.try(value:to "cpu"):to "float32":contiguous())
  return wide, value:numel() / D, D
end

--- The bound of every row of hidden states.
-- @tparam tensor hidden a tensor [N, D] or [B, T, D]: float32, float16 or bfloat16
-- @tparam tensor weights a tensor [V, D]; bad rows of weights do not count
-- @tparam string format "h24w16" or "h24w24"
-- @treturn tensor float32 [N] or [B, T], NaN for a bad row; or nil, a message and the status' name
M.bounds = misuse.guard(function(hidden, weights, format)
  local bits = BITS[format]
  if not bits then
    misuse.raise("head_error.bounds: format: expected 'h24w16' or 'h24w24', got %s",
                 tostring(format))
  end
  local h, rows, D = matrix("hidden", hidden)
  local w, ids, width = matrix("weights", weights)
  if width ~= D then
    misuse.raise("head_error.bounds: hidden %s and weights %s have different D",
                 tensor.describe(hidden), tensor.describe(weights))
  end
  local of_size, of_loss, of_last, most = 0, 0, 0, -40
  local x, words = ffi.cast("float *", w.ptr), ffi.cast("uint32_t *", w.ptr)
  for v = 0, ids - 1 do
    local E = scale(words + v * D, D)
    if E then
      local size, loss, last = norms(x + v * D, D, E, bits)
      of_size, of_loss, of_last = max(of_size, size), max(of_loss, loss), max(of_last, last)
      most = max(most, E)
    end
  end
  local shape = {}
  for d = 1, #hidden.shape - 1 do shape[d] = hidden.shape[d] end
  local out = tensor.empty(shape, "float32")
  local bounds = ffi.cast("float *", out.ptr)
  x, words = ffi.cast("float *", h.ptr), ffi.cast("uint32_t *", h.ptr)
  for r = 0, rows - 1 do
    local E = scale(words + r * D, D)
    if E then
      local size, loss, last = norms(x + r * D, D, E, 24)
      local third = bits == 16 and last * of_last or ldexp(1, E + most - 31)
      bounds[r] = (1 + 2 ^ -20) * ((size + loss) * of_loss + loss * of_size + third)
    else
      ffi.cast("uint32_t *", out.ptr)[r] = 0x7fc00000
    end
  end
  return out
end)

return M
