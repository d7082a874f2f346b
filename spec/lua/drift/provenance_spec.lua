-- samebits.drift.provenance: when, where and by what a report was made, and of which files.

local samebits = require "samebits"
local temporary = require "spec.support.temporary"

describe("a report's provenance", function()
  local files
  setup(function() files = temporary.folder() end)
  teardown(function() files:remove() end)

  it("names date, host, system, backend and versions, and the command that was given", function()
    local made = samebits.drift({ -1 }, { -1 }, { command = "samebits drift <a> b" }).made
    assert.matches("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%dZ$", made.date)
    assert.equal("samebits drift <a> b", made.command)
    assert.equal(jit.version, made.luajit)
    assert.matches("^cpu, ", made.backend)
    assert.is_true(#made.system > 4 and #made.host > 0)
    assert.equal(samebits.version, made.version)
    assert.is_nil(samebits.drift({ -1 }, { -1 }).made.command)
  end)

  it("lists each file once, with its size and digest, unless it is too large", function()
    local path = files:path "a.safetensors"
    assert(samebits.save(path, { old = samebits.tensor { -1, -2 }, new = samebits.tensor { -1 } }))
    local npy = files:path "b.npy"
    assert(samebits.save(npy, samebits.tensor { -1, -3 }))
    local report = assert(samebits.drift(path .. ":old", npy, { ids = { 1, 2 } }))
    assert.equal(2, #report.files)
    for i, name in ipairs { "a.safetensors", "b.npy" } do
      local bytes, file = files:read(name), report.files[i]
      assert.same({ path = files:path(name), size = #bytes,
                    sha256 = require("samebits.io.sha256").hex(bytes) }, file)
    end
    local text = report:text { width = 300 }
    assert.is_truthy(text:find(report.files[2].sha256, 1, true))
    assert.is_truthy(report:html():find(report.files[2].sha256, 1, true))
    report = assert(samebits.drift(path .. ":old", npy, { hash = 100 }))
    assert.is_nil(report.files[2].sha256)
    assert.is_truthy(report:text { width = 300 }:find("not hashed", 1, true))
  end)
end)
