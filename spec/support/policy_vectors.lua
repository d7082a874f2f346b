--- Reads spec/vectors/policy.txt, in the format that its README describes: lists of losses and of
-- groups. A case has the keys of its block: numbers by name in `options`, `lengths`, and lists of
-- hex strings.

local M = {}

-- What the options are called in spec/vectors, as samebits.op.policy calls them.
local VALUES = { ["seq-mean-token-mean"] = "sequence-mean", ["seq-mean-token-sum"] = "sequence-sum",
                 mask = "drop" }

local function option(key, text)
  if key == "dual" and text == "inf" then return math.huge end
  return VALUES[text] or tonumber(text) or text
end

function M.read()
  local path = "spec/vectors/policy.txt"
  local losses, groups, case = {}, {}, nil
  local lines = io.lines(path)
  assert(lines():find("^samebits%-vectors 1 policy numerics 1 "), path .. ": another head")
  for line in lines do
    local key, rest = line:match "^(%S+) ?(.*)$"
    if key == "case" or key == "group" then
      case = { name = rest, options = {} }
      table.insert(key == "case" and losses or groups, case)
    elseif key == "option" then
      local name, text = rest:match "^(%S+) (%S+)$"
      case.options[name] = option(name, text)
    elseif key ~= "#" and key ~= "end" then
      case[key] = case[key] or {}
      for word in rest:gmatch "%S+" do table.insert(case[key], word) end
    end
  end
  return losses, groups
end

return M
