--- Reads spec/vectors/compare.txt and means.txt, in the format that their README describes.

local M = {}

local function lines(name)
  local path = "spec/vectors/" .. name .. ".txt"
  local next_line = io.lines(path)
  local head = next_line()
  assert(head:find("^samebits%-vectors 1 " .. name .. " numerics 1 "), path .. ": another head")
  return function()
    local line
    repeat line = next_line() until not line or line:sub(1, 1) ~= "#"
    return line
  end
end

--- Lists of hex strings by name: sampled, other, ratio, k1, k2, k3.
function M.compare()
  local names, columns = { "sampled", "other", "ratio", "k1", "k2", "k3" }, {}
  for _, name in ipairs(names) do columns[name] = {} end
  for line in lines "compare" do
    local at = 0
    for word in line:match("^compare (.*)$"):gmatch "%x+" do
      at = at + 1
      table.insert(columns[names[at]], word)
    end
    assert(at == #names, line)
  end
  return columns
end

--- Cases of name, x and minus (lists of hex strings, minus may be nil), sum, mean, exp_mean.
function M.means()
  local cases, case = {}, nil
  for line in lines "means" do
    local key, rest = line:match "^(%S+) ?(.*)$"
    if key == "case" then
      case = { name = rest, x = {} }
    elseif key == "end" then
      assert(not case.minus or #case.minus == #case.x, case.name)
      cases[#cases + 1] = case
    elseif key == "x" or key == "minus" then
      case[key] = case[key] or {}
      for word in rest:gmatch "%x+" do table.insert(case[key], word) end
    else
      case[key] = rest
    end
  end
  return cases
end

return M
