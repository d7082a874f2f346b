--- The rows with the largest errors that hill climbing has found, far larger than chance finds. The
-- bounds of docs/numerics.md are checked against them, and would fail if they were too narrow.
--
-- A row is a temperature (fp32 bits) and leaves of 16 logits (fp32 bits, "-": -inf), each with a
-- repeat count. Leaves that occur thousands of times add up their errors. Temperatures whose c has
-- a relative error of nearly 2^-24, and rows of two levels far apart, maximize the effect of c's
-- rounding.

local ffi = require "ffi"
local samebits = require "samebits"
local bounds = require "spec.support.bounds"
local oracle = require "spec.support.oracle"

local M = {}

local LEAF = 16

-- What a case measures. Each takes the case, its rows' truths and a variant, and gives the result,
-- its true value and the bound; `narrow`, if there is one, is a bound that leaves out how c's
-- rounding grows with the spread of ln p, and that the case exceeds.
local measures = {}

function measures.lse(case, truth, at)
  local got = at.score({ logits = case.p, ids = { 0 }, temperature = case.tau_p }).lse[0]
  return got, truth.lse, bounds.stated(bounds.LSE, truth.entropy, got),
         bounds.LSE + bounds.half_ulp(got)
end

local function logprob(case, at)
  return at.score({ logits = case.p, ids = { case.id }, temperature = case.tau_p }).token[0]
end

function measures.logprob(case, truth, at)
  local got = logprob(case, at)
  return got, truth.logprob(case.id), bounds.stated(bounds.LOGPROB, truth.entropy, got),
         bounds.LOGPROB + bounds.half_ulp(got)
end

measures["near-certain logprob"] = function(case, truth, at)
  local got, exact = logprob(case, at), truth.logprob(case.id)
  return got, exact, bounds.near_certain(exact, truth.entropy, got),
         bounds.LOGPROB * -exact + bounds.half_ulp(got)
end

local function entropy(case, at)
  return at.score({ logits = case.p, ids = { 0 }, temperature = case.tau_p },
                  { outputs = { "entropy" } }).entropy[0]
end

function measures.entropy(case, truth, at)
  local got = entropy(case, at)
  return got, truth.entropy, bounds.entropy(truth, got),
         5e-7 + bounds.SLOPE * truth.entropy + bounds.half_ulp(got)
end

measures["entropy, the largest logit alone"] = function(case, truth, at)
  local got = entropy(case, at)
  return got, truth.entropy, bounds.entropy_alone(truth, case.vocab, got),
         3e-7 * truth.entropy + bounds.half_ulp(got)
end

function measures.divergence(case, truth, at)
  local none = { ids = false }
  local out = assert(at.context():kl(
    at.batch({ logits = case.p, temperature = case.tau_p }, none),
    at.batch({ logits = case.q, temperature = case.tau_q }, none)))
  local got = assert(out.token:to "cpu")[0]
  return got, truth.kl, bounds.divergence(truth, got),
         5e-7 + 2 ^ -22 * truth.kl + bounds.half_ulp(got)
end

-- The gradient at the case's id, for a derivative that cancels the temperature, which is exact.
local function gradient(case, of, target, at)
  local ctx = at.context()
  local batch = at.batch { logits = case.p, ids = { target }, temperature = case.tau_p }
  local out = assert(ctx:logprob(batch, { outputs = { "saved", of == "entropy" and of or nil } }))
  local upstream = samebits.tensor({ case.tau_p }, { dtype = "float32" })
  local grad = assert(ctx:backward(batch, { saved = out.saved,
                                            [of] = assert(upstream:to(ctx.device)) }))
  return assert(grad:to "cpu"):get(0, case.id)
end

measures["logprob's gradient"] = function(case, truth, at)
  local got, lp = gradient(case, "token", case.id == 0 and 1 or 0, at), truth.logprob(case.id)
  return got, -math.exp(lp), bounds.token_gradient(truth, lp, false, 1, got)
end

measures["logprob's gradient, the target"] = function(case, truth, at)
  local got, lp = gradient(case, "token", case.id, at), truth.logprob(case.id)
  return got, 1 - math.exp(lp), bounds.token_gradient(truth, lp, true, 1, got)
