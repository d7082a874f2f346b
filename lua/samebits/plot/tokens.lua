--- Prepares logprobs for plots of tokens: the active tokens of a reference and of other series.

local batches = require "samebits.batch"
local misuse = require "samebits.misuse"
local tensor = require "samebits.tensor"

local raise, describe = misuse.raise, tensor.describe

-- A tensor's elements as one list that counts from 1.
local function flat(t) return t:reshape(-1):totable() end

local function check_logprobs(what, t, shape)
  if not tensor.is_tensor(t) or t.dtype ~= "float32" then
    raise("%s: expected a float32 tensor, got %s", what, describe(t))
  end
  if shape and not tensor.layout.same(t.shape, shape) then
    raise("%s: shape %s, expected the reference's %s", what, tensor.layout.text(t.shape),
          tensor.layout.text(shape))
  end
end

-- The position of each row in its sequence.
local function positions(what, spec, shape)
  local out = {}
  if spec.cu_seqlens == nil then
    local rows, time = shape[1] * (shape[2] or 1), shape[#shape]
    for row = 0, rows - 1 do out[row + 1] = row % time end
    return out
  end
  if #shape ~= 1 then
    raise("%s: cu_seqlens: given with logprobs %s; packed ones are [N]", what,
          tensor.layout.text(shape))
  end
  local offsets = batches.index_list(what .. ": cu_seqlens", spec.cu_seqlens, "[B + 1]",
                                     spec.reference.device):totable()
  local b = 1
  for row = 0, shape[1] - 1 do
    while offsets[b + 1] and offsets[b + 1] <= row do b = b + 1 end
    out[row + 1] = row - (offsets[b] or 0)
  end
  return out
end

--- One entry per series: `name`, and `tokens`, the active tokens in order: { position, reference,
-- value }. The latter two are logprobs.
return function(what, spec)
  check_logprobs(what .. ": reference", spec.reference)
  local shape = spec.reference.shape
  if #shape ~= 1 and #shape ~= 2 then
    raise("%s: reference: shape %s, expected [B, T] or [N]", what, tensor.layout.text(shape))
  end
  if type(spec.series) ~= "table" or #spec.series == 0 then
    raise("%s: series: expected a list of { name =, logprobs = }", what)
  end
  local reference, position = flat(spec.reference), positions(what, spec, shape)
  local mask = spec.mask ~= nil and
               flat(batches.mask_bytes(what .. ": mask", spec.mask, shape,
                                       spec.reference.device)) or nil
  local out = {}
  for s, series in ipairs(spec.series) do
    local where = ("%s: series[%d]"):format(what, s - 1)
    if type(series) ~= "table" then
      raise("%s: expected a table, got %s", where, misuse.kind(series))
    end
    check_logprobs(where .. ".logprobs", series.logprobs, shape)
    local values, tokens = flat(series.logprobs), {}
    for i = 1, #values do
      if not mask or mask[i] ~= 0 then
        tokens[#tokens + 1] = { position = position[i], reference = reference[i],
                                value = values[i] }
      end
    end
    out[s] = { name = series.name, tokens = tokens }
  end
  return out
end
