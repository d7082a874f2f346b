-- Everything that ranks compute together has the bits of one GPU and of the cpu. On GPUs of the
-- machine with NCCL, one process for each GPU; on every machine with the stand-ins for NCCL and, if
-- there is no GPU, for the driver.

local samebits = require "samebits"
local backends = require "spec.support.backends"
local children = require "spec.support.children"
local nccl = require "spec.support.nccl"
local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

describe("ranks", function()
  local files
  setup(function() files = temporary.folder() end)
  teardown(function() files:remove() end)

  -- Runs one process for each device and rank, with an environment, and adds up what they have
  -- compared.
  local function together(devices, environment)
    os.remove(files:path "id")
    local commands = {}
    for rank, device in ipairs(devices) do
      commands[rank] = ("env %s luajit spec/exchange/each.lua %d %d %s %s"):format(environment,
        rank - 1, #devices, shell.quote(files.name), device)
    end
    local compared, parts = 0, 0
    for rank, said in ipairs(children.together(commands, files)) do
      assert.truthy(said:find "\n0 results differ\n$", ("rank %d: %s"):format(rank - 1, said))
      for count in said:gmatch ": (%d+)\n" do
        compared, parts = compared + tonumber(count), parts + 1
      end
    end
    assert.equal(#require "spec.exchange.everything" * #devices, parts)
    print(("%d ranks: %d compared, 0 differ"):format(#devices, compared))
  end

  for _, ranks in ipairs { 1, 2, 3 } do
    it(("by the stand-in for NCCL: %d"):format(ranks), function()
      local environment, missing = nccl.stand_in()
      if missing then return pending(missing) end
      local devices = {}
      for rank = 1, ranks do devices[rank] = "cuda" end
      together(devices, environment)
    end)
  end

  -- The names of the machine's GPUs.
  local function gpus()
    local names = {}
    while true do
      local name = "cuda:" .. #names
      local ctx = samebits.open(name)
      if not ctx then return names end
      ctx:close()
      names[#names + 1] = name
    end
  end

  local function by_nccl(devices)
    local path, missing = nccl.path()
    if not path then return pending(missing) end
    together(devices, "SAMEBITS_NCCL=" .. shell.quote(path))
  end

  backends.with("cuda", function()
    it("by NCCL: one", function() by_nccl { "cuda:0" } end)
  end)

  backends.with_two_gpus(function(first, second)
    it("by NCCL: two", function() by_nccl { first, second } end)
    it("by NCCL: one for each GPU", function()
      local devices = gpus()
      if #devices == 2 then return pending "there are two GPUs" end
      by_nccl(devices)
    end)
  end)
end)
