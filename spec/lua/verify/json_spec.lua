-- samebits.verify.json: a report as one line of JSON, its keys in order and without its methods.

local dkjson = require "dkjson"
local json = require "samebits.verify.json"
local without = require "spec.support.without"

describe("verify's JSON", function()
  it("is one line with the keys in their order", function()
    assert.equal('{"version":"1.2","ok":true,"seed":7,"shape":[2,3],' ..
                 '"paths":[{"name":"a","kind":"function","differences":0}]}\n',
                 json.format { shape = { 2, 3 }, seed = 7, ok = true, version = "1.2",
                               paths = { { differences = 0, kind = "function", name = "a" } } })
  end)

  it("holds the fields of a report, not its methods", function()
    local report = setmetatable({ ok = false }, { __index = { text = function() end } })
    assert.same({ ok = false }, dkjson.decode(json.format(report)))
  end)

  it("escapes bytes that are not UTF-8", function()
    assert.equal('{"error":"a\\\\xff"}\n', json.format { error = "a\255" })
  end)

  it("is refused without dkjson, which the message names", function()
    local ok, why = without("dkjson", json.format, {})
    assert.is_false(ok)
    assert.equal("json: needs the Lua module dkjson (Debian: lua-dkjson)", tostring(why))
  end)
end)
