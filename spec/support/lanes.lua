--- The driver whose GPU is the CPU (spec/parity/lanes). It stays in build/lanes, so that only what
-- has changed is compiled again.

local shell = require "spec.support.shell"

local M = {}

local built = {}

--- The folder of a libcuda.so.1 whose warps have the given number of lanes.
function M.folder(warp)
  if not built[warp] then
    -- One process at a time.
    local said, status = shell.run("mkdir -p build/lanes && flock build/lanes " ..
                                   "spec/parity/lanes/build build/lanes/%d %d && " ..
                                   "cd build/lanes/%d && pwd", warp, warp, warp)
    assert(status == 0, said)
    built[warp] = said:match "([^\n]+)\n$"
  end
  return built[warp]
end

--- The reason why it cannot be built here, or nil where it can.
function M.missing()
  local samebits = require "samebits"
  if not shell.has "flock" then return "there is no flock" end
  if not shell.has(os.getenv "CXX" or "c++") then return "there is no C++ compiler" end
  local _, why = samebits.open "cuda"
  if tostring(why):find "without nvcc" then return "the library was built without nvcc" end
end

return M
