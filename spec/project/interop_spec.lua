-- The examples in other languages: the C one is built by its makefile and run, the Python ones run
-- where PYTHON (python3 by default) has PyTorch.

local children = require "spec.support.children"
local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"
local torch = require "spec.support.torch"

local run, quote = shell.run, shell.quote
local configuration = os.getenv "SB_BUILD" or "release"

local function has_library()
  local file = io.open("build/" .. configuration .. "/libsamebits.so", "rb")
  if file then file:close() end
  return file ~= nil
end

describe("examples in C:", function()
  local files
  setup(function() files = temporary.folder() end)
  teardown(function() files:remove() end)

  it("logprob.c is built by its makefile, and shows the same bits", function()
    if not shell.has "cc" or not shell.has "make" then return pending "cc or make is missing" end
    local folder = run("pwd"):match "[^\n]+" .. "/build/" .. configuration
    local flags = configuration == "asan" and "-fsanitize=address,undefined" or
                  configuration == "tsan" and "-fsanitize=thread" or ""
    local said, status = run(("make -C examples/c OUT=%s LIB=%s CFLAGS='-Wall -Wextra -pedantic " ..
      "-Werror %s'"):format(quote(files.name), quote(folder), flags))
    assert.equal(0, status, said)
    said, status = run(quote(files:path "logprob") .. " cpu")
    assert.equal(0, status, said)
    local rows = 0
    for alone, batched, ratio in said:gmatch "\n +%d+  (%x+)  (%x+) +(%S+)" do
      assert.equal(alone, batched)
      assert.equal("1", ratio)
      rows = rows + 1
    end
    assert.equal(4, rows)
    assert.matches("\nthe same bits\n$", said)
    said, status = run(quote(files:path "logprob") .. " nowhere")
    assert.equal(1, status)
    assert.matches("^logprob: [^\n]*nowhere[^\n]*\n$", said)
  end)
end)

describe("examples in Python:", function()
  local version, why = torch.version()
  if not version then return pending(why) end
  if configuration ~= "release" then return pending "Python takes the release build" end
  local python = quote(os.getenv "PYTHON" or "python3")

  it("trainer.py: rollout and trainer have the same bits", function()
    assert.is_true(has_library())
    local said, status = run("cd / && " .. python .. " -B \"$OLDPWD\"/examples/python/trainer.py")
    assert.equal(0, status, said)
    assert.matches("^%d%d+ tokens: rollout and trainer have the same bits, every ratio is 1\n",
                   said)
    assert.truthy(said:find("is that of PyTorch's log_softmax\n", 1, true), said)
  end)

  it("tensor_parallel.py: three ranks have the bits of one", function()
    local files, commands = temporary.folder(), {}
    local port = run("%s -c %s", os.getenv "PYTHON" or "python3", -- a free one
                     "import socket; s = socket.socket(); s.bind(('', 0)); " ..
                     "print(s.getsockname()[1])")
    for rank = 0, 2 do -- as torchrun starts them
      commands[rank + 1] = ("cd / && RANK=%d LOCAL_RANK=%d WORLD_SIZE=3 MASTER_PORT=%d " ..
        '%s -B "$OLDPWD"/examples/python/tensor_parallel.py cpu'):format(rank, rank,
        tonumber(port), python)
    end
    local said = children.together(commands, files)[1]
    files:remove()
    assert.truthy(said:find("5003 ids, 3 ranks of cpu\nexact head: 0 logprobs differ", 1, true),
                  said)
  end)

  it("fused_head.py: gradients by hidden states and weights are PyTorch's", function()
    local said, status = run(python .. " -B examples/python/fused_head.py")
    assert.equal(0, status, said)
    assert.truthy(said:find("weights are those of PyTorch, within their bounds\n", 1, true), said)
  end)

  it("samebits_torch.py: dtypes, shapes, ignored rows, refusals", function()
    local said, status = run(python .. " -B spec/support/interop_torch.py")
    assert.equal(0, status, said)
    assert.equal("fine\n", said)
  end)
end)
