--- The classes of contexts and heads. Each op gives contexts methods; samebits.context adds the
-- others and opens contexts. samebits.op.head makes heads.

local Context, Head = {}, {}
Context.__index, Head.__index = Context, Head

local M = { Context = Context, Head = Head }

--- Whether a value is a context, open or closed.
function M.is_context(value) return getmetatable(value) == Context end

--- Whether a value is a head.
function M.is_head(value) return getmetatable(value) == Head end

return M
