--- The driver whose GPU is the CPU (spec/parity/lanes), built once for all specs of a run.

local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

local M = {}

local built = {}

--- The folder of a libcuda.so.1 whose warps have the given number of lanes.
function M.folder(warp)
  if not built[warp] then
    local folder = temporary.folder()
    local goes = newproxy(true) -- with the run
    getmetatable(goes).__gc = function() folder:remove() end
    local said, status = shell.run("spec/parity/lanes/build %s %d", folder.name, warp)
    assert(status == 0, said)
    built[warp] = { name = folder.name, goes = goes }
  end
  return built[warp].name
end

--- The reason why it cannot be built here, or nil where it can.
function M.missing()
  local samebits = require "samebits"
  if not shell.has(os.getenv "CXX" or "c++") then return "there is no C++ compiler" end
  local _, why = samebits.open "cuda"
  if tostring(why):find "without nvcc" then return "the library was built without nvcc" end
end

return M
