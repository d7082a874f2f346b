--- Specs over every way there is to run a call: each backend known, on the cpu with each
-- instruction set and several threads and splits.
--
--     backends.each(function(at)
--       it("does something on " .. at.name, function()
--         local out = at.context():logprob(batch)
--       end)
--     end)
--
-- What cannot be opened here becomes a pending test with the reason; if SB_REQUIRE names it, or its
-- backend (SB_REQUIRE=cuda, SB_REQUIRE=avx512,cuda), it becomes a failing one.

local busted = require "busted"
local variants = require "samebits.variants"

local M = {}

local present, missing = variants.present()

local required = {}
for key in (os.getenv "SB_REQUIRE" or ""):gmatch "[^,%s]+" do required[key] = true end

local known = {}
for _, at in ipairs(variants.list()) do known[at.key], known[at.backend] = true, true end
for key in pairs(required) do
  if not known[key] then
    missing[#missing + 1] = { name = key, key = key, why = "this library knows no " .. key }
  end
end

--- Calls body(at) for each variant that can be opened here; inside a describe block.
function M.each(body)
  for _, at in ipairs(present) do body(at) end
  for _, at in ipairs(missing) do
    if required[at.key] or required[at.backend] then
      busted.it(("%s is required"):format(at.key), function() error(at.why, 0) end)
    else
      busted.pending(("%s: %s"):format(at.key, at.why))
    end
  end
end

return M
