--- Copies a table (nil: an empty one) with some fields changed, for descriptions of batches and for
-- options.
return function(given, change)
  local copy = {}
  for key, value in pairs(given or {}) do copy[key] = value end
  for key, value in pairs(change) do copy[key] = value end
  return copy
end
