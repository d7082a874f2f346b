-- luajit record.lua > new.lua: records the present logprobs for recorded.lua. Run it when they are
-- meant to change; the diff shows which ones did.

package.path = "./?.lua;../../lua/?.lua;" .. package.path

local samebits = require "samebits"
local token = require "policy".logprobs(samebits.batch(require "dump"))

print "-- Made by record.lua: the encodings of float32 logprobs, one block per sequence."
print(("return { numerics = %d, token = {"):format(samebits.numerics))
for _, sequence in ipairs(token:bits()) do
  print "  {"
  for first = 1, #sequence, 6 do
    local digits = {}
    for i = first, math.min(first + 5, #sequence) do
      digits[#digits + 1] = ('"%s"'):format(sequence[i])
    end
    print("    " .. table.concat(digits, ", ") .. ",")
  end
  print "  },"
end
print "} }"
