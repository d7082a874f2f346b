-- samebits.verify.paths: what each path scores a batch with, and what a caller's function must
-- give.

local samebits = require "samebits"
local hex = require "spec.support.hex"
local says = require("spec.support.refusal").says
local paths = require "samebits.verify.paths"

local SPEC = { logits = hex.tensor(hex.values(2 * 3 * 7, 5), { 2, 3, 7 }),
               ids = { { 1, 2, 3 }, { 4, 5, 6 } }, temperature = 0.5 }

local function refused(f, ...)
  local ok, why = pcall(f, ...)
  assert.is_false(ok)
  return tostring(why)
end

describe("a path", function()
  it("of the library gives a context's bits, in memory", function()
    local ctx = assert(samebits.open "cpu")
    local path = paths.samebits(ctx)
    assert.same({ "samebits", "cpu", "samebits, cpu" }, { path.kind, path.backend, path.name })
    assert.equal(ctx, path.context())
    local got, want = path.score(SPEC, {}), assert(samebits.logprob(SPEC))
    assert.equal("cpu", got.token.device)
    assert.same(hex.of(want.token), hex.of(got.token))
    local bad = refused(path.score, { logits = SPEC.logits, ids = { { 1, 2, 3 }, { 4, 5, 9 } } })
    says(bad, "9")
    assert.is_nil(bad:find("paths.lua", 1, true))
    path.close()
    says(refused(path.score, SPEC), "closed")
  end)

  it("of the control group takes only the options that it has", function()
    local path = paths.conventional(assert(samebits.open "cpu"))
    assert.same({ "conventional", true }, { path.kind, path.nans_alike })
    local want = assert(samebits.logprob(SPEC)).token
    local got = path.score(SPEC, { outputs = { "token" }, isa = "none such" }).token
    for i = 0, 5 do assert.near(want:view(6):get(i), got:view(6):get(i), 1e-5) end
    path.close()
  end)

  it("of a function is given a batch, and gives one number per row", function()
    local seen
    local path = paths.of_function(function(batch)
      seen = batch
      return { { -1, -2, -3 }, { -4, -5, -6 } }
    end)
    local token = path.score(SPEC).token
    assert.same({ 2, 3 }, seen.shape)
    assert.same({ { 2, 3 }, "float64" }, { token.shape, token.dtype })
    assert.equal(-5, token:get(1, 1))
    path = paths.of_function(samebits.logprob)
    assert.same(hex.of(assert(samebits.logprob(SPEC)).token), hex.of(path.score(SPEC).token))
  end)

  it("of a function refuses what is no such result", function()
    local function why(...)
      local results = { n = select("#", ...), ... }
      return refused(paths.of_function(function() return unpack(results, 1, results.n) end).score,
                     SPEC)
    end
    assert.equal("the function gave nil", why(nil))
    assert.equal("out of memory", why(nil, "out of memory"))
    assert.equal("the function gave string, expected logprobs: a tensor or a table", why "x")
    says(why { -1, -2 }, "expected [2, 3], one per row")
    says(why { { -1 }, { -2, -3 } }, "the function's result: ")
  end)
end)

describe("the paths of a machine", function()
  it("are the library and the control group on the backend that is named", function()
    local list = assert(paths.present("cpu", { threads = 2 }))
    assert.equal(2, #list)
    assert.same({ "samebits", "conventional" }, { list[1].kind, list[2].kind })
    for _, path in ipairs(list) do path.close() end
  end)

  it("are none on a backend that there is not", function()
    local list, why = paths.present "abacus"
    assert.is_nil(list)
    says(why, "abacus")
  end)
end)
