-- The path that every op takes to the library, tested with an op that this file defines: an op
-- needs only a table.

local samebits = require "samebits"
local call = require "samebits.op.call"
local class = require "samebits.op.class"
local refusal = require "spec.support.refusal"
local says, misuse = refusal.says, refusal.misuse

-- sb_logprob with two of its outputs, under another name.
local TRIAL = call.op {
  name = "trial",
  entry = "sb_logprob",
  struct = "sb_logprob_out",
  outputs = { { "token", "float32", call.per_row }, { "sequence", "float32", call.per_sequence } },
  launch = { "split" },
  options = { "scale" },
  arguments = function(at, batch) return at:batch(batch).c end,
}
local trial, size = call.method(TRIAL), call.workspace("trial_size", TRIAL)

describe("an op", function()
  local ctx, spec
  setup(function()
    ctx = assert(samebits.open "cpu")
    spec = { logits = samebits.tensor { { { 1, 2, 3 }, { 4, 4, 4 } } }:to "float32",
             ids = { { 0, 2 } } }
  end)
  teardown(function() ctx:close() end)

  it("gives its outputs, all or those chosen, new or the caller's", function()
    local want = ctx:logprob(spec)
    local out = trial(ctx, spec)
    assert.same_bits(want.token, out.token)
    assert.same_bits(want.sequence, out.sequence)
    assert.is_nil(out.lse)
    out = trial(ctx, spec, { outputs = { "sequence" } })
    assert.is_nil(out.token)
    local given = { sequence = samebits.zeros({ 1 }, "float32"), lse = "not its own" }
    assert.equal(given, trial(ctx, spec, { outputs = { "sequence" }, out = given }))
    assert.same_bits(want.sequence, given.sequence)
  end)

  it("says how much workspace it needs, without its outputs", function()
    assert.equal(0, size(ctx, spec, { outputs = { "token" } }))
    says(misuse(function() size(ctx, spec, { outputs = { "k" } }) end), "unknown output 'k'")
    says(misuse(function() size(ctx, { logits = spec.logits }) end), "batch: ids is missing")
  end)

  it("has its own options and no others, and names itself", function()
    assert.is_table(trial(ctx, spec, { scale = 2, split = 2 }))
    says(misuse(function() trial(ctx, spec, { out = {}, threads = 2 }) end),
         "trial: unknown option 'threads'")
    says(misuse(function() size(ctx, spec, { mask = 2 }) end), "trial_size: unknown option 'mask'")
    says(misuse(function() trial(ctx, spec, 5) end), "trial: expected a table, got number")
    says(misuse(function() trial({}, spec) end), "trial: call it as ctx:trial(batch)")
    says(misuse(function() trial(ctx, spec, { outputs = { "lse" } }) end),
         "unknown output 'lse'; known: token, sequence")
  end)

  it("may differ from another one in some fields", function()
    local fewer = call.like(TRIAL, { name = "fewer", outputs = { TRIAL.outputs[2] },
                                     options = { "other" } })
    local out = call.run(fewer, "fewer", ctx, { other = 1 }, spec)
    assert.same_bits(ctx:logprob(spec).sequence, out.sequence)
    assert.is_nil(out.token)
    assert.is_true(TRIAL.known.scale)
    assert.is_nil(fewer.known.scale)
  end)

  it("ends with what the environment refuses, from any depth", function()
    local refused = call.method(call.like(TRIAL, {
      name = "refused",
      arguments = function() require("samebits.misuse").fail("no more", "SB_ERR_MEMORY") end,
    }))
    assert.same({ n = 3, nil, "no more", "SB_ERR_MEMORY" },
                { n = select("#", refused(ctx, spec)), refused(ctx, spec) })
  end)

  it("is a method of contexts where context.lua knows it", function()
    assert.is_true(call.is_method(trial))
    assert.is_false(call.is_method(print))
    assert.is_nil(ctx.trial)
    assert.is_true(call.is_method(class.Context.kl))
  end)
end)
