-- Memory, threads, locks, libraries and the CUDA driver refuse requests one after another: see
-- spec/faults/main.c. SB_BUILD names another configuration than release.

local program = "./build/" .. (os.getenv "SB_BUILD" or "release") .. "/samebits-faults"

describe("what the system refuses", function()
  local said

  setup(function()
    local pipe = assert(io.popen(program .. ' 2>&1; echo "exit $?"'))
    said = pipe:read "*a"
    pipe:close()
  end)

  it("is an error of that call, leaves nothing behind, and the next call is fine", function()
    assert(said:match "exit 0\n$", said)
    for _, backend in ipairs { "cpu, 3 threads", "cpu, 0 threads", "cuda" } do
      local requests = said:match("%f[%w]" .. backend .. "[^\n]*: (%d+) requests")
      assert(requests and tonumber(requests) > 10, said)
    end
    assert.matches('a fork handler that is refused: SB_ERR_SYSTEM, "no fork handler', said)
  end)

  it("is left alone where it has no say: the CUDA driver in a forked child", function()
    assert.matches("cuda, in forked children: %d%d calls refused, the driver left alone", said)
    assert.matches("cpu, forked where memory [^\n]* freed: the child closes it", said)
  end)
end)
