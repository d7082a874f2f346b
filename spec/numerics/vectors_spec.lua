-- Checks the golden vectors through the public API, on every backend, as `samebits selftest` does.

local selftest = require "samebits.selftest"
local vectors = require "samebits.vectors"
local backends = require "spec.support.backends"

describe("golden vectors", function()
  backends.each(function(at)
    for _, file in ipairs(selftest.FILES) do
      if selftest.has(at, file) then
        it(("%s on %s"):format(file, at.name), function()
          local report = assert(selftest.run { variants = { at }, files = { file } })
          assert.equal(0, report.failed, table.concat(report.failures, "\n", 1,
                                                      math.min(5, #report.failures)))
          assert.is_true(report.counts[1].cases > 5)
        end)
      end
    end
  end)

  it("are read as spec/vectors/README.md says", function()
    local cases = assert(vectors.read(selftest.directory .. "/generated.txt"))
    local kinds = 0
    for _, case in ipairs(cases) do
      assert.is_true(#case.targets > 0 and #case.lse == 8)
      assert.same({ 1, case.vocab }, case.logits.shape)
      kinds = kinds + 1
    end
    assert.is_true(kinds > 500)
  end)

  it("have draws from shards of each number of rounds", function()
    local rounds = {}
    for _, case in ipairs(assert(vectors.read(selftest.directory .. "/draws.txt"))) do
      rounds[#case.messages] = (rounds[#case.messages] or 0) + 1
    end
    for _, n in ipairs { 1, 2, 3, 7, 11 } do assert.is_true((rounds[n] or 0) > 2, tostring(n)) end
  end)
end)

describe("a file of vectors is refused", function()
  local name
  setup(function() name = os.tmpname() end)
  teardown(function() os.remove(name) end)

  local HEAD = "samebits-vectors 1 rows numerics 1 generator x 1\n"
  local CASE = "case a\ndtype f32\ntau 3f800000\nvocab 2\nx 00000000 00000000\n"

  for text, words in pairs {
    [""] = ":1: no head line",
    ["hello\n"] = ":1: no head line",
    ["samebits-vectors 2 rows numerics 1 generator x 1\n"] = ":1: format 2 of numerics 1",
    ["samebits-vectors 1 rows numerics 2 generator x 1\n"] = ":1: format 1 of numerics 2",
    [HEAD .. "x 0\n"] = ":2: 'x' outside a case",
    [HEAD .. CASE .. "y 0\n"] = ":7: unknown key 'y'",
    [HEAD .. CASE] = "the last case has no end",
    [HEAD .. "case a\nx 0\n"] = ":3: no dtype or vocab before the row",
    [HEAD .. CASE .. "x 0\n"] = ":7: more logits than the shape holds",
    [HEAD .. CASE .. "put 2 0\n"] = ":7: an id past the vocabulary",
    [HEAD .. "case a\ndtype f32\nvocab 2\nx 0\nend\n"] = ":6: logits are missing",
    [HEAD .. "case a\ndtype f32\nvocab 2\ngen few 0\n"] = ":5: a malformed line",
    [HEAD .. "case a\ndtype f8\n"] = ":3: unknown dtype",
    [HEAD .. "case a\ndtype f32\nvocab 2\ngen magic 0000000000000000 1\n"] =
      ":5: unknown generator 'magic'",
  } do
    it("for" .. words, function()
      local file = assert(io.open(name, "wb"))
      file:write(text)
      file:close()
      local cases, why = vectors.read(name)
      assert.is_nil(cases)
      assert.is_truthy(why:find(words, 1, true), why)
    end)
  end
end)
