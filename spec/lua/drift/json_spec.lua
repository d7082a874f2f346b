-- samebits.drift.json: a report as one line of JSON, with values that JSON has no number for.

local dkjson = require "dkjson"
local json = require "samebits.drift.json"
local without = require "spec.support.without"

describe("drift's JSON", function()
  it("is one line with the schema first and without the sample", function()
    local line = json.format { version = "1.2", equal = true, sample = { { 0, -1, -1 } },
                               tokens = { compared = 3, different = 0 } }
    assert.matches('^{"schema":"samebits%.drift/1","version":"1%.2","equal":true,[^\n]*}\n$', line)
    local read = dkjson.decode(line)
    assert.is_nil(read.sample)
    assert.same({ compared = 3, different = 0 }, read.tokens)
  end)

  it("writes lists as arrays where they are empty, too", function()
    local line = json.format { causes = {}, worst = {}, a = { with = {}, unused = { "x" } },
                               difference = { histogram = {} } }
    assert.matches('"causes":%[%]', line)
    assert.matches('"worst":%[%]', line)
    assert.matches('"with":%[%]', line)
    assert.matches('"unused":%["x"%]', line)
    assert.matches('"histogram":%[%]', line)
  end)

  it("writes an object as one where it is empty, too", function()
    assert.matches('"op":{}', json.format { op = {} }, 1, true)
  end)

  it("writes what is not finite as strings, and leaves the report as it is", function()
    local report = { first = { a = -math.huge, b = 0 / 0, difference = math.huge, ratio = 0.5 } }
    assert.same({ a = "-inf", b = "nan", difference = "inf", ratio = 0.5 },
                dkjson.decode(json.format(report)).first)
    assert.equal(-math.huge, report.first.a)
    assert.is_nil(report.schema)
  end)

  it("escapes bytes that are not UTF-8", function()
    assert.equal("a\\xff", dkjson.decode(json.format { notes = { "a\255" } }).notes[1])
  end)

  it("is refused without dkjson, which the message names", function()
    local ok, why = without("dkjson", json.format, {})
    assert.is_false(ok)
    assert.equal("json: needs the Lua module dkjson (Debian: lua-dkjson)", tostring(why))
  end)
end)
