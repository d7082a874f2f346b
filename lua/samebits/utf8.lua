--- Whether bytes are UTF-8.

local M = {}

-- What may follow an ASCII-less position: no overlong forms, no surrogates, nothing past U+10FFFF.
local FORMS = {
  "^[\194-\223][\128-\191]",
  "^[\225-\236\238\239][\128-\191][\128-\191]",
  "^\224[\160-\191][\128-\191]",
  "^\237[\128-\159][\128-\191]",
  "^[\241-\243][\128-\191][\128-\191][\128-\191]",
  "^\240[\144-\191][\128-\191][\128-\191]",
  "^\244[\128-\143][\128-\191][\128-\191]",
}

--- The position (from 1) of the first byte that no UTF-8 text has there; nil if there is none.
-- from: where to begin, a place between characters; 1 by default.
function M.invalid(text, from)
  local find = string.find
  local pos = find(text, "[\128-\255]", from)
  while pos do
    local last
    for i = 1, #FORMS do
      local _, e = find(text, FORMS[i], pos)
      if e then last = e break end
    end
    if not last then return pos end
    pos = find(text, "[\128-\255]", last + 1)
  end
  return nil
end

return M
