--- The paths that can be verified: the library's logprobs on each backend, the control group's, and
-- a function of the caller's. A path scores a batch on its own device and returns the results in
-- memory.

local batches = require "samebits.batch"
local context = require "samebits.context"
local conventional = require "samebits.conventional"
local place = require "samebits.verify.place"
local tensor = require "samebits.tensor"

local M = {}

-- The launch options of the control group.
local CONVENTIONAL = { outputs = true, split = true, threads = true }

local function in_memory(out)
  local results = {}
  for name, t in pairs(out) do results[name] = assert(t:to "cpu") end
  return results
end

local function path(kind, ctx, logprob)
  local self = { kind = kind, backend = ctx.backend, logprob = logprob, label = ctx:describe(),
                 name = ("%s, %s"):format(kind, ctx.device) }
  function self.context() return ctx end
  function self.batch(spec) return place.batch(ctx.device, spec, { ids = false }) end
  function self.close() ctx:close() end
  function self.score(spec, opts)
    -- Called through pcall, so that messages do not name a line of this file.
    local ok, out, why = pcall(logprob, ctx, place.batch(ctx.device, spec), opts)
    if not ok or not out then error(ok and why or out, 0) end
    return in_memory(out)
  end
  return self
end

--- Makes the path of the library on a context, whose results have the contract's bits. logprob: how
-- it scores a batch, unless by ctx:logprob (see hidden.lua).
function M.samebits(ctx, logprob)
  local self = path("samebits", ctx, logprob or ctx.logprob)
  self.of_hidden = logprob ~= nil
  return self
end

--- Makes the path of the control group on a context. Its NaNs may have any bits.
function M.conventional(ctx)
  local self = path("conventional", ctx, function(where, batch, opts)
    local made = {}
    for key, value in pairs(opts or {}) do
      if CONVENTIONAL[key] then made[key] = value end
    end
    return conventional.logprob(where, batch, made)
  end)
  self.nans_alike = true
  return self
end

-- A function's result as a tensor in memory, one number per row.
local function token_of(result, batch)
  if type(result) == "table" and not tensor.is_tensor(result) and result.token ~= nil then
    result = result.token
  end
  if type(result) == "table" and not tensor.is_tensor(result) then
    local ok, made = pcall(tensor.tensor, result, { dtype = "float64" })
    if not ok then error("the function's result: " .. tostring(made), 0) end
    result = made
  end
  if not tensor.is_tensor(result) then
    error(("the function gave %s, expected logprobs: a tensor or a table"):format(type(result)), 0)
  end
  if not tensor.layout.same(result.shape, batch.shape) then
    error(("the function gave %s, expected %s, one per row"):format(tensor.describe(result),
          tensor.layout.text(batch.shape)), 0)
  end
  return assert(result:to "cpu"):contiguous()
end

--- Makes the path of the caller's function of a batch. The batch is ordinary: inactive rows are
-- masked and harmless.
function M.of_function(f)
  return {
    kind = "function", name = "the function", nans_alike = true, active_only = true, plain = true,
    close = function() end,
    score = function(spec)
      local batch = batches.is_batch(spec) and spec or batches.new(spec)
      local result, why = f(batch)
      if result == nil then error(why ~= nil and tostring(why) or "the function gave nil", 0) end
      return { token = token_of(result, batch) }
    end,
  }
end

--- Returns the paths of this machine: the library and the control group on each backend that can be
-- opened, or only on the named one. Returns nil and a message if there is none. With logprob, as
-- for `samebits`, there is no control group.
function M.present(backend, opts, logprob)
  local list = {}
  local names = { backend }
  if not backend then
    for _, known in ipairs(context.backends()) do
      if known.available then table.insert(names, 1, known.name) end
    end
  end
  for _, name in ipairs(names) do
    local ctx, why, code = context.open(name, opts and name:find "^cpu" and opts or nil)
    if not ctx then return nil, why, code end
    list[#list + 1] = M.samebits(ctx, logprob)
    if not logprob then list[#list + 1] = M.conventional(ctx) end
  end
  return list
end

return M
