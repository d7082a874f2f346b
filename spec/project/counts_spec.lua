-- bench/counts.lua, with few results: it compares each kind in every way, and sees one bit.

local backends = require "spec.support.backends"
local shell = require "spec.support.shell"

local KINDS = { "draws", "logprobs of draws", "logprobs", "loss terms", "sequence losses",
                "bytes of records", "gradients of logits", "logits of heads",
                "logits, Python reference" }

-- What the program prints, its exit status, and its lines: { kind, way, compared, differ }.
local function run(options)
  local said, status = shell.run("LUA_PATH='./lua/?.lua;;' luajit bench/counts.lua --draws 300 " ..
                                 "--terms 2500 --logits 1000 " .. options)
  local list = {}
  for kind, way, compared, differ in said:gmatch "| ([^|]-) | ([^|]-) | (%d+) | (%d+) |" do
    list[#list + 1] = { kind = kind, way = way, compared = tonumber(compared),
                        differ = tonumber(differ) }
  end
  return said, status, list
end

describe("bench/counts.lua", function()
  local python = (os.getenv "PYTHON" or "") ~= "" and os.getenv "PYTHON" or "python3"
  if not shell.has(python) then
    it("counts", function() pending("no " .. python) end)
    return
  end

  local function nothing_differs(backend)
    local said, status, list = run("--backend " .. backend)
    assert.equal(0, status, said)
    local ways, sum = {}, 0
    for _, line in ipairs(list) do
      ways[line.kind] = (ways[line.kind] or 0) + 1
      assert.equal(0, line.differ)
      sum = sum + line.compared
    end
    for _, kind in ipairs(KINDS) do
      assert.is_true((ways[kind] or 0) > 0, kind)
      ways[kind] = nil
    end
    assert.same({}, ways)
    assert.truthy(said:find(("\n%d results compared, 0 differ\n$"):format(sum)), said)
    assert.truthy(said:find("^300 draws, 2500 loss terms, %d+ logits of heads,\nbeside.- 1024 "),
                  said)
  end

  it("finds no difference on the cpu", function() nothing_differs "cpu" end)

  backends.with("cuda", function(at)
    it("finds no difference on " .. at.name, function() nothing_differs "cuda" end)
  end)

  it("sees one bit of each comparison", function()
    local said, status, list = run "--backend cpu --flip"
    assert.equal(1, status, said)
    local sum = 0
    for _, line in ipairs(list) do
      assert.is_true(line.differ > 0, line.kind .. ", " .. line.way)
      sum = sum + line.differ
    end
    assert.is_true(#list > 30)
    assert.truthy(said:find(("compared, %d differ\n$"):format(sum)), said)
  end)

  it("refuses what it does not know", function()
    local said, status = run "--rows 3"
    assert.equal(2, status)
    assert.truthy(said:find("unknown option --rows", 1, true), said)
  end)
end)
