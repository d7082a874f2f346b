-- Memory, threads, locks, libraries and the CUDA driver refuse one request after another: see
-- spec/faults/main.c. SB_BUILD names another configuration than release.

local program = "./build/" .. (os.getenv "SB_BUILD" or "release") .. "/samebits-faults"

describe("what the system refuses", function()
  it("is an error of that call, leaves nothing behind, and the next call is fine", function()
    local pipe = assert(io.popen(program .. ' 2>&1; echo "exit $?"'))
    local said = pipe:read "*a"
    pipe:close()
    assert(said:match "exit 0\n$", said)
    for _, backend in ipairs { "cpu, 3 threads", "cpu, 0 threads", "cuda" } do
      local requests = said:match("%f[%w]" .. backend .. "[^\n]*: (%d+) requests")
      assert(requests and tonumber(requests) > 10, said)
    end
  end)
end)
