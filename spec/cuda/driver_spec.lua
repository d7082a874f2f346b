-- Without a CUDA driver, or with one that does not work, the same library reports the reason, and
-- the cpu backend works.

local exists = require("spec.support.files").exists
local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

-- CUDA's stub of the driver, made for linking: every call to it fails.
local STUBS = { "/usr/local/cuda/lib64/stubs", "/usr/local/cuda/lib/stubs" }

-- The line about cuda; the other lines have to stay as they always are.
local function cuda_line(environment)
  local output, status = shell.run(environment .. " bin/samebits info")
  assert.equal(0, status, output)
  assert.matches("\nbackend    cpu: available, ", output)
  return (assert(output:match "\nbackend    (cuda: [^\n]*)\n", output))
end

-- Whether the library was built with nvcc; without kernels it says so before it looks for a driver.
local function has_kernels()
  return not cuda_line(""):find("without nvcc", 1, true)
end

describe("samebits info", function()
  it("without a driver says so", function()
    if pcall(require("ffi").load, "libcuda.so.1") then return pending "there is a driver here" end
    if not has_kernels() then return pending "the library was built without nvcc" end
    assert.matches("^cuda: unavailable: there is no CUDA driver: libcuda%.so%.1: ", cuda_line "")
  end)

  it("with a driver that does not work says so", function()
    local stub
    for _, folder in ipairs(STUBS) do
      if exists(folder .. "/libcuda.so") then stub = folder .. "/libcuda.so" end
    end
    if not stub then return pending "there is no stub of libcuda here" end
    if not has_kernels() then return pending "the library was built without nvcc" end
    local files = temporary.folder()
    shell.run("ln -s %s %s", stub, files:path "libcuda.so.1")
    local ok, line = pcall(cuda_line, shell.line("LD_LIBRARY_PATH=%s", files.name))
    files:remove()
    assert(ok, line)
    assert.matches("^cuda: unavailable: the CUDA driver does not start: cuInit gave .*34", line)
  end)
end)
