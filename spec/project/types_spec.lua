-- types/: the LuaCATS definitions are current, whole and valid.

local api = dofile "tools/api.lua"
local read = require("spec.support.files").read
local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

local function files_in(folder)
  local list = {}
  for path in (shell.run("find %s -name '*.lua'", folder)):gmatch "[^\n]+" do
    list[#list + 1] = path
  end
  return list
end

describe("types/", function()
  it("is what the sources give", function()
    local said, status = shell.run "luajit tools/gen_types.lua --check"
    assert.equal(0, status, said)
  end)

  it("is Lua, one file for each public module", function()
    local found = {}
    for _, path in ipairs(files_in "types") do
      assert.truthy(loadfile(path))
      local name = path:match "^types/(.*)%.lua$":gsub("/", ".")
      assert.equal("---@meta " .. name, read(path):match "^[^\n]*")
      found[name] = true
    end
    for _, module in ipairs(api.modules()) do assert.is_true(found[module], module) end
  end)

  it("has every function and method, with a type for each parameter", function()
    local count = 0
    local function check(text, name)
      count = count + 1
      local at = text:find("\nfunction " .. name:gsub("%p", "%%%0") .. "%(")
      assert.truthy(at, name)
      local parameters = text:match("%((.-)%) end", at)
      local comment = text:sub(1, at):match ".*\n\n(.*)$"
      for parameter in parameters:gmatch "[%w_.]+" do
        assert.truthy(comment:find("---@param " .. parameter, 1, true), name .. ": " .. parameter)
      end
    end
    for _, module in ipairs(api.modules()) do
      local text = read("types/" .. module:gsub("%.", "/") .. ".lua")
      for _, member in ipairs(api.members(module)) do
        if type(member.value) == "function" then check(text, "M." .. member.name) end
      end
    end
    local text = read "types/samebits.lua"
    for _, class in ipairs(api.CLASSES) do
      for _, method in ipairs(api.methods(class)) do
        check(text, class.name .. ":" .. method.name)
      end
    end
    assert.is_true(count > 100)
  end)

  it("has the fields of objects", function()
    local samebits = require "samebits"
    local t = samebits.tensor { { 1, 2 } }
    local objects = { Tensor = t, Context = assert(samebits.open "cpu"),
                      Batch = samebits.batch { logits = t, ids = { 1 } } }
    local text = read "types/samebits.lua"
    for name, object in pairs(objects) do
      local class = text:match("%-%-%-@class samebits%." .. name .. "\n(.-)\nlocal")
      local fields = 0
      for field in class:gmatch "%-%-%-@field (%l[%w_]*) " do
        fields = fields + 1
        assert.is_true(object[field] ~= nil, name .. "." .. field)
      end
      assert.is_true(fields > 3)
    end
    objects.Context:close()
  end)

  it("has the options and outputs of every op", function()
    local call = require "samebits.op.call"
    local text, count = read "types/samebits.lua", 0
    for _, method in ipairs(api.methods(api.CLASSES[1])) do
      local op = call.op_of(method.value)
      for name in pairs(op and op.known or {}) do
        count = count + 1
        local class = method.name:gsub("^%l", string.upper):gsub("_(%l)", string.upper)
        local fields = text:match("@class samebits%." .. class .. "Options\n(.-)\n\n")
        assert.truthy(fields:find("@field " .. name .. "?", 1, true), method.name .. " " .. name)
      end
    end
    assert.is_true(count > 40)
  end)

  it("has the assertions of samebits.luassert", function()
    local text = read "types/samebits/luassert.lua"
    for name in read("lua/samebits/luassert.lua"):gmatch '\nregister%("([%w_]+)"' do
      assert.truthy(text:find("internal." .. name .. "(", 1, true), name)
    end
  end)

  it("satisfies lua-language-server", function()
    if not shell.has "lua-language-server" then
      return pending "lua-language-server is not installed"
    end
    local files = temporary.folder()
    finally(function() files:remove() end)
    local said, status = shell.run("lua-language-server --check types --logpath %s", files.name)
    assert.equal(0, status, said)
  end)
end)
