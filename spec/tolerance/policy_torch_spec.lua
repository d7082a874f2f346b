-- Checks policy losses and their gradients against plain PyTorch in fp64, in TRL's and verl's
-- formulas, within the bounds of docs/numerics.md ("Error of a policy loss"). Needs a Python with
-- PyTorch (PYTHON names the interpreter).

local ffi = require "ffi"
local samebits = require "samebits"
local prng = require "spec.support.prng"
local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"
local torch = require "spec.support.torch"

local GRADIENT, SCALAR = 5.1 * 2 ^ -24, 8.1 * 2 ^ -24
local B, T = 16, 64
local INPUTS = { "now", "old", "ref", "rollout", "entropy", "advantages" }

-- Every loss with every norm; KL estimators, weights and levels in turn.
local function jobs_of(random)
  local jobs, kls = {}, { "k1", "k2", "k3", "k1+", "k3+" }
  local weights, levels = { "none", "truncate", "drop" }, { "token", "sequence", "geometric" }
  for _, loss in ipairs { "clip", "gspo", "cispo", "reinforce" } do
    for _, norm in ipairs { "token-mean", "sequence-mean", "sequence-sum", "constant" } do
      local i = #jobs
      local opts = { loss = loss, norm = norm, kl = kls[i % 5 + 1], weight = weights[i % 3 + 1],
                     level = levels[math.floor(i / 3) % 3 + 1], beta = i % 2 * 0.125,
                     eta = i % 4 == 2 and 0.0625 or 0, eps_low = 0.2, eps_high = 0.28,
                     dual = i % 4 == 0 and 1.5 or math.huge, w_low = 0.5, w_high = 1.5,
                     constant = 777 }
      local given, mask = { }, {}
      for _, name in ipairs(INPUTS) do given[name] = {} end
      for k = 1, B * T do
        local x = -random:uniform() * 8
        given.now[k], given.entropy[k] = x, random:uniform() * 4
        given.old[k], given.ref[k] = x + random:normal() * 0.3, x + random:normal() * 0.5
        given.rollout[k] = given.old[k] + random:normal() * 0.2
        given.advantages[k] = random:normal()
        mask[k] = (k > T and random:uniform() < 0.8) and 1 or 0 -- the first sequence is empty
      end
      local job = { opts = opts, tokens = {} }
      for _, name in ipairs(INPUTS) do
        job.tokens[name] = samebits.tensor(given[name]):view(B, T)
      end
      job.tokens.mask = samebits.tensor(mask, { dtype = "uint8" }):view(B, T)
      jobs[i + 1] = job
    end
  end
  return jobs
end

local function bytes_of(t) return ffi.string(t.ptr, t:numel() * t.itemsize) end

describe("policy losses beside PyTorch:", function()
  local version, why = torch.version()
  if not version then return pending(why) end

  it(version .. ": gradients and losses are within their bounds", function()
    local ctx, files = assert(samebits.open "cpu"), temporary.folder()
    local jobs = jobs_of(prng.new(12))
    local file = assert(io.open(files:path "jobs", "wb"))
    for _, job in ipairs(jobs) do
      local o = job.opts
      file:write(("%s %s %s %s %s %.17g %.17g %.17g %.17g %.17g %.17g %.17g %.17g %d %d\n")
        :format(o.loss, o.norm, o.kl, o.weight, o.level, o.beta, o.eta, o.eps_low, o.eps_high,
                o.dual, o.w_low, o.w_high, o.constant, B, T))
      for _, name in ipairs(INPUTS) do file:write(bytes_of(job.tokens[name])) end
      file:write(bytes_of(job.tokens.mask))
    end
    file:close()
    local said, status = shell.run("%s %s %s %s", os.getenv "PYTHON" or "python3",
                                   "spec/support/torch_policy.py", files:path "jobs",
                                   files:path "results")
    assert.equal(0, status, said)
    file = assert(io.open(files:path "results", "rb"))
    local data = file:read "*a"
    file:close()
    files:remove()
    local p, at, compared = ffi.cast("const double *", data), 0, 0
    assert.equal(#jobs * (2 + 4 * B * T) * 8, #data)
    for _, job in ipairs(jobs) do
      local name = ("%s %s %s %s"):format(job.opts.loss, job.opts.norm, job.opts.kl,
                                          job.opts.weight)
      local out = assert(ctx:policy_loss(job.tokens, require "spec.support.with"(job.opts, {
        outputs = { "loss", "token", "entropy" } })))
      local by_new, by_entropy, bound = p + at + 1, p + at + 1 + B * T, p + at + 1 + 2 * B * T
      local near = p + at + 1 + 3 * B * T
      local any_near = false
      for b = 0, B - 1 do
        for t = 0, T - 1 do
          local i = b * T + t
          if near[i] ~= 0 then
            any_near = true
          else
            compared = compared + 1
            local error = math.abs(out.token[b][t] - by_new[i])
            if error > GRADIENT * bound[i] then
              assert.equal(by_new[i], out.token[b][t], ("%s, token %d"):format(name, i))
            end
            error = math.abs(out.entropy[b][t] - by_entropy[i])
            assert.is_true(error <= 2 ^ -24 * math.abs(by_entropy[i]), name)
          end
        end
      end
      local of = p[at + 1 + 4 * B * T]
      local error = math.abs(out.loss[0] - p[at])
      assert.is_true(any_near or error <= SCALAR * of, ("%s: loss %.9g, %.17g"):format(
        name, out.loss[0], p[at]))
      at = at + 2 + 4 * B * T
    end
    assert.is_true(compared > 0.99 * #jobs * B * T)
  end)
end)
