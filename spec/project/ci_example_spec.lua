-- examples/ci, a project with specs of its own: they pass here, and fail where they should.

local temporary = require "spec.support.temporary"

local function run(folder)
  -- Without what this run of busted was told, as on another's machine.
  local pipe = io.popen(("{ cd '%s' && env -u SB_JUNIT luajit '%s'; } 2>&1; echo \"status $?\"")
    :format(folder, arg[0]))
  local output, status = pipe:read("*a"):match "^(.*)status (%d+)\n$"
  pipe:close()
  return tonumber(status), output
end

local function changed(text, pattern, replacement)
  local out, n = text:gsub(pattern, replacement, 1)
  assert(n == 1, pattern)
  return out
end

describe("examples/ci", function()
  local files
  setup(function()
    files = temporary.folder()
    -- The project with the tree around it.
    os.execute(("mkdir '%s/examples' && cp -r examples/ci '%s/examples' && " ..
                "ln -s \"$PWD/lua\" \"$PWD/spec\" \"$PWD/build\" '%s'")
               :format(files.name, files.name, files.name))
  end)
  teardown(function() files:remove() end)

  local function with_change(name, pattern, replacement)
    local path = "examples/ci/" .. name
    local original = files:read(path)
    files:write(path, changed(original, pattern, replacement))
    local status, output = run(files:path "examples/ci")
    files:write(path, original)
    return status, output
  end

  it("passes", function()
    local status, output = run "examples/ci"
    assert.equal(0, status, output)
    assert.matches("5 successes / 0 failures / 0 errors / 0 pending", output, 1, true)
  end)

  it("fails where a recorded bit is another", function()
    local status, output = with_change("recorded.lua", '"c08ac12f"', '"c08ac12e"')
    assert.equal(1, status, output)
    assert.matches("4 successes / 1 failure", output, 1, true)
    assert.matches("1 of 48 elements differ (float32 [4, 12]); first at [0, 0]: c08ac12e and " ..
                   "c08ac12f", output, 1, true)
  end)

  it("fails where logprobs depend on the batch", function()
    local status, output = with_change("spec/invariance_spec.lua", "policy%.plain",
                                       "policy.centred")
    assert.equal(1, status, output)
    assert.matches("4 successes / 1 failure", output, 1, true)
    assert.matches("first in 'alone', sequence ", output, 1, true)
    assert.matches("Expected the same bits in whatever batch.", output, 1, true)
  end)

  it("records what is recorded", function()
    local pipe = io.popen "cd examples/ci && luajit record.lua"
    local output = pipe:read "*a"
    pipe:close()
    local file = assert(io.open("examples/ci/recorded.lua"))
    assert.equal(file:read "*a", output)
    file:close()
  end)
end)
