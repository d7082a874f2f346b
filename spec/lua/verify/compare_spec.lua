-- What is found when results are compared with what each sequence gives alone: the counts, the
-- first difference and the worst, and their words.

local samebits = require "samebits"
local compare = require "samebits.verify.compare"

local ONE = 0x3f800000   -- the encoding of 1

-- One sequence of two tokens with an inactive row between, as assemble.call describes it.
local CALL = { rows = { { s = 0, t = 0 }, false, { s = 0, t = 1 } },
               sums = { { count = 2, whole = 0 }, { count = 0 } } }
local function entry(fields)
  local made = { sequences = { [0] = { ids = { [0] = 42, 43 } } },
                 expected = { [0] = { token = { [0] = ONE, ONE }, lse = { [0] = ONE, ONE },
                                      sum = ONE } } }
  for name, value in pairs(fields or {}) do made[name] = value end
  return made
end

-- What is found in the results of that call, with `number` 3.
local function found_in(out, fields)
  local found = compare.new "alone"
  for name, values in pairs(out) do
    out[name] = samebits.tensor(values, { dtype = name == "count" and "int64" or "float32" })
  end
  compare.call(found, CALL, 3, out, entry(fields))
  return found
end

local NEXT, FOURTH = 1 + 2 ^ -23, 1 + 4 * 2 ^ -23

describe("compared results", function()
  it("that are the expected bits have no difference", function()
    local found = found_in { token = { 1, 0, 1 }, lse = { 1, 0, 1 }, sequence = { 1, 0 },
                             count = { 2, 0 } }
    assert.same({ 0, 2, 0, 1, 0 }, { found.count, found.tokens, found.mismatches, found.sums,
                                     found.sum_mismatches })
    assert.is_nil(found.first)
    assert.is_nil(found.max_ulps)
  end)

  it("that differ are counted, the first and the worst kept", function()
    local found = found_in { token = { NEXT, 0, FOURTH }, lse = { 1, 0, NEXT } }
    assert.same({ 3, 2, 2, 4 }, { found.count, found.tokens, found.mismatches, found.max_ulps })
    assert.equal(4 * 2 ^ -23, found.max_apart)
    assert.same({ 0, 2 }, { found.first.row, found.worst.row })
    assert.equal("sequence 0, position 0, id 42", found:place())
    assert.equal("3f800000 alone, 3f800004 here (1 and 1.00000048, 4 ULPs)",
                 found:bits_text(found.worst))
    assert.equal("token differs at call 3, row 0: sequence 0, position 0, id 42: 3f800000 " ..
                 "alone, 3f800001 here (1 and 1.00000012, 1 ULP); 3 differences in all",
                 tostring(found))
  end)

  it("hold +0 where a row is not active, unless anything may be there", function()
    local found = found_in { lse = { 1, -1 / math.huge, 1 } }
    assert.same({ 1, 1, "not active" }, { found.count, found.mismatches, found:place() })
    assert.equal(0, found_in({ lse = { 1, 5, 1 } }, { active_only = true }).count)
  end)

  it("of sequences and counts are compared on their own", function()
    local found = found_in { sequence = { NEXT, 0 }, count = { 2, 0 } }
    assert.same({ 1, 1, 1, 0 }, { found.count, found.sums, found.sum_mismatches, found.tokens })
    assert.equal("sequence differs at call 3, sequence 0 of the batch: sequence 0: 3f800000 " ..
                 "alone, 3f800001 here (1 and 1.00000012, 1 ULP); 1 difference in all",
                 tostring(found))
    found = found_in { count = { 2, 1 } }
    assert.equal("0 alone, 1 here", found:bits_text())
    assert.is_nil(found.max_ulps)
  end)

  it("may be NaN of other bits where that is asked for", function()
    local nan = { [0] = { token = { [0] = 0x7fc00001, ONE }, lse = {}, sum = ONE } }
    local found = found_in({ token = { 0 / 0, 0, 1 } }, { expected = nan })
    assert.equal(1, found.count)
    assert.matches("no distance %(NaN%)", found:bits_text())
    found = found_in({ token = { 0 / 0, 0, 1 } }, { expected = nan, nans_alike = true })
    assert.equal(0, found.count)
  end)

  it("end with the message of an error, where there was one", function()
    local found = compare.new "alone"
    found.message = "call 0: refused"
    assert.equal("call 0: refused", tostring(found))
  end)
end)
