--- Refuses other Lua implementations than LuaJIT and says which to run instead. Otherwise the error
-- would be about a missing `ffi` and the folders searched for it. Any Lua can read this file and
-- the files that require it first.

if not rawget(_G, "jit") then
  error("samebits needs LuaJIT, and this is " .. _VERSION ..
        ": run luajit FILE, or, for specs, luajit \"$(command -v busted)\"", 0)
end

return true
