--- Checks golden vectors of the derivatives through a head: all ids in one call, ids in chunks, and
-- rows as micro-batches, which must leave the same sums.

local tensor = require "samebits.tensor"

local M = {}

M.file = "head_backward.txt"

--- Whether a variant of the library has the operation.
function M.has(at) return at.backend == "cpu" end

local NAMES = { "hidden", "weights", "bias" }

-- All active rows at once; and each of them alone, in order, as masks, behind one of no row.
local function masks_of(case)
  local whole, none = {}, {}
  for r = 1, case.rows do none[r] = 0 end
  local alone = { none }
  for r = 1, case.rows do
    whole[r] = case.mask and case.mask[r] or 1
    if whole[r] ~= 0 then
      local mask = {}
      for other = 1, case.rows do mask[other] = other == r and 1 or 0 end
      alone[#alone + 1] = mask
    end
  end
  return { whole }, alone
end

-- Adds the derivatives, the ids in chunks, to what the case has before, and compares the sums.
local function sums_differ(ctx, case, its, masks, chunk)
  local R, V, D = case.rows, case.vocab, case.depth
  local by = {}
  for name, shape in pairs { hidden = { R, D }, weights = { V, D }, bias = { V } } do
    local before = case["before_" .. name]
    before = before and tensor.from_bits(before, "float64"):view(shape) or
             tensor.zeros(shape, "float64")
    local there, why = before:to(ctx.device)
    if not there then return why end
    by[name] = there
  end
  for first = 0, V - 1, chunk do
    local n = math.min(chunk, V - first)
    local given = { grad = its.grad:slice(1, first, first + n):contiguous(),
                    logits = its.logits and its.logits:slice(1, first, first + n):contiguous(),
                    weights = its.weights:slice(0, first, first + n), by_hidden = by.hidden,
                    by_weights = by.weights:slice(0, first, first + n),
                    by_bias = by.bias:slice(0, first, first + n) }
    for _, mask in ipairs(masks) do
      local ok, why = ctx:head_backward({ hidden = its.hidden, head = its.head, mask = mask },
                                        given, { first = first, n = n })
      if not ok then return why end
    end
  end
  for _, name in ipairs(NAMES) do
    local got, why = by[name]:to "cpu"
    if not got then return why end
    got = got:view(-1):bits()
    for i, want in ipairs(case["by_" .. name]) do
      if got[i] ~= want then
        return ("by %s, element %d: expected %s, got %s"):format(name, i - 1, want, got[i])
      end
    end
    if #got ~= #case["by_" .. name] then
      return ("by %s: expected %d sums, got %d"):format(name, #case["by_" .. name], #got)
    end
  end
end

--- Checks a case. Returns nothing, or a description of the difference.
function M.check(ctx, case)
  local R, V, D = case.rows, case.vocab, case.depth
  local its = { hidden = case.hidden.logits:view(R, D), weights = case.weights.logits:view(V, D),
                grad = case.by_logits.logits:view(R, V),
                logits = case.expected and tensor.from_bits(case.expected):view(R, V) }
  for name, t in pairs(its) do
    local there, why = t:to(ctx.device)
    if not there then return why end
    its[name] = there
  end
  local why
  its.head, why = ctx:head(its.weights, { scale = case.scale, softcap = case.cap,
                                          keep_bad = true })
  if not its.head then return why end
  local whole, alone = masks_of(case)
  for _, way in ipairs { { whole, V }, { whole, 16 }, { alone, 16 } } do
    local wrong = sums_differ(ctx, case, its, way[1], way[2])
    if wrong then
      return ("%d micro-batches, chunks of %d ids: %s"):format(#way[1], way[2], wrong)
    end
  end
end

return M
