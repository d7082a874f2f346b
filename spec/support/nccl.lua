--- NCCL for processes that a spec starts: the machine's own, or its stand-in of spec/fakes.

local ffi = require "ffi"
local samebits = require "samebits"
local lanes = require "spec.support.lanes"
local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

ffi.cdef "extern const void *const lanes_files[];"

local M = {}

-- PyTorch's wheels bring NCCL in a folder that the system's loader does not know.
local OF_PYTHON = [[
import glob, os
import nvidia.nccl
for folder in nvidia.nccl.__path__:
    for path in glob.glob(os.path.join(folder, "lib", "libnccl.so.2")): print(path)
]]

-- Whether the driver is the stand-in of spec/parity/lanes, which NCCL cannot use.
local function driver_is_stand_in()
  return (pcall(function() return ffi.load "libcuda.so.1".lanes_files end))
end

--- The file of NCCL: what SAMEBITS_NCCL names, what the system's loader finds ("" then), or
-- PyTorch's of Python (PYTHON names the interpreter). nil and the reason if there is none, or no
-- GPU.
function M.path()
  local ctx, why = samebits.open "cuda"
  if not ctx then return nil, why end
  if driver_is_stand_in() then
    ctx:close()
    return nil, "the driver is a stand-in"
  end
  local id
  id, why = ctx:comm_id()
  ctx:close()
  if id then return os.getenv "SAMEBITS_NCCL" or "" end
  local said, status = shell.run("%s -c %s", os.getenv "PYTHON" or "python3", OF_PYTHON)
  local path = status == 0 and said:match "^([^\n]+)\n"
  if path then return path end
  return nil, why
end

local built

-- The stand-in's folder, which goes with the run, or the reason why it cannot be built.
local function folder()
  local compiler = os.getenv "CC" or "cc"
  if not shell.has(compiler) then return nil, "there is no C compiler" end
  local files = temporary.folder()
  local said, status = shell.run("%s -O1 -Wall -Wextra -Werror -shared -fPIC -Isrc -o %s " ..
    "spec/fakes/nccl.c spec/exchange/plays.c -ldl", compiler, files:path "libnccl.so.2")
  assert(status == 0, said)
  local goes = newproxy(true)
  getmetatable(goes).__gc = function() files:remove() end
  return { name = files.name, goes = goes }
end

--- The environment of processes that use the stand-in, as words for env: on the machine's GPU or,
-- if there is none, on the stand-in for the driver; nil and the reason if it cannot be built.
-- Third: whether there is a GPU.
function M.stand_in()
  local gpu = samebits.open "cuda"
  if gpu then gpu:close() end
  local missing = not gpu and lanes.missing()
  if missing then return nil, missing end
  local why
  if not built then built, why = folder() end
  if not built then return nil, why end
  local libraries = built.name .. (gpu and "" or ":" .. lanes.folder(32))
  return ("SAMEBITS_NCCL= LD_LIBRARY_PATH=%s${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"):format(
    shell.quote(libraries)), nil, gpu ~= nil
end

return M