end

measures["entropy's gradient"] = function(case, truth, at)
  local got, lp = gradient(case, "entropy", case.id, at), truth.logprob(case.id)
  return got, -math.exp(lp) * (lp + truth.entropy),
         bounds.entropy_gradient(truth, lp, 1, got), 4e-7 + bounds.half_ulp(got)
end

--- The cases: the quantity measured, the row p, the row q for divergences, the id, and the least
-- share of the bound that the error takes up: no bound is many times too wide.
M.CASES = {
  {
    what = "lse", part = 0.85,
    p = {
      tau = "42b88d3c",
      { 54369, "c49cc74b c49cc742 c49cc74b c49cc74b c49cc74b c49cc74f c49cc2e5 c49cc747 " ..
               "c49cc74b c49cc74b c480dfda c49cc74b c49cc74b c49cc419 c49cc74b c49cc74b" },
      { 1, "c47daabd c47c0c9e c47e0b09 c47e0ae5 c47e0b1e c47e0b24 c47e0b03 c47e0b20 " ..
           "c47e0aff c47e0b0b c47e0b21 c47e0abc c47e0b0d c47e0b0d c47e0ae5 c47e0b07" },
      { 1, "c492c642 c492c681 c492c66b c492c650 c492c665 c492c672 c492c668 c492c668 " ..
           "c492c681 c492c658 c492c668 c492c639 c492c62d c492c680 c492c632 c492c644" },
    },
  },
  {
    what = "logprob", part = 0.8, id = 0,
    p = {
      tau = "3fb87563",
      { 1, "bfb009fe bfaf77fa bfaef6e3 bfaf8284 bfaf7641 bfafb481 bfaf2f06 bfafc4fb " ..
           "bfaf89a3 bfafa789 bfaf1b6a bfaef3d0 bfaf7238 bf8828ca bfaf47c0 bfaf788d" },
      { 135, "bff4e4bd bfe70441 bfe4df17 bf3904ce be61d10f - bfde554d bfa1b777 " ..
             "bf771976 bfa4f85f c9fc7333 be8f248c c9fc7333 c0433ead be50bf5a 3f9aea67" },
    },
  },
  {
    what = "near-certain logprob", part = 0.85, id = 2,
    p = {
      tau = "43b89617",
      { 1, "- - 46597675 - - - - - - - - - - - - -" },
      { 20232, "45e1c1d1 45e1c1d1 cdfc7333 45e1c1d1 45e1a96a 45e13e27 45e13e27 45d849b6 " ..
               "45e1c1d1 45e1ad05 45e01e53 45e13e27 45e1c1d1 45e1bbcf 45e1c1d1 45e1acd7" },
    },
  },
  {
    what = "entropy", part = 0.65,
    p = {
      tau = "40385805",
      { 1, "- 4042d03c 4221836e ca7c7333 3fc5917a 41599147 419874af ca7c7319 " ..
           "415ef8e5 ca7c732e c0981cf9 3fb9b051 415ef8f5 ca7c7333 ca7c7320 41c37d01" },
      { 65535, "3f7b8dcf 3f7868cf 3f7bceab 3f7b8dd2 3f7b8d05 3f7b8dd2 bf85765a c1415816 " ..
               "c1415816 c15de013 3f7b8dcf 3f7868cf 3f7b8dcf 3f7b8dd7 c1415811 3f7b8dcf" },
    },
  },
  {
    what = "entropy", part = 0.4,
    p = {
      tau = "43b82fc1",
      { 1, "cdfc7333 c3958d60 c3955ba5 - cdfc7332 c395807b c395a0a2 cdfc72fa " ..
           "cdfc7327 cdfc7333 cdfc7306 - cdfc7333 45008ba0 - c39569e5" },
      { 54, "c387c59c c45474e0 c4047b21 c45474e0 c43e930d c43e9369 c39d9627 c39d9627 " ..
            "c43e0de2 c39e866a c43e0de2 c39d637f c43e0de2 c43e0de2 c39d6380 c4047b22" },
    },
  },
  {
    what = "entropy, the largest logit alone", part = 0.5,
    p = {
      tau = "42385aa3",
      { 8, "c3bde070 c3bde070 c3bde070 c3bde070 c3bde070 c3bde06e cc7c7333 c3c2039f " ..
           "c3bde325 c3bde325 c3bcc077 c3bde325 c3bde073 c3bde325 c3bde070 c3bde070" },
      { 1, "43e271b0 - - - - - - - - - - - - - - -" },
    },
  },
  {
    what = "divergence", part = 0.25,
    p = {
      tau = "3d38033d",
      { 668, "bedda951 beddaae9 bedd3860 bedda877 beddd859 bee0d8ae beddc0e9 bedd94ff " ..
             "beddac71 bedf06f9 bedd3860 bedda9df bedcb8c2 beddb497 bee0d8ae bedda9df" },
    },
    q = {
      tau = "3e0db476",
      { 668, "be6fce08 be6f2838 be6f2984 bdbcd572 be6f2984 be6e02e2 be7102db be6f29a5 " ..
             "be6f29a5 be69fcfa be6f2987 be6f29b5 3e1cb2ef be6f6dc3 be6fce05 be6f2a05" },
    },
  },
  {
    what = "divergence", part = 0.65,
    p = {
      tau = "3d38aa39",
      { 44654, "beff6d87 beff6f98 beff2a59 bf00e8c4 beffc8c0 beff6086 bf00bfd2 bf00e7c4 " ..
               "bf00e82b beff6d87 beff6d87 beff6086 beff6d87 beff6d87 beff6a79 beff6086" },
      { 10, "bd963f21 bceeb25f bdd31694 bc36a415 bd68699b bb8c6089 bc1277dd bcee4453 " ..
            "3ea17d46 bb8c6070 bd686eda bb8c6090 bcee444d bb8c6083 bb8c5f72 bb8c5f9e" },
    },
    q = {
      tau = "43b87f25",
      { 44654, "cdfc7183 cdfc7183 cdfc7183 cdfc7183 cdfc7183 cdfc7183 cdfc7183 cdfc7183 " ..
               "cdfc71a5 cdfc7183 cdfc7183 cdfc7183 cdfc7184 cdfc7183 cdfc7183 cdfc7183" },
      { 10, "4dfc6ccc 4dfc6cc8 4dfc6cb1 4dfc6cd5 4dfc6cab 4dfc6cd6 4dfc6cd5 4dfc6cd5 " ..
            "4dfc6d04 4dfc6cd9 4dfc6caa 4dfc6cd5 4dfc6cd7 4dfc6cd1 4dfc6cb1 4dfc6cd1" },
    },
  },
  {
    what = "divergence", part = 0.55,
    p = {
      tau = "3b389fe8",
      { 46312, "bf0cf488 bf0cf1c4 bf0cf1c4 bf0cf1c4 bf0cf1c6 bf0cf1c4 bf0cf1c0 bf0cf488 " ..
               "bf0cf05f bf0cf1c6 bf0cf488 bf0cf1c5 bf0cf1c4 bf0d24e2 bf0cf488 bf0cf1c4" },
      { 1, "bf0624ee bf0624f8 c57c7333 bf048aca bf0586ae bf064946 bf067634 bf062a85 " ..
           "c57c7333 c57c7333 bf048af8 befd71d1 bf067638 c57c7302 bf048af9 befda094" },
    },
    q = {
      tau = "3b389fe8",
      { 46312, "c57c730a c57c730a c57c730a c57c7311 c57c730a c57c730a c57c730d c57c730a " ..
               "c57c730a c57c730a c57c730c c57c730a c57c730a c57c730a c57c730a c57c730a" },
      { 1, "c1a685bd c1a68df6 c1a6b9dc c1a69f98 c1a68c34 c1a69f98 c1a687e4 c1a6950b " ..
           "c1a68ef1 c1a68a71 c1a68df6 c1a66a1e c1a6912c c1a68da4 c1a69f98 c1a66adc" },
    },
  },
  {
    what = "logprob's gradient", part = 0.6, id = 8818 * LEAF + 9,
    p = {
      tau = "40b87027",
      { 8818, "45b8ac79 45b8ac7d 45b8ac7d 45b8ac73 45b8ac7c 45b8ac74 45b8ac7a 45b8ac79 " ..
              "45b8ac77 45b8ac77 45b8ac79 45b8ac79 45b8ac79 45b8ac77 cafc7333 45b8ac79" },
      { 1, "45b8a021 45b7e616 45b99754 45b783d6 45b78090 45b92673 45b92673 45b78220 " ..
           "cafc7332 45bae78a 45b92338 45b912bb 45b78fc2 45b7827a 45b77ce1 45b76ac9" },
    },
  },
  {
    what = "entropy's gradient", part = 0.4, id = 35700 * LEAF + 5,
    p = {
      tau = "40380ff7",
      { 35699, "409dc7dc 409bd29a 409db41c 409cc983 409e7c83 409ce9a9 409d2e38 409d4429 " ..
               "409c4894 409d1897 4099946b 409e502c 409dd782 409c6743 409d5442 409d3b6f" },
      { 1, "4016633b 40169abc 4016ca23 4014d508 4016ca84 40167bfb 4016819e 40168125 " ..
           "4016ca12 4016c70c 40169ac0 4016c317 4016ba1b 40167c6f 4016c8da 4016ca23" },
      { 1, "41f1978d 41f1978d 41f1978b ca7c7333 41f1978b 423b4b3c 41f0cd93 41f1978d " ..
           "41f1978c - 41f193d1 41f1978d 41f19776 41f1978d 41f1978d 41f1978d" },
    },
  },
}

