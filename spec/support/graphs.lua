--- CUDA graphs and current contexts, through the driver itself: frameworks capture the library's
-- calls, and make contexts current.
--
--     local graph = graphs.capture(device, stream, function() ... end)
--     graph:launch()   -- into the same stream
--     graph:close()

local ffi = require "ffi"

ffi.cdef [[
int cuDevicePrimaryCtxRetain(void **context, int device);
int cuDevicePrimaryCtxRelease_v2(int device);
int cuCtxPushCurrent_v2(void *context);
int cuCtxPopCurrent_v2(void **context);
int cuCtxGetCurrent(void **context);
int cuStreamBeginCapture_v2(void *stream, int mode);
int cuStreamEndCapture(void *stream, void **graph);
int cuStreamCreate(void **stream, unsigned flags);
int cuStreamDestroy_v2(void *stream);
int cuThreadExchangeStreamCaptureMode(int *mode);
int cuGraphGetNodes(void *graph, void **nodes, size_t *count);
int cuGraphInstantiateWithFlags(void **exec, void *graph, unsigned long long flags);
int cuGraphLaunch(void *exec, void *stream);
int cuGraphExecDestroy(void *exec);
int cuGraphDestroy(void *graph);
]]

local M = {}

--- CU_STREAM_CAPTURE_MODE_GLOBAL: nothing that may wait or allocate is allowed in any thread that
-- has not chosen another mode.
M.GLOBAL = 0

local function driver(name, ...)
  local result = ffi.load "libcuda.so.1"[name](...)
  if result ~= 0 then error(("%s gave %d"):format(name, result), 0) end
end

--- Calls body in the device's primary context.
function M.inside(device, body, ...)
  local number, context = tonumber(device:match "^cuda:(%d+)$"), ffi.new "void *[1]"
  driver("cuDevicePrimaryCtxRetain", context, number)
  driver("cuCtxPushCurrent_v2", context[0])
  local ok, result = pcall(body, ...)
  driver("cuCtxPopCurrent_v2", context)
  driver("cuDevicePrimaryCtxRelease_v2", number)
  if not ok then error(result, 0) end
  return result
end

--- The context that is current in this thread.
function M.current()
  local context = ffi.new "void *[1]"
  driver("cuCtxGetCurrent", context)
  return context[0]
end

--- This thread's capture mode.
function M.mode()
  local mode = ffi.new("int[1]", M.GLOBAL)
  driver("cuThreadExchangeStreamCaptureMode", mode)
  local now = mode[0]
  driver("cuThreadExchangeStreamCaptureMode", mode)
  return now
end

--- The handle of a stream that waits for the default one, and that the default one waits for, as
-- frameworks may have them. `destroy` ends it.
function M.blocking_stream(device)
  local stream = ffi.new "void *[1]"
  M.inside(device, driver, "cuStreamCreate", stream, 0)
  return stream[0]
end

function M.destroy(device, handle) M.inside(device, driver, "cuStreamDestroy_v2", handle) end

local Graph = {}
Graph.__index = Graph

local function captured(stream, body)
  local graph = ffi.new "void *[1]"
  driver("cuStreamBeginCapture_v2", stream.handle, M.GLOBAL)
  local ok, message = pcall(body)
  local ended, refusal = pcall(driver, "cuStreamEndCapture", stream.handle, graph)
  if not ok then error(message, 0) end
  if not ended then error(refusal, 0) end
  return graph[0]
end

--- Captures the work that body puts into a stream, without running it: `nodes` is the number of its
-- kernels, copies and so on.
function M.capture(device, stream, body)
  return M.inside(device, function()
    local graph, exec, count = captured(stream, body), ffi.new "void *[1]", ffi.new "size_t[1]"
    driver("cuGraphGetNodes", graph, nil, count)
    driver("cuGraphInstantiateWithFlags", exec, graph, 0)
    driver("cuGraphDestroy", graph)
    return setmetatable({ device = device, stream = stream, exec = exec[0],
                          nodes = tonumber(count[0]) }, Graph)
  end)
end

--- Runs all of it, in the stream it was captured in.
function Graph:launch()
  M.inside(self.device, driver, "cuGraphLaunch", self.exec, self.stream.handle)
end

function Graph:close() M.inside(self.device, driver, "cuGraphExecDestroy", self.exec) end

return M
