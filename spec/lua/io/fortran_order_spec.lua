-- The specs that save .npy files and read them, once more, with each file in Fortran order; but not
-- the parts of them that name no such file.

local orders = require "spec.support.orders"
local shell = require "spec.support.shell"

-- By their names in spec/.
local AGAIN = { "lua/cli/cli", "lua/cli/drift", "lua/io/fields", "lua/io/formats",
                "lua/text/printable", "lua/verify/verify" }

-- Others that name .npy files, and why they are not read again here.
local OTHERS = {
  ["lua/drift/drift"] = "tries both orders itself",
  ["lua/drift/provenance"] = "looks at the sizes and hashes of files",
  ["lua/drift/shapes"] = "tries both orders itself",
  ["lua/io/fortran_order"] = "this one",
  ["lua/io/npy"] = "looks at the bytes that are saved, and reads both orders",
}

describe("the specs that read .npy files", function()
  it("are all run in Fortran order, too", function()
    local known = {}
    for _, name in ipairs(AGAIN) do known[name] = true end
    local list, status = shell.run "grep -rl 'path.*[.]npy' spec --include='*_spec.lua'"
    assert.equal(0, status, list)
    for name in list:gmatch "spec/(%S+)_spec%.lua" do
      assert.is_true(known[name] or OTHERS[name] ~= nil, name)
    end
  end)
end)

-- describe for a spec whose lines are given: leaves out a part that names no .npy file.
local function describe_again(lines)
  return function(name, part)
    local at = debug.getinfo(part, "S")
    if not lines[at.linedefined]:find "^describe" or
       table.concat(lines, "\n", at.linedefined, at.lastlinedefined):find("npy", 1, true) then
      describe(name, part)
    end
  end
end

for _, name in ipairs(AGAIN) do
  describe("in Fortran order, " .. name .. ":", function()
    local restore
    setup(function() restore = orders.fortran() end)
    teardown(function() restore() end)
    local path, lines = ("spec/%s_spec.lua"):format(name), {}
    for line in io.lines(path) do lines[#lines + 1] = line end
    local again = setmetatable({ describe = describe_again(lines) }, { __index = getfenv(1) })
    setfenv(assert(loadfile(path)), again)()
  end)
end
