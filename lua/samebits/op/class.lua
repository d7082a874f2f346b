--- The class of contexts. Each op gives it methods; samebits.context adds the others and opens
-- contexts.

local Context = {}
Context.__index = Context

local M = { Context = Context }

--- Whether a value is a context, open or closed.
function M.is_context(value) return getmetatable(value) == Context end

return M
