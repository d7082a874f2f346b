--- Damages bytes in ways that find bugs in readers: flips, cuts, insertions, copies of parts, and
-- words that have a meaning in the format.

local M = {}

local function replace(bytes, at, length, by)
  return bytes:sub(1, at - 1) .. by .. bytes:sub(at + length)
end

--- A damaged copy; most damage is done to the first `header` bytes.
function M.mutate(random, bytes, header, words)
  for _ = 1, random:pick { 1, 1, 1, 2, 4 } do
    local last = random:integer(1, 10) <= 8 and math.min(header, #bytes) or #bytes
    local at, kind = random:integer(1, last + 1), random:integer(1, 20)
    if kind <= 4 then
      bytes = replace(bytes, at, 1, string.char(random:integer(0, 255)))
    elseif kind <= 8 then
      bytes = replace(bytes, at, 1, random:pick { "0", "1", "2", " ", "\n", ",", "'", '"', "" })
    elseif kind <= 10 then
      bytes = replace(bytes, at, random:integer(1, 8), "")
    elseif kind <= 12 then
      local from = random:integer(1, #bytes + 1)
      bytes = replace(bytes, at, 0, bytes:sub(from, from + random:integer(0, 30)))
    elseif kind == 13 then
      bytes = bytes:sub(1, at - 1)
    else
      bytes = replace(bytes, at, random:integer(0, 12), random:pick(words))
    end
  end
  return bytes
end

--- Loads `count` damaged copies through a reader. Each must give a result, or nil and one line that
-- starts with the path. use(result) is called with every copy that still loads.
function M.fuzz(options)
  local random, loaded = options.random, 0
  for i = 1, options.count do
    local bytes = M.mutate(random, random:pick(options.corpus), options.header, options.words)
    if random:integer(1, 2) == 1 then bytes = options.mend(bytes) end
    local path = options.files:write("damaged", bytes)
    local ok, result, message = pcall(options.load, path)
    local what = ("damaged file %d (%d bytes): "):format(i, #bytes)
    assert(ok, what .. tostring(result))
    if result == nil then
      assert(type(message) == "string", what .. "nil without a message")
      assert(message:sub(1, #path + 2) == path .. ": " and not message:find("[%c]"),
             what .. message)
    else
      loaded = loaded + 1
      options.use(result, #bytes)
    end
  end
  return loaded
end

return M
