-- `samebits selftest`: its exit status and what it prints, over the first case of each file.

local argparse = require "argparse"
local command = require "samebits.cli.selftest"
local selftest = require "samebits.selftest"
local tell = require "samebits.cli.tell"
local read = require("spec.support.files").read
local temporary = require "spec.support.temporary"

local folder
setup(function()
  folder = temporary.folder()
  for _, name in ipairs(selftest.FILES) do
    local text = read(selftest.directory .. "/" .. name)
    folder:write(name, text:match "^.-\nend\n" or text)
  end
end)
teardown(function() folder:remove() end)

-- What the command prints for a folder, and for some of its files if they are named; its status.
local function run(vectors, ...)
  local write, text, status = tell.write, "", nil
  tell.write = function(more) text = text .. more end
  local args = { vectors = vectors, only = { ... } }
  local ok, err = pcall(function() status = command.run(args) end)
  tell.write = write
  assert(ok, (tell.message(err)))
  return text, status
end

describe("selftest", function()
  it("is well where all vectors hold", function()
    local text, status = run(folder.name)
    assert.equal(tell.WELL, status, text)
    for _, name in ipairs(selftest.FILES) do
      assert.matches("\n" .. name:gsub("%p", "%%%0") .. " +cpu scalar +%d+ +0\n", text)
    end
    assert.matches("\nall bits as expected\n$", text)
  end)

  it("answers no where one does not", function()
    local text, count = folder:read("rows.txt"):gsub("(\nlse )%x+", "%112345678")
    assert.equal(1, count)
    folder:write("rows.txt", text)
    local said, status = run(folder.name)
    assert.equal(tell.NO, status)
    assert.matches("\nFAILED rows.txt:%d+: .*, on cpu scalar: lse: expected 12345678, got %x+\n",
                   said)
  end)

  it("is refused where there are no vectors", function()
    local ok, err = pcall(command.run, { vectors = folder:path "none", only = {} })
    assert.is_false(ok)
    assert.matches("none/rows.txt: No such file or directory$", (tell.message(err)))
  end)

  it("takes the vectors that came along unless others are named", function()
    local parser = argparse("spec")
    command.define(parser)
    assert.same({ vectors = selftest.directory, only = {} }, parser:parse {})
    assert.same({ vectors = "a b", only = { "a", "b" } },
                parser:parse { "--vectors", "a b", "--only", "a", "--only", "b" })
  end)

  it("checks the named files alone", function()
    local text, status = run(folder.name, "order.txt", "kl.txt")
    assert.equal(tell.WELL, status, text)
    local files = {}
    for name in text:gmatch "\n(%w+%.txt) +cpu scalar " do files[#files + 1] = name end
    assert.same({ "order.txt", "kl.txt" }, files)
  end)
end)
