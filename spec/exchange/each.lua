-- each.lua RANK RANKS FOLDER DEVICE - one rank of ranks_spec.lua: runs every part of everything.lua
-- with the other ranks, and compares each result, bit by bit, with that of its GPU alone and of the
-- cpu. Prints a line for each part, and one for every difference.

package.path = "./lua/?.lua;./?.lua;" .. package.path

local samebits = require "samebits"
local everything = require "spec.exchange.everything"
local meet = require "spec.exchange.meet"

local rank, ranks, folder, device = tonumber(arg[1]), tonumber(arg[2]), arg[3], arg[4]
local ctx, cpu = assert(samebits.open(device)), assert(samebits.open "cpu")
local comm = meet.communicator(ctx, rank, ranks, folder)

local function in_memory(results)
  local copies = {}
  for name, t in pairs(results) do copies[name] = assert(t:to "cpu"):contiguous() end
  return copies
end

local differ = 0

-- Counts the elements that are compared.
local function compare(what, got, want)
  local compared = 0
  for name, t in pairs(want) do
    local same, report = samebits.same_bits(t, assert(got[name], name))
    compared = compared + t:numel()
    if not same then
      differ = differ + 1
      print(("%s: %s: %s"):format(what, name, tostring(report)))
    end
  end
  for name in pairs(got) do assert(want[name], name) end
  return compared
end

local stream = assert(ctx:stream())
local WAYS = { -- in the same order on all ranks
  { name = "checked", opts = {}, stream = {} },
  { name = "queued", opts = { check = false, stream = stream }, stream = { stream = stream } },
}
for _, part in ipairs(everything) do
  local compared, wanted = 0, nil
  for _, way in ipairs(WAYS) do
    local world = { ctx = ctx, comm = comm, rank = rank, ranks = ranks, opts = way.opts,
                    stream = way.stream }
    local results = part.ranks(world)
    assert(stream:wait())
    assert(ctx:check(stream))
    wanted = wanted or { ["one GPU"] = in_memory(part.whole(ctx, world)),
                         ["the cpu"] = in_memory(part.whole(cpu, world)) }
    for what, want in pairs(wanted) do
      compared = compared + compare(("%s, %s, beside %s"):format(part.name, way.name, what),
                                    in_memory(results), want)
    end
  end
  print(("%s: %d"):format(part.name, compared))
end
assert(comm:close())
print(("%d results differ"):format(differ))
