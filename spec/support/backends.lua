--- Runs specs in every way that a call can run: on each known backend, on the cpu with each
-- instruction set and several thread counts and splits, and on a GPU with several geometries. The
-- cpu also runs behind a device, so that every machine exercises the code that moves batches and
-- results.
--
--     backends.each(function(at)
--       it("does something on " .. at.name, function()
--         local out = at.score { logits = logits, ids = ids }
--       end)
--     end)
--
-- `at.score(batch, opts)` takes a batch in memory, or the table to make one from, scores it where
-- the variant computes, and returns the results in memory. `at.context()` returns the context.
--
-- A variant that cannot be opened here becomes a pending test with the reason. If SB_REQUIRE names
-- the variant or its backend (SB_REQUIRE=cuda, SB_REQUIRE=avx512,cuda), the test fails instead.

local busted = require "busted"
local samebits = require "samebits"
local devices = require "samebits.device"
local place = require "samebits.verify.place"
local variants = require "samebits.variants"

local M = {}

local present, missing = variants.present()

--- The name of the device that the cpu stands behind.
M.LOOPBACK = "loopback:0"
devices.alias(M.LOOPBACK, "cpu")

local loopback = assert(samebits.open(M.LOOPBACK, { split = 3 }))
present[#present + 1] = { name = "the cpu behind a device", key = "cpu", backend = "cpu",
                          context = function() return loopback end }

--- Copies a tensor in memory to a device with the same layout.
M.placed = place.tensor

local batch_on = place.batch

for _, at in ipairs(present) do
  function at.score(spec, opts)
    local ctx = at.context()
    local out = assert(ctx:logprob(batch_on(ctx.device, spec), opts))
    local results = {}
    for name, t in pairs(out) do results[name] = assert(t:to "cpu") end
    return results
  end

  --- Makes another call of the context: at.call("topk", spec, 5) is `ctx:topk(batch, 5)` with its
  -- results in memory. Such a call may need no ids.
  function at.call(name, spec, ...)
    local ctx = at.context()
    local out = assert(ctx[name](ctx, batch_on(ctx.device, spec, { ids = false }), ...))
    local results = {}
    for key, t in pairs(out) do results[key] = assert(t:to "cpu") end
    return results
  end

  --- The batch where the variant computes; opts as for samebits.batch.
  function at.batch(spec, opts) return batch_on(at.context().device, spec, opts) end
end

local required = {}
for key in (os.getenv "SB_REQUIRE" or ""):gmatch "[^,%s]+" do required[key] = true end

local known = {}
for _, at in ipairs(variants.list()) do known[at.key], known[at.backend] = true, true end
known["cuda:1"] = true -- with_two_gpus
for key in pairs(required) do
  if not known[key] then
    missing[#missing + 1] = { name = key, key = key, why = "this library knows no " .. key }
  end
end

local function absent(at)
  if required[at.key] or required[at.backend] then
    busted.it(("%s is required"):format(at.key), function() error(at.why, 0) end)
  else
    busted.pending(("%s: %s"):format(at.key, at.why))
  end
end

--- Calls body(at), inside a describe block, for each variant that can be opened here.
function M.each(body)
  for _, at in ipairs(present) do body(at) end
  for _, at in ipairs(missing) do absent(at) end
end

--- The same, but only for the first variant of a backend ("cuda").
function M.with(backend, body)
  for _, at in ipairs(present) do
    if at.backend == backend then return body(at) end
  end
  for _, at in ipairs(missing) do
    if at.backend == backend then return absent(at) end
  end
end

--- For the describe block of a variant: calls take(ctx, device) with a context that belongs to the
-- block and is closed at its end.
function M.own_context(at, take)
  local ctx
  busted.setup(function()
    ctx = assert(samebits.open(at.context().device))
    take(ctx, ctx.device)
  end)
  busted.teardown(function() ctx:close() end)
end

--- Calls body(first, second) with the names of two GPUs. Without these the test is pending; with
-- SB_REQUIRE=cuda:1 it fails.
function M.with_two_gpus(body)
  local ctx, why = samebits.open "cuda:1"
  if not ctx then return absent { name = "a second GPU", key = "cuda:1", why = why } end
  ctx:close()
  return body("cuda:0", "cuda:1")
end

--- Calls body(name) for each device that tensors can be moved to.
function M.each_device(body)
  body(M.LOOPBACK)
  M.with("cuda", function(at) body(at.context().device) end)
end

return M
