-- Every public function that takes a context starts with the same entry code: src/api/entry.h.
-- spec/c/busy.c, forks.c, traps.c and cancel.c check that code from C.

local read = require("spec.support.files").read

local BUILD = "build/" .. (os.getenv "SB_BUILD" or "release") .. "/"

-- The declarations of both headers: the name, and the text of the parameters.
local function declarations()
  local list = {}
  for _, name in ipairs { "src/samebits.h", "src/samebits_conventional.h" } do
    for result, f, parameters in read(name):gmatch "SB_API ([^;]-)%f[%w_](sb_[%w_]+)(%b());" do
      list[#list + 1] = { result = result:gsub("%s+$", ""), name = f, parameters = parameters }
    end
  end
  return list
end

describe("the way into a context", function()
  local list = declarations()

  it("is taken by each function of the headers that works with one", function()
    local pipe = assert(io.popen(BUILD .. "samebits-spec busy 2>&1"))
    local refused = pipe:read "*a":match "refused:([ _%w]+);"
    pipe:close()
    local called, declared = {}, {}
    for name in (refused or ""):gmatch "sb_[%w_]+" do called[#called + 1] = name end
    for _, d in ipairs(list) do
      if d.parameters:match "^%(sb_context %*ctx" and d.name ~= "sb_close" then
        assert.equal("sb_status", d.result, d.name)
        declared[#declared + 1] = d.name
      end
    end
    assert.is_true(#declared > 20)
    table.sort(called)
    table.sort(declared)
    assert.same(declared, called)
  end)

  it("is not needed by the few that only look at one", function()
    local looking = {}
    for _, d in ipairs(list) do
      if d.parameters:match "^%(const sb_context %*ctx" then looking[#looking + 1] = d.name end
    end
    assert.same({ "sb_last_error", "sb_context_backend", "sb_context_isa", "sb_context_threads",
                  "sb_last_plan" }, looking)
  end)

  it("refuses in Lua as other misuse: with an error", function()
    local C = require("samebits.lib").C
    assert.equal("SB_ERR_BUSY", require("ffi").string(C.sb_status_name(12)))
    local ok, err = pcall(require("samebits.status").failure, 12, "")
    assert.is_false(ok)
    assert.equal("another call of the context is under way: it serves one at a time", tostring(err))
  end)

  it("is the whole body of those functions", function()
    for _, d in ipairs(list) do
      if d.parameters:match "^%(sb_context %*ctx" and d.name ~= "sb_close" then
        local pipe = assert(io.popen("grep -lE '^sb_status " .. d.name .. "\\(' src/*/*.c"))
        local file = pipe:read "*l"
        pipe:close()
        assert.truthy(file, d.name .. " begins no line of src/*/*.c")
        local body = read(file):match("\nsb_status " .. d.name .. "%b()%s*(%b{})")
        assert.truthy(body:match "SB_INSIDE%(ctx, [%w_]+%b()%);%s*}$", d.name .. ": " .. body)
      end
    end
  end)
end)
