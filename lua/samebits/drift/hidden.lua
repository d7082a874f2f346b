--- The logits of a side that gave hidden states and the weights of a head instead. They are
-- computed as a whole, in memory: a drift looks at logits in many ways.

local context = require "samebits.context"
local misuse = require "samebits.misuse"
local tensor = require "samebits.tensor"

local raise = misuse.raise

local M = {}

--- The settings of a head, which a side's table may hold.
M.SETTINGS = { "format", "bias", "scale", "softcap" }

-- The weights as a matrix that the library takes.
local function check(label, fields)
  for _, role in ipairs { "hidden", "head" } do
    if fields[role] == nil then
      raise("%s: %s is missing: hidden states need a head, and a head hidden states", label, role)
    end
  end
  local hidden, head = fields.hidden, fields.head
  if head.ndim ~= 2 then
    raise("%s: head: %s, expected weights [V, D]", label, tensor.describe(head))
  end
  if hidden.ndim ~= 2 and hidden.ndim ~= 3 or hidden.shape[hidden.ndim] ~= head.shape[2] then
    raise("%s: hidden: %s, expected [B, T, D] or [N, D] with the head's D of %d", label,
          tensor.describe(hidden), head.shape[2])
  end
end

--- Drops hidden states and head from a side's fields if it gave logits: these have priority.
function M.screen(fields)
  if fields.logits ~= nil then fields.hidden, fields.head = nil, nil end
end

--- Puts logits into a side's fields in place of hidden states and a head. Returns a sentence on
-- them for the report; nil if the side gave none.
function M.resolve(label, fields)
  local note
  if fields.hidden ~= nil or fields.head ~= nil then
    check(label, fields)
    local options = { keep_bad = true }
    for _, name in ipairs(M.SETTINGS) do options[name] = fields[name] end
    local ctx = misuse.try(context.open "cpu")
    local ok, result, why, code = pcall(function()
      local head, refused, status = ctx:head(fields.head:contiguous(), options)
      if not head then return nil, refused, status end
      note = ("%s's logits are those of its hidden states and head, in %s"):format(label,
                                                                               head.format)
      return ctx:logits { hidden = fields.hidden, head = head }
    end)
    ctx:close()
    if not ok then raise("%s: %s", label, tostring(result)) end
    fields.logits = misuse.try(result, why, code)
  end
  for _, name in ipairs { "hidden", "head", unpack(M.SETTINGS) } do fields[name] = nil end
  return note
end

return M