-- The target of the same row is as bad as any found.
for _, case in ipairs(M.CASES) do
  if case.what == "logprob's gradient" then
    M.CASES[#M.CASES + 1] = { what = case.what .. ", the target", part = 0.55, id = case.id,
                              p = case.p }
    break
  end
end

local function float_of(bits) return ffi.new("union { uint32_t u; float f; }", bits).f end

-- A row's logits, [1, V], and its temperature.
local function made(row)
  local leaves = 0
  for _, leaf in ipairs(row) do leaves = leaves + leaf[1] end
  local t = samebits.zeros({ 1, leaves * LEAF }, "float32")
  local words, at = ffi.cast("uint32_t *", t.ptr), 0
  for _, leaf in ipairs(row) do
    local first = at
    for word in leaf[2]:gmatch "%S+" do
      words[at] = word == "-" and 0xff800000 or tonumber(word, 16)
      at = at + 1
    end
    assert(at == first + LEAF, "16 logits per leaf")
    for _ = 2, leaf[1] do
      ffi.copy(words + at, words + first, 4 * LEAF)
      at = at + LEAF
    end
  end
  return t, float_of(tonumber(row.tau, 16))
end

-- Rows and truths, made once for all variants.
local known = {}

--- Measures a case on a variant, which is what spec/support/backends.lua gives: context, batch and
-- score. The result has `vocab`, `got`, `exact`, `error`, `bound` and, unless the case has none,
-- `narrow`.
function M.measure(case, at)
  local known_case = known[case]
  if not known_case then
    known_case = { id = case.id }
    known_case.p, known_case.tau_p = made(case.p)
    known_case.vocab = known_case.p.shape[2]
    local xp = ffi.cast("const float *", known_case.p.ptr)
    if case.q then
      known_case.q, known_case.tau_q = made(case.q)
      known_case.truth = oracle.divergence(xp, ffi.cast("const float *", known_case.q.ptr),
                                           known_case.vocab, known_case.tau_p, known_case.tau_q)
    else
      known_case.truth = oracle.row(xp, known_case.vocab, known_case.tau_p)
    end
    known[case] = known_case
  end
  local got, exact, bound, narrow = measures[case.what](known_case, known_case.truth, at)
  return { vocab = known_case.vocab, got = got, exact = exact, error = math.abs(got - exact),
           bound = bound, narrow = narrow }
end

return M
