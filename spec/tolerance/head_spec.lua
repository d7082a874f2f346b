-- The logits of a head against sums in fp64, on every backend and instruction set: within the
-- bounds that docs/numerics.md proves, as accurate as its model of roundings says, and, for h24w24,
-- more so than a sum in fp32.

local ffi = require "ffi"
local errors = require "spec.support.errors"
local heads = require "spec.support.heads"
local prng = require "spec.support.prng"
local samebits = require "samebits"

local ROWS, IDS, D = 12, 80, 384
local SMOLLM2 = "spec/vectors/smollm2_head.safetensors"

-- Elements of hidden states and weights. "loud": two channels of hidden states are 1000 times the
-- rest, and the weights there 300 times smaller. fp32 elements use all bits.
local KINDS = { "normal", "heavy tails", "loud" }

local function matrix(kind, dtype, rows, seed, is_hidden)
  local random, t = prng.new(seed), samebits.zeros({ rows, D }, "float32")
  local x = ffi.cast("float *", t.ptr)
  for i = 0, rows * D - 1 do
    x[i] = random:normal() / (is_hidden and 1 or 8)
    if kind == "heavy tails" then
      local u = random:normal()
      x[i] = x[i] / math.sqrt(math.sqrt(u * u + 1e-6))
    elseif kind == "loud" and (i % D == 3 or i % D == 200) then
      x[i] = is_hidden and x[i] * 1000 or x[i] / 300
    end
  end
  return assert(t:to(dtype))
end

local truths = {}

