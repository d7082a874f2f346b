--- Calls a function while a Lua module cannot be loaded, as on a machine that lacks it. Returns
-- what pcall of the function returns.
return function(module, f, ...)
  local loaded, preload = package.loaded[module], package.preload[module]
  package.loaded[module] = nil
  package.preload[module] = function() error "none" end
  local results = { pcall(f, ...) }
  package.loaded[module], package.preload[module] = loaded, preload
  return unpack(results)
end
