-- The library's statuses: which are misuse of the API, and which are nil, a message and a code.

local lib = require "samebits.lib"
local misuse = require "samebits.misuse"
local status = require "samebits.status"
local c_calls = require "spec.support.c_calls"
local refusal = require "spec.support.refusal"

local failure, check = misuse.guard(status.failure), misuse.guard(status.check)

-- All statuses but "ok", by their names.
local function statuses()
  local list = {}
  for number = 1, 100 do
    local name = c_calls.name_of(number)
    if name == "unknown status" then break end
    list[name] = number
  end
  return list
end

describe("a failed call of the library", function()
  it("is misuse where its arguments are wrong, and a refusal otherwise", function()
    local misused, refused = {}, {}
    for name, number in pairs(statuses()) do
      local ok, result, message, code = pcall(failure, number, "why: 5%")
      if ok then
        assert.same({ nil, "why: 5%", name }, { result, message, code })
        refused[name] = true
      else
        assert.equal("why: 5%", result)
        misused[name] = true
      end
    end
    assert.same({ SB_ERR_ARGUMENT = true, SB_ERR_SHAPE = true, SB_ERR_DTYPE = true,
                  SB_ERR_ID = true, SB_ERR_TEMPERATURE = true, SB_ERR_STATE = true,
                  SB_ERR_BUSY = true }, misused)
    assert.same({ SB_ERR_ABI = true, SB_ERR_BACKEND = true, SB_ERR_MEMORY = true,
                  SB_ERR_SYSTEM = true, SB_ERR_DEVICE = true }, refused)
  end)

  it("is told with the status' own text where there is no message", function()
    local _, message = failure(lib.C.SB_ERR_MEMORY, "")
    assert.equal("an allocation failed", message)
  end)

  it("is told with the context's last error", function()
    local ctx = c_calls.open()
    assert.is_true(check(0, ctx))
    local number = lib.C.sb_logprob(ctx, nil, nil, nil)
    assert.not_equal(0, tonumber(number))
    local said = c_calls.last_error(ctx)
    assert.not_equal("", said)
    assert.equal(said, refusal.misuse(function() local _ = check(number, ctx) end))
  end)
end)