-- The operands as fp32, the products in fp64, and for each row E and the sum of magnitudes.
local function truth_of(kind, dtype)
  local key = kind .. dtype
  if truths[key] then return truths[key] end
  local case = { hidden = matrix(kind, dtype, ROWS, #kind * 7, true),
                 weights = matrix(kind, dtype, IDS, #kind * 7 + 1, false), exact = {} }
  for name, rows in pairs { hidden = ROWS, weights = IDS } do
    local of = {}
    case["of_" .. name] = of
    local x = case[name]:to "float32"
    case[name .. "32"] = x
    local p = ffi.cast("float *", x.ptr)
    for r = 0, rows - 1 do
      local sum, square, most = 0, 0, 0
      for d = r * D, r * D + D - 1 do
        local a = math.abs(p[d])
        sum, square, most = sum + a, square + a * a, math.max(most, a)
      end
      local significand, E = math.frexp(most)
      if significand >= 0xfefe00 / 2 ^ 24 then E = E + 1 end
      of[r] = { sum = sum, norm = math.sqrt(square), E = E }
    end
  end
  local h, w = ffi.cast("float *", case.hidden32.ptr), ffi.cast("float *", case.weights32.ptr)
  local sum32 = ffi.new "float[1]"
  case.fp32 = {}
  for r = 0, ROWS - 1 do
    for v = 0, IDS - 1 do
      local sum = 0
      sum32[0] = 0
      for d = 0, D - 1 do
        local product = h[r * D + d] * w[v * D + d]
        sum = sum + product
        sum32[0] = sum32[0] + product
      end
      case.exact[r * IDS + v], case.fp32[r * IDS + v] = sum, tonumber(sum32[0])
    end
  end
  truths[key] = case
  return case
end

local function half_ulp(x) return errors.spacing(x) / 2 end

-- The proved bound of a logit, and the deviation that independent roundings of fp32 operands have.
local function bound(format, h, w)
  local unit = 2 ^ (h.E + w.E - 24)
  if format == "h24w16" then
    return 2 ^ (w.E - 16) * h.sum + 2 ^ (h.E - 24) * w.sum + 1.0001 * D * unit
  end
  return 2 ^ (w.E - 24) * h.sum + 2 ^ (h.E - 24) * w.sum + unit * 2 ^ -7 + D * unit * 2 ^ -24
end

local function variance(format, h, w)
  local bits = format == "h24w16" and 16.7925 or 24.7925
  return (2 ^ (w.E - bits) * h.norm) ^ 2 + (2 ^ (h.E - 24.7925) * w.norm) ^ 2 +
         (format == "h24w16" and D * (2 ^ (h.E + w.E - 25.585)) ^ 2 or
          (2 ^ (h.E + w.E - 31.7925)) ^ 2)
end

heads.each(function(at)
  describe("the logits of a head on " .. at.name, function()
    for _, kind in ipairs(KINDS) do
      for _, dtype in ipairs { "float32", "bfloat16", "float16" } do
        it(("are within the bounds: %s, %s"):format(kind, dtype), function()
          local case = truth_of(kind, dtype)
          for _, format in ipairs { "h24w16", "h24w24" } do
            local head = heads.head(at, case.weights, { format = format, norms = true })
            local batch = { hidden = heads.placed(at, case.hidden), head = head }
            local x = assert(at.context():logits(batch)):to "cpu"
            local own = assert(at.context():head_error(batch)):to "cpu"
            local square, expected, of_fp32 = 0, 0, 0
            for r = 0, ROWS - 1 do
              for v = 0, IDS - 1 do
                local got, exact = x:get(r, v), case.exact[r * IDS + v]
                local h, w = case.of_hidden[r], case.of_weights[v]
                local error = math.abs(got - exact)
                assert(error <= bound(format, h, w) + half_ulp(got) and
                       error <= own:get(r) + half_ulp(got),
                       ("row %d, id %d: %.9g, exactly %.17g"):format(r, v, got, exact))
                square, expected = square + error ^ 2, expected + variance(format, h, w) +
                                   half_ulp(got) ^ 2 / 3
                of_fp32 = of_fp32 + (case.fp32[r * IDS + v] - exact) ^ 2
              end
            end
            -- 960 errors, not all independent. bf16 and fp16 operands are mostly exact.
            local share = math.sqrt(square / expected)
            assert(share < 1.12 and (dtype ~= "float32" or share > 0.88),
                   ("%s: %.3g of the expected error"):format(format, share))
            if format == "h24w24" and kind == "normal" then
              assert(square < of_fp32, ("%s: worse than fp32"):format(dtype))
            end
          end
        end)
      end
    end

    it("take bias, scale and softcap within ulps", function()
      local case = truth_of("normal", "float32")
      local bias = matrix("normal", "float32", 1, 5, true):view(D):slice(0, 0, IDS):clone()
      local hidden = heads.placed(at, case.hidden)
      local plain = assert(at.context():logits {
        hidden = hidden, head = heads.head(at, case.weights) }):to "cpu"
      local scale, cap = tonumber(ffi.new("float", 7.3)), 30
      local x = assert(at.context():logits { hidden = hidden, head = heads.head(at, case.weights, {
        bias = bias, scale = scale, softcap = cap }) }):to "cpu"
      for r = 0, ROWS - 1 do
        for v = 0, IDS - 1 do
          local sum = plain:get(r, v) + bias:get(v)
          local scaled = sum * scale
          local exact = cap * math.tanh(scaled / cap)
          local allowed = half_ulp(sum) * scale + half_ulp(scaled) + 4 * half_ulp(exact)
          assert(math.abs(x:get(r, v) - exact) <= allowed, ("%.9g, not %.17g"):format(x:get(r, v),
                                                                                      exact))
        end
      end
    end)
  end)
end)

describe("on SmolLM2's hidden states", function()
  it("errors are as docs/accuracy.md says", function()
    local data = assert(samebits.load(SMOLLM2))
    local ctx = assert(samebits.open "cpu")
    local hidden, head = data.hidden:to "float32", data.head:slice(0, 0, 512):to "float32"
    local h, w = ffi.cast("float *", hidden.ptr), ffi.cast("float *", head.ptr)
    local largest = { h24w16 = 2e-3, h24w24 = 5e-6 }
    for format, rms in pairs { h24w16 = 1e-4, h24w24 = 5e-7 } do
      local x = assert(ctx:logits { hidden = data.hidden, head = assert(ctx:head(
        data.head:slice(0, 0, 512), { format = format })) })
      local got, square = ffi.cast("float *", x.ptr), 0
      for r = 0, 47 do
        for v = 0, 511 do
          local sum = 0
          for d = 0, 575 do sum = sum + h[r * 576 + d] * w[v * 576 + d] end
          local error = math.abs(got[r * 512 + v] - sum)
          assert.is_true(error <= largest[format])
          square = square + error ^ 2
        end
      end
      assert.is_true(math.sqrt(square / (48 * 512)) < rms, format)
    end
  end)
end)
