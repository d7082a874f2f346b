-- Results are accurate as well as reproducible: on every backend and instruction set they agree,
-- within the bounds that docs/numerics.md states, with values that this code did not compute.

local ffi = require "ffi"
local samebits = require "samebits"
local selftest = require "samebits.selftest"
local vectors = require "samebits.vectors"
local backends = require "spec.support.backends"
local bounds = require "spec.support.bounds"
local hex = require "spec.support.hex"
local judge = require "spec.support.judge"
local oracle = require "spec.support.oracle"

local exp, log1p = math.exp, oracle.log1p
local LOGPROB, LSE, bound = bounds.LOGPROB, bounds.LSE, bounds.stated

-- Read once, by the first test that needs them.
local cases = {}
local function cases_of(file)
  cases[file] = cases[file] or assert(vectors.read(selftest.directory .. "/" .. file))
  return cases[file]
end

-- A real model's logits, with K targets per row (the sampled id, the likeliest, three others) and
-- as many temperatures. In call k, row r gets target k and temperature r + k, so that each row
-- meets all.
local TAUS = { 1, tonumber(ffi.new("float", 0.7)), tonumber(ffi.new("float", 1.3)), 2 ^ -4, 8 }
local K = #TAUS

local model
local function real_calls()
  if model then return model end
  local data = assert(samebits.load(selftest.directory .. "/smollm2.safetensors"))
  local V = data.logits.shape[3]
  local logits, sampled = data.logits:view { -1, V }, data.ids:view(-1)
  local calls = { logits = logits }
  for k = 1, K do calls[k] = { ids = {}, temperatures = {}, exact = {} } end
  for r = 1, logits.shape[1] do
    local row = logits:slice(0, r - 1, r):to "float32"
    local x, best = ffi.cast("const float *", row.ptr), 0
    for i = 1, V - 1 do if x[i] > x[best] then best = i end end
    local ids = { tonumber(sampled:get(r - 1)), best, 0, V - 1, r * 1009 % V }
    for k = 1, K do
      local call, tau, id = calls[k], TAUS[(r + k) % K + 1], ids[k]
      local truth = oracle.row(x, V, tau)
      call.ids[r], call.temperatures[r] = id, tau
      call.exact[r] = { logprob = truth.logprob(id), lse = truth.lse, entropy = truth.entropy }
    end
  end
  model = calls
  return model
end

backends.each(function(at)
  describe("accuracy on " .. at.name .. ":", function()
    for file, at_least in pairs { ["rows.txt"] = 1000, ["generated.txt"] = 2000 } do
      it(file .. ", against 80 digits", function()
        local judged = judge()
        for _, case in ipairs(cases_of(file)) do
          for _, target in ipairs(case.entropy and case.targets or {}) do
            local out = at.score({
              logits = case.logits, ids = { target.id }, temperature = case.tau,
            }, { outputs = { "token", "lse" } })
            local what = ("%s:%d (%s)"):format(file, case.line, case.name)
            local logprob, lse = out.token[0], out.lse[0]
            if target.exact then
              judged.within(("%s: logprob of id %d"):format(what, target.id), logprob,
                            target.exact, bound(LOGPROB, case.entropy, logprob))
            end
            if case.exact_lse then
              judged.within(what .. ": lse", lse, case.exact_lse,
                            bound(LSE, case.entropy, lse))
            end
          end
        end
        judged.done(at_least)
      end)
    end

    it("a real model's logits, against fp64", function()
      local judged, calls = judge(), real_calls()
      for _, call in ipairs(calls) do
        local out = at.score {
          logits = calls.logits, ids = call.ids, temperature = call.temperatures,
        }
        for r, exact in ipairs(call.exact) do
          local what = ("row %d, temperature %.9g: "):format(r - 1, call.temperatures[r])
          local logprob, lse = out.token[r - 1], out.lse[r - 1]
          judged.within(("%slogprob of id %d"):format(what, call.ids[r]), logprob, exact.logprob,
                        bound(LOGPROB, exact.entropy, logprob))
          judged.within(what .. "lse", lse, exact.lse, bound(LSE, exact.entropy, lse))
        end
      end
      judged.done(2 * 48 * K)
    end)

    -- The target is the only present id of its leaf: the error shrinks with the logprob.
    it("a near-certain token, relatively", function()
      local judged = judge()
      for d = 0, 24, 0.25 do
        local x = {}
        for i = 1, 48 do x[i] = -math.huge end
        x[1], x[17], x[40] = 3, 3 - d, 3 - d
        local out = at.score { logits = hex.tensor(x, { 1, 48 }), ids = { 0 } }
        local rho, logprob = 2 * exp(-d), out.token[0]
        local exact = -log1p(rho)
        local entropy = rho / (1 + rho) * d - exact
        judged.within("the others at " .. -d, logprob, exact,
                      bounds.near_certain(exact, entropy, logprob))
      end
      judged.done(97)
    end)
  end)
end)
