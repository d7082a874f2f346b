--- Assertions of our own. Required by spec/helper.lua.
--
--     assert.same_bits(expected, actual, "what they are")
--     assert.is_not.same_bits(a, b)

local luassert = require "luassert"
local say = require "say"

say:set("assertion.same_bits.positive", "Expected the same bits:\n%s\n%s")
say:set("assertion.same_bits.negative", "Expected other bits than:\n%s")

luassert:register("assertion", "same_bits", function(state, arguments)
  local same, report = require("samebits.bits").same_bits(arguments[1], arguments[2])
  if not same then
    local what = arguments[3] and tostring(arguments[3]) .. ": " or ""
    state.failure_message = what .. tostring(report)
  end
  return same
end, "assertion.same_bits.positive", "assertion.same_bits.negative")
