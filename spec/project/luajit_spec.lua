-- Under a Lua other than LuaJIT, as plain `busted` may use, one line says which command to run
-- instead.

local shell = require "spec.support.shell"
local temporary = require "spec.support.temporary"

local files
setup(function() files = temporary.folder() end)
teardown(function() files:remove() end)

describe("another Lua", function()
  it("is told what to run instead", function()
    local tried = 0
    for _, lua in ipairs { "lua5.1", "lua5.2", "lua5.3", "lua5.4" } do
      local _, missing = shell.run("%s -e 'require \"busted\"'", lua)
      if missing == 0 then
        tried = tried + 1
        local text, code = shell.run("%s \"$(command -v busted)\" spec/lua/io/npy_spec.lua", lua)
        assert.equal(1, code, text)
        assert.equal("samebits needs LuaJIT, and this is " ..
                     shell.run("%s -e 'io.write(_VERSION)'", lua) ..
                     ": run luajit \"$(command -v busted)\"\n", text)
        -- Specs of others, without our helper.
        text, code = shell.run("cd %s && LUA_PATH=\"$OLDPWD/lua/?.lua;;\" %s " ..
                               "\"$(command -v busted)\" %s", files.name, lua,
                               files:write("own_spec.lua", "require 'samebits.luassert'\n"))
        assert.equal(1, code, text)
        assert.matches("samebits needs LuaJIT, and this is Lua 5", text)
        text, code = shell.run("LUA_PATH='./lua/?.lua;;' %s -e 'require \"samebits\"'", lua)
        assert.equal(1, code, text)
        assert.matches("samebits needs LuaJIT, and this is Lua 5", text)
      end
    end
    if tried == 0 then return pending "busted runs under LuaJIT alone here" end
  end)
end)
