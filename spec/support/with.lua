--- A copy of a table (nil: of an empty one) with some fields changed: for descriptions of batches
-- and options.
return function(given, change)
  local copy = {}
  for key, value in pairs(given or {}) do copy[key] = value end
  for key, value in pairs(change) do copy[key] = value end
  return copy
end
