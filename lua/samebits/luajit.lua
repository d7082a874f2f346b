--- Refuses other Luas than LuaJIT with what to run instead, before a missing `ffi` would tell of
-- folders. Any Lua can read this file, and what requires it first.

if not rawget(_G, "jit") then
  error("samebits needs LuaJIT, and this is " .. _VERSION ..
        ": run luajit FILE, or, for specs, luajit \"$(command -v busted)\"", 0)
end

return true
