-- Right, not only the same: results against values that were not computed by this code, within the
-- bounds that docs/numerics.md states. On every backend and instruction set.

local ffi = require "ffi"
local samebits = require "samebits"
local selftest = require "samebits.selftest"
local vectors = require "samebits.vectors"
local backends = require "spec.support.backends"
local hex = require "spec.support.hex"

ffi.cdef "double samebits_spec_log1p(double) __asm__(\"log1p\");"
local exp, log, log1p = math.exp, math.log, ffi.C.samebits_spec_log1p

local LOGPROB, LSE = 4.1e-7, 3.3e-7

-- Half the spacing of fp32 at x; 0 at 0.
local function half_ulp(x)
  local _, e = math.frexp(x)
  return x == 0 and 0 or 2 ^ (math.max(e, -125) - 25)
end

local function bound(base, entropy, result)
  return base + 2 ^ -24 * entropy + half_ulp(result)
end

-- Collects what is off, and how many values were looked at.
local function judge()
  local self = { seen = 0, wrong = {} }
  function self.within(what, got, exact, limit)
    self.seen = self.seen + 1
    local error = math.abs(got - exact)
    if error > limit or error ~= error then
      self.wrong[#self.wrong + 1] = ("%s: %.9g, exactly %.17g: off by %.4g, the bound is %.4g")
        :format(what, got, exact, error, limit)
    end
  end
  function self.done(at_least)
    local wrong = self.wrong
    assert(#wrong == 0, ("%d of %d values are out of bounds:\n%s"):format(#wrong, self.seen,
      table.concat(wrong, "\n", 1, math.min(#wrong, 5))))
    assert(self.seen >= at_least, ("only %d values were looked at"):format(self.seen))
  end
  return self
end

-- Read once, by the first test that needs them.
local cases = {}
local function cases_of(file)
  cases[file] = cases[file] or assert(vectors.read(selftest.directory .. "/" .. file))
  return cases[file]
end

-- lse and entropy of V logits, in fp64. The sums are compensated (Kahan), so that V does not enter:
-- lse is right to about 1e-15 of the largest |x / tau|, far below any bound here.
local function log_sum_exp(x, V, tau)
  local m = -math.huge
  for i = 0, V - 1 do m = math.max(m, x[i]) end
  local mass, mass_error, moment, moment_error = 0, 0, 0, 0
  for i = 0, V - 1 do
    local u = (x[i] - m) / tau
    local p = exp(u)
    local more = p - mass_error
    local sum = mass + more
    mass, mass_error = sum, sum - mass - more
    more = p * u - moment_error
    sum = moment + more
    moment, moment_error = sum, sum - moment - more
  end
  return m / tau + log(mass), log(mass) - moment / mass
end

-- A real model's logits, K targets a row (the sampled id, the likeliest, three others), and as many
-- temperatures: in call k row r gets target k and temperature r + k, so that each row meets all.
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
      local lse, entropy = log_sum_exp(x, V, tau)
      call.ids[r], call.temperatures[r] = id, tau
      call.exact[r] = { logprob = x[id] / tau - lse, lse = lse, entropy = entropy }
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
                      LOGPROB * -exact + 2 ^ -24 * entropy + 3e-12 + half_ulp(logprob))
      end
      judged.done(97)
    end)
  end)
end)
